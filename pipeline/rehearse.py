"""Run every command that you will run, once, at Gemma 4's true size: what it takes, and whether it
holds.

    python -m pipeline.rehearse --size E2B --out runs/rehearsal
    python -m pipeline.rehearse --gemma google/gemma-4-E4B-it --mimi kyutai/mimi --out runs/e4b

Without `--gemma` it first draws a checkpoint with the published figures (`gemma4.draw_checkpoint`),
so nothing is downloaded. The corpus is a miniature, and trainings take two steps: nothing is
learned. Prints a line for each command, and a table: seconds, memory at its peak beside what was
planned, disk. Exit code 1 where a command fails, writes numbers that are not finite, or takes more
memory than was planned. What a command prints is in `logs/`. If it is run again, it continues where
it stopped, and tries again what failed.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import MimiConfig

from commands.atomic_write import write_json, written_aside
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, pick_device
from commands.errors import InputError
from commands.json_files import read_json
from commands.setting_types import ModelName, PositiveFloat
from data_manifests.manifest import read_manifest
from gemma4.gemma import FRAME_RATE_HZ
from gemma4.memory_plan import GIB
from pipeline.rehearsal import RehearsalFolders, Size, planned_memory, rehearsal_steps
from pipeline.rehearsal_corpus import write_corpus
from pipeline.steps import Step
from speech_head.mimi import random_mimi, tiny_mimi
from stage1_rvq.config import RVQConfig
from stage1_rvq.model import MIN_FRAMES_PER_CODE

# Beyond the plan, which counts large models only, a command may take so much.
MARGIN, MARGIN_BYTES = 1.25, int(1.5 * GIB)
POLL_SECONDS = 0.1
# A process between ours and the command's: Linux counts the memory of whoever starts a process as
# its own, and this one has little.
WAIT_FOR = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
with open(sys.argv[1], "w") as file:
    file.write(f"{os.waitstatus_to_exitcode(status)} {usage.ru_maxrss}")
"""


@dataclass(frozen=True, kw_only=True)
class RehearseConfig:
    """Run every command once on models of true size, and measure time, memory and disk."""

    out: Path
    """folder for everything; E2B needs 22 GB of disk, E4B 34"""
    size: Size = "E2B"
    """size of the Gemma to draw: E2B needs 16 GB of memory on a CPU, E4B 24; tiny tests the
    rehearsal itself"""
    gemma: ModelName | None = None
    """Gemma 4 to rehearse with instead (hub name or folder)"""
    mimi: ModelName | None = None
    """Mimi to rehearse with; without it, one with random weights"""
    manifest: Path | None = None
    """manifest of recordings to rehearse with; without it, sounds are made"""
    minutes: PositiveFloat = 1.0
    """minutes of speech for training; 28 allow codebooks of full size"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """precision of the whole Gemma; stage 1 hears in float32 whatever this says"""


@dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes:
        command: its dotted name.
        seconds: from its start to its end.
        host_bytes: peak memory of its process.
        device_bytes: peak memory in use on the GPU, beyond what was in use before; 0 on a CPU.
        planned_bytes: memory planned for it, on the GPU where there is one.
        disk_bytes: size of what it wrote.
        fault: what is wrong; "" if nothing is.
    """

    command: str
    seconds: float
    host_bytes: int
    device_bytes: int
    planned_bytes: int
    disk_bytes: int
    fault: str

    def as_row(self) -> str:
        """A line of the table."""
        memory = self.device_bytes or self.host_bytes
        return (
            f"{self.command:<33}{self.seconds:>8.0f}{self.host_bytes / GIB:>8.1f}"
            f"{memory / GIB:>9.1f}{self.planned_bytes / GIB:>9.1f}{self.disk_bytes / 1e9:>8.2f}"
            f"  {self.fault or 'ok'}"
        )


HEADER = (
    f"{'command':<33}{'seconds':>8}{'host':>8}{'memory':>9}{'planned':>9}{'disk':>8}\n"
    f"{'':<33}{'':>8}{'GiB':>8}{'GiB':>9}{'GiB':>9}{'GB':>8}"
)

Run = Callable[[list[str], Path, Path | None], tuple[int, int]]


def main(argv: list[str] | None = None, *, run: Run | None = None) -> None:
    """Rehearse; prints the table, and exits with 1 where something is wrong."""
    config = parse_config(RehearseConfig, argv)
    device = pick_device(config.device)
    steps = prepare(config)
    dtype_bytes = 4 if config.dtype == "float32" else 2
    results_path = config.out / "results.json"
    done: dict[str, Any] = read_json(results_path) if results_path.exists() else {}
    for number, step in enumerate(steps, start=1):
        print(f"[{number}/{len(steps)}] {step.line}", file=sys.stderr, flush=True)
        if (before := done.get(step.line)) and not before["fault"]:
            continue
        measured = measure(step, config.out / "logs" / f"{number:02d}", device, dtype_bytes, run)
        print(measured.as_row(), file=sys.stderr, flush=True)
        done[step.line] = asdict(measured)
        write_json(results_path, done)
    rows = [Measured(**done[step.line]) for step in steps]
    print("\n".join([HEADER, *(row.as_row() for row in rows)]))
    num_good = sum(not row.fault for row in rows)
    minutes = sum(row.seconds for row in rows) / 60
    print(f"{num_good} of {len(rows)} commands passed in {minutes:.0f} minutes")
    sys.exit(num_good < len(rows))


