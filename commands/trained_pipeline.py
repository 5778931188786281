"""A trained pipeline in one folder, or repository of the hub: `pipeline.json` says what is where.

    pipeline = find_pipeline("ama/spoken-twi")
    pipeline.parts["gemma"], pipeline.parts["head"]     # what --gemma and --head take

    pipeline.json     which part is which folder, or is named on the hub; fingerprints
    finetune/ head/ rvq/ recognizer/ speechless/        as their commands write them
    gemma/ mimi/      where they are not named on the hub

`pipeline.publish` writes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from commands.atomic_write import write_json
from commands.checkpoint import find_repository
from commands.errors import InputError
from commands.json_files import read_json, read_json_as
from commands.origins import Origin, RecordedFingerprint
from commands.setting_types import InnerPath, PositiveInt

PIPELINE_FILE = "pipeline.json"
FORMAT = 1  # of that file: a higher number is for what this version would misread
NEEDED = ("gemma", "mimi", "head")

PartName = Literal["gemma", "mimi", "finetune", "head", "rvq", "recognizer", "speechless"]
# A name on the hub, never a path.
HubName = Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)?$", max_length=200)]


@dataclass(frozen=True)
class PipelineFacts:
    """The content of `pipeline.json`.

    Attributes:
        format: `FORMAT`.
        folders: parts that lie in the folder, by their paths in it.
        names: parts that are on the hub.
        tower, quantizer: fingerprints of what the parts were made with (`commands.origins`).
    """

    format: PositiveInt
    folders: dict[PartName, InnerPath]
    names: dict[PartName, HubName]
    tower: RecordedFingerprint = ""
    quantizer: RecordedFingerprint = ""


@dataclass(frozen=True)
class TrainedPipeline:
    """Where the parts of a trained pipeline are.

    Attributes:
        parts: part -> folder, or hub name. Gemma, Mimi and the head are always among them.
        origin: the audio tower and the quantiser that they were made with.
    """

    parts: Mapping[PartName, str]
    origin: Origin


def find_pipeline(name: str) -> TrainedPipeline:
    """Find the parts of a pipeline; none of them is loaded.

    Args:
        name: folder that holds `pipeline.json`, or the name of such a repository, which is
            downloaded.

    Raises:
        InputError: not found, no trained pipeline, or one of a later version.
    """
    folder = find_repository(name, flag="--pipeline")
    path = folder / PIPELINE_FILE
    if not path.is_file():
        raise InputError(
            f"--pipeline {name} holds no {PIPELINE_FILE}: pipeline.publish makes such folders"
        )
    found = read_json(path).get("format")
    if found != FORMAT:
        raise InputError(
            f"--pipeline {name} is written in format {found!r}, this version reads {FORMAT}: "
            "update this project"
        )
    facts = read_json_as(path, PipelineFacts)
    parts = {**facts.names, **{part: str(folder / inner) for part, inner in facts.folders.items()}}
    for part in NEEDED:
        if part not in parts:
            raise InputError(f"--pipeline {name}: {PIPELINE_FILE} does not say where its {part} is")
    return TrainedPipeline(parts, Origin(facts.tower, facts.quantizer))


def write_pipeline_file(
    folder: Path,
    folders: Mapping[PartName, str],
    names: Mapping[PartName, str],
    origin: Origin,
) -> None:
    """Write `pipeline.json`; arguments as the fields of `PipelineFacts`."""
    facts = {"format": FORMAT, "folders": dict(folders), "names": dict(names)}
    write_json(folder / PIPELINE_FILE, {**facts, **origin.as_facts()})
