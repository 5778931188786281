"""Inputs on object stores: they are copied to this disk, or what has changed of them.

    rvq = fetch_input(Path("s3://bucket/runs/rvq"))

Models and tables are mapped into memory, and opened by libraries that want files. So what is read
as a whole is copied, into `SPOKEN_TWI_CACHE` (or `~/.cache/spoken-twi`). Manifests and the
recordings they name are read where they lie (`stores.py`), and never copied.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from commands.atomic_write import remove
from commands.cache_folder import cache_folder
from commands.errors import InputError
from commands.setting_groups import settings_of, values_of
from commands.setting_types import LocalPath, ModelName, StorePath
from commands.stores import (
    ObjectFacts,
    copy_objects,
    exists,
    is_url,
    list_objects,
    object_facts,
    url_of,
)

Config = TypeVar("Config")

_fetched: dict[str, Path] = {}  # by URL, in this process


def with_local_inputs(config: Config) -> Config:
    """A command's settings, with every input that is a URL copied to this disk; those of type
    `StorePath` stay URLs.

    Raises:
        InputError: there is nothing at the URL, it cannot be read, or it is the output of a command
            that only writes to a disk.
    """
    replaced: dict[str, dict[str, Any]] = {}
    values = values_of(config)
    for setting in settings_of(type(config)):
        value = values[setting.name]
        kinds = [setting.type, *typing.get_args(setting.type)]
        items = list(value) if isinstance(value, tuple) else [value]
        is_text = isinstance(value, str) and ModelName not in kinds and LocalPath not in kinds
        if StorePath in kinds or is_text or not any(map(_is_path_url, items)):
            continue
        if setting.name == "out":
            raise InputError(f"--out {url_of(Path(value))}: this command writes to a disk only")
        local = [_fetch_setting(item, setting.flag) for item in items]
        of_group = replaced.setdefault(setting.group, {})
        of_group[setting.name] = tuple(local) if isinstance(value, tuple) else local[0]
    top = replaced.pop("", {})
    for group, changes in replaced.items():
        top[group] = dataclasses.replace(getattr(config, group), **changes)
    return dataclasses.replace(config, **top) if top else config  # type: ignore[type-var]


def fetch_input(url: Path, *, flag: str = "") -> Path:
    """Copy an object, or a folder with all that is in it, to this disk, or what of it has changed.

    Several processes may ask for the same at once: one copies, the others wait.

    Returns:
        The copy.

    Raises:
        InputError: there is nothing at the URL, or it cannot be read.
    """
    named = f"{flag} {url_of(url)}".strip()
    local = _copies() / str(url).replace(":/", "/", 1)
    try:
        objects = {"": object_facts(url)} if exists(url) else list_objects(url)
        if not objects:
            raise InputError(f"{named}: there is nothing of this name on the store")
        key = hashlib.sha256(url_of(url).encode()).hexdigest()[:16]
        note = cache_folder() / "notes" / f"{key}.jsonl"
        with _waiting_lock(note.with_suffix(".lock")):
            _copy(url, local, objects, note)
    except OSError as error:
        if error.filename is None or not is_url(error.filename):
            raise
        raise InputError(f"{named}: {error.strerror}") from None
    _fetched[url_of(url)] = local
    return local


def fetched_inputs() -> dict[str, Path]:
    """What this process has copied, by URL."""
    return dict(_fetched)


def name_of(value: str) -> str:
    """How a user named a path: the URL, if it is a URL or the copy of what lies at one."""
    copies = f"{_copies()}/"
    if value.startswith(copies):
        return url_of(Path(value.removeprefix(copies).replace("/", ":/", 1)))
    return url_of(Path(value)) if is_url(value) else value


def _is_path_url(value: Any) -> bool:
    return isinstance(value, Path | str) and is_url(value)


def _fetch_setting(value: Any, flag: str) -> Any:
    if not _is_path_url(value):
        return value
    local = fetch_input(Path(value), flag=flag)
    return local if isinstance(value, Path) else str(local)


def _copies() -> Path:
    return cache_folder() / "stores"


def _copy(url: Path, local: Path, objects: Mapping[str, ObjectFacts], note: Path) -> None:
    """Make a copy what the store holds; what has been copied is noted, line by line."""
    known: dict[str, list[Any]] = {}
    for line in note.read_text(encoding="utf-8").splitlines() if note.exists() else []:
        with contextlib.suppress(ValueError):  # empty, or cut short: its object is copied again
            known.update([json.loads(line)])
    if "" not in objects and local.is_dir():
        for path in [path for path in local.rglob("*") if path.is_file()]:
            if str(path.relative_to(local)) not in objects:
                remove(path)
    changed = [
        name
        for name, facts in objects.items()
        if known.get(name) != [facts.num_bytes, facts.version]
        or not (local / name).is_file()
        or (local / name).stat().st_size != facts.num_bytes
    ]
    if not changed:
        return
    with note.open("a", encoding="utf-8") as file:
        for name in copy_objects(url, local, changed):
            facts = objects[name]
            file.write("\n" + json.dumps([name, [facts.num_bytes, facts.version]]))


@contextlib.contextmanager
def _waiting_lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        with contextlib.suppress(OSError):  # some network file systems do not support locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
