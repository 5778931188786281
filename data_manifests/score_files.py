"""The references and transcripts that `data_manifests.score` compares: two texts with one utterance
a line, or a manifest and what was heard, by id.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from commands.errors import InputError
from commands.json_files import read_lines as read_rows
from commands.schema import check_json, shorten
from data_manifests.hypotheses import read_hypotheses
from data_manifests.text_lines import read_lines

GroupKind = Literal["speaker", "dialect", "corpus"]


@dataclass(frozen=True)
class Reference:
    """A row of a manifest, as far as it is needed here; other keys are ignored."""

    id: str
    text: str
    speaker: str = ""
    dialect: str = ""
    corpus: str = ""


@dataclass(frozen=True)
class Pairs:
    """What was said and what was recognised, in the same order."""

    references: list[Reference]
    hypotheses: list[str]
    has_ids: bool
    """Whether the references are a manifest's; otherwise their ids are numbers of lines, from 1."""

    def with_words(self, compared: Sequence[str]) -> "Pairs":
        """Without the utterances whose reference has no word, once both are as they are compared.

        Args:
            compared: the references as they are compared.

        Raises:
            InputError: nothing is left.
        """
        kept = [place for place, text in enumerate(compared) if text]
        if not kept:
            raise InputError(f"no reference has a word in it ({len(compared)} utterances)")
        references, hypotheses = self.references, self.hypotheses
        return Pairs(
            [references[place] for place in kept], [hypotheses[place] for place in kept],
            self.has_ids,
        )  # fmt: skip

    def groups(self, kind: GroupKind, *, flag: str) -> list[str]:
        """The speaker, dialect or corpus of each utterance.

        Args:
            kind: which of them.
            flag: what needs it, for the message.

        Raises:
            InputError: an utterance has none.
        """
        names = [str(getattr(reference, kind)) for reference in self.references]
        if "" in names:
            id_ = self.references[names.index("")].id
            hint = " or --speakers" if kind == "speaker" else ""
            row = f"id {shorten(id_)}" if self.has_ids else f"line {id_}"
            where = f"--references has no {kind} for {row}"
            raise InputError(f"{flag}: {where}; give a manifest with one in every row{hint}")
        return names


def read_pairs(references: Path, hypotheses: Path, speakers: Path | None = None) -> Pairs:
    """Read both files.

    Args:
        references: text with one utterance a line, or a manifest (.jsonl).
        hypotheses: text with one utterance a line, in the same order; or, for a manifest, rows with
            `id` and `heard` (.jsonl), in any order.
        speakers: text with one speaker a line, in the order of the references.

    Raises:
        InputError: a file cannot be read, or they do not belong together.
    """
    is_manifest, has_ids = (path.suffix == ".jsonl" for path in (references, hypotheses))
    if has_ids and not is_manifest:
        raise InputError(
            f"--hypotheses {hypotheses} has ids, and --references {references} has none: give the "
            "manifest (.jsonl)"
        )
    rows = _read_manifest(references) if is_manifest else _read_text(references)
    if has_ids:
        ids = [row.id for row in rows]
        heard = read_hypotheses(hypotheses, ids, of=f"utterances of {references}")
    else:
        heard = read_lines(hypotheses)
        _refuse_other_length(references, [row.text for row in rows], hypotheses, heard)
    if speakers is not None:
        names = [line.strip() for line in read_lines(speakers, flag="--speakers")]
        _refuse_other_length(references, [row.text for row in rows], speakers, names)
        if "" in names:
            raise InputError(f"--speakers {speakers}: line {names.index('') + 1} names nobody")
        rows = [replace(row, speaker=name) for row, name in zip(rows, names, strict=True)]
    return Pairs(rows, heard, is_manifest)


def _read_text(path: Path) -> list[Reference]:
    return [Reference(str(number), text) for number, text in enumerate(read_lines(path), start=1)]


def _read_manifest(path: Path) -> list[Reference]:
    rows = []
    places: dict[str, str] = {}
    for where, line in read_rows(path, flag="--references"):
        row = check_json(line, Reference, where=where, ignore_unknown=True)
        if row.id in places:
            raise InputError(f"{where}: id {shorten(row.id)} is there twice, see {places[row.id]}")
        places[row.id] = where
        rows.append(row)
    if not rows:
        raise InputError(f"--references {path}: no rows")
    return rows


def _refuse_other_length(
    references: Path, texts: Sequence[str], other: Path, lines: Sequence[str]
) -> None:
    if len(texts) != len(lines):
        counts = f"{_count_lines(references, texts)} but {_count_lines(other, lines)}"
        raise InputError(f"{counts}: each utterance needs one line in both, in the same order")


def _count_lines(path: Path, lines: Sequence[str]) -> str:
    num_blank_at_end = 0
    while num_blank_at_end < len(lines) and not lines[-1 - num_blank_at_end].strip():
        num_blank_at_end += 1
    blank = f" ({num_blank_at_end} blank at the end)" if num_blank_at_end else ""
    return f"{path} has {len(lines)} lines{blank}"
