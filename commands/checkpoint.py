"""Checkpoints of a training run: never half-written, and sufficient to resume exactly.

    checkpoints/step_000500/model.safetensors   weights
                            trainer.pt          optimizer and schedule
                            step.json           step and the metrics it was saved with

Written to a temporary folder and renamed. Random state need not be saved: see `device.seed_step`.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from commands.atomic_write import take_away, write_json, written_aside
from commands.errors import InputError
from commands.finished_folder import is_output_folder, open_input
from commands.json_files import read_json_as
from commands.pretrained import first_line
from commands.setting_types import NonNegativeInt
from commands.tensor_files import (
    read_pickled_tensors,
    read_tensors,
    refuse_non_finite_weights,
)

NUM_KEPT = 2  # checkpoints of a run

Config = TypeVar("Config")
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class StepFacts:
    """The content of a checkpoint's `step.json`."""

    step: NonNegativeInt
    metrics: dict[str, float]


def save_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    metrics: dict[str, float] | None = None,
    keep: int = NUM_KEPT,
) -> Path:
    """Save a training state as `run/checkpoints/step_...` and delete all but the newest `keep`.

    Args:
        run: the run's output folder.
        step: number of optimizer steps done.
        model: unwrapped model.
        optimizer: its optimizer.
        schedule: its learning-rate schedule.
        metrics: numbers to keep beside the weights.
        keep: how many checkpoints to keep.

    Returns:
        The checkpoint's folder.
    """
    folder = run / "checkpoints" / f"step_{step:06d}"
    folder.parent.mkdir(exist_ok=True)
    state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    with written_aside(folder, raised_by_writer=(SafetensorError, RuntimeError)) as aside:
        aside.mkdir()
        save_file(state_to_save(model), aside / "model.safetensors")
        torch.save(state, aside / "trainer.pt")
        write_json(aside / "step.json", {"step": step, "metrics": metrics or {}})
    for old in list_checkpoints(run)[:-keep]:
        take_away(old)
    return folder


