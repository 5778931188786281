"""Chat with Gemma in Twi: type, or give a recording; the answer is printed as it is generated.

    python -m stage3_finetune.chat --gemma google/gemma-4-E4B-it --finetune runs/finetune
    python -m stage3_finetune.chat --pipeline runs/twi-hub
    python -m stage3_finetune.chat ... --audio question.mp3            one question, one answer
    python -m stage3_finetune.chat ... --prompt "Wo din de sɛn?" --json
    python -m stage3_finetune.chat ... --tools my_tools.py             functions it may call

In the conversation, `/audio FILE` asks with a recording, `/audio FILE TEXT` says beside it what to
do with it, which a recording over five minutes needs: it is written down piece by piece, and Gemma
is asked about its text. `/write FILE` writes down what a recording says, `/reset` starts a new
conversation, `/save FILE` writes it as a `messages` row, and `/quit` ends it. Ctrl-C stops an
answer; at the prompt it ends the program. When a conversation exceeds the longest prompt
(`prompt_limits.py`), its oldest turns are forgotten, and a line says so.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from commands.atomic_write import write_text
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.setting_types import ModelName
from stage3_finetune.conversation import Conversation
from stage3_finetune.dialogue import Turn
from stage3_finetune.long_question import question_about, show_progress, written_lines
from stage3_finetune.long_transcript import show_line
from stage3_finetune.settings import TextConversationConfig
from stage3_finetune.terminal import announce_forgotten, converse, path_of, recording_named
from stage3_finetune.tools import CallResult, load_tools

HELP = "/audio FILE [TEXT]  /write FILE  /reset  /save FILE  /quit"


@dataclass(frozen=True, kw_only=True)
class ChatConfig(TextConversationConfig):
    """Chat with Gemma in Twi, typed or with recordings."""

    prompt: str | None = None
    """ask this one typed question and exit; with --audio, say what to do with the recording"""
    tools: ModelName | None = None
    """Python file or module whose functions Gemma may call while it answers; its code is run"""
    audio: Path | None = None
    """ask with this one recording, in any format, and exit; one over five minutes needs --prompt,
    is written down, and Gemma reads its text"""
    json: bool = False
    """with --prompt or --audio: print one JSON object with transcript and answer"""

    def __post_init__(self) -> None:
        if self.json and self.prompt is None and self.audio is None:
            raise ValueError("--json needs --prompt or --audio")


def main(argv: list[str] | None = None) -> None:
    """Chat until the input ends, or answer one question."""
    config = parse_config(ChatConfig, argv)
    tools = load_tools(config.tools) if config.tools else None
    conversation = config.load()
    if tools:
        conversation.use_tools(tools)
    if config.prompt is None and config.audio is None:
        _converse(conversation)
        return
    question = (
        question_about(conversation, config.audio, config.prompt or "", show_progress)
        if config.audio
        else conversation.typed_turn(config.prompt or "")
    )
    reply = conversation.ask(
        question,
        on_text=lambda piece: None if config.json else _show(piece),
        on_call=_show_call,
    )
    print(json.dumps(vars(reply), ensure_ascii=False) if config.json else "")


def _converse(conversation: Conversation) -> None:
    def ask(question: Turn) -> None:
        announce_forgotten(conversation.make_room(question))
        conversation.ask(question, on_text=_show, on_call=_show_call)
        print()

    def take(line: str) -> None:
        command, _, argument = line.partition(" ")
        if command == "/reset":
            conversation.turns.clear()
        elif command == "/save":
            row = json.dumps(conversation.as_messages(), ensure_ascii=False)
            write_text(path_of(argument, commands=HELP), row + "\n")
        elif command == "/audio":
            recording, text = recording_named(argument) or (path_of(argument, commands=HELP), "")
            ask(question_about(conversation, recording, text, show_progress))
        elif command == "/write":
            for written in written_lines(conversation, path_of(argument, commands=HELP)):
                show_line(written)
        elif command.startswith("/"):
            raise InputError(f"unknown command {command[:40]}: {HELP}")
        elif line:
            ask(conversation.typed_turn(line))

    converse(take, commands=HELP)


def _show(piece: str) -> None:
    print(piece, end="", flush=True)


def _show_call(result: CallResult) -> None:
    print(result.as_line(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
