"""Talk with Gemma in Twi, hands free: it listens while you speak, and answers when you have ended.

    python -m voice_chat.talk --head runs/head --finetune runs/finetune
    make talk                                   with the small trained models of the demo

What Gemma heard and its answer appear as they come; every answer is also written as a WAV, as far
as it was spoken. Speak while an answer is heard to interrupt it: its echo is taken out of what the
microphone hears. Ctrl-C ends the program. `--recording` hears a file at the speed of speech
instead.

Needs silero-vad, livekit and sounddevice: `pip install -c constraints.txt -e '.[live]'`, and the
library PortAudio (Debian: `apt install libportaudio2`).
"""

# N samples (of the microphone at 16 kHz, of answers at 24 kHz)

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from commands.command_line import parse_config, run_command
from commands.new_paths import refuse_unwritable
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, read_audio
from speech_head.talker import Talker
from stage3_finetune.prompt_limits import refuse_long_recording
from voice_chat.answer_files import keep_answer
from voice_chat.examples import greet, read_examples
from voice_chat.hands_free import HandsFree
from voice_chat.own_voice import refuse_missing_canceller
from voice_chat.settings import ConversationConfig
from voice_chat.sound_card import Loudspeaker, Microphone
from voice_chat.sound_source import RecordingSource, Source, follow
from voice_chat.turn_taking import TurnSettings, refuse_missing_detector
from voice_chat.updates import Called, Ended, Heard, Held, Interrupted, Resumed, Said, Update

AFTER_S = 0.5  # of silence after a recording, beyond the pause that ends the turn


@dataclass(frozen=True, kw_only=True)
class TalkConfig(ConversationConfig):
    """Talk with Gemma in Twi, hands free."""

    out: Path = Path("runs/talk")
    """folder for the answers' WAV files; files already in it are kept"""
    microphone: str | None = None
    """a part of its name, as `python -m sounddevice` lists them"""
    recording: Path | None = None
    """hear this file instead, at the speed of speech, and play nothing"""
    examples: Path | None = None
    """text file of questions that are shown first, one a line"""
    turns: TurnSettings = TurnSettings()


class Screen:
    """Shows what happens, plays the answers and keeps them as WAVs."""

    def __init__(self, out: Path, sample_rate_hz: int, loudspeaker: Loudspeaker | None) -> None:
        self._out = out
        self._sample_rate_hz = sample_rate_hz
        self._loudspeaker = loudspeaker
        self._shown = ""
        self._pieces: list[np.ndarray] = []

    def show(self, update: Update) -> None:
        """Show one update; what a turn does is not shown.

        Raises:
            WriteError, OSError: a WAV cannot be written.
        """
        if isinstance(update, Heard):
            print(f"> {update.transcript}", flush=True)
        elif isinstance(update, Called):
            print(update.result.as_line(), file=sys.stderr, flush=True)
        elif isinstance(update, Said):
            print(update.text[len(self._shown) :], end="", flush=True)
            self._shown = update.text
            self._pieces.append(update.samples_N)
            if self._loudspeaker:
                self._loudspeaker.add(update.samples_N)
        elif isinstance(update, Ended):
            print(update.text[len(self._shown) :])
            if update.problem:
                print(f"error: {update.problem}", file=sys.stderr)
            self.keep()
        elif isinstance(update, Held | Resumed) and self._loudspeaker:
            (self._loudspeaker.hold if isinstance(update, Held) else self._loudspeaker.go_on)()
        elif isinstance(update, Interrupted):
            if self._loudspeaker:
                self._loudspeaker.stop()
            if self._shown:
                print(" ...")
            self.keep()

    def keep(self) -> None:
        """Write down what was spoken since the last answer ended."""
        if self._pieces:
            path = keep_answer(self._out, np.concatenate(self._pieces), self._sample_rate_hz)
            print(path, flush=True)
        self._shown, self._pieces = "", []


def main(argv: list[str] | None = None) -> None:
    """Talk until Ctrl-C, or until a recording has ended and is answered."""
    config = parse_config(TalkConfig, argv)
    refuse_unwritable(config.out, flag="--out", is_folder=True, may_exist=True)
    examples = read_examples(config.examples)
    refuse_missing_detector()
    refuse_missing_canceller()
    if config.recording:
        refuse_long_recording(config.recording)
        speech_N = read_audio(config.recording, GEMMA_SAMPLE_RATE_HZ)
        silence_s = config.turns.pause_s + AFTER_S
        silence_N = np.zeros(round(silence_s * GEMMA_SAMPLE_RATE_HZ), np.float32)
        source = RecordingSource(np.concatenate([speech_N, silence_N]))
        converse(config.load(), config, source, None)
        return
    microphone = Microphone(config.microphone)
    talker = config.load()
    with microphone, Loudspeaker(talker.mimi.sample_rate_hz) as loudspeaker:
        greet(examples)
        print("speak; Ctrl-C ends the conversation", file=sys.stderr)
        converse(talker, config, microphone, loudspeaker)


def converse(
    talker: Talker, config: TalkConfig, source: Source, loudspeaker: Loudspeaker | None
) -> None:
    """Hear the source to its end, and say and show what comes of it."""
    live = HandsFree(talker, config.turns, config.sampling_of_turn)
    screen = Screen(config.out, talker.mimi.sample_rate_hz, loudspeaker)
    try:
        for update in follow(live, source):
            screen.show(update)
    finally:
        screen.keep()


if __name__ == "__main__":
    run_command(main)
