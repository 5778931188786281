"""Settings of `data_manifests.build` that are lists of NAME=VALUE pairs."""

import math
from collections.abc import Sequence

from commands.errors import InputError

COLUMNS = ("audio", "text", "speaker", "id", "dialect")


def hours_of(settings: Sequence[str]) -> dict[str, float]:
    """ "fisd_asante=30" -> {"fisd_asante": 30.0}.

    Raises:
        InputError: not a name, "=" and a positive number, or a repeated name.
    """
    hours = {}
    for setting in settings:
        name, _, number = setting.partition("=")
        if name in hours:
            raise InputError(f"--max-hours: {name!r} is repeated")
        try:
            hours[name] = float(number)
        except ValueError:
            raise InputError(f"--max-hours: {setting!r} is not like fisd_asante=30") from None
        if not 0 < hours[name] < math.inf:
            raise InputError(
                f"--max-hours: {setting!r}: hours must be above 0, and not without end"
            )
    return hours


def columns_of(settings: Sequence[str]) -> dict[str, str]:
    """("audio=speech", "text=words") -> {"audio": "speech", "text": "words"}.

    Raises:
        InputError: not one of our names, "=" and a column, or a required name is missing.
    """
    columns = dict(setting.partition("=")[::2] for setting in settings)
    for name, column in columns.items():
        if name not in COLUMNS or not column:
            raise InputError(
                f"--dataset-columns: {name}={column}: expected NAME=COLUMN with a name of "
                f"{', '.join(COLUMNS)}"
            )
    if "audio" not in columns or "text" not in columns:
        raise InputError("--dataset-columns: audio=... and text=... are both needed")
    return columns
