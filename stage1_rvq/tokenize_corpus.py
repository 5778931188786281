"""Manifest, or cached embeddings -> semantic codes: the training data of stage 2.

    python -m stage1_rvq.tokenize_corpus --manifest data/cv/train.jsonl --rvq runs/rvq \
        --gemma google/gemma-4-E4B-it --out data/cv-codes/train
    python -m stage1_rvq.tokenize_corpus --embeddings data/cv-embeddings/train --rvq runs/rvq \
        --out data/cv-codes/train

The second form is far quicker if `stage1_rvq.embed` has already been run; its embeddings were
rounded to bfloat16, which changes some codes of the finer codebooks. Writes `codes_00000.parquet`,
... (see `stage1_rvq/codes.py`) and `skipped.jsonl`; with `--jsonl` also
`twi_semantic_tokens.jsonl`, the codes as strings. If killed, `--resume` continues it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from commands.atomic_write import write_json_lines
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName, describe_machine, pick_device, pick_dtype
from commands.errors import InputError
from commands.json_files import read_json_lines
from commands.origins import combine, refuse_mixture
from commands.run_folder import OutputFolder, run_folder
from commands.setting_types import ModelName, NumWorkers, PositiveInt
from commands.shards import unwritten_shards
from data_manifests.manifest import read_manifest
from gemma4.gemma import load_audio_encoder
from stage1_rvq.codes import CODES_NAME, CodedUtterance, code_format, write_codes
from stage1_rvq.data import EmbeddedUtterance, EmbeddingFolder
from stage1_rvq.model import SpeechRVQ, load_rvq
from stage1_rvq.token_strings import TOKENS_FILE, write_token_strings
from stage1_rvq.utterance_codes import tokenize_utterances


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """Turn every utterance of a manifest, or of cached embeddings, into semantic codes."""

    rvq: ModelName
    """quantiser: folder of stage1_rvq.train, or hub name"""
    out: Path
    """new folder for the codes"""
    manifest: Path | None = None
    """manifest of utterances"""
    embeddings: Path | None = None
    """folder of stage1_rvq.embed, instead of --manifest; nothing is encoded again"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of Gemma 4 (E2B, E4B) or of an extracted audio encoder"""
    skip_bad_audio: bool = False
    """list unusable recordings in skipped.jsonl and continue, instead of stopping at the first
    one"""
    jsonl: bool = False
    """also write the codes as strings of tokens to twi_semantic_tokens.jsonl"""
    beam_size: PositiveInt = 1
    """candidates kept per codebook while encoding; more take time and lower the error"""
    batch_size: PositiveInt = 8
    """utterances per forward pass"""
    num_workers: NumWorkers = 2
    """threads that decode audio ahead"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    dtype: DtypeName = "float32"
    """precision of the tower; bfloat16 is faster and changes some codes"""
    fast_cpu: bool = False
    """on a CPU: use a forward pass of the tower that is twice as fast and equal up to rounding"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    resume: bool = False
    """continue an unfinished folder"""

    def __post_init__(self) -> None:
        if (self.manifest is None) == (self.embeddings is None):
            raise ValueError("one of --manifest and --embeddings is needed, and not both")


def main(argv: list[str] | None = None) -> None:
    """Tokenize the corpus; prints the folder."""
    config = parse_config(TokenizeConfig, argv)
    of_audio = ("manifest", "gemma") if config.manifest else ("embeddings",)
    with run_folder(
        config.out, config, "stage1_rvq.tokenize_corpus", inputs=("rvq", *of_audio)
    ) as output:
        if output.is_done:
            return
        device = pick_device(config.device)
        rvq = load_rvq(config.rvq, device=device)
        if config.manifest:
            _tokenize_manifest(config, config.manifest, rvq, device, output)
        elif config.embeddings:
            _tokenize_embeddings(config, config.embeddings, rvq, device, output)
        if config.jsonl:
            files = sorted(config.out.glob("codes_*.parquet"))
            write_token_strings(config.out / TOKENS_FILE, files)


def _tokenize_manifest(
    config: TokenizeConfig,
    manifest: Path,
    rvq: SpeechRVQ,
    device: torch.device,
    output: OutputFolder,
) -> None:
    utterances = list(read_manifest(manifest))
    dtype = pick_dtype(config.dtype, device)
    encoder = load_audio_encoder(config.gemma, device=device, dtype=dtype, fast_cpu=config.fast_cpu)
    if encoder.dim != rvq.config.dim:
        raise InputError(
            f"--gemma embeddings are {encoder.dim} wide, --rvq was trained on {rvq.config.dim}"
        )
    origins = {f"--rvq {config.rvq}": rvq.origin(), f"--gemma {config.gemma}": encoder.origin}
    refuse_mixture(origins, allowed=config.allow_mixture)
    output.record(**describe_machine(device, dtype), **combine(*origins.values()).as_facts())
    num_skipped = tokenize_utterances(
        utterances,
        encoder,
        rvq,
        config.out,
        beam_size=config.beam_size,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        skip_bad_audio=config.skip_bad_audio,
    )
    output.record(num_utterances=len(utterances) - num_skipped, num_skipped=num_skipped)


def _tokenize_embeddings(
    config: TokenizeConfig,
    folder: Path,
    rvq: SpeechRVQ,
    device: torch.device,
    output: OutputFolder,
) -> None:
    embeddings = EmbeddingFolder(folder)
    if embeddings.dim != rvq.config.dim:
        raise InputError(
            f"--embeddings are {embeddings.dim} wide, --rvq was trained on {rvq.config.dim}"
        )
    origins = {f"--rvq {config.rvq}": rvq.origin(), embeddings.name: embeddings.origin}
    refuse_mixture(origins, allowed=config.allow_mixture)
    origin = combine(*origins.values())
    output.record(**describe_machine(device, "bfloat16, cached"), **origin.as_facts())
    shards: dict[int, list[EmbeddedUtterance]] = {}
    for utterance in embeddings.utterances:
        shards.setdefault(utterance.shard, []).append(utterance)
    for shard in unwritten_shards(shards, config.out, CODES_NAME, "tokenize", unit="utterances"):
        coded = []
        for u in shard.items:
            codes_TK = rvq.encode(embeddings.read(u).to(device), beam_size=config.beam_size)
            coded.append(CodedUtterance(u.id, u.text, u.speaker, u.dialect, codes_TK.cpu()))
            shard.progress.update()
        write_codes(shard.path, coded, code_format(rvq.config), origin)
    # Recordings that embed could not use have no codes either.
    skipped = read_json_lines(folder / "skipped.jsonl")
    write_json_lines(config.out / "skipped.jsonl", skipped)
    output.record(num_utterances=len(embeddings.utterances), num_skipped=len(skipped))


if __name__ == "__main__":
    run_command(main)
