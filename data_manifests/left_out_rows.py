"""Rows of public tables that are left out: listed on disk with the reason, counted by its kind."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from data_manifests.line_writer import LineWriter

_ENCODER = json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True)
class LeftOut:
    """Why a row is left out.

    Attributes:
        kind: by which it is counted: "question too long".
        reason: in full: "question of 900 characters, at most 400"; the kind, if there is no more to
            say.
    """

    kind: str
    reason: str = ""

    def __str__(self) -> str:
        return self.reason or self.kind


@dataclass
class LeftOutRows:
    """Lists rows in `dropped.jsonl`, and counts.

    Attributes:
        lines: the file.
        first: the reason of the first row, "" before it.
        counts: corpus -> kind -> number of rows.
    """

    lines: LineWriter
    first: str = ""
    counts: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, corpus: str, row: int, left_out: LeftOut) -> None:
        """List a row by its number."""
        self.first = self.first or str(left_out)
        listed = {"corpus": corpus, "row": row, "reason": str(left_out)}
        self.lines.write(_ENCODER.encode(listed).encode() + b"\n")
        self.counts[corpus][left_out.kind] += 1

    @property
    def num_rows(self) -> int:
        """How many rows, of all corpora."""
        return sum(kinds.total() for kinds in self.counts.values())
