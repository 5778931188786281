"""Settings shared by the commands in which Gemma answers or transcribes in text."""

from dataclasses import dataclass
from pathlib import Path

from commands.device import DeviceName, DtypeName, pick_device, pick_dtype
from commands.origins import UNKNOWN, refuse_mixture
from commands.setting_types import ModelName, PositiveInt
from commands.trained_pipeline import TrainedPipeline, find_pipeline
from gemma4.weight_quantization import QuantizeName
from stage3_finetune.conversation import Conversation, load_conversation
from stage3_finetune.generate import MAX_NEW_TOKENS

BASE_GEMMA = "google/gemma-4-E4B-it"


@dataclass(frozen=True, kw_only=True)
class TextConversationConfig:
    """Which Gemma answers, and how it runs."""

    pipeline: ModelName | None = None
    """folder of pipeline.publish, or hub name: has both of the two below; what is named beside it
    takes the place of its own"""
    gemma: ModelName | None = None
    """hub name or folder of an instruction-tuned Gemma 4 (E2B, E4B, 12B); google/gemma-4-E4B-it if
    there is no pipeline"""
    finetune: Path | None = None
    """folder of stage3_finetune.train; without it, the base model answers"""
    max_new_tokens: PositiveInt = MAX_NEW_TOKENS
    """longest answer or transcript, in tokens"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "auto"
    """bfloat16 on CUDA, float32 elsewhere"""
    quantize: QuantizeName = "none"
    """8bit or 4bit: quantise the decoder as it is loaded (needs bitsandbytes)"""

    def load(self) -> Conversation:
        """Load the models.

        Raises:
            InputError: one of them cannot be loaded, or they do not belong together.
        """
        device = pick_device(self.device)
        base = TrainedPipeline({"gemma": BASE_GEMMA}, UNKNOWN)
        trained = find_pipeline(self.pipeline) if self.pipeline else base
        adapter = self.finetune or trained.parts.get("finetune")
        conversation = load_conversation(
            self.gemma or trained.parts["gemma"],
            Path(adapter) if adapter else None,
            device=device,
            dtype=pick_dtype(self.dtype, device),
            quantize=self.quantize,
            max_new_tokens=self.max_new_tokens,
        )
        refuse_mixture(
            {f"--pipeline {self.pipeline}": trained.origin, **conversation.origins},
            allowed=self.allow_mixture,
        )
        conversation.speed_up()
        return conversation
