"""The output of `data_manifests.check --fix`: the sound rows, and beside them what was removed."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from data_manifests.atomic_write import written_aside
from data_manifests.defects import Finding
from data_manifests.manifest import Utterance, format_row

REMOVED_NAME = "removed.jsonl"


class CleanedManifest:
    """A manifest that is written while another is read; nothing of it is held in memory.

    A context manager. Rows are written aside; on leaving, the files get their names, unless an
    exception is under way: then they are removed (`WriteError` where the machine refuses a row). A
    manifest without a row would be none, so where nothing was kept only the list of what was
    removed stays.

    Attributes:
        path: of the cleaned manifest. Its rows and their order are those of the old one; `audio` is
            absolute, since it was relative to another folder.
        removed_path: one line a removed row: id, audio (absolute), kind, reason, and its place in
            the old manifest ("row").
        num_kept: rows kept so far.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.removed_path = folder / REMOVED_NAME
        self.num_kept = 0

    def __enter__(self) -> "CleanedManifest":
        with ExitStack() as files:
            self._kept, self._removed = (
                files.enter_context(
                    files.enter_context(written_aside(path)).open(
                        "w", encoding="utf-8", newline="\n"
                    )
                )
                for path in (self.path, self.removed_path)
            )
            self._files = files.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._files.__exit__(kind, error, traceback)
        if error is None and self.num_kept == 0:
            self.path.unlink()

    def add(self, utterance: Utterance, problem: Finding | None) -> None:
        """Keep a row, or list it as removed if it has a problem."""
        # Not resolved: where the recordings are links, the links are what the user named.
        audio = str(Path(utterance.audio).absolute())
        if problem is None:
            self._kept.write(format_row(replace(utterance, audio=audio)))
            self.num_kept += 1
            return
        row = {
            "id": utterance.id,
            "audio": audio,
            "kind": problem.kind,
            "reason": problem.reason,
            "row": utterance.origin,
        }
        self._removed.write(json.dumps(row, ensure_ascii=False) + "\n")
