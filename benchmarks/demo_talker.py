"""Settings of the benchmarks that talk with a talker: the demo's, unless another is named."""

from dataclasses import dataclass
from pathlib import Path

from commands.setting_types import ModelName, PositiveInt
from speech_head.settings import TalkerConfig
from voice_chat.turn_taking import TurnSettings

DEMO = Path(__file__).parent.parent / "demo" / "weights"


@dataclass(frozen=True, kw_only=True)
class DemoTalkerConfig(TalkerConfig):
    """Which models talk, and how turns are told from silence."""

    turns: TurnSettings = TurnSettings()
    head: ModelName = str(DEMO / "head")
    """folder of speech_head.train, or hub name"""
    gemma: ModelName = str(DEMO / "gemma")
    """hub name or folder of the Gemma 4 the head was trained on"""
    finetune: Path | None = DEMO / "finetune"
    """adapter, written by stage3_finetune.train"""
    mimi: ModelName = str(DEMO / "mimi")
    """hub name or folder of Mimi"""
    max_new_tokens: PositiveInt = 128
    """longest answer with its transcript, in tokens"""
    cut_long_answers: bool = True
    """if an answer is longer than --max-new-tokens, speak that much of it instead of refusing"""
