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
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from data_manifests.errors import MACHINE_ERRORS, InputError
from data_manifests.json_files import read_json

MAX_REASON_CHARACTERS = 200
# What a config may claim: more than any model has, and little enough to be built without weights.
MAX_LAYERS = 1000
MAX_SIZE = 2**40


@contextlib.contextmanager
def one_line_errors(flag: str, name: str) -> Iterator[None]:
    """Turn the many errors of a failed `from_pretrained` into one `InputError`, and quieten it.

    Args:
        flag: that named the model, for the message.
        name: what the user gave: a folder, or a hub name.

    Raises:
        InputError: it cannot be loaded.
    """
    _refuse_odd_folder(flag, Path(name))
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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


def _refuse_odd_folder(flag: str, folder: Path) -> None:
    """InputError where transformers would load something else, or build without end."""
    if (folder / "adapter_config.json").is_file():
        # It would load the model that this file names, whatever that is, and not this folder's.
        raise InputError(f"{flag} {folder}: holds an adapter, not a model; name the model it is of")
    if (folder / "config.json").is_file():
        for key, number in _numbers(read_json(folder / "config.json")):
            if number > (MAX_LAYERS if key.endswith("layers") else MAX_SIZE):
                raise InputError(f"{flag} {folder}: config.json claims {key} = {number}")


def _numbers(value: object, key: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number of a JSON value, and the key it stands under."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _numbers(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def first_line(error: BaseException) -> str:
    """What an error says, in one line that is not too long; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    # A KeyError's or an IndexError's words mean nothing without their kind.
    is_clear = isinstance(error, OSError | ValueError | RuntimeError | ImportError)
    line = lines[0] if lines and is_clear else f"{kind}: {lines[0]}" if lines else kind
    return line[:MAX_REASON_CHARACTERS]
