"""Models, codes and caches, damaged file by file, given to every command that reads them.

Half of the damaged run folders are sealed again, with a `done` that lists the files as they are
now: otherwise its hashes would answer for every reader.
"""

import random
import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import safe_open

from commands.run_folder import OutputFolder
from tests.attacks.codes_damage import CODES
from tests.attacks.damage import ANY_FILE, JSON_LINES, Damage, json_damages, swap_with
from tests.attacks.folder_damage import FOLDER_DAMAGES
from tests.attacks.harness import Case
from tests.attacks.readers import INPUTS, Input, Reader, are_there
from tests.attacks.tensor_damage import TENSORS

KIND = "checkpoints"
BY_SUFFIX = {".safetensors": TENSORS, ".parquet": CODES, ".jsonl": JSON_LINES}


def cases(world: Path, seed: int, count: int) -> list[Case]:
    """Cases drawn over all inputs, readers, files and damages.

    Args:
        world: made by `world.py`.
        seed: of what is drawn.
        count: how many.
    """
    rng = random.Random(f"{seed} {KIND}")
    # In turn from each input, so that all come early.
    queues = []
    for input_ in (input_ for input_ in INPUTS if (world / input_.folder).exists()):
        queue = list(_all_cases(world, input_))
        rng.shuffle(queue)
        queues.append(queue)
    drawn: list[Case] = []
    while len(drawn) < count and any(queues):
        drawn += [queue.pop() for queue in queues if queue]
    return drawn[:count]


def _all_cases(world: Path, input_: Input) -> Iterator[Case]:
    source = world / input_.folder
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    for reader in input_.readers:
        if not are_there(world, reader.words):
            continue
        for path in paths:
            name = str(path.relative_to(source))
            is_read = any(fnmatchcase(name, pattern) for pattern in reader.files)
            others = sorted(world.glob(f"*/{name}")) if is_read else []
            swaps = [swap_with(other) for other in others if other != path]
            for damage in [*damages_of(path), *swaps] if is_read or name == "done" else ():
                for seals in (True, False) if input_.is_sealed and name != "done" else (False,):
                    yield _case(world, input_, reader, name, damage, seals=seals)
        for damage in FOLDER_DAMAGES:
            # An empty folder is no unfinished run: --resume begins there.
            if input_.is_sealed or damage.name == "a file":
                yield _case(world, input_, reader, ".", damage, seals=False)


def damages_of(path: Path) -> Iterator[Damage]:
    """All ways to damage this file."""
    yield from ANY_FILE
    if path.suffix == ".json" or path.name == "done":
        yield from json_damages(path)
    yield from BY_SUFFIX.get(path.suffix, ())


def _case(
    world: Path, input_: Input, reader: Reader, name: str, damage: Damage, *, seals: bool
) -> Case:
    source = world / input_.folder

    def make(folder: Path, rng: random.Random) -> None:
        shutil.copytree(source, folder / "input", symlinks=True)
        damage.do(folder / "input" / name, rng)
        if seals:
            (folder / "input" / "done").unlink()
            OutputFolder(folder / "input", is_done=True).finish()

    def check(folder: Path) -> str:
        damaged = folder / "input" / name
        if damage.must_refuse and (seals or name != "done"):
            return "was accepted"
        if input_.is_sealed and not seals and name not in ("done", "."):
            listed = (source / name).read_bytes()
            if not damaged.is_file() or damaged.read_bytes() != listed:
                return "was accepted, though 'done' lists another file"
        return find_spoilt(folder)

    words = [w.replace("{world}", str(world)).replace("{input}", "input") for w in reader.words]
    how = "sealed" if seals else "as it is"
    return Case(
        KIND, f"{input_.folder}/{name} {damage.name}, {how}, for {reader.command}"
        f" {' '.join(reader.words[:3])}",
        reader.command, tuple(words), make, check, mentions=MENTIONS,
    )  # fmt: skip


# A refusal names the folder, one of its files, or the flag that named it.
MENTIONS = r"input|--|checkpoint|resume"


def find_spoilt(folder: Path) -> str:
    """What is wrong with what a command wrote: a model or cache that holds NaN; "" where nothing
    is."""
    for path in sorted((folder / "out").rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    return f"{path.relative_to(folder)}: {name} is not finite"
    for path in sorted((folder / "out").rglob("*.json")):
        if "NaN" in path.read_text(encoding="utf-8"):
            return f"{path.relative_to(folder)} holds NaN"
    return ""
