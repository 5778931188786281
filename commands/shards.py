"""Work through a list in shards, so that a killed command loses at most the shard it worked on.

    shards = split_into_shards(utterances, 256)
    for shard in unwritten_shards(shards, out, "codes_{:05d}.parquet", "encode", unit="utterances"):
        ...
        skipped.replace(shard.number, [...])
        write_codes(shard.path, ...)

A shard is complete once the file under its name exists: that file is written last. What a shard
holds depends only on its own items, so that an interrupted and resumed run writes the same bytes
as an uninterrupted one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from commands.atomic_write import write_json_lines
from commands.json_files import read_json_lines

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard(Generic[Item]):
    """A shard that has not been written yet.

    Attributes:
        number: its number, counted from 0 over all shards.
        path: the file whose existence completes the shard.
        items: what it is made from.
        progress: the bar over all items; to be updated for each item where a shard takes long.
    """

    number: int
    path: Path
    items: Sequence[Item]
    progress: "tqdm[Any]"


def split_into_shards(items: Sequence[Item], size: int) -> dict[int, Sequence[Item]]:
    """Number runs of `size` items, in order; the last may be shorter."""
    return {i: items[i * size : (i + 1) * size] for i in range(-(-len(items) // size))}


def unwritten_shards(
    shards: Mapping[int, Sequence[Item]], out: Path, name: str, description: str, *, unit: str
) -> Iterator[Shard[Item]]:
    """Yield the shards that an earlier run has not written, with a progress bar over all items.

    Args:
        shards: number -> items.
        out: the command's output folder.
        name: file name of a shard, with a place for its number: "codes_{:05d}.parquet".
        description: what the command does, in a word, for the progress bar.
        unit: what the items are, in the plural: "utterances".
    """
    total = sum(map(len, shards.values()))
    with tqdm(total=total, desc=description, unit=f" {unit}") as progress:
        num_done = 0
        for number, items in shards.items():
            path = out / name.format(number)
            if not path.exists():
                yield Shard(number, path, items, progress)
            num_done += len(items)
            progress.update(num_done - progress.n)


class ShardedRows:
    """A JSON Lines file about the items of all shards, such as `skipped.jsonl`: each row holds the
    number of its shard, so that a shard that is written again replaces its own rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = read_json_lines(path)

    def replace(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the file with these rows, without "shard", as all those of one shard.

        Call it before the shard itself is written: rows of an incomplete shard are replaced when
        the command is resumed.
        """
        self.rows = [row for row in self.rows if row["shard"] != number]
        self.rows += [{"shard": number, **row} for row in rows]
        write_json_lines(self.path, self.rows)
