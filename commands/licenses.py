"""Licences of data, by their SPDX names: "CC-BY-4.0", "CC0-1.0".

    LicenseNames = tuple[LicenseName, ...]
    is_allowed("cc-by-4.0", ("CC-BY-4.0",))     # True: upper and lower case are the same
    is_non_commercial("CC-BY-NC-ND-4.0")        # True

Names are compared, nothing is concluded: who allows CC-BY-4.0 has not allowed CC-BY-3.0, nor
CC0-1.0. What says nothing of its licence is "unknown", and allowed only by that name.
"""

import re
from collections.abc import Collection
from typing import Annotated

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


def _comparable(license: str) -> str:
    """Without what does not matter: case, and blanks in place of hyphens."""
    return "-".join(license.casefold().split()) or UNKNOWN_LICENSE
