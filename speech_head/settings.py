"""Settings that every command has which lets a head speak."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands.device import DeviceName, DtypeName, derive_seed, pick_device, pick_dtype
from commands.setting_types import (
    FiniteFloat,
    ModelName,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Seed,
)
from speech_head.answer import MAX_ANSWER_TOKENS
from speech_head.generate import Talker, load_talker
from speech_head.stream import Sampling
from stage3_finetune.dialogue import Turn


@dataclass(frozen=True, kw_only=True)
class TalkerConfig:
    """Which models speak, and how."""

    head: ModelName
    """folder of speech_head.train, or hub name"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of the Gemma 4 the head was trained on"""
    finetune: Path | None = None
    """adapter, written by stage3_finetune.train"""
    mimi: ModelName = "kyutai/mimi"
    """hub name or folder of Mimi"""
    max_new_tokens: PositiveInt = MAX_ANSWER_TOKENS
    """longest answer, in tokens"""
    cut_long_answers: bool = False
    """speak the first --max-new-tokens of a longer answer, instead of none of it"""
    temperature: NonNegativeFloat = Sampling.temperature
    """of sampling frames; 0 takes the most probable code"""
    top_k: NonNegativeInt = Sampling.top_k
    """draw codes from the k most probable; 0 draws from all"""
    pace: FiniteFloat = Sampling.pace
    """above 0 speaks faster, below 0 slower; -1 to 1 is a lot"""
    guidance: NonNegativeFloat | None = None
    """above 1 keeps closer to the text; for a head trained with --text-dropout, of which 1.5 is the
    default"""
    seed: Seed = 0
    """another seed says the same another way"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    dtype: DtypeName = "auto"
    """precision of Gemma; head and Mimi run in float32"""

    def sampling(self, seed: int) -> Sampling:
        """How frames are drawn; InputError where nothing could be."""
        return Sampling(seed, self.temperature, self.top_k, self.pace, self.guidance)

    def sampling_of_turn(self, turns: Sequence[Turn]) -> Sampling:
        """As `sampling`, for what follows these turns: every turn draws other numbers, and the same
        ones when the conversation is repeated."""
        return self.sampling(derive_seed(self.seed, len(turns) // 2 + 1))

    def load(self) -> Talker:
        """Load what speaks; errors as `load_talker`."""
        device = pick_device(self.device)
        return load_talker(
            self.gemma, self.finetune, self.mimi, self.head,
            device=device, dtype=pick_dtype(self.dtype, device),
            max_new_tokens=self.max_new_tokens, cut_long_answers=self.cut_long_answers,
        )  # fmt: skip
