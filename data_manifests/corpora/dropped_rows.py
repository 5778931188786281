"""The rows that `data_manifests.build` leaves out: listed on disk, and counted by reason."""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_manifests.corpora.recording import ReportDropped
from data_manifests.hash_set import hash_text
from data_manifests.line_writer import LineWriter

_ENCODER = json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True)
class Reason:
    """Why rows of a corpus were left out, and how many."""

    corpus: str
    reason: str
    num_rows: int


class DroppedRows:
    """Lists rows in `dropped.jsonl`; 24 bytes of each are kept in memory, however they differ."""

    def __init__(self, lines: LineWriter) -> None:
        self._lines = lines
        self._begins = array("Q")
        self._corpora = array("Q")  # hashes of the corpus
        self._reasons = array("Q")  # hashes of the corpus and the reason

    def __len__(self) -> int:
        return len(self._begins)

    def add(self, corpus: str, row_id: str, reason: str, *, same_as: str = "") -> None:
        """List a row. Bytes of file names that are not UTF-8 are escaped, since the list is.

        Args:
            corpus, row_id: of the row.
            reason: why it is left out; rows are counted by it.
            same_as: of a copy, the id of the row that stays.
        """
        values = {"corpus": corpus, "id": row_id, "reason": reason}
        if same_as:
            values["same_as"] = same_as
        row = {
            name: text.encode("utf-8", "backslashreplace").decode() for name, text in values.items()
        }
        self._begins.append(self._lines.write(_ENCODER.encode(row).encode() + b"\n"))
        self._corpora.append(hash_text(row["corpus"]))
        self._reasons.append(hash_text(row["corpus"], row["reason"]))

    def reporter(self, corpus: str) -> ReportDropped:
        """A function with which a recipe reports the rows of its corpus."""

        def report(row_id: str, reason: str) -> None:
            self.add(corpus, row_id, reason)

        return report

    def most_common(self, num_reasons: int, *, corpus: str | None = None) -> list[Reason]:
        """The reasons of most rows, the most frequent first; of equally frequent ones, that of the
        earliest row.

        Args:
            num_reasons: how many at most.
            corpus: count only the rows of this one.
        """
        reasons = np.frombuffer(self._reasons, dtype=np.uint64)
        rows = np.arange(len(reasons))
        if corpus is not None:
            corpora = np.frombuffer(self._corpora, dtype=np.uint64)
            rows = np.flatnonzero(corpora == np.uint64(hash_text(corpus)))
        _, firsts, counts = np.unique(reasons[rows], return_index=True, return_counts=True)
        order = np.lexsort((firsts, -counts))[:num_reasons]
        found = self._read(rows[firsts[order]].tolist())
        return [
            Reason(row["corpus"], row["reason"], int(count))
            for row, count in zip(found, counts[order], strict=True)
        ]

    def _read(self, numbers: list[int]) -> Iterator[dict[str, str]]:
        return map(json.loads, self._lines.read(self._begins[number] for number in numbers))
