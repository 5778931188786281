"""What does the CTC reader hear: transcripts of codes, real or generated, or of embeddings.

    python -m stage1_rvq.transcribe --codes data/spoken-sentences --rvq runs/rvq \
        --reader runs/reader --out transcripts.jsonl
    python -m stage1_rvq.transcribe --embeddings data/cv-embeddings/test --reader runs/reader \
        --out transcripts.jsonl

Writes one JSON row an utterance (id, text, heard, its own WER); prints the error rates against the
texts that were to be said.
"""

# T frames (25 per second), D embedding width

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from data_manifests.artifact import write_json_lines
from data_manifests.config import InputError, parse_config, run_command
from data_manifests.error_rates import align_utterances, pool_error_rates
from stage1_rvq.codes import code_format, read_code_format, read_codes, refuse_other_format
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.device import pick_device
from stage1_rvq.model import load_rvq
from stage1_rvq.reader import load_reader

BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class TranscribeConfig:
    """Read codes or embeddings back as text."""

    reader: Path
    """folder of stage1_rvq.train_reader"""
    out: Path
    """JSON Lines file to write"""
    codes: Path | None = None
    """folder of stage1_rvq.tokenize_corpus or stage2_speechless.generate, or one Parquet file"""
    rvq: str | None = None
    """with --codes: the quantiser they belong to: folder of stage1_rvq.train, or hub name"""
    embeddings: Path | None = None
    """instead of --codes: folder of stage1_rvq.embed"""
    json: bool = False
    """print the error rates as JSON, rates as fractions, instead of a table in percent"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""

    def __post_init__(self) -> None:
        if (self.codes is None) == (self.embeddings is None):
            raise ValueError("one of --codes and --embeddings is needed, and not both")
        if (self.codes is None) != (self.rvq is None):
            raise ValueError("--codes and --rvq go together: codes, and what they mean")
        if self.out.exists():
            raise ValueError(f"--out {self.out} exists already; name a new file")


@dataclass(frozen=True)
class _Speech:
    id: str
    text: str
    frames_TD: Tensor


def main(argv: list[str] | None = None) -> None:
    """Write the transcripts; prints the error rates."""
    config = parse_config(TranscribeConfig, argv)
    device = pick_device(config.device)
    reader = load_reader(config.reader, device=device)
    rows, batch = [], []

    def read_batch() -> None:
        heard = reader.transcribe([speech.frames_TD for speech in batch], batch_size=BATCH_SIZE)
        rows.extend(zip([s.id for s in batch], [s.text for s in batch], heard, strict=True))
        batch.clear()

    for speech in tqdm(_read_speech(config, device), desc="read", unit=" utterances"):
        if speech.frames_TD.shape[-1] != reader.config.dim:
            raise InputError(
                f"--reader takes embeddings {reader.config.dim} wide, these are "
                f"{speech.frames_TD.shape[-1]}"
            )
        batch.append(speech)
        if len(batch) == BATCH_SIZE:
            read_batch()
    if batch:
        read_batch()
    if not rows:
        raise InputError("nothing to read: no utterance there")
    aligned = align_utterances([text for _, text, _ in rows], [heard for _, _, heard in rows])
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_json_lines(
        config.out,
        [
            {"id": id_, "text": text, "heard": heard, "wer": errors.words.rate}
            for (id_, text, heard), errors in zip(rows, aligned, strict=True)
        ],
    )
    rates = pool_error_rates(aligned)
    print(json.dumps(rates.as_dict(), indent=2) if config.json else rates.format_table())
    print(config.out)


def _read_speech(config: TranscribeConfig, device: torch.device) -> Iterator[_Speech]:
    if config.embeddings:
        embeddings = EmbeddingFolder(config.embeddings)
        for utterance in embeddings.utterances:
            yield _Speech(utterance.id, utterance.text, embeddings.read(utterance))
    elif config.codes and config.rvq:
        rvq = load_rvq(config.rvq, device=device)
        refuse_other_format(
            read_code_format(config.codes),
            code_format(rvq.config),
            flag=f"--codes {config.codes}",
            expected_by=f"--rvq {config.rvq}",
        )
        for coded in read_codes(config.codes):
            if len(coded.codes_TK):
                frames_TD = rvq.decode(coded.codes_TK.to(device)).cpu()
                yield _Speech(coded.id, coded.text, frames_TD)


if __name__ == "__main__":
    run_command(main)
