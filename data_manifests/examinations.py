"""Examine a whole manifest, or one part of it, and keep what was found for a later check.

A part holds `examined_00000.jsonl`, ...: what was found in 4,096 rows each, in order. Rows are
streamed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from commands.atomic_write import write_json_lines
from commands.errors import InputError
from commands.fingerprints import sha256_of_file
from commands.json_files import read_rows
from commands.workers import Part
from commands.written_parts import read_parts
from data_manifests.defects import Examination, examine
from data_manifests.manifest import Utterance, read_manifest
from data_manifests.ordered_map import WorkerDied, map_in_order

ROWS_PER_SHARD = 4096


def examine_all(
    utterances: Iterable[Utterance], *, decode: bool, num_workers: int
) -> Iterator[tuple[Utterance, Examination]]:
    """Examine rows, in order, in several processes.

    Raises:
        InputError: a process died over a recording.
    """
    try:
        yield from map_in_order(
            partial(examine, decode=decode), utterances, num_workers=num_workers
        )
    except WorkerDied as error:
        rows = [item for item in error.items if isinstance(item, Utterance)]
        raise InputError(
            f"a process that decodes audio died (killed, or libsndfile crashed) between "
            f"{rows[0].origin} and {rows[-1].origin}; take out the recording that it cannot read, "
            "or give the command more memory"
        ) from None


def write_examinations(
    folder: Path, manifest: Path, part: Part, *, decode: bool, num_workers: int
) -> None:
    """Examine a part of a manifest, and write what was found.

    Args:
        folder: the part's folder.
        part: every `part.count`-th run of 4,096 rows is examined.
        decode, num_workers: as for `examine_all`.
    """
    rows = read_manifest(manifest, unique_ids=False)
    number = 0
    with tqdm(desc=f"check {part}", unit=" utterances") as progress:
        while shard := list(islice(rows, ROWS_PER_SHARD)):
            if part.has(number):
                found = []
                for _, examination in examine_all(shard, decode=decode, num_workers=num_workers):
                    found.append(asdict(examination))
                    progress.update()
                write_json_lines(folder / _name(number), found)
            number += 1


def read_examined(
    folder: Path, manifest: Path, *, decode: bool
) -> Iterator[tuple[Utterance, Examination]]:
    """The rows of a manifest, in order, each with what its part has found.

    Args:
        folder: the `--out` of all parts.
        manifest: the manifest that they examined.
        decode: whether the recordings should have been decoded.

    Raises:
        InputError: a part is missing or unfinished, they were made from another manifest or with
            other settings, or do not belong together.
    """
    flag = "--examined"
    parts = read_parts(folder, made_by=("data_manifests.check",), flag=flag)
    recorded = parts[0].provenance.inputs.get("manifest")
    if recorded is None or recorded.sha256 != sha256_of_file(manifest):
        raise InputError(f"{flag} {folder}: made from another manifest than --manifest {manifest}")
    if parts[0].settings.get("decode") != decode:
        raise InputError(f"{flag} {folder}: made with another --decode; give the same here")
    files = {name: part.folder / name for part in parts for name in part.files}
    rows = read_manifest(manifest, unique_ids=False)
    number = 0
    while shard := list(islice(rows, ROWS_PER_SHARD)):
        path = files.get(_name(number))
        found = list(read_rows(path, Examination)) if path else []
        if len(found) != len(shard):
            raise InputError(f"{flag} {folder}: {_name(number)} does not hold {len(shard)} rows")
        yield from zip(shard, found, strict=True)
        number += 1


def _name(number: int) -> str:
    return f"examined_{number:05d}.jsonl"
