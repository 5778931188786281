"""Marks of Gemma's chat template in a text that should be nothing but text."""

import re

from commands.errors import InputError
from commands.schema import shorten

# What a tokenizer of Gemma 4 takes for a mark wherever it stands: <|turn>, <turn|>, <|audio|>,
# <|"|>, <bos>.
TEMPLATE_MARK = re.compile(r"<\|[^\s<>|]+\|?>|<[^\s<>|]+\|>|<(?:bos|eos|pad|unk|mask)>")


def refuse_template_marks(role: str, text: str) -> None:
    """InputError where a turn's text holds a mark of the chat template: Gemma would take it for the
    end of the turn, or for speech that is not there.

    Args:
        role: whose turn it is, for the message.
        text: what the template will hold of the turn.
    """
    if mark := TEMPLATE_MARK.search(text):
        raise InputError(
            f"a turn of the {role} holds {shorten(mark[0])}, a mark of Gemma's chat template: "
            "leave it out"
        )


def without_template_marks(text: str) -> str:
    """A text with its marks left out, those too that come together when others are."""
    while TEMPLATE_MARK.search(text):
        text = TEMPLATE_MARK.sub("", text)
    return text
