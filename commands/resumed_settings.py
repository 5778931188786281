"""May a run be resumed with these settings? Only if it learns the same from there on."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from commands.errors import InputError
from commands.json_files import read_json

# Settings that may differ between a run and its resumption: none of them changes what is learned.
FREE_ON_RESUME = ("resume", "overwrite", "allow_mixture", "device", "out", "ray", "ray_actors")


def num_processes() -> int:
    """How many processes a launcher started, as torchrun and `accelerate launch` say it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def refuse_other_settings(
    out: Path,
    settings: Mapping[str, Any],
    per_process: Sequence[Sequence[str]],
    begun_with: int | None,
) -> None:
    """Refuse to resume a run with settings that would change what it learns.

    Args:
        out: the run's folder.
        settings: those of now.
        per_process: names of settings whose product, times the number of processes, is the size of
            a batch. With another number of processes they may differ, but not the batch.
        begun_with: number of processes of the beginning, None in runs that did not record it.

    Raises:
        InputError: a setting differs, or the size of the batches would.
    """
    before, now = read_json(out / "config.json"), num_processes()
    may_differ = set(FREE_ON_RESUME)
    if type(begun_with) is int and begun_with != now:
        may_differ.update(*per_process)
        for names in per_process:
            _refuse_other_batch(out, before, settings, names, begun_with)
    for name in sorted({*before, *settings} - may_differ):
        if name not in before and settings[name] == []:  # of a newer version, and not used
            continue
        if before.get(name) != settings.get(name):
            raise InputError(
                f"--resume {out}: made with {name} = {before.get(name)!r}, now "
                f"{settings.get(name)!r}; resume with the same settings or name a new folder"
            )


def _refuse_other_batch(
    out: Path,
    before: Mapping[str, Any],
    settings: Mapping[str, Any],
    names: Sequence[str],
    begun_with: int,
) -> None:
    if not all(type(before.get(name)) is int for name in names):
        raise InputError(f"{out / 'config.json'}: {' and '.join(names)} must be whole numbers")
    num_items = math.prod(before[name] for name in names) * begun_with
    now = num_processes()
    if math.prod(settings[name] for name in names) * now == num_items:
        return
    flag = f"--{names[0].replace('_', '-')}"
    others = math.prod(settings[name] for name in names[1:]) * now
    advice = f"{flag} {num_items // others} makes it that again"
    if num_items % others:
        advice = f"that cannot be shared by {now} processes, start another number of them"
    raise InputError(
        f"--resume {out}: a step took {num_items} with {flag} {before[names[0]]} and {begun_with} "
        f"process(es) when the run began; now there are {now}: {advice}"
    )
