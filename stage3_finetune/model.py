"""Gemma 4 that also takes speech embeddings, with and without a LoRA adapter.

model, tokenizer = load_finetuned("google/gemma-4-E4B-it", Path("runs/finetune"), ...)
"""

# B utterances, T frames (25 per second), D embedding width (1024)

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor
from transformers import Gemma4ForConditionalGeneration, PreTrainedTokenizerBase
from transformers.models.gemma4.modeling_gemma4 import Gemma4AudioModelOutput, Gemma4Model

from data_manifests.artifact import open_input
from data_manifests.errors import InputError
from stage1_rvq.gemma import load_gemma
from stage1_rvq.weight_quantization import QuantizeName

# Every linear map of the decoder's attention and MLP. Vision and audio towers are left alone: their
# linear layers are of a class that peft 0.21 cannot wrap.
LORA_TARGETS = (
    r".*language_model\.layers\.\d+\."
    r"(self_attn\.(q_proj|k_proj|v_proj|o_proj)|mlp\.(gate_proj|up_proj|down_proj))"
)
# In `config.json` of a merged checkpoint: the target it was trained with ("chain" or "direct").
TARGET_KEY = "speech_answer_target"


class SpeechGemma4Model(Gemma4Model):
    """Gemma 4's body, taking speech embeddings where it takes mel spectrograms.

    The two are told apart by width: `[B, T, 128]` is a mel spectrogram and goes through the tower,
    `[B, T, 1024]` are embeddings before `output_proj` and skip it. Nothing else differs, so real
    and generated speech give the same logits for the same embeddings.
    """

    def get_audio_features(
        self, input_features: Tensor, input_features_mask: Tensor, **kwargs: Any
    ) -> Gemma4AudioModelOutput:
        """Soft tokens of speech; see the class."""
        if input_features.shape[-1] != self.config.audio_config.hidden_size:
            return super().get_audio_features(input_features, input_features_mask, **kwargs)
        project = self.audio_tower.output_proj
        projected = project(input_features.to(project.weight.dtype))
        return Gemma4AudioModelOutput(
            last_hidden_state=projected,
            pooler_output=self.embed_audio(inputs_embeds=projected),
            attention_mask=input_features_mask.bool(),
        )


def accept_embeddings(model: Gemma4ForConditionalGeneration) -> Gemma4ForConditionalGeneration:
    """Let a loaded Gemma 4 take speech embeddings as `input_features`, in place.

    Its parameters, their names, `generate`, saving and peft stay as they are; call it before peft
    wraps the model.
    """
    assert model.config.audio_config.hidden_size != 128, "mel and embeddings would look alike"
    # transformers builds the body itself; only its class differs from the stock one.
    model.model.__class__ = SpeechGemma4Model
    return model


def lora_config(
    rank: int, alpha: int, dropout: float, *, train_embed_audio: bool = False
) -> LoraConfig:
    """LoRA on the decoder's attention and MLP; where asked, what leads speech into the decoder
    (`embed_audio`) is trained in full beside it."""
    return LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=LORA_TARGETS,
        modules_to_save=["embed_audio"] if train_embed_audio else None, task_type="CAUSAL_LM",
    )  # fmt: skip


def load_finetuned(
    gemma: str,
    finetune: Path | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: QuantizeName = "none",
) -> tuple[Gemma4ForConditionalGeneration, PreTrainedTokenizerBase]:
    """Load Gemma for answering: the base model, or base and adapter.

    Args:
        gemma: hub name or folder of the base model.
        finetune: folder written by `python -m stage3_finetune.train`; None for the base model
            alone.
        device: where it runs.
        dtype: its precision.
        quantize: bits of the base model's decoder.

    Returns:
        The model, frozen, in evaluation mode, taking embeddings as well as mel spectrograms; and
        its tokenizer.

    Raises:
        InputError: either cannot be loaded, or the adapter is of another model.
    """
    if finetune is not None:
        open_input(finetune, made_by="stage3_finetune.train", flag="--finetune")
    base, tokenizer = load_gemma(gemma, device=device, dtype=dtype, quantize=quantize)
    model = accept_embeddings(base)
    if finetune is not None:
        try:
            model = PeftModel.from_pretrained(model, str(finetune / "adapter"))
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"--finetune {finetune} does not fit --gemma {gemma}: {reason}"
            ) from error
    return model.eval().requires_grad_(False), tokenizer
