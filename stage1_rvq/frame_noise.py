"""Noise on embeddings, for what learns from them: so it also takes those that codes stand for, and
those of other voices.

noisy_TD = with_noise(frames_TD, rvq.frame_scale_D, 0.6, seed=derive_seed(seed, "noise", id_))
"""

# T frames (25 per second), D width of a frame

import torch
from torch import Tensor


def with_noise(frames_TD: Tensor, scale_D: Tensor, noise: float, *, seed: int) -> Tensor:
    """An utterance's embeddings with white noise.

    Args:
        frames_TD: float, on the CPU.
        scale_D: size of each dimension, that of the tower's last norm: noise is in proportion.
        noise: its RMS at most, relative to that of the embeddings; how much is drawn, too.
        seed: decides all that is drawn.

    Returns:
        float `[T, D]`; the frames themselves if `noise` is 0.
    """
    if not noise:
        return frames_TD
    generator = torch.Generator().manual_seed(seed)
    scale_D = scale_D.to(frames_TD.device)
    rms = (frames_TD / scale_D).square().mean().sqrt()
    amount = noise * torch.rand((), generator=generator) * rms
    return frames_TD + amount * scale_D * torch.randn(frames_TD.shape, generator=generator)
