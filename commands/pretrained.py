"""Load models trained by others: without their code, without pickle, with one-line errors.

    with one_line_errors("--gemma", name):
        model, report = Gemma4Model.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    refuse_missing_tensors("--gemma", name, report)

`trust_remote_code=False` is passed in every call: without it, transformers asks on the terminal
whether to run the Python code in a model's folder, and takes a `y` that was meant for something
else as the answer.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.utils import logging as transformers_logging

from commands.errors import MACHINE_ERRORS, InputError
from commands.schema import parse_json

Config = TypeVar("Config", bound=PretrainedConfig)

MAX_REASON_CHARACTERS = 200
# What a config may claim: more than any model has, but few enough to build without weights.
MAX_LAYERS = 1000
MAX_SIZE = 2**40
SMALL_MODEL = 50_000_000  # weights: so few are quickly filled with random numbers, and then refused


@contextlib.contextmanager
def one_line_errors(flag: str, name: str) -> Iterator[None]:
    """Turn the many errors of a failed `from_pretrained` into one `InputError`, and silence its
    messages.

    Args:
        flag: the flag that named the model, for the message.
        name: what the user gave: a folder, or a hub name.

    Raises:
        InputError: it cannot be loaded.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _refuse_odd_folder(Path(name))
            yield
    except InputError as error:
        raise InputError(f"{flag} {name}: cannot be loaded: {error}") from None
    # For a damaged file, transformers, tokenizers and huggingface_hub may raise anything:
    # AttributeError, JSONDecodeError, RecursionError and a bare Exception have been seen.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            raise
        where = "" if Path(name).is_dir() else " (no such folder, so looked up as a hub name)"
        raise InputError(f"{flag} {name}: cannot be loaded{where}: {first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)


def refuse_missing_tensors(
    flag: str, name: str, report: Mapping[str, Any], *, used: str = ""
) -> None:
    """Raise InputError if transformers filled missing tensors with random numbers.

    Args:
        flag: the flag that named the model.
        name: what the user gave.
        report: as returned by `from_pretrained(..., output_loading_info=True)`.
        used: only tensors whose names contain this matter.
    """
    missing = sorted(
        str(key)
        for key in report["missing_keys"]
        # Used in training only; older wav2vec 2.0 checkpoints lack it.
        if used in str(key) and not str(key).endswith("masked_spec_embed")
    )
    if missing:
        raise InputError(f"{flag} {name}: {len(missing)} tensor(s) missing, e.g. {missing[0]}")


def refuse_other_kind(
    name: str, kinds: Sequence[str], reasons: Mapping[str, str] | None = None
) -> str:
    """A model's kind, as transformers names it; InputError if it is none of these.

    transformers would read its config as if it were, and use defaults for what is missing.

    Args:
        name: what the user gave.
        kinds: kinds that are accepted.
        reasons: other kind -> why it is not.
    """
    kind = PretrainedConfig.get_config_dict(name)[0].get("model_type")
    if kind not in kinds:
        found = f"of kind {kind!r}" if kind else "no model of transformers"
        reason = (reasons or {}).get(kind, f"expected {' or '.join(kinds)}")
        raise InputError(f"is {found}, {reason}")
    return str(kind)


def refuse_other_size(name: str, config: Config, build: Callable[[Config], nn.Module]) -> None:
    """Raise InputError if a local config describes a far larger model than its weights can fill:
    transformers would generate random numbers for all that is missing.

    Args:
        name: what the user gave; a hub name is not checked.
        config: its configuration.
        build: builds the model that a config describes.
    """
    if not Path(name).is_dir():
        return
    num_weights = _count_weights(config, build)
    num_bytes = sum(file.stat().st_size for file in Path(name).glob("*.safetensors"))
    # No supported format has fewer than four bits per weight.
    if num_weights > max(4 * num_bytes, SMALL_MODEL):
        raise InputError(
            f"config.json describes {num_weights / 1e6:,.0f} million weights, its safetensors files"
            f" have {num_bytes / 1e6:,.0f} million bytes"
        )


def _count_weights(config: Config, build: Callable[[Config], nn.Module]) -> int:
    """How many weights a model has; a model seen before is not built again."""
    key = (build, config.to_json_string(use_diff=False))
    if key not in _num_weights:
        with torch.device("meta"):  # takes no memory, and a tenth of a second for Gemma 4 E4B
            _num_weights[key] = sum(weights.numel() for weights in build(config).parameters())
    return _num_weights[key]


_num_weights: dict[tuple[Callable[[Any], nn.Module], str], int] = {}


def _refuse_odd_folder(folder: Path) -> None:
    """Raise InputError if transformers would load something else, or build without end."""
    if (folder / "adapter_config.json").is_file():
        # transformers would load whatever model this file names, not the one in this folder.
        raise InputError("it holds an adapter, not a model; name the model it is of")
    path = folder / "config.json"
    if path.is_file():
        for key, value in _leaves(parse_json(path.read_bytes(), where=path.name)):
            if isinstance(value, str):
                # The name of a kernel on the hub, which the library "kernels" would load and run.
                if key.endswith("attn_implementation") and "/" in value:
                    raise InputError(f"config.json wants an attention that is downloaded: {value}")
            elif math.isfinite(value) and abs(value) > (
                MAX_LAYERS if key.endswith("layers") else MAX_SIZE
            ):
                raise InputError(f"config.json claims {key} = {value}")


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, int | float | str]]:
    """Yield every number and string in a JSON value, after its key."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part, key)
    elif isinstance(value, int | float | str):
        yield key, value


def first_line(error: BaseException) -> str:
    """An error's message in one short line, or its class name if it has no message."""
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    # The message of a KeyError or IndexError means nothing without the class name.
    is_clear = isinstance(error, OSError | ValueError | RuntimeError | ImportError)
    # A heading says nothing without the line below it.
    said = " ".join(lines[:2]) if lines and lines[0].endswith(":") else lines[0] if lines else kind
    return (said if is_clear or not lines else f"{kind}: {said}")[:MAX_REASON_CHARACTERS]
