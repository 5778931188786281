"""Licences of data, by their SPDX names: "CC-BY-4.0", "CC0-1.0".

    LicenseNames = tuple[LicenseName, ...]
    is_allowed("cc-by-4.0", ("CC-BY-4.0",))     # True: upper and lower case are the same
    is_non_commercial("CC-BY-NC-ND-4.0")        # True

Names are compared, nothing is concluded: who allows CC-BY-4.0 has not allowed CC-BY-3.0, nor
CC0-1.0. What says nothing of its licence is "unknown", and allowed only by that name.
"""

import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Annotated, Protocol, TypeVar

from pydantic import AfterValidator

UNKNOWN_LICENSE = "unknown"
MAX_LICENSE_CHARACTERS = 200


def _refuse_other_name(name: str) -> str:
    if not name.strip() or len(name) > MAX_LICENSE_CHARACTERS:
        raise ValueError("must be a licence's SPDX name, such as CC-BY-4.0, or unknown")
    return name


LicenseName = Annotated[str, AfterValidator(_refuse_other_name)]


def is_allowed(license: str, allowed: Collection[str]) -> bool:
    """Whether a licence is among those that a user allows; every one is, if none is named."""
    return not allowed or _comparable(license) in map(_comparable, allowed)


def is_non_commercial(license: str) -> bool:
    """Whether a licence's name says that it forbids commercial use (the NC of Creative Commons)."""
    return "NC" in re.split(r"[\s_-]+", license.upper())


class Licensed(Protocol):
    """Anything that has a licence, "" where it is not known."""

    @property
    def license(self) -> str: ...


Row = TypeVar("Row", bound=Licensed)


def leave_out_others(rows: Iterable[Row], allowed: Collection[str], *, unit: str) -> list[Row]:
    """The rows whose licence is allowed; how many others there are is said on stderr.

    Args:
        allowed: as for `is_allowed`.
        unit: what the rows are, in the plural: "dialogues".
    """
    kept, others = [], Counter[str]()
    for row in rows:
        if is_allowed(row.license, allowed):
            kept.append(row)
        else:
            others[row.license or UNKNOWN_LICENSE] += 1
    if others:
        counts = ", ".join(f"{count} under {name}" for name, count in sorted(others.items()))
        print(
            f"{others.total()} {unit} left out, because --allow-licenses does not name their "
            f"licence: {counts}",
            file=sys.stderr,
        )
    return kept


def _comparable(license: str) -> str:
    """Without what does not matter: case, and blanks in place of hyphens."""
    return "-".join(license.casefold().split()) or UNKNOWN_LICENSE
