"""Write a Gemma 4 checkpoint with random weights as uneven as trained ones, laid out as the hub's.

    python -m gemma4.draw_checkpoint --size E2B --out runs/e2b
    python -m gemma4.draw_checkpoint --size tiny --out runs/tiny-matched

`--gemma runs/e2b/model` then stands in for google/gemma-4-E2B-it in every command here: same names,
shapes and files, so that everything can be rehearsed before anything is downloaded. It has
learned nothing. Every tensor of E2B has the published mean, deviation and range; E4B's are drawn by
analogy with E2B's, since none were published for it (`matched_gemma.py`).

A tensor depends on seed and name only, whatever the shards or the precision. Weights are drawn and
written in pieces of 16 MiB, so that memory does not grow with the model.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import Gemma4AudioFeatureExtractor, Gemma4Config, GenerationConfig

from commands.atomic_write import write_json, written_aside
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.run_folder import run_folder
from commands.setting_types import Seed
from gemma4.matched_gemma import PlannedTensor, draw_pieces, planned_tensors
from gemma4.plain_tokenizer import plain_tokenizer
from gemma4.published_config import write_as_published
from gemma4.true_shapes import SPECIAL_IDS, TINY_SPECIAL_IDS, e2b_config, e4b_config, tiny_config

MODEL = "model"  # the folder's subfolder that is laid out as a repository of the hub
SHARD_BYTES = (
    5 * 10**9
)  # the largest shard that transformers writes; a larger tensor is alone in one
SPARE_BYTES = 10**8  # for everything but weights
TOWER = "model.audio_tower."
CONFIGS = {"E2B": e2b_config, "E4B": e4b_config, "tiny": tiny_config}
SAFETENSORS_DTYPES = {torch.bfloat16: "BF16", torch.float32: "F32"}

Tensors = Mapping[str, PlannedTensor]


@dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """Write a Gemma 4 with random weights that have the published mean, deviation and range."""

    out: Path
    """new folder; the checkpoint is in its subfolder model"""
    size: Literal["E2B", "E4B", "tiny"] = "E2B"
    """E2B: 10.2 GB in bfloat16; E4B: 15.9 GB, its figures by analogy with E2B's; tiny: 2 MB"""
    parts: Literal["all", "audio"] = "all"
    """all: the whole model with its tokenizer; audio: the audio tower alone (0.6 GB), as an
    extracted encoder, which is enough for stage 1"""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """precision of the stored weights; bfloat16, as Gemma 4 is published"""
    seed: Seed = 0
    """seed for the random weights"""
    resume: bool = False
    """continue an unfinished folder: complete shards are kept"""


def main(argv: list[str] | None = None) -> None:
    """Write the checkpoint; prints the folder."""
    config = parse_config(DrawConfig, argv)
    with run_folder(config.out, config, "gemma4.draw_checkpoint") as output:
        if output.is_done:
            return
        model_config = CONFIGS[config.size]()
        dtype: torch.dtype = getattr(torch, config.dtype)
        model_config.dtype = dtype
        planned = planned_tensors(model_config)
        names = [name for name in planned if config.parts == "all" or name.startswith(TOWER)]
        folder = config.out / MODEL
        if config.parts == "all":
            stored = {name: name for name in names}
            write_settings(folder, model_config)
        else:
            # An extracted encoder's names begin at the tower.
            stored = {name: name.removeprefix(TOWER) for name in names}
            write_encoder_settings(folder, model_config)
        num_bytes = dtype.itemsize * sum(math.prod(planned[n].statistics.shape) for n in names)
        output.record(
            source="figures of google/gemma-4-E2B-it (gemma4/published_statistics.json)"
            + (", by analogy" if config.size != "E2B" else ""),
            num_tensors=len(names), num_bytes=num_bytes,
        )  # fmt: skip
        write_shards(folder, {name: planned[name] for name in names}, stored, config.seed, dtype)


