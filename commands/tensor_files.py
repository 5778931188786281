"""Tensors on disk: safetensors files, written atomically and checked when they are read.

save_tensors(path, {"frames": frames_ND})
tensors = read_tensors(path, {"frames": TensorKind(torch.bfloat16, (None, 1024))})
"""

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from commands.atomic_write import written_aside
from commands.errors import InputError
from commands.origins import NUM_DIGITS
from commands.schema import as_mapping


@dataclass(frozen=True)
class TensorKind:
    """The dtype and shape that a tensor must have.

    Attributes:
        dtype: its dtype; None accepts any floating-point dtype.
        shape: its dimensions; None accepts any length.
        is_optional: whether a file may lack it.
    """

    dtype: torch.dtype | None
    shape: tuple[int | None, ...]
    is_optional: bool = False

    def fits(self, tensor: Tensor) -> bool:
        """Whether a tensor is of this kind."""
        is_of_type = tensor.dtype == self.dtype or (
            self.dtype is None and tensor.is_floating_point()
        )
        return (
            is_of_type
            and tensor.ndim == len(self.shape)
            and all(
                wanted in (None, found)
                for wanted, found in zip(self.shape, tensor.shape, strict=True)
            )
        )

    def __str__(self) -> str:
        lengths = ", ".join("any" if length is None else str(length) for length in self.shape)
        return f"{self.dtype or 'floating-point'} [{lengths}]"


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; WriteError if that fails."""
    with written_aside(path, raised_by_writer=(SafetensorError,)) as aside:
        save_file(dict(tensors), aside)


def read_tensors(path: Path, kinds: Mapping[str, TensorKind] | None = None) -> dict[str, Tensor]:
    """Read a safetensors file; tensors are mapped into memory, not copied.

    Args:
        path: the file.
        kinds: the tensors it must hold, and no others; None accepts any.

    Raises:
        InputError: it cannot be read, or does not hold these tensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read: {_first_line(error)}") from None
    if kinds is None:
        return tensors
    wanted = {name for name, kind in kinds.items() if not kind.is_optional}
    if missing := sorted(wanted - tensors.keys()):
        raise InputError(
            f"{path}: lacks {len(missing)} of {len(wanted)} tensors, e.g. {missing[0]!r}"
        )
    if foreign := sorted(tensors.keys() - kinds.keys()):
        raise InputError(
            f"{path}: holds {len(foreign)} tensors that do not belong there, e.g. {foreign[0]!r}"
        )
    for name, tensor in tensors.items():
        if not kinds[name].fits(tensor):
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise InputError(f"{path}: {name!r} is {found}, expected {kinds[name]}")
    return tensors


def read_pickled_tensors(path: Path) -> dict[str, Any]:
    """Read a `torch.save` file of tensors and plain values; no code in it is run.

    Raises:
        InputError: it cannot be read, or its pickle would run code.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's message, many lines long, advises switching the check off.
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"its pickle wants to run {named[1]}" if named else "not a checkpoint of tensors"
        raise InputError(f"{path}: refused: {reason}") from None
    except EOFError:
        raise InputError(f"{path}: cannot be read: empty file") from None
    except Exception as error:  # torch may raise anything for a damaged pickle
        raise InputError(f"{path}: cannot be read, cut short? ({_first_line(error)})") from None
    return dict(as_mapping(state, where=str(path)))


def fingerprint_tensors(tensors: Iterable[Tensor]) -> str:
    """A short hash of tensors: of their bits and shapes, in this order, wherever they lie."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)} ".encode())
        bits = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(bits.numpy().data)
    return digest.hexdigest()[:NUM_DIGITS]


def refuse_non_finite_weights(
    weights: nn.Module | Iterable[tuple[str, Tensor]], *, where: str
) -> None:
    """Raise InputError if a weight is NaN or infinite: a model with such weights outputs noise.

    Cheap: one pass over each tensor in its own precision, without copying (16 GB/s for float32 or
    bfloat16 on two cores; 0.4 for a sum in double precision).

    Args:
        weights: a module, whose buffers may hold infinity (Gemma's clipping bounds) but not NaN; or
            names and tensors, all of which must be finite.
        where: the file or folder, for the message.
    """
    if isinstance(weights, nn.Module):
        for name, buffer in weights.named_buffers():
            if any(bound.isnan() for bound in _bounds(buffer)):
                raise InputError(f"{where}: {name} holds NaN; make it again, or copy it again")
        weights = weights.named_parameters()
    for name, tensor in weights:
        if not all(bound.isfinite() for bound in _bounds(tensor)):
            raise InputError(
                f"{where}: {name} holds NaN or infinity; make it again, or copy it again"
            )


def _bounds(tensor: Tensor) -> tuple[Tensor, ...]:
    """Smallest and largest element of a float tensor, both NaN if any is; empty for other
    tensors."""
    if not (tensor.is_floating_point() and tensor.numel()):
        return ()
    return tuple(torch.aminmax(tensor.detach()))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0]
