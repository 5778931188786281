"""Overwriting a folder: what it held is kept aside until the new content is complete.

    set_aside(out)    before the new content is written
    put_back(out)     afterwards: unless `done` says that it is complete, the folder is what it was

A command may be killed anywhere in between: the next one calls `put_back` first.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commands.atomic_write import ASIDE_SUFFIX, remove
from commands.errors import InputError

SET_ASIDE = "overwritten" + ASIDE_SUFFIX
# The file that says which command made a folder. Among what is set aside, it also says that
# nothing of the old content is left outside.
_MARK = "provenance.json"


def set_aside(out: Path) -> None:
    """Move what a folder holds into a folder within it: `done` first, so that no reader takes half
    of it for a finished folder, and what says who made it last."""
    aside = out / SET_ASIDE
    aside.mkdir(exist_ok=True)
    for name in sorted(_names(out), key=lambda name: (name == _MARK, name != "done")):
        (out / name).rename(aside / name)


def put_back(out: Path) -> None:
    """Let a folder hold again what was set aside; if the new content is complete, delete that."""
    aside = out / SET_ASIDE
    if not aside.is_dir():
        return
    if (out / "done").exists():  # what is new is complete
        remove(aside)
        return
    if (aside / _MARK).exists():  # all that is outside is new
        for name in _names(out):
            remove(out / name)
    for name in sorted(_names(aside), key=lambda name: (name == "done", name != _MARK)):
        (aside / name).rename(out / name)
    aside.rmdir()


def refuse_inputs_within(out: Path, settings: Mapping[str, Any]) -> None:
    """Raise InputError if a setting names something that is in the folder to be overwritten."""
    for name, value in settings.items():
        for text in value if isinstance(value, list) else [value]:
            if name == "out" or not isinstance(text, str):
                continue
            path = Path(text.partition("=")[2] or text)  # some are NAME=PATH
            if path.exists() and path.resolve().is_relative_to(out.resolve()):
                raise InputError(
                    f"--overwrite would delete {path}, which --{name.replace('_', '-')} reads; "
                    "name another --out"
                )


def _names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.name != SET_ASIDE)
