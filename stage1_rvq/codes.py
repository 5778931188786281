"""Semantic codes on disk: Parquet, one utterance a row.

    id, text, speaker, dialect, num_frames, codes (list of frames, each K integers, coarsest first)

`datasets.load_dataset("parquet", data_files="codes/*.parquet")` reads it; how many codebooks, how
large, and at what rate stands in the file's schema metadata, so that no reader has to be told.
"""

# T frames (25 per second), K codebooks (coarsest first)

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
from torch import Tensor

from data_manifests.artifact import is_output_folder
from data_manifests.config import InputError
from stage1_rvq.model import RVQConfig

METADATA_KEY = b"semantic_codes"


@dataclass(frozen=True)
class CodeFormat:
    """What the codes of a file are.

    Attributes:
        num_codebooks: K.
        codebook_size: codes per codebook.
        frame_rate_hz: frames a second.
    """

    num_codebooks: int
    codebook_size: int
    frame_rate_hz: float


@dataclass(frozen=True)
class CodedUtterance:
    """One row: what was said, by whom, and its codes, int64 `[T, K]`."""

    id: str
    text: str
    speaker: str
    dialect: str
    codes_TK: Tensor


def code_format(config: RVQConfig) -> CodeFormat:
    """The format of the codes a quantiser makes."""
    return CodeFormat(config.num_codebooks, config.codebook_size, config.frame_rate_hz)


def write_codes(path: Path, utterances: Sequence[CodedUtterance], fmt: CodeFormat) -> None:
    """Write one Parquet file (aside, then renamed)."""
    small = pyarrow.int16() if fmt.codebook_size <= 2**15 else pyarrow.int32()
    schema = pyarrow.schema(
        {
            "id": pyarrow.string(),
            "text": pyarrow.string(),
            "speaker": pyarrow.string(),
            "dialect": pyarrow.string(),
            "num_frames": pyarrow.int32(),
            "codes": pyarrow.list_(pyarrow.list_(small)),
        },
        metadata={METADATA_KEY: json.dumps(asdict(fmt))},
    )
    columns = {
        "id": [u.id for u in utterances],
        "text": [u.text for u in utterances],
        "speaker": [u.speaker for u in utterances],
        "dialect": [u.dialect for u in utterances],
        "num_frames": [len(u.codes_TK) for u in utterances],
        "codes": [u.codes_TK.tolist() for u in utterances],
    }
    aside = path.with_name(path.name + ".tmp")
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), aside)
    os.replace(aside, path)


def find_code_files(path: Path, *, flag: str = "--codes") -> list[Path]:
    """The Parquet files of a codes folder, or the one file named.

    Raises:
        InputError: nothing there, or the folder is unfinished.
    """
    if is_output_folder(path) and not (path / "done").exists():
        raise InputError(f"{flag} {path} is unfinished (no 'done' in it)")
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not files:
        raise InputError(f"{flag} {path}: no Parquet file of codes there")
    return files


def read_code_format(path: Path, *, flag: str = "--codes") -> CodeFormat:
    """The format shared by all files of a codes folder; InputError where they differ or have
    none."""
    formats = set()
    for file in find_code_files(path, flag=flag):
        try:
            metadata = pyarrow.parquet.read_schema(file).metadata or {}
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise InputError(f"{flag} {file}: not readable as Parquet: {error}") from None
        if METADATA_KEY not in metadata:
            raise InputError(
                f"{flag} {file}: no semantic codes (not made by tokenize_corpus or generate)"
            )
        formats.add(CodeFormat(**json.loads(metadata[METADATA_KEY])))
    if len(formats) > 1:
        raise InputError(
            f"{flag} {path}: files of different code formats: {sorted(map(str, formats))}"
        )
    return formats.pop()


def read_codes(path: Path, *, flag: str = "--codes") -> Iterator[CodedUtterance]:
    """Stream the utterances of a codes folder or file, in order."""
    for file in find_code_files(path, flag=flag):
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield CodedUtterance(
                    id=row["id"],
                    text=row["text"],
                    speaker=row["speaker"],
                    dialect=row["dialect"],
                    codes_TK=torch.tensor(row["codes"], dtype=torch.long),
                )


def refuse_other_format(
    found: CodeFormat, expected: CodeFormat, *, flag: str, expected_by: str
) -> None:
    """InputError where codes and a model do not belong together."""
    if found != expected:
        raise InputError(
            f"{flag} has {found.num_codebooks} codebooks of {found.codebook_size} at "
            f"{found.frame_rate_hz:g} Hz, {expected_by} has {expected.num_codebooks} of "
            f"{expected.codebook_size} at {expected.frame_rate_hz:g} Hz"
        )
