"""Read and write the file layout of the published `ik/speechless-twi-stage1-rvq-gemma4`.

    rvq = read_published(Path("speechless-twi-stage1-rvq-gemma4"))
    write_published(rvq, Path("out"), final=rvq)

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
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from commands.atomic_write import write_json
from commands.checkpoint import state_to_save
from commands.errors import InputError
from commands.json_files import read_json_as
from commands.setting_types import CodebookSize, LayerWidth, NumCodebooks
from commands.tensor_files import read_pickled_tensors, refuse_non_finite_weights
from stage1_rvq.model import RVQConfig, SpeechRVQ

CONFIG_FILE = "config_stage1.json"
BEST_FILE, FINAL_FILE, AVERAGED_FILE = "rvq_best.pt", "rvq_final.pt", "rvq_averaged.pt"
# Published key -> field of RVQConfig.
CONFIG_KEYS = {
    "rvq_dim": "dim",
    "rvq_num_quantizers": "num_codebooks",
    "rvq_codebook_size": "codebook_size",
}


@dataclass(frozen=True)
class PublishedSizes:
    """The part of `config_stage1.json` that is used here."""

    rvq_dim: LayerWidth
    rvq_num_quantizers: NumCodebooks
    rvq_codebook_size: CodebookSize


# Buffers of vector-quantize-pytorch's codebooks, whatever the modules around them are called.
CODEBOOK_TENSOR = re.compile(
    r"(?:^|\.)layers\.(\d+)\.(?:\w+\.)?(embed|embed_avg|cluster_size|initted)$"
)
MAP_WORDS = {"project_in": {"in", "input", "pre"}, "project_out": {"out", "output", "post"}}


def is_published(folder: Path) -> bool:
    """Whether a folder holds a quantiser in the published layout, and not in ours."""
    return (folder / CONFIG_FILE).is_file() and not (folder / "model.safetensors").exists()


def read_published(folder: Path, *, file: str | None = None) -> SpeechRVQ:
    """Read a quantiser in the published layout; stderr names every tensor that did not match.

    An absent linear map is the identity. Only `python -m stage1_rvq.evaluate` can tell whether each
    tensor was matched correctly: the card reports cosine 0.9768 and MSE 1.8069.

    Args:
        folder: holds `config_stage1.json` and at least one `rvq_*.pt`.
        file: which of them; None takes the first that exists of best, final, averaged.

    Returns:
        The quantiser, frozen and ready to encode; its `frame_scale_D` is ones.

    Raises:
        InputError: a missing or broken file, a pickle that holds more than tensors, a codebook that
            is missing, a tensor of another shape than the configuration says, or one that would
            change codes and has no place here.
    """
    config = _read_config(folder / CONFIG_FILE)
    names = (BEST_FILE, FINAL_FILE, AVERAGED_FILE) if file is None else (file,)
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise InputError(f"{folder}: no {' or '.join(names)} there")
    path = found[0]
    tensors = _read_tensors(path)
    rvq = SpeechRVQ(config)
    state = state_to_save(rvq)  # maps: identity; frame_scale_D: ones
    sources: dict[str, str] = {}
    for name, tensor in tensors.items():
        target = _find_target(name)
        if target not in state:
            # Printed at once: if the file is refused next, the user needs these names.
            print(f"{path}: not used: {name} {list(tensor.shape)}", file=sys.stderr)
            _refuse_if_needed(name, tensor, config, path)
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
    for absent in _fill_absent(state, sources, config, path):
        print(f"{path}: absent: {absent}", file=sys.stderr)
    rvq.load_state_dict(state)
    refuse_non_finite_weights(state.items(), where=str(path))
    print(f"{path}: {len(sources)} of {len(tensors)} tensors used", file=sys.stderr)
    return rvq.eval().requires_grad_(False)


def write_published(
    rvq: SpeechRVQ, folder: Path, *, final: SpeechRVQ, averaged: SpeechRVQ | None = None
) -> None:
    """Write a quantiser in the published layout; reading it back gives the same codes.

    The scale s of Gemma's last norm is folded into the maps, W_in / s and s W_out, in float64.

    Args:
        rvq: the best weights, for `rvq_best.pt`.
        folder: existing folder.
        final: weights after the last step, for `rvq_final.pt`.
        averaged: weights for `rvq_averaged.pt`; if None, that file is not written.
    """
    shape = {key: getattr(rvq.config, field) for key, field in CONFIG_KEYS.items()}
    write_json(folder / CONFIG_FILE, {**shape, "frame_rate_hz": rvq.config.frame_rate_hz})
    torch.save({"rvq": _fold_frame_scale(rvq)}, folder / BEST_FILE)
    torch.save({"rvq": _fold_frame_scale(final)}, folder / FINAL_FILE)
    if averaged is not None:
        torch.save({"rvq": _fold_frame_scale(averaged)}, folder / AVERAGED_FILE)


def _read_config(path: Path) -> RVQConfig:
    checked = read_json_as(path, PublishedSizes, ignore_unknown=True)  # others are for training
    return RVQConfig(**{ours: getattr(checked, key) for key, ours in CONFIG_KEYS.items()})


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


def _refuse_if_needed(name: str, tensor: Tensor, config: RVQConfig, path: Path) -> None:
    """Raise InputError for a tensor as wide as a frame: a norm, or a map of unknown direction."""
    if "ema" not in name and tensor.squeeze().shape in ((config.dim,), (config.dim, config.dim)):
        raise InputError(
            f"{path}: {name} {list(tensor.shape)} would change codes, and this quantiser has no "
            "such part"
        )


def _fill_absent(
    state: dict[str, Tensor], sources: dict[str, str], config: RVQConfig, path: Path
) -> list[str]:
    """Fill the tensors missing from `state` in place; returns their names, for messages."""
    absent = []
    for k in range(config.num_codebooks):
        codebook = f"quantizer.layers.{k}._codebook."
        embed = state[codebook + "embed"]
        if codebook + "embed" not in sources:
            raise InputError(
                f"{path}: codebook {k} of {config.num_codebooks} is missing (looked for "
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


def _fold_frame_scale(rvq: SpeechRVQ) -> dict[str, Tensor]:
    state = state_to_save(rvq)
    scale_D = state.pop("frame_scale_D").double()
    w_in, w_out = state["project_in.weight"].double(), state["project_out.weight"].double()
    state["project_in.weight"] = (w_in / scale_D).float()
    state["project_out.weight"] = (scale_D[:, None] * w_out).float()
    state["project_out.bias"] = (scale_D * state["project_out.bias"].double()).float()
    return state
