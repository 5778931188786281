"""Transcripts by any recogniser, in a file: JSON Lines with `id` and `heard`.

    {"id": "wav/line_00001.wav", "heard": "me din de ama"}

Other keys are ignored, so that the output of `stage1_rvq.transcribe` is such a file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from commands.errors import InputError
from commands.json_files import read_lines
from commands.schema import check_json, shorten


@dataclass(frozen=True)
class Hypothesis:
    """One row: what was heard, "" if nothing."""

    id: str
    heard: str


def read_hypotheses(
    path: Path, ids: Sequence[str], *, of: str, known: Iterable[str] = ()
) -> list[str]:
    """What a recogniser heard.

    Args:
        path: the file.
        ids: what is wanted, in this order.
        of: what the ids are of, in the plural, for the message: "recordings of data/test.jsonl".
        known: ids that the file may hold beside these.

    Raises:
        InputError: the file cannot be read, names an id twice, lacks one, or holds one that is
            neither wanted nor known.
    """
    heard: dict[str, str] = {}
    for where, line in read_lines(path, flag="--hypotheses"):
        row = check_json(line, Hypothesis, where=where, ignore_unknown=True)
        if row.id in heard:
            raise InputError(f"{where}: id {shorten(row.id)} is there twice")
        heard[row.id] = row.heard
    missing = [id_ for id_ in ids if id_ not in heard]
    surplus = sorted(heard.keys() - {*ids} - {*known})
    faults = []
    if missing:
        faults.append(f"lacks {len(missing)} of the {len(ids)} {of}, e.g. id {shorten(missing[0])}")
    if surplus:
        faults.append(f"holds {len(surplus)} ids that are none of them, e.g. {shorten(surplus[0])}")
    if faults:
        raise InputError(f"--hypotheses {path}: {'; '.join(faults)}")
    return [heard[id_] for id_ in ids]