@contextlib.contextmanager
def model_written_aside(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder for `save_pretrained`, which replaces `folder` when the block ends.

    Raises:
        WriteError: the folder cannot be written.
    """
    # safetensors raises SafetensorError, torch RuntimeError.
    with written_aside(folder, raised_by_writer=(SafetensorError, RuntimeError)) as aside:
        yield aside


def list_checkpoints(run: Path) -> list[Path]:
    """A run's complete checkpoints, oldest first."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if re.fullmatch(r"step_\d{6,}", path.name))
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def resume_from_latest(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    is_writer: bool = True,
) -> int:
    """Load a run's newest checkpoint into model, optimizer and schedule.

    Args:
        is_writer: False in all but the first of several processes: they delete nothing.

    Returns:
        Number of steps done; 0 if the run has no checkpoint yet.

    Raises:
        InputError: the checkpoint is damaged or belongs to another model.
    """
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        return 0
    for old in checkpoints[:-NUM_KEPT] if is_writer else []:
        take_away(old)  # the run was killed before it had deleted them
    try:
        return _load_checkpoint(checkpoints[-1], model, optimizer, schedule)
    except InputError as error:
        before = "the one before it" if len(checkpoints) > 1 else "its beginning"
        raise InputError(
            f"{error}; delete {checkpoints[-1]} and --resume goes on from {before}"
        ) from None


def _load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    step = read_json_as(folder / "step.json", StepFacts).step
    if folder.name != f"step_{step:06d}":
        raise InputError(f"{folder / 'step.json'}: says step {step}")
    load_weights(model, folder / "model.safetensors")
    path = folder / "trainer.pt"
    state = read_pickled_tensors(path)
    if state.keys() != {"optimizer", "schedule"}:
        raise InputError(f"{path}: holds {sorted(map(str, state))[:5]}, not a training state")
    try:
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    # torch does not validate what it loads, and may raise anything if that is malformed.
    except Exception as error:
        raise InputError(f"{path}: not of this run: {first_line(error)}") from None
    refuse_non_finite_weights(_tensors_in(optimizer.state_dict()["state"]), where=str(path))
    return step


def _tensors_in(value: object, name: str = "optimizer") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _tensors_in(part, f"{name}.{key}")


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file strictly; raises InputError for missing, unexpected, misshapen or
    non-finite weights."""
    state = read_tensors(path)
    _refuse_misfits(state, model, path)
    model.load_state_dict(state)
    refuse_non_finite_weights(model, where=str(path))


def find_pretrained(name: str, *, made_by: str, flag: str) -> Path:
    """Resolve a name given by the user to a `save_pretrained` folder.

    Args:
        name: folder written by a training command (its `model/` is used), a `save_pretrained`
            folder, or a hub name, which is downloaded.
        made_by: dotted name of that training command.
        flag: the flag it was given with.

    Raises:
        InputError: unfinished or foreign folder, one without a model, or not found.
    """
    path = Path(name)
    if is_output_folder(path):
        open_input(path, made_by=made_by, flag=flag)
        if not (path / "model").is_dir():
            raise InputError(f"{flag} {name}: no model in it: its training kept none")
        return path / "model"
    return find_repository(name, flag=flag)


def find_repository(name: str, *, flag: str) -> Path:
    """Resolve a name given by the user to a folder: one that is here, or a repository of the hub,
    which is downloaded.

    Raises:
        InputError: neither.
    """
    path = Path(name)
    if path.is_dir():
        return path
    try:
        return Path(snapshot_download(name))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{flag} {name}: no such folder, and not on the hub: {reason}") from error


def load_config(folder: Path, config_class: type[Config]) -> Config:
    """Read a model's `config.json` into its dataclass; InputError if they do not match."""
    return read_json_as(folder / "config.json", config_class)


def load_frozen(
    folder: Path,
    model_class: Callable[[Config], Model],
    config_class: type[Config],
    *,
    device: torch.device,
) -> Model:
    """Load the model of a `save_pretrained` folder in float32 and evaluation mode, without
    gradients.

    Raises:
        InputError: no model can be built from its config, or its weights do not fit or are not
            finite.
    """
    config, path = load_config(folder, config_class), folder / "model.safetensors"
    try:
        # Without memory at first: a config that claims a thousand layers will not match its
        # weights.
        with torch.device("meta"):
            outline = model_class(config)
        state = read_tensors(path)
        _refuse_misfits(state, outline, path)
        # Buffers too, including codebooks: unlike Gemma, our models have no infinite bounds.
        refuse_non_finite_weights(state.items(), where=str(path))
        model = model_class(config)
    except InputError:
        raise
    # Layers of torch and transformers may raise anything for sizes that do not match.
    except Exception as error:
        raise InputError(
            f"{folder / 'config.json'}: cannot be built: {first_line(error)}"
        ) from None
    load_weights(model, path)
    return model.to(device).eval().requires_grad_(False)


def _refuse_misfits(state: Mapping[str, torch.Tensor], model: nn.Module, path: Path) -> None:
    wanted = model.state_dict()
    problems = [f"missing {name}" for name in wanted.keys() - state.keys()]
    problems += [f"unknown {name}" for name in state.keys() - wanted.keys()]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted.keys() & state.keys()
        if state[name].shape != wanted[name].shape
    ]
    # Other float types are cast; integers in place of floats are refused.
    problems += [
        f"{name} is {state[name].dtype}, expected {wanted[name].dtype}"
        for name in wanted.keys() & state.keys()
        if state[name].is_floating_point() != wanted[name].is_floating_point()
    ]
    if problems:
        raise InputError(f"{path}: does not fit this model: {'; '.join(sorted(problems)[:3])}")


def state_to_save(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's state dict as safetensors requires it: contiguous, on the CPU, no shared
    tensors."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
