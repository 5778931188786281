"""A corpus of codes with transcripts, of any size: checked once, then opened in seconds.

    corpus = open_corpus(Path("data/codes/train"), Vocabulary())
    corpus.utterances[5].codes_TK

The Parquet files are read, checked and copied for memory mapping when they are first needed
(`commands/table_copies.py`); a training reads an utterance from that copy when a batch needs it.
"""

# N utterances or frames, T frames (25 per second), K codebooks

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute
import torch

from commands.errors import InputError
from commands.finished_folder import (
    is_output_folder,
    read_finished_files,
    read_provenance,
    refuse_changed,
)
from commands.mapped_tables import MappedRows, table_schema
from commands.origins import Origin
from commands.parquet_files import (
    CodeFormat,
    RecordedOrigin,
    flatten_codes_column,
    read_batches,
    read_origins,
    read_parquet_format,
    read_sources,
)
from commands.schema import check_json
from commands.sources import Sources, as_facts, known
from commands.table_copies import TableSource, TableWriter, open_table
from data_manifests.language import language
from stage1_rvq.codes import code_schema, common_code_format, find_code_files
from stage2_speechless.data import TrainingUtterance
from stage2_speechless.generation import MAX_FRAMES
from stage2_speechless.vocabulary import PREFIX_EXTRA, Vocabulary

ROWS_AT_ONCE = 4096  # of a Parquet file
NUM_QUANTILES = 19  # 5 %, 10 %, ..., 95 %


@dataclass(frozen=True)
class Corpus:
    """The usable utterances of a codes folder.

    Attributes:
        utterances: in the order of the files; each is read when it is asked for.
        num_characters_N: int32, characters of each as `Vocabulary.spoken_characters` gives them.
        num_frames_N: int32, frames of each.
        left_out: number of those left out, by reason.
        format: of the codes.
        origins: what the codes were made with, as `read_codes_origins` gives it.
        sources: what the codes were made from.
    """

    utterances: Sequence[TrainingUtterance]
    num_characters_N: npt.NDArray[np.int32]
    num_frames_N: npt.NDArray[np.int32]
    left_out: Counter[str]
    format: CodeFormat
    origins: dict[str, Origin]
    sources: Sources

    @property
    def num_positions_N(self) -> npt.NDArray[np.int32]:
        """Positions that each takes in a batch: its prefix and its frames."""
        return PREFIX_EXTRA + self.num_characters_N + self.num_frames_N

    def rate_quantiles(self) -> tuple[float, ...]:
        """The speaking rates that `generate_batch` draws from: quantiles 5 %, 10 %, ..., 95 %."""
        rates_N = self.num_characters_N * self.format.frame_rate_hz / self.num_frames_N
        # As `torch.quantile`, which takes 16 million numbers at most.
        sorted_N = torch.from_numpy(np.sort(rates_N.astype(np.float32)))
        ranks = torch.linspace(0.05, 0.95, NUM_QUANTILES) * (len(sorted_N) - 1)
        below, above = ranks.floor(), ranks.ceil()
        return tuple(sorted_N[below.long()].lerp(sorted_N[above.long()], ranks - below).tolist())


@dataclass(frozen=True)
class _Facts:
    """What a copy of a corpus notes.

    Attributes:
        format: of the codes.
        origins: by what follows the folder's name: "", or "/" and a file.
        left_out: as in `Corpus`.
        sources: what the codes were made from; a copy of an older version does not say it.
    """

    format: CodeFormat
    origins: dict[str, RecordedOrigin]
    left_out: dict[str, int]
    sources: Sources | None = None


def open_corpus(path: Path, vocabulary: Vocabulary, *, flag: str = "--codes") -> Corpus:
    """Open a codes folder for training or evaluation.

    Texts without a letter or with a character outside the vocabulary are left out, and so is speech
    that is empty or longer than 30 s.

    Raises:
        InputError: not a finished codes folder, codes that do not fit their format, a repeated id,
            nothing usable in it, or as `open_table`.
    """
    files = find_code_files(path, flag=flag)
    fmt = read_parquet_format(files[0], flag=flag)
    source = TableSource(
        path, flag, files,
        made_by=[language().normalization, asdict(vocabulary), MAX_FRAMES],
        schema=_schema(fmt),
        fill=partial(_fill, path=path, flag=flag, files=files, vocabulary=vocabulary),
    )  # fmt: skip
    table = open_table(source)
    facts = check_json(table.facts, _Facts, where=table.where)
    left_out = Counter(facts.left_out)
    if not len(table):
        raise InputError(f"{flag} {path}: no usable utterance ({_describe(left_out)})")
    origins = {f"{flag} {path}{rest}": Origin(**vars(o)) for rest, o in facts.origins.items()}
    return Corpus(
        MappedRows(table, partial(_make_utterance, fmt=facts.format, damaged=table.damaged)),
        table.numbers("num_characters", low=1),
        table.numbers("num_frames", low=1),
        left_out,
        facts.format,
        origins,
        read_provenance(path).made_from() if is_output_folder(path) else known(facts.sources),
    )


