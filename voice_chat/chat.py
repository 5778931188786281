"""Voice chat in the terminal: type, or name a recording; read the answer and hear it.

    python -m voice_chat.chat --head runs/head --finetune runs/finetune --play
    python -m voice_chat.chat --head runs/head --prompt "Wo din de sɛn?"

In the conversation, a line is a question; a line that is the path of a file asks with that
recording, and text after the path says what to do with it, which a recording over five minutes
needs: it is written down piece by piece, and Gemma is asked about its text. `/write FILE` writes
down what a recording says; `/reset` starts a new conversation, and `/quit` ends it. What Gemma
heard in a recording is shown before its answer. Ctrl-C stops an answer; at the prompt it ends the
program. Every answer is also written as a WAV, as far as it was spoken. When a conversation exceeds
the longest prompt (stage3_finetune/prompt_limits.py), its oldest turns are forgotten, and a line
says so.
"""

# N samples (24,000 per second)

import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.new_paths import refuse_unwritable
from speech_head.speech import Speech
from speech_head.talker import Talker
from speech_head.timed_speech import describe, record
from stage3_finetune.dialogue import Turn
from stage3_finetune.long_question import question_about, show_progress, written_lines
from stage3_finetune.long_transcript import show_line
from stage3_finetune.terminal import announce_forgotten, converse, path_of, recording_named
from voice_chat.answer_files import keep_answer
from voice_chat.examples import greet, read_examples
from voice_chat.playback import Playback, find_player
from voice_chat.settings import ConversationConfig

HELP = "type a question, or the path of a recording [and text]; /write FILE  /reset  /quit"


@dataclass(frozen=True, kw_only=True)
class ChatConfig(ConversationConfig):
    """Talk with Gemma in Twi: it answers aloud."""

    out: Path = Path("runs/chat")
    """folder for the answers' WAV files; files already in it are kept"""
    prompt: str | None = None
    """ask this one typed question and exit"""
    play: bool = False
    """play answers while they are being spoken (aplay, paplay, play or ffplay)"""
    examples: Path | None = None
    """text file of questions that are shown first, one a line"""


def main(argv: list[str] | None = None) -> None:
    """Chat until the input ends, or answer one question."""
    config = parse_config(ChatConfig, argv)
    refuse_unwritable(config.out, flag="--out", is_folder=True, may_exist=True)
    player = find_player() if config.play else None
    examples = read_examples(config.examples)
    talker = config.load()
    if config.prompt is not None:
        reply(talker, talker.conversation.typed_turn(config.prompt), config, player)
        return

    def take(line: str) -> None:
        asked = recording_named(line)
        command, _, argument = line.partition(" ")
        if line == "/reset":
            talker.conversation.turns.clear()
        elif command == "/write":
            for written in written_lines(talker.conversation, path_of(argument, commands=HELP)):
                show_line(written)
        elif asked:
            question = question_about(talker.conversation, *asked, show_progress)
            reply(talker, question, config, player)
        elif line.startswith("/"):
            raise InputError(f"unknown command {line[:40]}, and no such file: {HELP}")
        elif line:
            reply(talker, talker.conversation.typed_turn(line), config, player)

    greet(examples)
    converse(take, commands=HELP)


def reply(talker: Talker, question: Turn, config: ChatConfig, player: list[str] | None) -> Path:
    """Answer one question aloud; prints the answer as it is spoken, then the WAV's path.

    If Ctrl-C stops the answer, the part already spoken is written.

    Raises:
        InputError: the question is too long, or the answer is empty or too long; nothing is then
            written.
        WriteError, OSError: the WAV cannot be written.
    """
    announce_forgotten(talker.conversation.make_room(question))
    speech = Speech(talker, config.sampling_of_turn(talker.conversation.turns))
    pieces: list[np.ndarray] = []
    shown = ""

    def show_new_text() -> None:
        nonlocal shown
        print(speech.text[len(shown) :], end="", flush=True)
        shown = speech.text

    def keep() -> Path:
        path = keep_answer(config.out, np.concatenate(pieces), talker.mimi.sample_rate_hz)
        print(path, flush=True)
        return path

    with Playback(player) as playback:

        def on_samples(samples_N: np.ndarray) -> None:
            show_new_text()
            pieces.append(samples_N)
            playback.add(samples_N)

        try:
            answering = talker.answer(
                question,
                on_transcript=lambda heard: print(f"> {heard}"),
                on_call=lambda result: print(result.as_line(), file=sys.stderr),
            )
            with closing(answering) as answer:
                recording = record(speech, answer, on_samples)
        except KeyboardInterrupt:
            print()
            if pieces:
                keep()
            raise
        show_new_text()
        print()
        print(describe(speech, recording), file=sys.stderr)
        return keep()


if __name__ == "__main__":
    run_command(main)
