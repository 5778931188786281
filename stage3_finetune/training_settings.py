"""Settings for fine-tuning Gemma 4 on spoken dialogues."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from peft import LoraConfig
from pydantic import Field

from commands.device import DeviceName, DtypeName
from commands.setting_types import (
    ModelName,
    NonNegativeFloat,
    PositiveInt,
    Probability,
    Seed,
    StorePath,
)
from commands.training_settings import InputSettings, ScheduleSettings
from gemma4.weight_quantization import QuantizeName
from stage3_finetune.dialogue import Target
from stage3_finetune.model import lora_config

# A conversation has two questions at least.
JoinedDialogues = Annotated[int, Field(ge=2, le=1000)]


@dataclass(frozen=True, kw_only=True)
class MixtureSettings:
    """Rows of other tasks, mixed with the rows that answer speech."""

    transcribe_share: NonNegativeFloat = 0.2
    """transcription rows per answering row"""
    transcribed: tuple[StorePath, ...] = ()
    """what the transcription rows are of, in place of the dialogues' spoken turns: manifests
    (.jsonl) of recordings, or folders of stage1_rvq.tokenize_corpus, with transcripts; noisy copies
    (data_manifests.degrade) teach to hear in noise"""
    typed_share: NonNegativeFloat = 0.2
    """typed rows per answering row, so that typed chat is not unlearned"""
    joined_share: NonNegativeFloat = 1.0
    """rows of several dialogues joined to a conversation per answering row, so that later questions
    are answered as well as first ones"""
    max_joined: JoinedDialogues = 5
    """dialogues in such a conversation: 2 to this many; conversations that are longer than those
    learnt from go wrong"""


@dataclass(frozen=True, kw_only=True)
class SpokenTurnSettings:
    """More dialogues, and who speaks their turns where no codes do."""

    more_dialogues: tuple[Path, ...] = ()
    """further folders and files like --dialogues, mixed with it row by row"""
    recordings: StorePath | None = None
    """manifest of recordings of the spoken turns, where --dialogues names a `messages` file; Gemma
    4 12B, which takes no codes, learns from these"""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The adapter, in peft's terms."""

    lora_rank: PositiveInt = 32
    """rank of the LoRA matrices"""
    lora_alpha: PositiveInt = 64
    """scale of the LoRA matrices"""
    lora_dropout: Probability = 0.05
    """dropout before the LoRA matrices"""
    train_embed_audio: bool = False
    """also train, in full, the linear map that projects speech into the decoder (embed_audio)"""

    def adapter(self) -> LoraConfig:
        """What is trained."""
        return lora_config(
            self.lora_rank,
            self.lora_alpha,
            self.lora_dropout,
            train_embed_audio=self.train_embed_audio,
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Fine-tune Gemma 4 with LoRA to answer speech, on spoken dialogues: codes, or recordings."""

    dialogues: Path
    """folder written by stage3_finetune.speak_dialogues; or with --recordings, a `messages` file
    whose spoken turns were recorded"""
    rvq: ModelName | None = None
    """quantiser that the dialogues' codes were made for: folder of stage1_rvq.train, or hub name"""
    spoken: SpokenTurnSettings = SpokenTurnSettings()
    out: Path
    """new folder for this run"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of an instruction-tuned Gemma 4 (E2B, E4B, 12B)"""
    target: Target = "chain"
    """chain: write the transcript, a line break, then the answer; direct: the answer alone"""
    mixture: MixtureSettings = MixtureSettings()
    lora: LoraSettings = LoraSettings()
    steps: PositiveInt = 2000
    """optimizer steps"""
    batch_size: PositiveInt = 4
    """rows per forward pass and process"""
    accumulate: PositiveInt = 4
    """forward passes per optimizer step"""
    schedule: ScheduleSettings = ScheduleSettings(learning_rate=2e-4, warmup_steps=50)
    gradient_checkpointing: bool = True
    """recompute activations in the backward pass: slower, but needs far less memory"""
    save_every: PositiveInt = 250
    """steps between checkpoints"""
    seed: Seed = 0
    """seed for LoRA's initialisation, the task mixture, batches and dropout"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "auto"
    """precision of the frozen weights: bfloat16 on CUDA, float32 elsewhere"""
    quantize: QuantizeName = "none"
    """8bit or 4bit: train the adapter on a quantised decoder (QLoRA; needs bitsandbytes)"""
    inputs: InputSettings = InputSettings()
    resume: bool = False
    """continue from the newest checkpoint"""