def print_left_out(corpus: Corpus, flag: str) -> None:
    """Print one line on stderr, if anything was left out."""
    if count := sum(corpus.left_out.values()):
        print(f"{flag}: {count} left out: {_describe(corpus.left_out)}", file=sys.stderr)


def _schema(fmt: CodeFormat) -> pyarrow.Schema:
    small = pyarrow.int16() if fmt.codebook_size <= 2**15 else pyarrow.int32()
    return table_schema(
        {
            "id": pyarrow.string(),
            "text": pyarrow.string(),
            "dialect": pyarrow.string(),
            "num_characters": pyarrow.int32(),
            "num_frames": pyarrow.int32(),
            "codes": pyarrow.list_(small),  # frame after frame
        }
    )


def _fill(
    writer: TableWriter, *, path: Path, flag: str, files: Sequence[Path], vocabulary: Vocabulary
) -> str:
    """Read, check and write the rows of all files; returns the facts."""
    fmt = common_code_format(files, flag=flag, path=path)
    origins = read_origins(files, flag=flag, path=path)
    left_out: Counter[str] = Counter()
    finished = read_finished_files(path) if is_output_folder(path) else {}
    for file in files:
        if file.name in finished:  # a copy is made once, so all of it is compared
            refuse_changed(path, file.name, finished[file.name], flag=flag)
        for batch in read_batches(file, code_schema(fmt), flag=flag, num_rows=ROWS_AT_ONCE):
            writer.write(_usable_columns(batch, fmt, vocabulary, left_out, where=f"{flag} {file}"))
        writer.progress.update(file.stat().st_size)
    by_rest = {name.removeprefix(f"{flag} {path}"): o.as_facts() for name, o in origins.items()}
    facts = {"format": asdict(fmt), "origins": by_rest, "left_out": left_out}
    return json.dumps({**facts, "sources": as_facts(read_sources(files, flag=flag))})


def _usable_columns(
    batch: pyarrow.RecordBatch,
    fmt: CodeFormat,
    vocabulary: Vocabulary,
    left_out: Counter[str],
    *,
    where: str,
) -> list[pyarrow.Array]:
    """The columns of a copy, without the rows that cannot be used, which are counted."""
    column = batch.column("codes")
    codes_NK = flatten_codes_column(column, fmt, where=where)
    num_frames_N = pyarrow.compute.list_value_length(column).to_numpy()
    is_wrong_N = batch.column("num_frames").to_numpy() != num_frames_N
    if is_wrong_N.any():
        id_ = batch.column("id")[int(is_wrong_N.argmax())].as_py()
        raise InputError(f"{where}: {id_!r}: num_frames is wrong")
    is_usable_N = (num_frames_N > 0) & (num_frames_N <= MAX_FRAMES)
    texts = batch.column("text").to_pylist()
    num_characters_N = np.zeros(len(texts), np.int32)
    for i in np.flatnonzero(is_usable_N).tolist():
        num_characters_N[i] = _count_characters(texts[i], vocabulary)
    left_out.update(
        {
            reason: count
            for reason, count in (
                ("no frames", int((num_frames_N == 0).sum())),
                (f"over {MAX_FRAMES} frames", int((num_frames_N > MAX_FRAMES).sum())),
                ("text that cannot be spoken", int((is_usable_N & (num_characters_N == 0)).sum())),
            )
            if count
        }
    )
    is_usable_N &= num_characters_N > 0
    kept = pyarrow.array(is_usable_N)
    kept_frames_N = num_frames_N[is_usable_N].astype(np.int32)
    ends_N = np.cumsum(kept_frames_N * fmt.num_codebooks, dtype=np.int32)
    codes_N = codes_NK[np.repeat(is_usable_N, num_frames_N)].reshape(-1)
    small = _schema(fmt).field("codes").type.value_type
    return [
        *(batch.column(name).cast(pyarrow.string()).filter(kept)
          for name in ("id", "text", "dialect")),
        pyarrow.array(num_characters_N[is_usable_N]),
        pyarrow.array(kept_frames_N),
        pyarrow.ListArray.from_arrays(
            pyarrow.array(np.concatenate([np.zeros(1, np.int32), ends_N])),
            pyarrow.array(codes_N).cast(small),
        ),
    ]  # fmt: skip


def _count_characters(text: str, vocabulary: Vocabulary) -> int:
    """Characters to be spoken; 0 if the text cannot be."""
    try:
        return len(vocabulary.spoken_characters(text))
    except InputError:
        return 0


def _make_utterance(
    row: dict[str, Any], fmt: CodeFormat, damaged: Callable[[], InputError]
) -> TrainingUtterance:
    num_frames, codes_N = row["num_frames"], row["codes"]
    if not 0 < num_frames * fmt.num_codebooks == len(codes_N):
        raise damaged()
    if not 0 <= codes_N.min() <= codes_N.max() < fmt.codebook_size:
        raise damaged()
    codes_TK = torch.from_numpy(codes_N.reshape(num_frames, fmt.num_codebooks).copy())
    rate_cps = row["num_characters"] * fmt.frame_rate_hz / num_frames
    return TrainingUtterance(row["id"], row["text"], row["dialect"], rate_cps, codes_TK)


def _describe(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
