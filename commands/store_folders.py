"""Folders on object stores that a command writes, through a folder on this disk.

    with run_folder(Path("s3://bucket/codes"), ...) as output:
        ...         # writes to output.path; what is complete is put on the store at once

A store cannot rename or lock. So what is complete is put there file by file, and marks come last:
of a shard the file that completes it, of a folder `done`.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from commands.atomic_write import ASIDE_SUFFIX, remove
from commands.cache_folder import cache_folder
from commands.errors import MACHINE_ERRORS, InputError, describe_os_error
from commands.stores import (
    ObjectFacts,
    copy_objects,
    delete,
    is_url,
    list_objects,
    put,
    read_object,
    url_of,
)

# Files that are large, and the same whenever they are written.
LARGE_SUFFIXES = (".safetensors", ".parquet")


class StoreFolder:
    """A folder on a store that a command writes, through one on this disk.

    What is complete here is put there at once, of a shard the file that completes it last. Another
    machine may go on with a run: what the store holds decides, and what this disk has of an earlier
    attempt counts only if it belongs to the run that the store holds. Each process needs the disk
    for what it writes itself; when the folder is finished, that is removed.

    Attributes:
        url: the folder on the store.
        local: the one on this disk.
    """

    def __init__(self, url: Path) -> None:
        self.url = url
        key = hashlib.sha256(url_of(url).encode()).hexdigest()[:16]
        self.local = cache_folder() / "outputs" / f"{url.name[:100]}-{key}"
        self._known: dict[str, tuple[int, int]] = {}

    def begin(self) -> None:
        """Make the local folder what the store holds. Of a folder without settings only the names
        at its top are made, empty: enough to refuse to write there."""
        objects = list_objects(self.url)
        if not self._is_of_this_run(objects):
            self.clear()
        if "done" not in objects:
            remove(self.local / "done")
        if "config.json" in objects:
            self._fetch(objects, again=True)
            return
        for name in {Path(name).parts[0]: name for name in objects}.values():
            top, *below = Path(name).parts
            (self.local / top).mkdir() if below else (self.local / top).touch()

    def names(self) -> list[str]:
        """What the store holds."""
        return list(list_objects(self.url))

    def fetch_missing(self) -> None:
        """Bring here what others have put since."""
        self._fetch(list_objects(self.url), again=False)

    def publish(self, *, last: str = "", all_but: str = "") -> None:
        """Put what the store does not have yet, the file of the name `last` after all others."""
        files = [name for name in self._files() if name != all_but]
        names = [name for name in files if self._stamp(name) != self._known.get(name)]
        for name in sorted(names, key=lambda name: (name == last, name)):
            put(self.local / name, self.url / name)
            self._known[name] = self._stamp(name)

    def delete_vanished(self) -> None:
        """Delete from the store what has been removed here."""
        for name in list_objects(self.url).keys() - set(self._files()):
            delete(self.url / name)

    def finish(self) -> None:
        """Make the store hold what the local folder holds, its `done` last; then remove that."""
        self.publish(all_but="done")
        self.delete_vanished()
        self.publish()
        remove(self.local)

    def clear(self) -> None:
        """Empty the local folder; it stays, since it is locked."""
        for path in sorted(self.local.iterdir()):
            remove(path)

    def _is_of_this_run(self, objects: Mapping[str, ObjectFacts]) -> bool:
        for name in ("config.json", "provenance.json"):
            path = self.local / name
            if name not in objects or not path.is_file():
                return False
            if path.read_bytes() != read_object(self.url / name, size=objects[name].num_bytes):
                return False
        return True

    def _fetch(self, objects: Mapping[str, ObjectFacts], *, again: bool) -> None:
        """Copy objects that are not here; `again`: also small ones, which may have changed."""
        wanted = []
        for name, facts in objects.items():
            path = self.local / name
            if not path.is_file() or (
                again
                and (path.suffix not in LARGE_SUFFIXES or path.stat().st_size != facts.num_bytes)
            ):
                wanted.append(name)
            else:
                self._known.setdefault(name, self._stamp(name))
        for name in copy_objects(self.url, self.local, wanted):
            self._known[name] = self._stamp(name)

    def _files(self) -> list[str]:
        names = (str(path.relative_to(self.local)) for path in self.local.rglob("*")
                 if path.is_file())  # fmt: skip
        return sorted(name for name in names if ASIDE_SUFFIX not in name)

    def _stamp(self, name: str) -> tuple[int, int]:
        facts = (self.local / name).stat()
        return facts.st_size, facts.st_mtime_ns


@contextlib.contextmanager
def told_by_url(store: StoreFolder | None) -> Iterator[None]:
    """Let messages name the folder on the store, and not the one on this disk."""
    try:
        yield
    except InputError as error:
        if store is None:
            raise
        message = str(error).replace(str(store.local), url_of(store.url))
        raise InputError(message) from None
    except OSError as error:
        if store is None or error.errno in MACHINE_ERRORS or not is_url(error.filename or ""):
            raise
        raise InputError(f"--out {describe_os_error(error)}") from None