def prepare(config: RehearseConfig) -> list[Step]:
    """Write what no command makes, a corpus and a codec, and list the commands.

    Raises:
        InputError: too few recordings, or the folder was begun with other settings.
    """
    settings = {k: str(v) for k, v in asdict(config).items() if k not in ("out", "device")}
    settings_path = config.out / "settings.json"
    if settings_path.exists() and read_json(settings_path) != settings:
        raise InputError(f"--out {config.out} was begun with other settings; use another folder")
    corpus = config.out / "corpus"
    mimi = config.out / "mimi"
    if not (corpus / "typed.txt").exists():
        write_corpus(corpus, minutes=config.minutes, manifest=config.manifest)
    if not config.mimi and not mimi.exists():
        model = tiny_mimi() if config.size == "tiny" else random_mimi(MimiConfig())
        with written_aside(mimi) as aside:
            model.save_pretrained(aside)
    write_json(settings_path, settings)
    first = next(iter(read_manifest(corpus / "dev.jsonl")))
    seconds = sum(u.duration_s for u in read_manifest(corpus / "train.jsonl"))
    largest = max(2, int(seconds * FRAME_RATE_HZ) // MIN_FRAMES_PER_CODE)
    return rehearsal_steps(
        RehearsalFolders(
            out=config.out,
            gemma=config.gemma or str(config.out / "gemma" / "model"),
            mimi=config.mimi or str(mimi),
            corpus=corpus,
        ),
        size=None if config.gemma else config.size,
        codebook_size=min(RVQConfig.codebook_size, 2 ** (largest.bit_length() - 1)),
        question=first.text,
        recording=first.audio,
        device=config.device,
        dtype=config.dtype,
    )


def measure(
    step: Step, log: Path, device: torch.device, dtype_bytes: int, run: Run | None = None
) -> Measured:
    """Run a command in a process of its own, with its output in a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with peak_of_device(device) as device_bytes:
        code, host_bytes = (run or run_process)(
            [step.command, *step.words_to_go_on()], log, step.typed
        )
    seconds = time.monotonic() - started
    planned = planned_memory(step, dtype_bytes)
    memory = device_bytes[0] or host_bytes
    disk_bytes = size_of(step.out) if step.out else 0
    fault = ""
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        fault = f"exit code {code}: {lines[-1] if lines else ''}"
    elif path := find_non_finite(step.out):
        fault = f"{path} holds a number that is not finite"
    elif memory > MARGIN * planned + MARGIN_BYTES:
        fault = "took more memory than planned"
    return Measured(step.command, seconds, host_bytes, device_bytes[0], planned, disk_bytes, fault)


def run_process(words: list[str], log: Path, typed: Path | None = None) -> tuple[int, int]:
    """Run `python -m` with these words, and a file in place of what is typed; returns its exit code
    and peak memory in bytes."""
    figures = log.with_suffix(".figures")
    line = [sys.executable, "-m", *words]
    with log.open("wb") as file, Path(typed or os.devnull).open("rb") as keyboard:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WAIT_FOR, str(figures), *line],
            stdin=keyboard, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if not figures.exists():  # it was killed as well
        return process.returncode or 1, 0
    code, peak = (int(figure) for figure in figures.read_text(encoding="utf-8").split())
    figures.unlink()
    return code, peak * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def peak_of_device(device: torch.device) -> Iterator[list[int]]:
    """A list of one number: the most memory in use on a GPU inside the block, by whatever process,
    beyond what was in use before it; 0 on other devices."""
    peak = [0]
    if device.type != "cuda":
        yield peak
        return

    def in_use() -> int:
        free, total = torch.cuda.mem_get_info(device)
        return total - free

    before, is_over = in_use(), threading.Event()

    def watch() -> None:
        while not is_over.wait(POLL_SECONDS):
            peak[0] = max(peak[0], in_use() - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        is_over.set()
        thread.join()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def find_non_finite(folder: Path | None) -> Path | None:
    """The first `metrics.json` or `metrics.jsonl` in a folder with a number that is not finite."""
    if folder is None or not folder.is_dir():
        return None
    for path in sorted(folder.glob("metrics.json*")):
        text = path.read_text(encoding="utf-8")
        found: list[str] = []
        for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
            json.loads(part, parse_constant=found.append)  # calls it for NaN and Infinity only
        if found:
            return path
    return None


if __name__ == "__main__":
    run_command(main)
