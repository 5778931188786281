"""Build manifests from a corpus of millions of recordings and check them: time and memory.

    python -m benchmarks.large_manifest --rows 50_000 500_000 5_000_000

For each number of rows it makes a corpus in the layout of Common Voice: sentences of words drawn
from 4,000, one speaker for 60 rows, and empty recordings (links to a few files), since `build`
takes their durations from `clip_durations.tsv`. Then it runs `data_manifests.build` and, on the
training manifest, `data_manifests.check --no-decode`, each in a process of its own, and prints a
row for each. The corpus is removed at the end: five million rows take 6 GB.

Some file systems search a folder name by name (ext4 without `dir_index`), and with millions of
names in `clips/` that takes longer than all the rest. `--clips` puts it elsewhere, such as into a
folder in memory: `mount -t tmpfs -o nr_inodes=0 tmpfs FOLDER`.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from tqdm import tqdm

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.setting_types import PositiveInts, Seed

ROOT = Path(__file__).resolve().parents[1]
NUM_WORDS = 4_000
WORDS_PER_SENTENCE = (4, 14)
ROWS_PER_SPEAKER = 60
CHARACTERS_PER_S = 12.0
LINKS_PER_FILE = 60_000  # ext4 allows 65,000
COLUMNS = ("client_id", "path", "sentence", "up_votes", "down_votes", "accents", "variant")
# Not from `getrusage`: that peak is inherited from the process that started this one.
MEASURE = """
import importlib, json, re, sys, time
from pathlib import Path
command, *words = sys.argv[1:]
began = time.monotonic()
importlib.import_module(command).main(words)
seconds, cpu_seconds = time.monotonic() - began, time.process_time()
(peak_kib,) = re.findall(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())
peak_mb = int(peak_kib) * 1024 / 1e6
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb}))
"""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Run build and check on large corpora, and print what they take in time and memory."""

    rows: PositiveInts = (50_000, 500_000)
    """numbers of rows, each a corpus of its own"""
    folder: Path | None = None
    """existing folder in which the corpora are made; where not given the system's temporary one"""
    clips: Path | None = None
    """existing folder in which their recordings are made; where not given in the corpora"""
    seed: Seed = 0
    """of the sentences"""


@dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes:
        seconds: from its first line to its last, as a clock on the wall shows.
        cpu_seconds: of the processor's time, on which other programs have little influence.
        peak_mb: memory at its peak, libraries included, in 10**6 bytes.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float


def main(argv: list[str] | None = None) -> None:
    """Measure; prints a row for each command and number of rows."""
    config = parse_config(BenchmarkConfig, argv)
    if not Path("/proc/self/status").exists():
        raise InputError("memory at its peak can be read only on Linux")
    for flag, named in (("--folder", config.folder), ("--clips", config.clips)):
        if named is not None and not named.is_dir():
            raise InputError(f"{flag} {named}: no such folder")
    print(
        f"{'command':<8}{'rows':>12}{'seconds':>10}{'CPU s':>9}{'rows a second':>16}{'peak MB':>10}"
    )
    for num_rows in config.rows:
        with (
            tempfile.TemporaryDirectory(dir=config.folder) as temporary,
            tempfile.TemporaryDirectory(dir=config.clips or temporary) as clips,
        ):
            folder = Path(temporary)
            write_corpus(folder / "tw", Path(clips), num_rows, seed=config.seed)
            words = ["--corpus", f"common_voice={folder / 'tw'}", "--out", str(folder / "out")]
            _print_row("build", num_rows, _measure("data_manifests.build", *words))
            manifest = folder / "out" / "train.jsonl"
            with manifest.open("rb") as file:
                num_trained = sum(1 for _ in file)
            words = ["--manifest", str(manifest), "--no-decode", "--out", str(folder / "check")]
            _print_row("check", num_trained, _measure("data_manifests.check", *words))


def write_corpus(folder: Path, clips: Path, num_rows: int, *, seed: int) -> None:
    """Make a corpus in the layout of Common Voice, with its empty recordings in another folder."""
    folder.mkdir()
    (folder / "clips").symlink_to(clips.absolute())
    with (
        (folder / "validated.tsv").open("w", encoding="utf-8") as table,
        (folder / "clip_durations.tsv").open("w", encoding="utf-8") as durations,
    ):
        table.write("\t".join(COLUMNS) + "\n")
        durations.write("clip\tduration[ms]\n")
        sentences = _sentences(random.Random(seed))
        linked = ""
        for number in tqdm(range(num_rows), desc="corpus", unit=" recordings"):
            name, sentence = f"common_voice_tw_{number:08d}.mp3", next(sentences)
            speaker = f"{number // ROWS_PER_SPEAKER:0128x}"
            table.write(f"{speaker}\t{name}\t{sentence}\t2\t0\t\t\n")
            durations.write(f"{name}\t{round(1000 * len(sentence) / CHARACTERS_PER_S)}\n")
            path = f"{clips}/{name}"
            if number % LINKS_PER_FILE == 0:
                linked = path
                os.close(os.open(path, os.O_CREAT))
            else:
                os.link(linked, path)


def _sentences(rng: random.Random) -> Iterator[str]:
    """Sentences of made-up words, common ones more often."""
    syllables = [c + v for c in ("", *"bdfghkmnprstwy") for v in "aeɛioɔu"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(NUM_WORDS)]
    weights = list(accumulate(1 / (rank + 10) for rank in range(NUM_WORDS)))
    while True:
        drawn = rng.choices(words, cum_weights=weights, k=rng.randint(*WORDS_PER_SENTENCE))
        yield " ".join(drawn).capitalize() + rng.choice(".?!")


def _measure(command: str, *words: str) -> Measured:
    """Run a command to its end; its progress goes to stderr."""
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, command, *words],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return Measured(**json.loads(process.stdout.splitlines()[-1]))


def _print_row(command: str, num_rows: int, measured: Measured) -> None:
    rows_a_second = num_rows / measured.seconds
    print(
        f"{command:<8}{num_rows:>12,}{measured.seconds:>10.1f}{measured.cpu_seconds:>9.1f}{rows_a_second:>16,.0f}"
        f"{measured.peak_mb:>10,.0f}",
        flush=True,
    )


if __name__ == "__main__":
    run_command(main)
