"""Find marks of Gemma's chat template in what should be plain text."""

import re

from commands.errors import InputError
from commands.schema import shorten

# What Gemma 4's tokenizer takes for a mark anywhere in a text: <|turn>, <turn|>, <|audio|>,
# <|"|>, <bos>.
TEMPLATE_MARK = re.compile(r"<\|[^\s<>|]+\|?>|<[^\s<>|]+\|>|<(?:bos|eos|pad|unk|mask)>")


def refuse_template_marks(role: str, text: str) -> None:
    """Raise InputError if a turn's text holds a mark of the chat template: Gemma would take it for
    the end of the turn, or for speech that is not there.

    Args:
        role: whose turn it is, for the message.
        text: the turn's text, as it will be put into the template.
    """
    if mark := TEMPLATE_MARK.search(text):
        raise InputError(
            f"a turn of the {role} holds {shorten(mark[0])}, a mark of Gemma's chat template: "
            "leave it out"
        )


def without_template_marks(text: str) -> str:
    """A text without its marks, including those that form when others are removed."""
    while TEMPLATE_MARK.search(text):
        text = TEMPLATE_MARK.sub("", text)
    return text
