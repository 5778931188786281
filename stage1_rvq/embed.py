"""Manifest -> cached speech embeddings of Gemma 4's audio tower.

    python -m stage1_rvq.embed --manifest data/cv/train.jsonl --gemma google/gemma-4-E4B-it \
        --out data/cv-embeddings/train

Writes shards as described in `stage1_rvq/data.py`. If killed, `--resume` continues at the last
shard. With `--part` or `--ray`, many processes share the work (`commands/shards.py`).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from commands.atomic_write import write_json_lines
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName, describe_machine, pick_device, pick_dtype
from commands.run_folder import run_folder
from commands.setting_types import ModelName, NumWorkers, PositiveInt, StorePath
from commands.shard import Shard
from commands.shards import join_sources, write_shards
from commands.sources import as_facts, merge
from commands.tensor_files import save_tensors
from commands.workers import WorkerSettings
from data_manifests.manifest import Utterance, read_manifest
from gemma4.base_model import tower_sources
from gemma4.gemma import load_audio_encoder
from stage1_rvq.corpus_encoder import (
    count_skipped,
    count_utterances,
    encode_shard,
    utterance_shards,
)


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Run every utterance of a manifest through Gemma 4's audio tower and cache the embeddings."""

    manifest: StorePath
    """manifest of utterances"""
    out: StorePath
    """new folder for the embeddings (about 180 MB per hour of speech)"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of Gemma 4 (E2B, E4B) or of an extracted audio encoder"""
    skip_bad_audio: bool = False
    """list unusable recordings in skipped.jsonl and continue, instead of stopping at the first
    one"""
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
    resume: bool = False
    """continue an unfinished folder"""
    workers: WorkerSettings = WorkerSettings()


def main(argv: list[str] | None = None) -> None:
    """Write the embeddings; prints the folder."""
    config = parse_config(EmbedConfig, argv)
    utterances = list(read_manifest(config.manifest))
    with run_folder(config.out, config, "stage1_rvq.embed", inputs=("manifest", "gemma")) as output:
        if output.is_done:
            return
        shards = utterance_shards(utterances)
        write_shards(
            output, shards, "shard_{:05d}.jsonl",
            partial(EmbeddingWriter, config), config.workers,
            description=f"encode -> {config.out.name}", unit="utterances",
        )  # fmt: skip
        if config.workers.part:
            return
        num_skipped = count_skipped(output.path, len(utterances))
        output.record(
            num_utterances=len(utterances) - num_skipped, num_skipped=num_skipped,
            sources=as_facts(join_sources(output.path, len(shards))),
        )  # fmt: skip


class EmbeddingWriter:
    """Encodes the utterances of a shard and caches their embeddings."""

    def __init__(self, config: EmbedConfig, folder: Path) -> None:
        """Load the tower, and write its last norm and its projection into the folder."""
        device = pick_device(config.device)
        dtype = pick_dtype(config.dtype, device)
        encoder = load_audio_encoder(
            config.gemma, device=device, dtype=dtype, fast_cpu=config.fast_cpu
        )
        tensors = {"frame_scale": encoder.frame_scale_D, "output_proj": encoder.output_proj_PD}
        save_tensors(folder / "encoder.safetensors", tensors)
        self.config = config
        self.encoder = encoder
        self.sources = tower_sources(config.gemma)
        self.facts = {**describe_machine(device, dtype), "tower": encoder.origin.tower}

    def write(self, shard: Shard[Utterance]) -> None:
        """Write the embeddings of a shard, and then its index."""
        rows = encode_shard(
            shard,
            self.encoder,
            convert=lambda frames_ND: frames_ND.to(torch.bfloat16),
            batch_size=self.config.batch_size,
            num_workers=self.config.num_workers,
            skip_bad_audio=self.config.skip_bad_audio,
        )
        shard.write_sources(merge(count_utterances(u for u, _ in rows), self.sources))
        _write_shard(shard.path, rows, self.encoder.dim)


def _write_shard(index_path: Path, rows: list[tuple[Utterance, Tensor]], dim: int) -> None:
    """Tensors first, index last: a shard with an index is complete."""
    tensors_path = index_path.with_suffix(".safetensors")
    # All recordings of a shard may have been skipped.
    frames = [torch.empty(0, dim, dtype=torch.bfloat16), *(frames_TD for _, frames_TD in rows)]
    save_tensors(tensors_path, {"frames": torch.cat(frames)})
    index: list[dict[str, Any]] = []
    start = 0
    for utterance, frames_TD in rows:
        entry = {
            "id": utterance.id,
            "text": utterance.text,
            "speaker": utterance.speaker,
            "dialect": utterance.dialect,
            "duration_s": utterance.duration_s,
            "start": start,
            "num_frames": len(frames_TD),
        }
        index.append(entry)
        start += len(frames_TD)
    write_json_lines(index_path, index)


if __name__ == "__main__":
    run_command(main)
