"""Transcribe codes, real or generated, embeddings or recordings, and measure the recogniser.

    python -m stage1_rvq.transcribe --codes data/spoken-sentences --rvq runs/rvq \
        --recognizer runs/recognizer --out transcripts.jsonl
    python -m stage1_rvq.transcribe --embeddings data/cv-embeddings/test \
        --recognizer runs/recognizer \
        --out transcripts.jsonl
    python -m stage1_rvq.transcribe --manifest data/cv/test.jsonl --asr NAME --asr-language jw \
        --out transcripts.jsonl

Writes one JSON row per utterance (id, text, heard, its own CER and WER); prints the error rates
against the intended texts. Recordings are heard by `--recognizer` with `--gemma`, by any recogniser
of transformers (`--asr`), or by any other that has written a file (`--hypotheses`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from commands.atomic_write import write_json_lines
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, pick_device
from commands.new_paths import refuse_unwritable
from commands.origins import refuse_mixture
from commands.setting_types import ModelName
from data_manifests.alignments import align_utterances
from data_manifests.error_rates import pool_error_rates
from data_manifests.hypotheses import read_hypotheses
from data_manifests.manifest import Utterance, read_manifest
from stage1_rvq.codes import CodedUtterance, read_codes_origins
from stage1_rvq.codes_recognizer import BATCH_SIZE, load_codes_recognizer
from stage1_rvq.data import EmbeddedUtterance, EmbeddingFolder, iterate_batches
from stage1_rvq.judge import AnyJudgeSettings, load_judge, transcribe_recordings
from stage1_rvq.recognizer import load_recognizer

AnyUtterance = CodedUtterance | EmbeddedUtterance | Utterance


@dataclass(frozen=True, kw_only=True)
class TranscribeConfig:
    """Read codes, embeddings or recordings back as text."""

    out: Path
    """JSON Lines file to write"""
    judge: AnyJudgeSettings = AnyJudgeSettings()
    """only --recognizer can read codes and embeddings"""
    codes: Path | None = None
    """folder of stage1_rvq.tokenize_corpus or stage2_speechless.generate, or one Parquet file"""
    rvq: ModelName | None = None
    """with --codes: the quantiser that made them: folder of stage1_rvq.train, or hub name"""
    embeddings: Path | None = None
    """folder of stage1_rvq.embed, instead of --codes"""
    manifest: Path | None = None
    """manifest of recordings, instead of --codes"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """with --manifest and --recognizer: hub name or folder of the Gemma 4 it was trained on"""
    json: bool = False
    """print the error rates as JSON with fractions, instead of a table in percent"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""

    def __post_init__(self) -> None:
        sources = (self.codes, self.embeddings, self.manifest)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("one of --codes, --embeddings and --manifest is needed, and no other")
        if (self.codes is None) != (self.rvq is None):
            raise ValueError("--codes and --rvq go together: codes, and what they mean")
        if self.judge.name() is None:
            raise ValueError(f"give one of {self.judge.flags()} to transcribe the speech")
        if self.judge.recognizer is None and self.manifest is None:
            raise ValueError("--asr and --hypotheses are for the recordings of --manifest")


def main(argv: list[str] | None = None) -> None:
    """Write the transcripts; prints the error rates."""
    config = parse_config(TranscribeConfig, argv)
    refuse_unwritable(config.out, flag="--out")
    utterances, heard = _read(config, pick_device(config.device))
    aligned = align_utterances([utterance.text for utterance in utterances], heard)
    write_json_lines(
        config.out,
        [
            {
                "id": u.id, "text": u.text, "heard": text, "cer": errors.characters.rate,
                "wer": errors.words.rate,
            }
            for u, text, errors in zip(utterances, heard, aligned, strict=True)
        ],
    )  # fmt: skip
    rates = pool_error_rates(aligned)
    print(json.dumps(rates.as_dict(), indent=2) if config.json else rates.format_table())
    print(config.out)


def _read(
    config: TranscribeConfig, device: torch.device
) -> tuple[Sequence[AnyUtterance], list[str]]:
    """The utterances, and the recogniser's transcript of each."""
    if config.manifest:
        return _read_recordings(config, config.manifest, device)
    assert config.judge.recognizer is not None, "__post_init__ has refused the others"
    utterances: Sequence[AnyUtterance]
    if config.codes and config.rvq:
        codes_recognizer = load_codes_recognizer(config.rvq, config.judge.recognizer, device=device)
        utterances = coded = codes_recognizer.read_codes(config.codes, flag="--codes")
        refuse_mixture(
            {
                **read_codes_origins(config.codes),
                **codes_recognizer.origins(config.rvq, config.judge.recognizer),
            },
            allowed=config.allow_mixture,
        )

        def read(picks: range) -> list[str]:
            return codes_recognizer.transcribe([coded[i].codes_TK for i in picks])

    else:
        assert config.embeddings
        embeddings = EmbeddingFolder(config.embeddings)
        recognizer = load_recognizer(config.judge.recognizer, device=device)
        recognizer.refuse_other_width(embeddings.dim, flag="--embeddings")
        origins = {
            embeddings.name: embeddings.origin,
            f"--recognizer {config.judge.recognizer}": recognizer.origin(),
        }
        refuse_mixture(origins, allowed=config.allow_mixture)
        utterances = embedded = embeddings.utterances

        def read(picks: range) -> list[str]:
            return recognizer.transcribe([embeddings.read(embedded[i]) for i in picks])

    batches = list(iterate_batches(len(utterances), BATCH_SIZE))
    read_batches = [read(picks) for picks in tqdm(batches, desc="read", unit=" batches")]
    return utterances, [text for texts in read_batches for text in texts]


def _read_recordings(
    config: TranscribeConfig, manifest: Path, device: torch.device
) -> tuple[Sequence[Utterance], list[str]]:
    utterances = list(read_manifest(manifest))
    if config.judge.hypotheses:
        ids = [utterance.id for utterance in utterances]
        of = f"recordings of {manifest}"
        return utterances, read_hypotheses(config.judge.hypotheses, ids, of=of)
    judge = load_judge(
        config.judge, config.gemma, device=device, allow_mixture=config.allow_mixture
    )
    return utterances, transcribe_recordings(judge, utterances)


if __name__ == "__main__":
    run_command(main)
