"""One shard of a corpus, and what writes it (`shards.py`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tqdm import tqdm

from commands.atomic_write import remove, write_json_lines
from commands.sources import Source, as_facts

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard(Generic[Item]):
    """A shard to be written.

    Attributes:
        number: its number, counted from 0 over all shards.
        path: the file whose existence completes the shard; its other files go beside it.
        items: what it is made from.
        progress: the bar over all items; to be updated for each item where a shard takes long.
    """

    number: int
    path: Path
    items: Sequence[Item]
    progress: "tqdm[Any]"

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows about its items, such as those it had to skip, for `join_rows`.

        Call it before the file that completes the shard is written.
        """
        path = self.path.with_name(f"{name}_{self.number:05d}.jsonl")
        if rows:
            write_json_lines(path, [{"shard": self.number, **row} for row in rows])
        else:
            remove(path)  # an earlier attempt may have found some

    def write_sources(self, sources: Iterable[Source]) -> None:
        """Write what the shard was made from, for `join_sources`; when, as for `write_rows`."""
        self.write_rows("sources", as_facts(sources))


class ShardWriter(Protocol[Item]):
    """What a command does with a shard, in any process."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts about the models and the machine, for `provenance.json`."""

    def write(self, shard: Shard[Item]) -> None:
        """Write a shard's files, the one that completes it last."""
