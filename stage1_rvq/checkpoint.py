"""Checkpoints of a training run: complete or absent, and enough to continue exactly.

    checkpoints/step_000500/model.safetensors   weights
                            trainer.pt          optimizer and schedule
                            step.json           step and the metrics it was saved with

Written to a folder aside and renamed. Random numbers need no saving: see `device.seed_step`.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from data_manifests.artifact import is_output_folder, open_input, read_json, write_json
from data_manifests.config import InputError

Config = TypeVar("Config")
Model = TypeVar("Model", bound=nn.Module)


def save_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    metrics: dict[str, float] | None = None,
    keep: int = 2,
) -> Path:
    """Save a training state as `run/checkpoints/step_...` and delete all but the newest `keep`.

    Args:
        run: the run's output folder.
        step: number of optimizer steps done.
        model: unwrapped model.
        optimizer: its optimizer.
        schedule: its learning-rate schedule.
        metrics: numbers to keep beside the weights.
        keep: how many checkpoints stay.

    Returns:
        The checkpoint's folder.
    """
    folder = run / "checkpoints" / f"step_{step:06d}"
    aside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file(state_to_save(model), aside / "model.safetensors")
    torch.save(
        {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()},
        aside / "trainer.pt",
    )
    write_json(aside / "step.json", {"step": step, "metrics": metrics or {}})
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return folder


def list_checkpoints(run: Path) -> list[Path]:
    """A run's complete checkpoints, oldest first."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step_\d{6,}", path.name))


def resume_from_latest(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    """Load a run's newest checkpoint into model, optimizer and schedule.

    Returns:
        Number of steps done; 0 where the run has no checkpoint yet.
    """
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        return 0
    newest = checkpoints[-1]
    load_weights(model, newest / "model.safetensors")
    state: dict[str, Any] = torch.load(newest / "trainer.pt", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    step: int = read_json(newest / "step.json")["step"]
    return step


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file strictly; InputError says what is missing, left over or misshapen."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    wanted = state_to_save(model)
    problems = [f"missing {name}" for name in wanted.keys() - state.keys()]
    problems += [f"unknown {name}" for name in state.keys() - wanted.keys()]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted.keys() & state.keys()
        if state[name].shape != wanted[name].shape
    ]
    if problems:
        raise InputError(f"{path}: does not fit this model: {'; '.join(sorted(problems)[:3])}")
    model.load_state_dict(state)


def find_pretrained(name: str, *, made_by: str, flag: str) -> Path:
    """The `save_pretrained` folder behind a name a user gave.

    Args:
        name: folder a training command wrote (its `model/` is meant), a `save_pretrained` folder,
            or a hub name, which is downloaded.
        made_by: dotted name of that training command.
        flag: the flag it was given with.

    Raises:
        InputError: unfinished or foreign folder, or not found.
    """
    path = Path(name)
    if is_output_folder(path):
        open_input(path, made_by=made_by, flag=flag)
        return path / "model"
    if path.is_dir():
        return path
    try:
        return Path(snapshot_download(name))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{flag} {name}: no such folder, and not on the hub: {reason}") from error


def load_config(folder: Path, config_class: type[Config]) -> Config:
    """Read a model's `config.json` into its dataclass; InputError where the two do not agree."""
    values = read_json(folder / "config.json")
    try:
        return config_class(**values)
    except TypeError as error:
        raise InputError(
            f"{folder / 'config.json'}: not a {config_class.__name__}: {error}"
        ) from None


def load_frozen(
    folder: Path,
    model_class: Callable[[Config], Model],
    config_class: type[Config],
    *,
    device: torch.device,
) -> Model:
    """The model of a `save_pretrained` folder, in float32, in evaluation mode and without
    gradients; InputError where its config or weights do not fit."""
    model = model_class(load_config(folder, config_class))
    load_weights(model, folder / "model.safetensors")
    return model.to(device).eval().requires_grad_(False)


def state_to_save(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's state as safetensors takes it: contiguous, on the CPU, no tensor shared."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
