"""Voice chat in the terminal: type, or name a recording; read the answer and hear it.

    python -m speech_head.chat --head runs/head --finetune runs/finetune --play
    python -m speech_head.chat --head runs/head --prompt "Wo din de sɛn?"

In the conversation: a line is a question; a line that is the path of a file asks with that
recording; `/reset` forgets what was said, `/quit` ends. Every answer is also written as a WAV.
"""

# N samples (24,000 per second)

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_manifests.audio import MIMI_SAMPLE_RATE_HZ, to_pcm16, write_wav
from data_manifests.config import parse_config, run_command
from data_manifests.errors import InputError
from speech_head.generate import Speech, Talker
from speech_head.settings import TalkerConfig
from speech_head.speak import describe, next_answer_path, record
from stage3_finetune.dialogue import Turn

HELP = "type a question, or the path of a recording; /reset  /quit"
# Programs that play raw 16-bit samples from their input while more are coming.
PLAYERS = {
    "aplay": f"-q -t raw -f S16_LE -r {MIMI_SAMPLE_RATE_HZ} -c 1",
    "paplay": f"--raw --format=s16le --rate={MIMI_SAMPLE_RATE_HZ} --channels=1",
    "play": f"-q -t raw -e signed -b 16 -r {MIMI_SAMPLE_RATE_HZ} -c 1 -",
    "ffplay": f"-v quiet -nodisp -autoexit -f s16le -ar {MIMI_SAMPLE_RATE_HZ} -i -",
}


@dataclass(frozen=True, kw_only=True)
class ChatConfig(TalkerConfig):
    """Talk with Gemma in Twi: it answers aloud."""

    out: Path = Path("runs/chat")
    """folder for the answers' WAV files; more are added to those in it"""
    prompt: str | None = None
    """ask this one typed question and end"""
    play: bool = False
    """play answers while they are being spoken (aplay, paplay, play or ffplay)"""


def main(argv: list[str] | None = None) -> None:
    """Chat until the input ends, or answer one question."""
    config = parse_config(ChatConfig, argv)
    player = find_player() if config.play else None
    talker = config.load()
    if config.prompt is not None:
        reply(talker, talker.conversation.typed_turn(config.prompt), config, player)
        return
    print(HELP, file=sys.stderr)
    for line in _typed_lines():
        try:
            if line == "/quit":
                return
            if line == "/reset":
                talker.conversation.turns.clear()
            elif line.startswith("/") and not Path(line).is_file():
                raise InputError(f"unknown command {line}: {HELP}")
            elif line:
                reply(talker, _question(talker, line), config, player)
        except InputError as error:  # a slip must not end the conversation
            print(f"error: {error}", file=sys.stderr)


def reply(talker: Talker, question: Turn, config: ChatConfig, player: list[str] | None) -> Path:
    """Answer one question aloud; prints the answer as it is spoken, then the WAV's path.

    Raises:
        InputError: no answer, or one too long; nothing is written then.
    """
    speech = Speech(talker, config.sampling_of_turn(talker.conversation.turns))
    shown = ""

    def show_new_text() -> None:
        nonlocal shown
        print(speech.text[len(shown) :], end="", flush=True)
        shown = speech.text

    playing = player and subprocess.Popen(player, stdin=subprocess.PIPE)

    def on_samples(samples_N: np.ndarray) -> None:
        show_new_text()
        if playing:
            playing.stdin.write(to_pcm16(samples_N))
            playing.stdin.flush()

    try:
        recording = record(speech, talker.answer(question), on_samples)
    finally:
        if playing:
            playing.communicate()
    show_new_text()
    print()
    path = next_answer_path(config.out)
    write_wav(path, recording.samples_N, talker.mimi.sample_rate_hz)
    print(describe(speech, recording), file=sys.stderr)
    print(path)
    return path


def find_player() -> list[str]:
    """Command line of the first of `PLAYERS` that is installed; InputError where none is."""
    for program, arguments in PLAYERS.items():
        if path := shutil.which(program):
            return [path, *arguments.split()]
    raise InputError(f"--play: none of {', '.join(PLAYERS)} is installed; play the WAV files")


def _question(talker: Talker, line: str) -> Turn:
    if Path(line).is_file():
        return talker.conversation.spoken_turn(Path(line))
    return talker.conversation.typed_turn(line)


def _typed_lines() -> Iterator[str]:
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return


if __name__ == "__main__":
    run_command(main)
