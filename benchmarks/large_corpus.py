"""Training Speechless on corpora of 100 to 10,000 hours: start, memory and speed.

    python -m benchmarks.large_corpus --hours 100 1000 --folder runs/large

Corpora of codes are simulated: utterances of 2 to 10 s, texts of Twi words, and random codes, 8 x
256 as in the demo, which no Parquet file can make smaller. They are written as
`stage1_rvq.tokenize_corpus` writes them, in files of 256 utterances, and kept in `--folder`, where
a second call finds them: 10,000 h take 8 GB of Parquet, and 15 GB of the copy that is mapped into
memory. Measured, each in its own process:

    copying   checking the Parquet files and making the copy, once per corpus
    start     `python -m stage2_speechless.train`, from the start of the process to the end of its
              first step, with a model of the demo's size; the copy is there already
    memory    the most that this process has in memory, and without the pages of files, which the
              system takes back when it needs them
    steps     a second, after the first
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.simulated_codes import simulate_codes
from commands.cache_folder import FOLDER_VARIABLE
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.setting_types import PositiveInt, PositiveInts
from pipeline.own_process import in_own_process
from stage2_speechless.corpus import open_corpus
from stage2_speechless.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[1]
# As `make demo` trains it.
MODEL = (
    "--width", "128", "--num-layers", "4", "--num-heads", "4", "--depth-width", "64",
    "--depth-heads", "4", "--dropout", "0", "--batch-size", "16", "--device", "cpu",
)  # fmt: skip
POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure start, memory and speed of stage 2 on simulated corpora of codes."""

    hours: PositiveInts = (10, 100)
    """hours of speech of each corpus"""
    steps: PositiveInt = 100
    """training steps whose speed is measured"""
    folder: Path | None = None
    """folder in which corpora and their copies are kept; default: a temporary one"""


@dataclass(frozen=True)
class Training:
    """What was measured of a training."""

    start_s: float
    steps_a_second: float
    peak_bytes: int
    peak_anonymous_bytes: int


def main(argv: list[str] | None = None) -> None:
    """Measure; prints a row for each corpus."""
    config = parse_config(BenchmarkConfig, argv)
    if not Path("/proc/self/status").exists():
        raise InputError("memory is read from /proc, which this system does not have")
    print(
        f"{'hours':>7}{'utterances':>12}{'Parquet GB':>12}{'copy GB':>9}{'copying s':>11}"
        f"{'start s':>9}{'memory MB':>11}{'without files MB':>18}{'steps a second':>16}"
    )
    with _folder(config.folder) as folder:
        for hours in config.hours:
            codes = simulate_codes(folder / f"codes-{hours}h", hours)
            for copy in _copies(codes):
                copy.unlink()
            copying_s, num_utterances = in_own_process(_time_opening, codes)
            training = measure_training(codes, config.steps)
            copied = sum(copy.stat().st_size for copy in _copies(codes))
            parquet = sum(file.stat().st_size for file in codes.glob("*.parquet"))
            print(
                f"{hours:>7,}{num_utterances:>12,}{parquet / 1e9:>12.2f}{copied / 1e9:>9.2f}"
                f"{copying_s:>11.1f}{training.start_s:>9.1f}{training.peak_bytes / 1e6:>11,.0f}"
                f"{training.peak_anonymous_bytes / 1e6:>18,.0f}{training.steps_a_second:>16.2f}",
                flush=True,
            )


def measure_training(codes: Path, steps: int) -> Training:
    """Run `stage2_speechless.train` on a corpus, and watch its log and its memory."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        log = Path(folder) / "run" / "metrics.jsonl"
        command = [
            sys.executable, "-m", "stage2_speechless.train", "--codes", str(codes), *MODEL,
            "--steps", str(steps + 1), "--warmup-steps", "1", "--out", str(log.parent),
        ]  # fmt: skip
        peak = anonymous = num_logged = 0
        began = first = last = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None:
            with contextlib.suppress(OSError):  # it may have just ended
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, _field(status, "VmHWM"))
                anonymous = max(anonymous, _field(status, "RssAnon"))
            num_now = log.read_bytes().count(b"\n") if log.exists() else 0
            if num_now > num_logged:
                last = time.perf_counter()
                first = first if num_logged else last
                num_logged = num_now
            time.sleep(POLL_S)
        if process.returncode:
            errors.seek(0)
            message = errors.read().decode(errors="replace").strip().splitlines()[-1]
            raise InputError(f"the training ended with code {process.returncode}: {message}")
    return Training(first - began, steps / max(last - first, POLL_S), peak, anonymous)


def _time_opening(codes: Path) -> tuple[float, int]:
    began = time.perf_counter()
    corpus = open_corpus(codes, Vocabulary())
    return time.perf_counter() - began, len(corpus.utterances)


def _copies(codes: Path) -> list[Path]:
    folder = Path(os.environ.get(FOLDER_VARIABLE) or codes.parent)
    return sorted(folder.glob(f"{codes.name}.*.arrow"))


def _field(status: str, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    return 1024 * int(found[1]) if found else 0


@contextlib.contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


if __name__ == "__main__":
    run_command(main)
