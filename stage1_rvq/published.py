"""Read and write the file layout of the published `ik/speechless-twi-stage1-rvq-gemma4`.

    state = read_published(find_published(Path("speechless-twi-stage1-rvq-gemma4")), blank)
    write_published(Path("out"), config, {BEST_FILE: state})

    config_stage1.json   rvq_dim, rvq_num_quantizers, rvq_codebook_size (and more, not used here)
    rvq_best.pt          {"rvq": state dict}; so are rvq_final.pt and rvq_averaged.pt

Read with `weights_only=True`; the repository's Python is never run. Its tensor names could not be
inspected: file size and the pickle imports listed on the card indicate lucidrains' `ResidualVQ` and
two linear maps. So tensors are matched by the end of their name and their shape, those that match
nothing are printed, and those that would change codes are refused. The layout has no
`frame_scale_D`: it is folded into the maps.
"""

# D embedding width, K codebooks (coarsest first)

import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from commands.atomic_write import write_json
from commands.errors import InputError
from commands.json_files import read_json_as
from commands.setting_types import CodebookSize, LayerWidth, NumCodebooks
from commands.tensor_files import read_pickled_tensors, refuse_non_finite_weights
from stage1_rvq.config import RVQConfig

CONFIG_FILE = "config_stage1.json"
BEST_FILE, FINAL_FILE, AVERAGED_FILE = "rvq_best.pt", "rvq_final.pt", "rvq_averaged.pt"
WRAPPER_FILE = "rvq_wrapper.py"  # copied as it is; that of another repository is never run
# Buffers of vector-quantize-pytorch's codebooks, whatever the modules around them are called.
CODEBOOK_TENSOR = re.compile(
    r"(?:^|\.)layers\.(\d+)\.(?:\w+\.)?(embed|embed_avg|cluster_size|initted)$"
)
MAP_WORDS = {"project_in": {"in", "input", "pre"}, "project_out": {"out", "output", "post"}}


@dataclass(frozen=True)
class PublishedSizes:
    """The part of `config_stage1.json` that is used here."""

    rvq_dim: LayerWidth
    rvq_num_quantizers: NumCodebooks
    rvq_codebook_size: CodebookSize


def is_published(folder: Path) -> bool:
    """Whether a folder holds a quantiser in the published layout, and not in ours."""
    return (folder / CONFIG_FILE).is_file() and not (folder / "model.safetensors").exists()


def find_published(folder: Path) -> Path:
    """The first that exists of the averaged weights (which the published card recommends and its
    snippet loads), the best and the final ones."""
    names = (AVERAGED_FILE, BEST_FILE, FINAL_FILE)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: no {' or '.join(names)} there")


def read_sizes(folder: Path) -> RVQConfig:
    """The quantiser's shape; InputError if `config_stage1.json` is missing or broken."""
    # Its other keys are for training.
    sizes = read_json_as(folder / CONFIG_FILE, PublishedSizes, ignore_unknown=True)
    return RVQConfig(sizes.rvq_dim, sizes.rvq_num_quantizers, sizes.rvq_codebook_size)


