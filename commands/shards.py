"""Work through a list in shards: in one process, in parts, or with the actors of a Ray cluster.

    class Writer:
        def __init__(self, config: Config, folder: Path) -> None: ...   # loads the models
        def write(self, shard: Shard[Utterance]) -> None:
            shard.write_rows("skipped", [...])
            shard.write_sources(count_sources(...))
            write_codes(shard.path, ...)

    with run_folder(config.out, config, "stage1_rvq.embed", inputs=("manifest",)) as output:
        write_shards(
            output, split_into_shards(utterances, 256), "codes_{:05d}.parquet",
            partial(Writer, config), config.workers, description="encode", unit="utterances",
        )
        if config.workers.part:
            return
        num_skipped = join_rows(output.path, "skipped")
        output.record(sources=as_facts(join_sources(output.path, num_shards)))

A shard is complete once the file under its name exists: that file is written last. What a shard
holds depends only on its own items; so whoever writes it, and however often a run is killed and
continued, the bytes are the same. A killed run loses at most the shards it was working on.

In a folder on an object store, the file that completes a shard is put there last, too.

With `--part 2/8` a command writes every eighth shard, into a folder of its own inside `--out`. A
part needs nothing of the others, so that eight processes, eight GPUs or eight jobs of a Slurm array
can share the work. `python -m pipeline.join_parts` makes one folder of them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from commands.atomic_write import remove, written_aside
from commands.json_files import read_json_lines, read_rows
from commands.run_folder import OutputFolder
from commands.shard import Item, Shard, ShardWriter
from commands.sources import Source, SourceOfShard, Sources, known, merge
from commands.workers import WorkerSettings, read_part


def split_into_shards(items: Sequence[Item], size: int) -> dict[int, Sequence[Item]]:
    """Number runs of `size` items, in order; the last may be shorter."""
    return {i: items[i * size : (i + 1) * size] for i in range(-(-len(items) // size))}


def write_shards(
    output: OutputFolder,
    shards: Mapping[int, Sequence[Item]],
    name: str,
    make_writer: Callable[[Path], ShardWriter[Item]],
    workers: WorkerSettings,
    *,
    description: str,
    unit: str,
) -> None:
    """Write the shards that an earlier run has not written, with a progress bar over all items.

    Args:
        output: the command's folder.
        shards: number -> items.
        name: file name of a shard, with a place for its number: "codes_{:05d}.parquet".
        make_writer: loads the models; it is given the folder for files that all shards share. Not
            called if no shard is left to write; with Ray, called in each actor.
        workers: which shards are to be written, and by whom.
        description: what the command does, in a word, for the progress bar.
        unit: what the items are, in the plural: "utterances".

    Raises:
        InputError: what the writer raises; Ray is not installed or cannot be reached.
    """
    part = read_part(workers.part) if workers.part else None
    own = {number: items for number, items in shards.items() if not part or part.has(number)}
    left = {
        number: items
        for number, items in own.items()
        if not (output.path / name.format(number)).exists()
    }
    total, num_left = (sum(map(len, some.values())) for some in (own, left))
    with tqdm(
        total=total, initial=total - num_left, unit=f" {unit}",
        desc=f"{description} {part}" if part else description,
    ) as progress:  # fmt: skip
        if not left:
            return
        if workers.ray:
            from commands.ray_actors import write_with_actors

            write_with_actors(output, left, name, make_writer, workers, progress)
            return
        writer = make_writer(output.path)
        output.record(**writer.facts)
        disk = DiskUse(progress)
        num_done = progress.n
        for number, items in left.items():
            path = output.path / name.format(number)
            writer.write(Shard(number, path, items, progress))
            output.publish(last=path.name)
            num_done += len(items)
            progress.update(num_done - progress.n)
            disk.add(path, len(items))


class DiskUse:
    """Shows, beside a progress bar, how many bytes the rest will take."""

    def __init__(self, progress: "tqdm[Any]") -> None:
        self.progress = progress
        self.num_bytes = 0
        self.num_items = 0

    def add(self, path: Path, num_items: int) -> None:
        """Count a complete shard: the file that completes it, and the tensors beside it."""
        files = {path, path.with_suffix(".safetensors")}
        self.num_bytes += sum(file.stat().st_size for file in files if file.exists())
        self.num_items += num_items
        left = (self.progress.total - self.progress.n) * self.num_bytes / self.num_items
        self.progress.set_postfix_str(f"{left / 1e9:.3g} GB to go")


def join_rows(folder: Path, name: str) -> int:
    """Make one JSON Lines file, such as `skipped.jsonl`, of the rows of all shards, in order; each
    row holds the number of its shard. Then remove the files of the shards.

    Args:
        folder: the command's folder, in which all shards are written.
        name: as in `Shard.write_rows`.

    Returns:
        How many rows it has.
    """
    joined = folder / f"{name}.jsonl"
    files = {int(path.stem.rpartition("_")[2]): path for path in folder.glob(f"{name}_*.jsonl")}
    # Of an earlier attempt, which was killed while it removed the files.
    earlier: dict[int, list[dict[str, Any]]] = {}
    for row in read_json_lines(joined):
        earlier.setdefault(row["shard"], []).append(row)
    num_rows = 0
    with written_aside(joined) as aside, aside.open("w", encoding="utf-8", newline="\n") as file:
        for number in sorted({*files, *earlier}):
            rows = read_json_lines(files[number]) if number in files else earlier[number]
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            num_rows += len(rows)
    for path in files.values():
        remove(path)
    return num_rows


def join_sources(folder: Path, num_shards: int) -> Sources:
    """What a folder was made from: `sources.jsonl`, joined of what all shards have written.

    Args:
        folder: the command's folder, in which all shards are written.
        num_shards: how many; of one that an older version wrote, it is not known.
    """
    join_rows(folder, "sources")
    told: set[int] = set()

    def read() -> Iterator[Source]:
        for source in read_rows(folder / "sources.jsonl", SourceOfShard):
            told.add(source.shard)
            yield source

    sources = merge(read())
    return sources if len(told) == num_shards else merge(sources, known(None))
