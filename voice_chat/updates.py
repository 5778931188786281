"""What happens in a conversation by voice: `hands_free.py` passes it on, terminal and page show
it."""

# N samples (24,000 per second)

from dataclasses import dataclass

import numpy as np

from stage3_finetune.tools import CallResult
from voice_chat.turn_taking import TurnEvent


@dataclass(frozen=True)
class Asked:
    """A typed question is being answered."""

    text: str


@dataclass(frozen=True)
class Heard:
    """The transcript that Gemma wrote of the question, in the chain target."""

    transcript: str


@dataclass(frozen=True)
class Called:
    """A function was called for the answer."""

    result: CallResult


@dataclass(frozen=True)
class Said:
    """The next 80 ms of the answer.

    Attributes:
        samples_N: float32, 24 kHz, to be played at once after what came before.
        text: the answer as far as it is written.
    """

    samples_N: np.ndarray
    text: str


@dataclass(frozen=True)
class Wrote:
    """A little more of an answer that is not spoken.

    Attributes:
        text: the answer as far as it is written.
    """

    text: str


@dataclass(frozen=True)
class Ended:
    """The answer has been said or written to its end, or could not be.

    Attributes:
        text: the answer.
        problem: why there is none; "" if there is.
    """

    text: str
    problem: str = ""


@dataclass(frozen=True)
class Held:
    """The speaker says something while an answer is heard: it is not to be played on, until
    `Resumed` or `Interrupted`."""


@dataclass(frozen=True)
class Resumed:
    """That was only a word of assent: the answer is to be played on."""


@dataclass(frozen=True)
class Interrupted:
    """The speaker interrupted: what has not been played yet is not to be played.

    Attributes:
        is_continued: the speaker only goes on with the question that was taken to have ended:
            question and answer are taken back, and the whole question is answered later.
    """

    is_continued: bool = False


@dataclass(frozen=True)
class Ignored:
    """The turn that has just ended was only a word of assent, or asked to stop: it is not
    answered."""


@dataclass(frozen=True)
class Refused:
    """What was asked for could not be done; the conversation goes on."""

    problem: str


@dataclass(frozen=True)
class Left:
    """The conversation has ended by an error of ours."""

    problem: str


Update = (
    TurnEvent
    | Asked
    | Heard
    | Called
    | Said
    | Wrote
    | Ended
    | Held
    | Resumed
    | Interrupted
    | Ignored
    | Refused
    | Left
)
