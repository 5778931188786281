"""Which audio tower and which quantiser something was made with, and whether things belong
together.

    refuse_mixture(
        {"--rvq runs/rvq": rvq.origin(), "--gemma google/gemma-4-E4B-it": encoder.origin},
        allowed=config.allow_mixture,
    )

Embeddings of two audio towers, and codes of two quantisers, may be of the same shape and mean other
sounds: E2B's and E4B's towers are both 1024 wide. Shapes cannot tell them apart, fingerprints can.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

from pydantic import Field

from commands.errors import InputError

NUM_DIGITS = 16  # of a fingerprint, hexadecimal
# What files hold: a fingerprint, or "" if it is not known. That of a tower has twice as many
# digits: of its last layer, as older files hold alone, and of all of its weights. Older files may
# hold 64 digits in the quantiser's place: the hash of a folder.
RecordedFingerprint = Annotated[
    str,
    Field(pattern=rf"^([0-9a-f]{{{NUM_DIGITS}}}|[0-9a-f]{{{2 * NUM_DIGITS}}}|[0-9a-f]{{64}})?$"),
]


@dataclass(frozen=True)
class Origin:
    """Fingerprints of what something was made with; "" where that is unknown, as in folders of
    older versions and in models of others. The unknown belongs to anything.

    Attributes:
        tower: of the audio tower (`gemma4.tower_identity`); in older files only of its last layer,
            which says nothing about those below.
        quantizer: of the quantiser whose codes it holds, makes or learned from
            (`SpeechRVQ.origin`).
        norm: of the tower's last norm, which stands for the tower where `tower` is unknown.
    """

    tower: str = ""
    quantizer: str = ""
    norm: str = ""

    def __post_init__(self) -> None:
        if len(self.quantizer) != NUM_DIGITS:  # the hash of a folder, which a copy need not share
            object.__setattr__(self, "quantizer", "")

    def as_facts(self) -> dict[str, str]:
        """What files record of it."""
        return {"tower": self.tower, "quantizer": self.quantizer}


UNKNOWN = Origin()


def combine(*origins: Origin) -> Origin:
    """The origin of what is made from several things: of each part the first that is known, in the
    most digits that agree with it."""
    parts = []
    for name in vars(Origin()):
        known = [vars(origin)[name] for origin in origins if vars(origin)[name]] or [""]
        parts.append(max((one for one in known if agree(known[0], one)), key=len))
    return Origin(*parts)


def agree(one: str, other: str) -> bool:
    """Whether two fingerprints may be of the same thing: in the digits that both have."""
    num_digits = min(len(one), len(other))
    return one[:num_digits] == other[:num_digits]


def find_mixture(origins: Mapping[str, Origin]) -> str | None:
    """What does not belong together, in words.

    Args:
        origins: by flag and value: "--rvq runs/rvq".

    Returns:
        A clause that names the first two that do not; None if all may.
    """
    for (first, one), (second, other) in combinations(origins.items(), 2):
        if part := _part_that_differs(one, other):
            return f"{first} belongs to another {part} than {second}"
    return None


def refuse_mixture(origins: Mapping[str, Origin], *, allowed: bool) -> None:
    """Raise InputError if things do not belong together.

    Args:
        origins: as for `find_mixture`.
        allowed: the user insists (`--allow-mixture`): say it on stderr, and go on.
    """
    mixture = find_mixture(origins)
    if mixture is None:
        return
    if not allowed:
        raise InputError(
            f"{mixture}: name two that were made with each other, or go on with --allow-mixture if "
            "you know better"
        )
    print(f"--allow-mixture: {mixture}", file=sys.stderr)


def _part_that_differs(one: Origin, other: Origin) -> str | None:
    towers = (one.tower, other.tower)
    if not all(towers):
        towers = (one.norm, other.norm)
    if not agree(*towers):
        return "audio tower"
    return None if agree(one.quantizer, other.quantizer) else "quantiser"
