"""What the benchmarks that talk with a talker share: its settings, the demo's unless another is
named, and the answer to sound as if it came from a file."""

# N samples at 16 kHz

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from commands.errors import InputError
from commands.setting_types import ModelName, NonNegativeInt, PositiveInt
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from speech_head.settings import TalkerConfig
from speech_head.talker import Talker
from stage3_finetune.conversation import Conversation
from stage3_finetune.dialogue import Turn
from stage3_finetune.reply import Reply
from voice_chat.listener import LEAD_S, Listener
from voice_chat.sound_source import PIECE_SAMPLES
from voice_chat.turn_taking import TurnSettings, VoiceDetector

DEMO = Path(__file__).parent.parent / "demo" / "weights"


@dataclass(frozen=True, kw_only=True)
class DemoTalkerConfig(TalkerConfig):
    """Which models talk, and how turns are told from silence."""

    turns: TurnSettings = TurnSettings()
    pipeline: ModelName | None = str(DEMO)
    """folder of pipeline.publish, or hub name"""
    max_new_tokens: PositiveInt = 128
    """longest answer with its transcript, in tokens"""
    cut_long_answers: bool = True
    """if an answer is longer than --max-new-tokens, speak that much of it instead of refusing"""
    remember: NonNegativeInt | None = 1
    """earlier questions, with their answers, that Gemma is shown; the demo's learned from one"""

    def load(self) -> Talker:
        """Load the models that answer; raises the same errors as `TalkerConfig.load`."""
        talker = super().load()
        talker.conversation.num_remembered = self.remember
        return talker


def hear_turn(sound_N: np.ndarray, settings: TurnSettings) -> np.ndarray:
    """What hands free answers of a recording with one turn in it: the sound from a little before
    its first speech to the pause after its last.

    Args:
        sound_N: float32 in [-1, 1], mono, 16 kHz.

    Raises:
        InputError: no turn ends in it.
    """
    listener = Listener(settings, VoiceDetector())
    start_s = 0.0
    for first in range(0, len(sound_N), PIECE_SAMPLES):
        for event in listener.hear(sound_N[first : first + PIECE_SAMPLES]):
            if event and event.kind == "began":
                start_s = event.time_s - LEAD_S
            elif event and event.kind == "ended":
                end_s = event.time_s + settings.early_pause_s
                rate_hz = GEMMA_SAMPLE_RATE_HZ
                return sound_N[max(0, round(start_s * rate_hz)) : round(end_s * rate_hz)]
    raise InputError("a recording has no turn that ends: its voice is not heard as speech")


def ask_sound(conversation: Conversation, sound_N: np.ndarray) -> Reply:
    """Answer a recorded question at once, as the chats answer a file.

    Args:
        conversation: extended by the question and its answer.
        sound_N: float32 in [-1, 1], mono.
    """
    [frames_TD] = conversation.encoder.encode([sound_N])
    question = Turn("user", "[file]", spoken=True, frames_TD=frames_TD)
    return conversation.ask(question, on_text=lambda piece: None)
