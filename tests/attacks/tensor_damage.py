"""Ways to damage a file of tensors (safetensors): its numbers, shapes, types and header."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.attacks.damage import ODD_VALUES, Damage


def _with_tensors(
    change: Callable[[dict[str, torch.Tensor], str, random.Random], None], *, floats: bool = False
) -> Callable[[Path, random.Random], None]:
    def do(path: Path, rng: random.Random) -> None:
        # Not left mapped: it is written again.
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        # Limits of what Gemma clips may be infinite.
        names = [
            name
            for name, tensor in sorted(tensors.items())
            if tensor.numel()
            and not name.endswith(("_min", "_max"))
            and (tensor.is_floating_point() or not floats)
        ]
        change(tensors, rng.choice(names), rng)
        save_file(tensors, path, metadata={"format": "pt"})

    return do


def _put_number(number: float) -> Callable[[dict[str, torch.Tensor], str, random.Random], None]:
    def change(tensors: dict[str, torch.Tensor], name: str, rng: random.Random) -> None:
        tensors[name].view(-1)[rng.randrange(tensors[name].numel())] = number

    return change


def _with_number(number: float) -> Callable[[Path, random.Random], None]:
    return _with_tensors(_put_number(number), floats=True)


def _other_shape(tensors: dict[str, torch.Tensor], name: str, rng: random.Random) -> None:
    tensor = tensors[name]
    tensors[name] = rng.choice(
        (
            tensor[None],
            tensor.flatten()[:-1],
            torch.cat([tensor, tensor]) if tensor.ndim else tensor[None],
        )
    ).contiguous()


def _other_type(dtype: torch.dtype) -> Callable[[Any, str, random.Random], None]:
    def change(tensors: dict[str, torch.Tensor], name: str, rng: random.Random) -> None:
        tensors[name] = tensors[name].to(dtype)

    return change


def _extra(tensors: dict[str, torch.Tensor], name: str, rng: random.Random) -> None:
    tensors["no_such_tensor"] = torch.zeros(3)


def _less(tensors: dict[str, torch.Tensor], name: str, rng: random.Random) -> None:
    del tensors[name]


def _long_header(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    length = rng.choice((0, 1, 2**63, 2**64 - 1, 2**40, len(content), 99_999_999))
    path.write_bytes(struct.pack("<Q", length) + content[8:])


def _lying_header(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    name = rng.choice(sorted(key for key in header if key != "__metadata__"))
    entry = header[name]
    lie = rng.choice(("dtype", "shape", "offsets", "huge", "odd"))
    if lie == "dtype":
        entry["dtype"] = rng.choice(("F64", "BOOL", "I8", "F8_E4M3", "NONE"))
    elif lie == "shape":
        entry["shape"] = [*entry["shape"], 2]
    elif lie == "offsets":
        entry["data_offsets"] = [0, rng.randrange(1, 2**20)]
    elif lie == "huge":
        entry["shape"] = [2**40, 2**40]
    else:
        header[name] = rng.choice(ODD_VALUES[:10])
    changed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])


TENSORS = (
    Damage("NaN", _with_number(float("nan")), must_refuse=True),
    Damage("infinity", _with_number(float("-inf")), must_refuse=True),
    Damage("huge numbers", _with_number(3e38)),
    Damage("a tensor of another shape", _with_tensors(_other_shape), must_refuse=True),
    Damage("a tensor of whole numbers", _with_tensors(_other_type(torch.int32))),
    Damage("a tensor in float64", _with_tensors(_other_type(torch.float64))),
    Damage("a tensor in float16", _with_tensors(_other_type(torch.float16))),
    Damage("a tensor of truths", _with_tensors(_other_type(torch.bool))),
    Damage("a tensor gone", _with_tensors(_less), must_refuse=True),
    Damage("a tensor more", _with_tensors(_extra)),
    Damage("a header that lies about its length", _long_header),
    *(Damage(f"a header that lies, {number}", _lying_header) for number in range(4)),
)  # fmt: skip
