"""Semantic codes on disk: Parquet files with one utterance per row.

    id, text, speaker, dialect, num_frames, codes (list of frames, each K integers, coarsest first)

`datasets.load_dataset("parquet", data_files="codes/*.parquet")` reads it; the number of codebooks,
their size and the frame rate are in the file's schema metadata, so that recognisers need not be
told.
"""

# T frames (25 per second), K codebooks (coarsest first)

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow
from torch import Tensor

from commands.errors import InputError
from commands.finished_folder import (
    is_output_folder,
    list_files,
    read_provenance,
    refuse_unfinished,
)
from commands.origins import UNKNOWN, Origin
from commands.parquet_files import (
    CodeFormat,
    read_batches,
    read_codes_column,
    read_origins,
    read_parquet_format,
    read_sources,
    write_parquet,
)
from commands.sources import Sources, known
from data_manifests.hash_set import HashSet, hash_text
from stage1_rvq.config import RVQConfig

CODES_NAME = "codes_{:05d}.parquet"  # of a shard, by its number


@dataclass(frozen=True)
class CodedUtterance:
    """One row: what was said, by whom, and its codes, int64 `[T, K]`."""

    id: str
    text: str
    speaker: str
    dialect: str
    codes_TK: Tensor


def code_format(config: RVQConfig) -> CodeFormat:
    """The format of the codes that a quantiser produces."""
    return CodeFormat(config.num_codebooks, config.codebook_size, config.frame_rate_hz)


def code_schema(
    fmt: CodeFormat, origin: Origin = UNKNOWN, sources: Sources | None = None
) -> pyarrow.Schema:
    """The columns of a file of codes, and what it says of them."""
    small = pyarrow.int16() if fmt.codebook_size <= 2**15 else pyarrow.int32()
    columns = {
        "id": pyarrow.string(),
        "text": pyarrow.string(),
        "speaker": pyarrow.string(),
        "dialect": pyarrow.string(),
        "num_frames": pyarrow.int32(),
        "codes": pyarrow.list_(pyarrow.list_(small)),
    }
    fields = [pyarrow.field(name, type_, nullable=False) for name, type_ in columns.items()]
    return pyarrow.schema(fields, metadata=fmt.as_metadata(origin, known(sources)))


def write_codes(
    path: Path,
    utterances: Sequence[CodedUtterance],
    fmt: CodeFormat,
    origin: Origin = UNKNOWN,
    sources: Sources | None = None,
) -> None:
    """Write one Parquet file, atomically.

    Args:
        origin: the audio tower and the quantiser that the codes belong to.
        sources: what they were made from; None if that is not known.
    """
    columns = {
        "id": [u.id for u in utterances],
        "text": [u.text for u in utterances],
        "speaker": [u.speaker for u in utterances],
        "dialect": [u.dialect for u in utterances],
        "num_frames": [len(u.codes_TK) for u in utterances],
        "codes": [u.codes_TK.tolist() for u in utterances],
    }
    write_parquet(path, pyarrow.table(columns, schema=code_schema(fmt, origin, sources)))


def find_code_files(path: Path, *, flag: str = "--codes") -> list[Path]:
    """The Parquet files of a codes folder, or the one file named.

    Raises:
        InputError: there are none, or the folder is unfinished or no longer intact.
    """
    if is_output_folder(path):
        refuse_unfinished(path, flag=flag)
        return list_files(path, "codes_*.parquet", flag=flag)
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not files:
        raise InputError(f"{flag} {path}: no Parquet file of codes there")
    return files


def read_code_format(path: Path, *, flag: str = "--codes") -> CodeFormat:
    """The format shared by all files of a codes folder; InputError if they differ or have none."""
    return common_code_format(find_code_files(path, flag=flag), flag=flag, path=path)


def common_code_format(files: Sequence[Path], *, flag: str, path: Path) -> CodeFormat:
    """As `read_code_format`, of files that were found already.

    Args:
        files: the Parquet files.
        flag: the flag that named them.
        path: what was named.
    """
    formats = {read_parquet_format(file, flag=flag) for file in files}
    if len(formats) > 1:
        raise InputError(
            f"{flag} {path}: files of different code formats: {sorted(map(str, formats))}"
        )
    return formats.pop()


def read_codes_origins(path: Path, *, flag: str = "--codes") -> dict[str, Origin]:
    """What the codes of a folder or file were made with, as `read_origins` gives it."""
    return read_origins(find_code_files(path, flag=flag), flag=flag, path=path)


def read_codes_sources(path: Path, files: Sequence[Path], *, flag: str = "--codes") -> Sources:
    """What the codes of a folder or file were made from.

    Args:
        path: what was named.
        files: its Parquet files.
        flag: the flag that named it.
    """
    if is_output_folder(path):
        return read_provenance(path).made_from()
    return read_sources(files, flag=flag)


def read_codes(path: Path, *, flag: str = "--codes") -> Iterator[CodedUtterance]:
    """Stream the utterances of a codes folder or file, in order.

    Raises:
        InputError: as `find_code_files`; a damaged file, codes that do not fit the format, or a
            repeated id.
    """
    ids = HashSet()
    for file in find_code_files(path, flag=flag):
        fmt = read_parquet_format(file, flag=flag)
        for batch in read_batches(file, code_schema(fmt), flag=flag):
            codes = read_codes_column(batch.column("codes"), fmt, where=f"{flag} {file}")
            names = batch.select(["id", "text", "speaker", "dialect", "num_frames"]).to_pylist()
            for row, codes_TK in zip(names, codes, strict=True):
                if row.pop("num_frames") != len(codes_TK):
                    raise InputError(f"{flag} {file}: {row['id']!r}: num_frames is wrong")
                if (hashed := hash_text(row["id"])) in ids:
                    raise InputError(f"{flag} {file}: id {row['id']!r} is used twice")
                ids.add(hashed)
                yield CodedUtterance(**row, codes_TK=codes_TK)


def refuse_other_format(
    found: CodeFormat, expected: CodeFormat, *, flag: str, expected_by: str
) -> None:
    """Raise InputError if codes and a model do not belong together."""
    if found != expected:
        raise InputError(
            f"{flag} has {found.num_codebooks} codebooks of {found.codebook_size} at "
            f"{found.frame_rate_hz:g} Hz, {expected_by} has {expected.num_codebooks} of "
            f"{expected.codebook_size} at {expected.frame_rate_hz:g} Hz"
        )
