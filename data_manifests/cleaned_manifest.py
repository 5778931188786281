"""The output of `data_manifests.check --fix`: the sound rows, and a list of what was removed."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from commands.atomic_write import written_aside
from commands.stores import is_url
from data_manifests.defects import Finding
from data_manifests.manifest import Utterance, format_row

REMOVED_NAME = "removed.jsonl"


@dataclass
class CleanedManifest:
    """A manifest written while another is read; none of it is held in memory.

    Its rows keep their order; `audio` becomes absolute, because it was relative to another folder.
    Each removed row is listed on one line: id, audio (absolute), kind, reason, and its place in the
    old manifest ("row").

    Attributes:
        kept: where sound rows go.
        removed: where the others are listed.
        num_kept: rows kept so far.
    """

    kept: TextIO
    removed: TextIO
    num_kept: int = 0

    def add(self, utterance: Utterance, problem: Finding | None) -> None:
        """Keep a row, or list it as removed if it has a problem."""
        utterance = with_absolute_audio(utterance)
        if problem is None:
            self.kept.write(format_row(utterance))
            self.num_kept += 1
            return
        row = {
            "id": utterance.id,
            "audio": utterance.audio,
            "kind": problem.kind,
            "reason": problem.reason,
            "row": utterance.origin,
        }
        self.removed.write(json.dumps(row, ensure_ascii=False) + "\n")


def with_absolute_audio(utterance: Utterance) -> Utterance:
    """The row for a manifest in another folder, where a relative path would be another file."""
    # Links are not resolved: if the recordings are links, the links are what the user named.
    if utterance.audio.startswith("/") or is_url(utterance.audio):
        return utterance
    return replace(utterance, audio=str(Path(utterance.audio).absolute()))


@contextlib.contextmanager
def cleaned_manifest(folder: Path, name: str) -> Iterator[CleanedManifest]:
    """Write a cleaned manifest of this name, and `removed.jsonl`, into a folder.

    The files get their final names when the block ends without an error. A manifest without rows
    would be invalid, so if nothing was kept, only the list of removed rows is written.
    """
    path = folder / name
    with (
        written_aside(folder / REMOVED_NAME) as removed_aside,
        written_aside(path) as kept_aside,
        kept_aside.open("w", encoding="utf-8", newline="\n") as kept,
        removed_aside.open("w", encoding="utf-8", newline="\n") as removed,
    ):
        cleaned = CleanedManifest(kept, removed)
        yield cleaned
    if cleaned.num_kept == 0:
        path.unlink()
