"""Which of torch's attention kernels Gemma is trained with."""

from torch.nn.attention import SDPBackend

# All but cuDNN's, whose backward pass gives NaN on H100 and H200 for masked sliding windows with
# heads of 256, which Gemma 4 has (torch 2.13; NVIDIA-NeMo/Automodel, issue 3232).
TRAINING_KERNELS = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