def read_published(path: Path, blank: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read weights in the published layout; stderr names every tensor that did not match.

    Only `python -m stage1_rvq.evaluate` can tell whether each tensor was matched correctly: the
    card reports cosine 0.9768 and MSE 1.8069.

    Args:
        path: one `rvq_*.pt`.
        blank: state of a new quantiser of these sizes: its linear maps are the identity, which
            stays where the file has none, and its `frame_scale_D` is ones.

    Returns:
        A state that the quantiser can load.

    Raises:
        InputError: a broken file, a pickle that holds more than tensors, a codebook that is
            missing, a tensor of another shape than the configuration says, or one that would change
            codes and has no place here.
    """
    tensors = _read_tensors(path)
    state = dict(blank)
    sources: dict[str, str] = {}
    for name, tensor in tensors.items():
        target = _find_target(name)
        if target not in state:
            # Printed at once: if the file is refused next, the user needs these names.
            print(f"{path}: not used: {name} {list(tensor.shape)}", file=sys.stderr)
            _refuse_if_needed(name, tensor, len(state["frame_scale_D"]), path)
        elif target in sources:
            raise InputError(f"{path}: both {sources[target]} and {name} could be {target}")
        elif tensor.squeeze().shape != state[target].squeeze().shape:
            raise InputError(
                f"{path}: {name} is {list(tensor.shape)}, {CONFIG_FILE} says "
                f"{list(state[target].shape)}"
            )
        else:
            sources[target] = name
            state[target] = tensor.reshape(state[target].shape).to(state[target].dtype)
    for absent in _fill_absent(state, sources, path):
        print(f"{path}: absent: {absent}", file=sys.stderr)
    refuse_non_finite_weights(state.items(), where=str(path))
    print(f"{path}: {len(sources)} of {len(tensors)} tensors used", file=sys.stderr)
    return state


def write_published(
    folder: Path, config: RVQConfig, states: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write a quantiser in the published layout; reading it back gives the same codes.

    The scale s of Gemma's last norm is folded into the maps, W_in / s and s W_out, in float64.

    Args:
        folder: existing folder.
        config: its shape.
        states: file name -> the quantiser's state for it.
    """
    sizes = PublishedSizes(config.dim, config.num_codebooks, config.codebook_size)
    write_json(folder / CONFIG_FILE, {**asdict(sizes), "frame_rate_hz": config.frame_rate_hz})
    for name, state in states.items():
        torch.save({"rvq": _fold_frame_scale(state)}, folder / name)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """`ckpt["rvq"]` of a checkpoint that holds tensors and nothing else."""
    tensors = read_pickled_tensors(path).get("rvq")
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise InputError(f"{path}: no state dict under 'rvq' in it")
    return tensors


def _find_target(name: str) -> str | None:
    """Our name of a published tensor; None if none of ours fits."""
    if match := CODEBOOK_TENSOR.search(name):
        return f"quantizer.layers.{int(match[1])}._codebook.{match[2]}"
    module, _, kind = name.rpartition(".")
    words = set(re.split(r"[._]", module))
    maps = [ours for ours, known in MAP_WORDS.items() if words & known]
    return f"{maps[0]}.{kind}" if len(maps) == 1 else None


def _refuse_if_needed(name: str, tensor: Tensor, dim: int, path: Path) -> None:
    """Raise InputError for a tensor as wide as a frame: a norm, or a map of unknown direction."""
    if "ema" not in name and tensor.squeeze().shape in ((dim,), (dim, dim)):
        raise InputError(
            f"{path}: {name} {list(tensor.shape)} would change codes, and this quantiser has no "
            "such part"
        )


def _fill_absent(state: dict[str, Tensor], sources: Mapping[str, str], path: Path) -> list[str]:
    """Fill the tensors missing from `state` in place; returns their names, for messages."""
    absent = []
    num_codebooks = sum(name.endswith("_codebook.embed") for name in state)
    for k in range(num_codebooks):
        codebook = f"quantizer.layers.{k}._codebook."
        embed = state[codebook + "embed"]
        if codebook + "embed" not in sources:
            raise InputError(
                f"{path}: codebook {k} of {num_codebooks} is missing (looked for "
                f"...layers.{k}._codebook.embed)"
            )
        if not state[codebook + "initted"].all():
            raise InputError(f"{path}: codebook {k} was saved before it was trained")
        # Only further training would read these.
        for name, default in (
            ("cluster_size", torch.ones_like(state[codebook + "cluster_size"])),
            ("embed_avg", embed.clone()),
        ):
            if codebook + name not in sources:
                state[codebook + name] = default
                absent.append(f"{codebook}{name} (only training reads it)")
    for kind, meaning in (("weight", "identity"), ("bias", "zero")):
        absent += [
            f"{map_name}.{kind} ({meaning})"
            for map_name in MAP_WORDS
            if f"{map_name}.{kind}" not in sources
        ]
    return absent


def _fold_frame_scale(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    folded = dict(state)
    scale_D = folded.pop("frame_scale_D").double()
    w_in, w_out = state["project_in.weight"].double(), state["project_out.weight"].double()
    folded["project_in.weight"] = (w_in / scale_D).float()
    folded["project_out.weight"] = (scale_D[:, None] * w_out).float()
    folded["project_out.bias"] = (scale_D * state["project_out.bias"].double()).float()
    return folded
