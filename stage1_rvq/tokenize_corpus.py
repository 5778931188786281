"""Manifest, or cached embeddings -> semantic codes: the training data of stage 2.

    python -m stage1_rvq.tokenize_corpus --manifest data/cv/train.jsonl --rvq runs/rvq \
        --gemma google/gemma-4-E4B-it --out data/cv-codes/train
    python -m stage1_rvq.tokenize_corpus --embeddings data/cv-embeddings/train --rvq runs/rvq \
        --out data/cv-codes/train

The second form is far quicker if `stage1_rvq.embed` has already been run; its embeddings were
rounded to bfloat16, which changes some codes of the finer codebooks. Writes `codes_00000.parquet`,
... (see `stage1_rvq/codes.py`) and `skipped.jsonl`; with `--jsonl` also
`twi_semantic_tokens.jsonl`, the codes as strings. If killed, `--resume` continues it. With `--part`
or `--ray`, many processes share the work (`commands/shards.py`).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from commands.atomic_write import write_json_lines
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName, describe_machine, pick_device, pick_dtype
from commands.errors import InputError
from commands.json_files import read_json_lines
from commands.origins import combine, refuse_mixture
from commands.run_folder import OutputFolder, run_folder
from commands.setting_types import ModelName, NumWorkers, PositiveInt, StorePath
from commands.shard import Shard
from commands.shards import join_sources, write_shards
from commands.sources import as_facts, merge
from commands.workers import WorkerSettings
from data_manifests.manifest import Utterance, read_manifest
from gemma4.base_model import tower_sources
from gemma4.gemma import load_audio_encoder
from stage1_rvq.codes import CODES_NAME, CodedUtterance, code_format, write_codes
from stage1_rvq.corpus_encoder import count_skipped, utterance_shards
from stage1_rvq.data import EmbeddedUtterance, EmbeddingFolder
from stage1_rvq.model import load_rvq
from stage1_rvq.token_strings import TOKENS_FILE, write_token_strings
from stage1_rvq.utterance_codes import tokenize_shard


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """Turn every utterance of a manifest, or of cached embeddings, into semantic codes."""

    rvq: ModelName
    """quantiser: folder of stage1_rvq.train, or hub name"""
    out: StorePath
    """new folder for the codes"""
    manifest: StorePath | None = None
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
    """threads that decode audio, and compute its log-mel features, ahead"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "float32"
    """precision of the tower; bfloat16 is faster and changes some codes"""
    fast_cpu: bool = False
    """on a CPU: use a forward pass of the tower that is twice as fast and equal up to rounding"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    resume: bool = False
    """continue an unfinished folder"""
    workers: WorkerSettings = WorkerSettings()

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
        if config.manifest:
            done = _tokenize_manifest(config, config.manifest, output)
        elif config.embeddings:
            done = _tokenize_embeddings(config, config.embeddings, output)
        if config.workers.part:
            return
        output.record(
            num_utterances=done.num_utterances, num_skipped=done.num_skipped,
            sources=as_facts(join_sources(output.path, done.num_shards)),
        )  # fmt: skip
        if config.jsonl:
            files = sorted(output.path.glob("codes_*.parquet"))
            write_token_strings(output.path / TOKENS_FILE, files)


@dataclass(frozen=True)
class _Done:
    """How many utterances have codes, how many were skipped, and in how many shards they are."""

    num_utterances: int
    num_skipped: int
    num_shards: int


def _tokenize_manifest(config: TokenizeConfig, manifest: Path, output: OutputFolder) -> _Done:
    utterances = list(read_manifest(manifest))
    shards = utterance_shards(utterances)
    write_shards(
        output, shards, CODES_NAME,
        partial(RecordingTokenizer, config), config.workers,
        description=f"encode -> {config.out.name}", unit="utterances",
    )  # fmt: skip
    if config.workers.part:
        return _Done(0, 0, 0)
    num_skipped = count_skipped(output.path, len(utterances))
    return _Done(len(utterances) - num_skipped, num_skipped, len(shards))


def _tokenize_embeddings(config: TokenizeConfig, folder: Path, output: OutputFolder) -> _Done:
    embeddings = EmbeddingFolder(folder)
    shards: dict[int, list[EmbeddedUtterance]] = {}
    for utterance in embeddings.utterances:
        shards.setdefault(utterance.shard, []).append(utterance)
    write_shards(
        output, shards, CODES_NAME, partial(EmbeddingTokenizer, config, folder), config.workers,
        description="tokenize", unit="utterances",
    )  # fmt: skip
    # Recordings that embed could not use have no codes either.
    skipped = read_json_lines(folder / "skipped.jsonl")
    if not config.workers.part:
        write_json_lines(output.path / "skipped.jsonl", skipped)
    return _Done(len(embeddings.utterances), len(skipped), len(shards))


class RecordingTokenizer:
    """Turns the recordings of a shard into codes."""

    def __init__(self, config: TokenizeConfig, folder: Path) -> None:
        """Load the tower and the quantiser; InputError if they do not belong together."""
        device = pick_device(config.device)
        dtype = pick_dtype(config.dtype, device)
        self.config = config
        self.rvq = load_rvq(config.rvq, device=device)
        self.encoder = load_audio_encoder(
            config.gemma, device=device, dtype=dtype, fast_cpu=config.fast_cpu
        )
        self.tower = tower_sources(config.gemma)
        if self.encoder.dim != self.rvq.config.dim:
            raise InputError(
                f"--gemma embeddings are {self.encoder.dim} wide, --rvq was trained on "
                f"{self.rvq.config.dim}"
            )
        origins = {
            f"--rvq {config.rvq}": self.rvq.origin(),
            f"--gemma {config.gemma}": self.encoder.origin,
        }
        refuse_mixture(origins, allowed=config.allow_mixture)
        origin = combine(*origins.values())
        self.facts = {**describe_machine(device, dtype), **origin.as_facts()}

    def write(self, shard: Shard[Utterance]) -> None:
        """Write the codes of a shard."""
        tokenize_shard(
            shard,
            self.encoder,
            self.rvq,
            self.tower,
            beam_size=self.config.beam_size,
            batch_size=self.config.batch_size,
            num_workers=self.config.num_workers,
            skip_bad_audio=self.config.skip_bad_audio,
        )


class EmbeddingTokenizer:
    """Turns the cached embeddings of a shard into codes."""

    def __init__(self, config: TokenizeConfig, embeddings: Path, folder: Path) -> None:
        """Load the quantiser; InputError if it does not belong to the embeddings."""
        device = pick_device(config.device)
        self.device = device
        self.beam_size = config.beam_size
        self.rvq = load_rvq(config.rvq, device=device)
        self.embeddings = EmbeddingFolder(embeddings)
        self.sources = self.embeddings.sources_by_shard()
        if self.embeddings.dim != self.rvq.config.dim:
            raise InputError(
                f"--embeddings are {self.embeddings.dim} wide, --rvq was trained on "
                f"{self.rvq.config.dim}"
            )
        origins = {
            f"--rvq {config.rvq}": self.rvq.origin(),
            self.embeddings.name: self.embeddings.origin,
        }
        refuse_mixture(origins, allowed=config.allow_mixture)
        self.origin = combine(*origins.values())
        machine = describe_machine(device, "bfloat16, cached")
        self.facts = {**machine, **self.origin.as_facts()}

    def write(self, shard: Shard[EmbeddedUtterance]) -> None:
        """Write the codes of a shard."""
        coded = []
        for u in shard.items:
            frames_TD = self.embeddings.read(u).to(self.device)
            codes_TK = self.rvq.encode(frames_TD, beam_size=self.beam_size)
            coded.append(CodedUtterance(u.id, u.text, u.speaker, u.dialect, codes_TK.cpu()))
            shard.progress.update()
        sources = merge(self.sources[shard.number], self.rvq.made_from())
        shard.write_sources(sources)
        write_codes(shard.path, coded, code_format(self.rvq.config), self.origin, sources)


if __name__ == "__main__":
    run_command(main)
