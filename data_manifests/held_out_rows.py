"""Write rows to train on and rows that are held out, apart, however many there are.

    with rows_kept_apart(out, "dialogues", share=HELD_OUT_QUESTIONS, left_out=left_out) as rows:
        is_new = rows.add(question, row, corpus="afriqa_twi", number=12)

`dialogues.jsonl` holds the rows to train on, `held_out.jsonl` the others. Of equal texts the first
is kept. A row to train on that is nearly a held-out one (`held_out.py`) is left out, whatever the
order in which they came: rows wait on disk until all that are held out are known. In memory are
some 20 bytes of each text, and the pieces of those held out.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from commands.atomic_write import ASIDE_SUFFIX
from commands.errors import InputError
from data_manifests.hash_set import HashSet, hash_text
from data_manifests.held_out import NearDuplicates, is_held_out
from data_manifests.left_out_rows import LeftOut, LeftOutRows
from data_manifests.line_writer import LineWriter, lines_written_aside, spooled_lines
from data_manifests.normalization import normalize_for_scoring

HELD_OUT_FILE = "held_out.jsonl"
_ENCODER = json.JSONEncoder(ensure_ascii=False)


def refuse_held_out(path: Path, *, flag: str) -> None:
    """Raise InputError if a file to train on is the one that these commands hold out."""
    if path.name == HELD_OUT_FILE:
        raise InputError(
            f"{flag} {path}: these rows are held out, to test with and never to train on; the rows "
            "to train on are in the file beside it"
        )


class RowsKeptApart:
    """Takes rows and lets them wait on disk; `rows_kept_apart` makes it, and writes its files.

    Attributes:
        num_kept: corpus -> rows to train on; those nearly held out are taken off in the end.
        num_held_out: corpus -> rows held out.
    """

    def __init__(self, waiting: LineWriter, held_out: LineWriter, share: float) -> None:
        self.num_kept: Counter[str] = Counter()
        self.num_held_out: Counter[str] = Counter()
        self._waiting, self._held_out = waiting, held_out
        self._share = share
        self._seen = HashSet()

    def add(self, text: str, row: dict[str, Any], *, corpus: str, number: int) -> bool:
        """Take a row.

        Args:
            text: by which it is compared.
            row: what is written of it.
            corpus: its corpus.
            number: of the row in its corpus, by which it is listed if it is left out in the end.

        Returns:
            Whether its text is new; if not, the row is not taken.
        """
        if not self._seen.add(hash_text(normalize_for_scoring(text))):
            return False
        entry = {"row": row, "text": text, "corpus": corpus, "number": number}
        line = _ENCODER.encode(entry).encode() + b"\n"
        if is_held_out(text, share=self._share):
            self._held_out.write(line)
            self.num_held_out[corpus] += 1
        else:
            self._waiting.write(line)
            self.num_kept[corpus] += 1
        return True

    def write_held_out(self, path: Path) -> None:
        """Write the rows that are held out."""
        with lines_written_aside(path) as lines:
            for entry in map(json.loads, self._held_out.read_all()):
                lines.write(_ENCODER.encode(entry["row"]).encode() + b"\n")

    def write_kept(self, path: Path, left_out: LeftOutRows) -> None:
        """Write the rows to train on, without those that are nearly held out, which are listed."""
        near = NearDuplicates(entry["text"] for entry in map(json.loads, self._held_out.read_all()))
        waiting = map(json.loads, self._waiting.read_all())
        total = self.num_kept.total()
        with lines_written_aside(path) as lines:
            for entry in tqdm(waiting, "compare", total, unit=" rows", disable=not self._share):
                if near.find(entry["text"]) is None:
                    lines.write(_ENCODER.encode(entry["row"]).encode() + b"\n")
                else:
                    self.num_kept[entry["corpus"]] -= 1
                    reason = LeftOut("nearly one that is held out")
                    left_out.add(entry["corpus"], entry["number"], reason)


@contextlib.contextmanager
def rows_kept_apart(
    out: Path, name: str, *, share: float, left_out: LeftOutRows
) -> Iterator[RowsKeptApart]:
    """Collect rows; when the block ends without an error, write them.

    Args:
        out: folder for the files.
        name: of the file with rows to train on, without its ending.
        share: of the texts that are held out; with 0 no file for them is written.
        left_out: takes the rows that are nearly held out.
    """
    with (
        spooled_lines(out / f"waiting{ASIDE_SUFFIX}") as waiting,
        spooled_lines(out / f"waiting_held_out{ASIDE_SUFFIX}") as held_out,
    ):
        rows = RowsKeptApart(waiting, held_out, share)
        yield rows
        rows.write_kept(out / f"{name}.jsonl", left_out)
        if share:
            rows.write_held_out(out / HELD_OUT_FILE)


@dataclass(frozen=True)
class CorpusCounts:
    """What became of a corpus.

    Attributes:
        license: its licence.
        kept: rows to train on.
        held_out: rows held out.
        left_out: kind -> number of rows that are neither, the most frequent first.
    """

    license: str
    kept: int
    held_out: int
    left_out: dict[str, int]


def count_corpora(
    licenses: Mapping[str, str], rows: RowsKeptApart, left_out: LeftOutRows
) -> dict[str, CorpusCounts]:
    """Corpus -> what became of it, when all is written.

    Args:
        licenses: corpus -> licence, in the order of the result.
        rows: what was taken.
        left_out: what was not.
    """
    return {
        corpus: CorpusCounts(
            license,
            rows.num_kept[corpus],
            rows.num_held_out[corpus],
            dict(left_out.counts[corpus].most_common()),
        )
        for corpus, license in licenses.items()
    }


def format_counts(counts: Mapping[str, CorpusCounts], kept: str) -> str:
    """A table with a row for each corpus, and below it how many rows were left out and why.

    Args:
        counts: corpus -> what became of it.
        kept: title of the rows to train on: "dialogues".
    """
    line = "{:18} {:14} {:>10} {:>10} {:>10}".format
    table = [line("corpus", "licence", kept, "held out", "left out")]
    reasons = []
    for corpus, of in counts.items():
        table.append(line(corpus, of.license, of.kept, of.held_out, sum(of.left_out.values())))
        if of.left_out:
            reasons += ["", f"left out of {corpus}:"]
            reasons += [f"{number:>10}  {kind}" for kind, number in of.left_out.items()]
    return "\n".join([*table, *reasons])
