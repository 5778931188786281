"""Types of settings and of values in files, which define valid numbers, names and paths.

    steps: PositiveInt = 20_000
    gemma: ModelName = "google/gemma-4-E4B-it"

Pydantic reads these annotations: `command_line.parse_config` checks every flag against them, and
`schema.check` every value of a file. A static type checker sees plain `int`, `float` and `str`.
"""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_NAME_BYTES = 255  # of one file or folder name: NAME_MAX of Linux and macOS
MAX_PATH_BYTES = 4095  # PATH_MAX of Linux, without its terminating NUL


def refuse_impossible_path(path: Path) -> Path:
    """Return the path, unless no file system can hold it.

    Raises:
        ValueError: it holds a NUL or text that is not Unicode, or is too long.
    """
    try:
        encoded = str(path).encode()
    except UnicodeEncodeError:
        raise ValueError("must be a path in UTF-8") from None
    if b"\0" in encoded:
        raise ValueError("must be a path, and holds a NUL character")
    if len(encoded) > MAX_PATH_BYTES or max(map(len, encoded.split(b"/"))) > MAX_NAME_BYTES:
        raise ValueError(f"must be a path, and is too long ({len(encoded)} bytes)")
    return path


def _refuse_path_outside(name: str) -> str:
    path = Path(name)
    refuse_impossible_path(path)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("must be the path of a file in the folder")
    return name


def _refuse_impossible_name(name: str) -> str:
    if not name.strip():
        raise ValueError("must be a folder or a hub name, and is empty")
    refuse_impossible_path(Path(name))
    return name


# Counts and sizes. The upper limits are far beyond any use: they stop a typing error before it
# requests a terabyte.
PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
NonNegativeInt = Annotated[int, Field(ge=0, le=10**9)]
LayerWidth = Annotated[int, Field(ge=1, le=2**16)]
VoiceWidth = Annotated[int, Field(ge=0, le=2**16)]  # 0 where there are no voices
NumLayers = Annotated[int, Field(ge=1, le=1000)]
LayerPosition = Annotated[int, Field(ge=-1000, le=-1)]  # -1 is the last layer
NumCodebooks = Annotated[int, Field(ge=1, le=64)]
CodebookSize = Annotated[int, Field(ge=2, le=2**20)]
NumWorkers = Annotated[int, Field(ge=0, le=256)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
SampleRate = Annotated[int, Field(ge=1, le=1_000_000)]  # hertz

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
PositiveInts = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteFloats = Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]
PositiveFloats = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]  # a fraction in (0, 1]
Probability = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]  # below 1: never everything

FileSize = Annotated[int, Field(ge=0, lt=2**63)]  # bytes
# A file by its path inside a folder.
InnerPath = Annotated[str, AfterValidator(_refuse_path_outside)]
LocalPath = Annotated[str, AfterValidator(lambda path: str(refuse_impossible_path(Path(path))))]
# A path, or a URL at which the command itself reads or writes: "s3://bucket/x" (`stores.py`). What
# other settings name at a URL is copied to this disk first (`store_inputs.py`).
StorePath = Annotated[Path, "or a URL"]
# A local folder or file, or a name on the Hugging Face hub.
ModelName = Annotated[str, AfterValidator(_refuse_impossible_name)]