def write_settings(folder: Path, config: Gemma4Config) -> None:
    """Write all files of a checkpoint but its weights."""
    ids = SPECIAL_IDS if config.audio_token_id == SPECIAL_IDS["audio"] else TINY_SPECIAL_IDS
    config.architectures = ["Gemma4ForConditionalGeneration"]
    config.save_pretrained(folder)
    write_as_published(folder)
    # The sampling that google/gemma-4-E2B-it recommends.
    GenerationConfig(
        bos_token_id=ids["bos"], pad_token_id=ids["pad"],
        eos_token_id=[ids["eos"], ids["turn_end"]],
        do_sample=True, temperature=1.0, top_k=64, top_p=0.95,
    ).save_pretrained(folder)  # fmt: skip
    plain_tokenizer(config.text_config.vocab_size, ids).save_pretrained(folder)
    # The hub has this file and no preprocessor_config.json; windows and filters are computed.
    extractor = json.loads(Gemma4AudioFeatureExtractor().to_json_string())
    settings = {
        "audio_ms_per_token": 40, "audio_seq_length": 750,
        "feature_extractor": {k: v for k, v in extractor.items() if not isinstance(v, list)},
        "processor_class": "Gemma4Processor",
    }  # fmt: skip
    write_json(folder / "processor_config.json", settings)


def write_encoder_settings(folder: Path, config: Gemma4Config) -> None:
    """Write all files of an extracted audio encoder but its weights."""
    audio = config.audio_config
    audio.architectures, audio.dtype = ["Gemma4AudioModel"], config.dtype
    audio.save_pretrained(folder)
    Gemma4AudioFeatureExtractor().save_pretrained(folder)


def write_shards(
    folder: Path,
    planned: Tensors,
    stored: Mapping[str, str],
    seed: int,
    dtype: torch.dtype,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Draw the weights into safetensors files, and write their index if there are several.

    Args:
        folder: where they are written; complete shards that are there already are kept.
        planned: tensors by their names in the model.
        stored: their names in the files.
        seed: seed for the random weights.
        dtype: precision they are stored in.
        shard_bytes: size of a shard, unless one tensor is larger.

    Raises:
        InputError: there is too little space on the disk.
        WriteError: it became full meanwhile.
    """
    shards = split_into_shards(planned, dtype, shard_bytes)
    if len(shards) == 1:
        paths = [folder / "model.safetensors"]
    else:
        numbers = range(1, len(shards) + 1)
        paths = [folder / f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in numbers]
    sizes = [sum(_num_bytes(planned[name], dtype) for name in shard) for shard in shards]
    missing = [not path.exists() for path in paths]
    needed = sum(size for size, is_missing in zip(sizes, missing, strict=True) if is_missing)
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise InputError(
            f"--out {folder.parent}: {(needed + SPARE_BYTES) / 1e9:.1f} GB needed on this disk, "
            f"{free / 1e9:.1f} GB free"
        )
    with tqdm(total=sum(sizes), desc="draw", unit="B", unit_scale=True) as progress:
        for path, shard, size, is_missing in zip(paths, shards, sizes, missing, strict=True):
            if is_missing:
                parts = {name: planned[name] for name in shard}
                write_safetensors(path, parts, stored, seed, dtype, progress)
            else:
                progress.update(size)
    if len(shards) > 1:
        weight_map = {
            stored[name]: path.name
            for path, shard in zip(paths, shards, strict=True)
            for name in shard
        }
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index)


def split_into_shards(planned: Tensors, dtype: torch.dtype, shard_bytes: int) -> list[list[str]]:
    """Names of the tensors of each shard, in order."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in planned.items():
        num_bytes = _num_bytes(tensor, dtype)
        if shards[-1] and size + num_bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += num_bytes
    return shards


def write_safetensors(
    path: Path,
    planned: Tensors,
    stored: Mapping[str, str],
    seed: int,
    dtype: torch.dtype,
    progress: "tqdm[Any]",
) -> None:
    """Draw tensors straight into a safetensors file, piece by piece.

    The library's own `save_file` wants all tensors of a file in memory, of which one is 4.7 GB. The
    format: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in planned.items():
        end = offset + _num_bytes(tensor, dtype)
        header[stored[name]] = {
            "dtype": SAFETENSORS_DTYPES[dtype], "shape": list(tensor.statistics.shape),
            "data_offsets": [offset, end],
        }  # fmt: skip
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # tensors begin at a multiple of eight
    with written_aside(path) as aside, aside.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, tensor in planned.items():
            for piece in draw_pieces(name, tensor, seed):
                progress.update(file.write(_little_endian(piece.to(dtype))))


def _little_endian(piece: Tensor) -> bytes:
    return piece.view(torch.uint8).numpy().tobytes()


def _num_bytes(tensor: PlannedTensor, dtype: torch.dtype) -> int:
    return dtype.itemsize * math.prod(tensor.statistics.shape)


if __name__ == "__main__":
    run_command(main)
