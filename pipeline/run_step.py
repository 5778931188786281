"""Run one step of a recipe: in a process of its own, or on several devices.

run_step(step, 8, Path("runs/cv/logs"))

On several devices a command that walks a corpus writes its parts side by side, which are then
joined, and a training runs in as many processes, as one. Every other command uses one device.
"""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from commands.errors import InputError
from commands.finished_folder import flag_to_use_again
from commands.workers import SHARDED, Part
from pipeline.steps import Step

TRAININGS = (
    "stage1_rvq.train_recognizer", "stage1_rvq.train", "stage2_speechless.train",
    "stage3_finetune.train", "speech_head.train",
)  # fmt: skip
JOIN = "pipeline.join_parts"


class StepFailed(Exception):
    """A command ended with an exit code that is not 0."""

    def __init__(self, line: str, exit_code: int, log: Path | None) -> None:
        where = f", its output is in {log}" if log else ""
        super().__init__(f"ended with exit code {exit_code}{where}: {line}")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Process:
    """One process of a step.

    Attributes:
        words: of its command line, behind the interpreter.
        device: number of the GPU that it sees; None for all.
    """

    words: tuple[str, ...]
    device: int | None = None

    @property
    def line(self) -> str:
        """As it would be typed."""
        visible = "" if self.device is None else f"CUDA_VISIBLE_DEVICES={self.device} "
        return f"{visible}python {shlex.join(self.words)}"


def processes_of(step: Step, devices: int) -> list[list[Process]]:
    """The processes of a step: those of an inner list run side by side, one list after another.

    A step that was begun before goes on where it stopped.
    """
    words = ("-m", step.command, *step.words_to_go_on())
    if devices == 1 or step.command not in (*SHARDED, *TRAININGS) or step.out is None:
        return [[Process(words)]]
    if step.command in TRAININGS:
        together = ("--standalone", "--nproc-per-node", str(devices))
        return [[Process(("-m", "torch.distributed.run", *together, *words))]]
    join = [Process(("-m", JOIN, "--out", str(step.out)))]
    if (step.out / "config.json").exists():  # joining has begun
        return [join]
    parts = [Part(number, devices) for number in range(1, devices + 1)]
    return [[_writer(step, part) for part in parts], join]


def _writer(step: Step, part: Part) -> Process:
    """The process that writes a part, on a GPU of its own."""
    assert step.out is not None
    folder = step.out / part.folder_name
    again = [flag_to_use_again(folder)] if (folder / "config.json").exists() else []
    words = ("-m", step.command, *step.words, "--part", str(part), *again)
    return Process(words, part.number - 1 if torch.cuda.device_count() else None)


def refuse_too_few_gpus(devices: int) -> None:
    """Raise InputError where there are GPUs, but fewer than asked for."""
    if 0 < (found := torch.cuda.device_count()) < devices:
        raise InputError(f"--devices {devices}: this machine shows {found} GPU(s)")


def run_step(step: Step, devices: int, logs: Path) -> str:
    """Run a step; its progress is shown, of several processes that of the first.

    Args:
        devices: how many GPUs, or on a CPU how many processes.
        logs: folder for what the other processes say.

    Returns:
        What the command printed.

    Raises:
        StepFailed: a process failed; those beside it have come to their own ends.
    """
    printed = ""
    for together in processes_of(step, devices):
        printed = _run_together(together, logs)
    return printed


def _run_together(processes: Sequence[Process], logs: Path) -> str:
    with contextlib.ExitStack() as stack:
        running = []
        for number, process in enumerate(processes):
            log = None
            if number:
                logs.mkdir(parents=True, exist_ok=True)
                log = logs / f"{process.words[1]}_{number + 1}_of_{len(processes)}.txt"
            running.append((process, log, stack.enter_context(_started(process, log))))
        printed, _ = running[0][2].communicate()
        codes = [started.wait() for _, _, started in running]
        for (process, log, _), code in zip(running, codes, strict=True):
            if code:
                raise StepFailed(process.line, code, log)
    return printed.decode("utf-8", errors="replace")


@contextlib.contextmanager
def _started(process: Process, log: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process; at the end of the block it is over, by force if it has to be."""
    environment = dict(os.environ)
    if process.device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = str(process.device)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(log.open("wb")) if log else None
        started = subprocess.Popen(
            [sys.executable, *process.words], env=environment, stdin=subprocess.DEVNULL,
            stdout=file or subprocess.PIPE, stderr=file,
        )  # fmt: skip
        try:
            yield started
        finally:
            if started.poll() is None:
                started.terminate()
            started.wait()
