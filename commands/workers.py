"""Who writes the shards of a corpus: this process, one of several parts, or the actors of Ray.

part = read_part("2/8")
part.has(shard=9)        # True: shards 1, 9, 17, ... counted from 0
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from commands.setting_types import NonNegativeInt

# Commands whose parts make one folder; those of data_manifests.check are read as they are.
SHARDED = (
    "stage1_rvq.embed", "stage1_rvq.tokenize_corpus", "stage2_speechless.generate",
    "stage3_finetune.speak_dialogues", "speech_head.states", "speech_head.synthesize",
)  # fmt: skip
# Facts of `provenance.json` that must be the same for all who write shards of one folder.
MODEL_FACTS = ("tower", "quantizer", "quantize", "dtype")


@dataclass(frozen=True)
class Part:
    """The `number`-th of `count` parts, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder_name(self) -> str:
        """The folder that it is written into, inside of `--out`."""
        return f"part-{self.number}-of-{self.count}"

    def has(self, shard: int) -> bool:
        """Whether a shard, counted from 0, belongs to it."""
        return shard % self.count == self.number - 1


def read_part(text: str) -> Part:
    """Read "2/8".

    Raises:
        ValueError: it does not name one of several parts.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    part = Part(int(found[1]), int(found[2])) if found else Part(0, 0)
    if not 1 <= part.number <= part.count:
        raise ValueError(f"must be I/N, from 1/N to N/N, got {text!r}")
    return part


def find_parts(folder: Path) -> dict[Part, Path]:
    """The folders of parts that are in a command's `--out`, by their numbers."""
    names = {path: re.fullmatch(r"part-(\d+)-of-(\d+)", path.name) for path in folder.iterdir()}
    parts = {Part(int(name[1]), int(name[2])): path for path, name in names.items() if name}
    return dict(sorted(parts.items(), key=lambda item: (item[0].count, item[0].number)))


def _refuse_other_part(text: str) -> str:
    if text:
        read_part(text)
    return text


PartName = Annotated[str, AfterValidator(_refuse_other_part)]


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Who writes the shards of the corpus: docs/clusters.md."""

    part: PartName = ""
    """I/N: write only the I-th of N parts of the corpus, into a folder of its own inside --out;
    pipeline.join_parts makes one folder of all N"""
    ray: str = ""
    """share the work with Ray: local, or the address of a cluster (auto: the one this machine
    belongs to); needs pip install '.[ray]'"""
    ray_actors: NonNegativeInt = 0
    """with --ray: processes to start; 0 is one for each GPU, or for each CPU core if there is
    none"""

    def __post_init__(self) -> None:
        if self.part and self.ray:
            raise ValueError("--part and --ray are two ways to share the work: choose one")
        if self.ray_actors and not self.ray:
            raise ValueError("--ray-actors needs --ray")
