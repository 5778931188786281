"""Loading what others trained: never their code, no pickle, and whatever is wrong in one line.

    with one_line_errors("--gemma", name):
        model, report = Gemma4Model.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    refuse_missing_tensors("--gemma", name, report)

`trust_remote_code=False` is said at every call: left out, transformers asks on the terminal whether
to run the Python of a model's folder, and a `y` that was meant for something else is an answer.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.utils import logging as transformers_logging

from commands.errors import MACHINE_ERRORS, InputError
from commands.json_files import parse_json

MAX_REASON_CHARACTERS = 200
# What a config may claim: more than any model has, and little enough to be built without weights.
MAX_LAYERS = 1000
MAX_SIZE = 2**40
SMALL_MODEL = 50_000_000  # weights that may be made up: quickly done, and then refused


@contextlib.contextmanager
def one_line_errors(flag: str, name: str) -> Iterator[None]:
    """Turn the many errors of a failed `from_pretrained` into one `InputError`, and quieten it.

    Args:
        flag: that named the model, for the message.
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
    # A damaged file makes transformers, tokenizers and huggingface_hub stumble in any way:
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
    """InputError where transformers filled absent tensors with random numbers.

    Args:
        flag: that named the model.
        name: what the user gave.
        report: of `from_pretrained(..., output_loading_info=True)`.
        used: only tensors with this in their name matter.
    """
    missing = sorted(
        str(key)
        for key in report["missing_keys"]
        # Read in training only; older checkpoints of wav2vec 2.0 have none.
        if used in str(key) and not str(key).endswith("masked_spec_embed")
    )
    if missing:
        raise InputError(f"{flag} {name}: {len(missing)} tensor(s) missing, e.g. {missing[0]}")


def refuse_other_kind(name: str, kinds: Sequence[str]) -> None:
    """InputError where a model is of another kind than these, as transformers names them.

    transformers would read its config as if it were, and take defaults for what is not there.
    """
    kind = PretrainedConfig.get_config_dict(name)[0].get("model_type")
    if kind not in kinds:
        found = f"of kind {kind!r}" if kind else "no model of transformers"
        raise InputError(f"is {found}, expected {' or '.join(kinds)}")


def refuse_other_size(name: str, build: Callable[[], nn.Module]) -> None:
    """InputError where a local config describes a far larger model than its weights are of:
    transformers would make up what is missing, number by number.

    Args:
        name: what the user gave; a hub name is not looked at.
        build: makes the model of the config.
    """
    if not Path(name).is_dir():
        return
    with torch.device("meta"):  # takes no memory, and a tenth of a second for Gemma 4 E4B
        num_weights = sum(parameter.numel() for parameter in build().parameters())
    num_bytes = sum(file.stat().st_size for file in Path(name).glob("*.safetensors"))
    # Four bits a weight are the fewest there are.
    if num_weights > max(4 * num_bytes, SMALL_MODEL):
        raise InputError(
            f"config.json describes {num_weights / 1e6:,.0f} million weights, its safetensors files"
            f" have {num_bytes / 1e6:,.0f} million bytes"
        )


def _refuse_odd_folder(folder: Path) -> None:
    """InputError where transformers would load something else, or build without end."""
    if (folder / "adapter_config.json").is_file():
        # It would load the model that this file names, whatever that is, and not this folder's.
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
    """Every number and text of a JSON value, and the key it stands under."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part, key)
    elif isinstance(value, int | float | str):
        yield key, value


def first_line(error: BaseException) -> str:
    """What an error says, in one line that is not too long; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    # A KeyError's or an IndexError's words mean nothing without their kind.
    is_clear = isinstance(error, OSError | ValueError | RuntimeError | ImportError)
    # A heading alone says nothing.
    said = " ".join(lines[:2]) if lines and lines[0].endswith(":") else lines[0] if lines else kind
    return (said if is_clear or not lines else f"{kind}: {said}")[:MAX_REASON_CHARACTERS]
