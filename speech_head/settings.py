"""Settings shared by the commands that speak with a head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands.device import DeviceName, DtypeName, pick_device, pick_dtype
from commands.origins import UNKNOWN, refuse_mixture
from commands.seeds import derive_seed
from commands.setting_types import (
    FiniteFloat,
    ModelName,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Seed,
)
from commands.trained_pipeline import PartName, TrainedPipeline, find_pipeline
from gemma4.weight_quantization import QuantizeName
from speech_head.answer import MAX_ANSWER_TOKENS
from speech_head.stream import Sampling
from speech_head.talker import Talker, load_talker
from stage3_finetune.dialogue import Turn

NO_PIPELINE = TrainedPipeline({"gemma": "google/gemma-4-E4B-it", "mimi": "kyutai/mimi"}, UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How codes are drawn."""

    temperature: NonNegativeFloat = Sampling.temperature
    """sampling temperature; 0 takes the most probable code"""
    top_k: NonNegativeInt = Sampling.top_k
    """draw codes from the k most probable; 0 draws from all"""
    guidance: NonNegativeFloat | None = None
    """above 1 keeps closer to the text; only for a head trained with --text-dropout, for which the
    default is 1.5"""

    def with_seed(self, seed: int, *, pace: float = Sampling.pace) -> Sampling:
        """As the head takes them; raises InputError if the settings are invalid."""
        return Sampling(seed, self.temperature, self.top_k, pace, self.guidance)


@dataclass(frozen=True, kw_only=True)
class VoiceSettings:
    """Whose voice is heard, of a head that was trained on several speakers."""

    voice: str | None = None
    """name of a speaker whom the head was trained on; default: who speaks most in its training"""
    voice_recording: Path | None = None
    """1 to 10 s of a person who has agreed to it: speak in that voice instead; say that the speech
    is synthetic"""

    def __post_init__(self) -> None:
        if self.voice is not None and self.voice_recording is not None:
            raise ValueError("give --voice or --voice-recording, not both")


@dataclass(frozen=True, kw_only=True)
class PrecisionSettings:
    """Where the models run, and in what precision."""

    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "auto"
    """precision of Gemma; head and Mimi run in float32"""
    quantize: QuantizeName = "none"
    """8bit or 4bit: quantise Gemma's decoder as it is loaded (needs bitsandbytes)"""


@dataclass(frozen=True, kw_only=True)
class SpeakerConfig:
    """Which models speak, and how."""

    pipeline: ModelName | None = None
    """folder of pipeline.publish, or hub name: has all of the four below; what is named beside it
    takes the place of its own"""
    head: ModelName | None = None
    """folder of speech_head.train, or hub name"""
    gemma: ModelName | None = None
    """hub name or folder of the Gemma 4 the head was trained on; google/gemma-4-E4B-it if there is
    no pipeline"""
    finetune: Path | None = None
    """adapter, written by stage3_finetune.train"""
    mimi: ModelName | None = None
    """hub name or folder of Mimi; kyutai/mimi if there is no pipeline"""
    pace: FiniteFloat = Sampling.pace
    """above 0 speaks faster, below 0 slower; -1 to 1 is a lot"""
    sampling: SamplingSettings = SamplingSettings()
    spoken_in: VoiceSettings = VoiceSettings()
    seed: Seed = 0
    """sampling seed; another seed speaks the same text differently"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    precision: PrecisionSettings = PrecisionSettings()

    def __post_init__(self) -> None:
        if self.head is None and self.pipeline is None:
            raise ValueError("give --head, or --pipeline")

    def models(self) -> TrainedPipeline:
        """Names of the models, and what the pipeline that they are from belongs to; raises the same
        errors as `find_pipeline`."""
        found = find_pipeline(self.pipeline) if self.pipeline else NO_PIPELINE
        named: dict[PartName, str | None] = {
            "head": self.head, "gemma": self.gemma, "mimi": self.mimi,
            "finetune": str(self.finetune) if self.finetune else None,
        }  # fmt: skip
        given = {part: name for part, name in named.items() if name is not None}
        return TrainedPipeline({**found.parts, **given}, found.origin)

    def load(self) -> Talker:
        """Load the models that speak; raises InputError as `models` and `load_talker`."""
        return self._load(MAX_ANSWER_TOKENS, cut_long_answers=False)

    def _load(self, max_new_tokens: int, *, cut_long_answers: bool) -> Talker:
        device = pick_device(self.precision.device)
        models = self.models()
        finetune = models.parts.get("finetune")
        talker = load_talker(
            models.parts["gemma"], Path(finetune) if finetune else None,
            models.parts["mimi"], models.parts["head"],
            device=device, dtype=pick_dtype(self.precision.dtype, device),
            quantize=self.precision.quantize, allow_mixture=self.allow_mixture,
            voice=self.spoken_in.voice, voice_recording=self.spoken_in.voice_recording,
            max_new_tokens=max_new_tokens, cut_long_answers=cut_long_answers,
        )  # fmt: skip
        refuse_mixture(
            {f"--pipeline {self.pipeline}": models.origin, **talker.conversation.origins},
            allowed=self.allow_mixture,
        )
        talker.speed_up()
        return talker


@dataclass(frozen=True, kw_only=True)
class TalkerConfig(SpeakerConfig):
    """Which models answer aloud, and how."""

    max_new_tokens: PositiveInt = MAX_ANSWER_TOKENS
    """longest answer, in tokens"""
    cut_long_answers: bool = False
    """if an answer is longer than --max-new-tokens, speak that much of it instead of refusing"""

    def sampling_of_turn(self, turns: Sequence[Turn]) -> Sampling:
        """How frames are sampled in the answer after these turns: every turn has its own seed,
        which is the same if the conversation is repeated."""
        num_questions = sum(turn.role == "user" for turn in turns)
        seed = derive_seed(self.seed, num_questions + 1)
        return self.sampling.with_seed(seed, pace=self.pace)

    def load(self) -> Talker:
        """Load the models that answer; raises the same errors as `SpeakerConfig.load`."""
        return self._load(self.max_new_tokens, cut_long_answers=self.cut_long_answers)
