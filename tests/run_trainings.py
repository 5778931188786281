"""Train as one of several processes, or alone: one training after the other, as a test says.

    python -m tests.run_trainings plan.json

The plan is a JSON object: "lines", each a command and its words; and optionally "spoil": what goes
wrong in process 1 at its third step: "nan", "error", or "interrupt", which is Ctrl-C for all.

Layers drop nothing here, also where no flag says so: what they drop differs between processes.
"""

import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

import torch

from commands.command_line import run_command
from commands.errors import InputError
from speech_head import train as head_train
from speech_head.config import SpeechHeadConfig
from speech_head.parallel import ParallelHeadConfig
from stage1_rvq.recognizer import RecognizerConfig


def set_dropout(probability: float) -> None:
    """Of the models whose layers drop something that no flag sets."""
    for config in (RecognizerConfig, SpeechHeadConfig, ParallelHeadConfig):
        constructor = config.__init__
        names = constructor.__code__.co_varnames[1 : constructor.__code__.co_argcount]
        defaults = list(constructor.__defaults__)
        defaults[names.index("dropout") - len(names)] = probability
        constructor.__defaults__ = tuple(defaults)


def spoil_third_step(how: str, folder: Path) -> None:
    """Let something go wrong in this process while it trains a head.

    Args:
        folder: where each process has written down its number in the system.
    """
    collate, steps = head_train.collate, []

    def collate_spoilt(examples):
        steps.append(None)
        batch = collate(examples)
        if len(steps) == 3:
            if how == "error":
                raise InputError("a shard cannot be read")
            if how == "interrupt":
                for path in sorted(folder.glob("process_*")):
                    os.kill(int(path.read_text()), signal.SIGINT)
                time.sleep(60)  # until it has arrived here
            batch.embeddings_BSD.fill_(torch.nan)
        return batch

    head_train.collate = collate_spoilt


def main() -> None:
    path = Path(sys.argv[1])
    plan = json.loads(path.read_text(encoding="utf-8"))
    # A shell lets what it runs in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if how := plan.get("spoil"):
        rank = os.environ["RANK"]
        path.with_name(f"process_{rank}").write_text(str(os.getpid()))
        if rank == "1":
            spoil_third_step(how, path.parent)
    for command, *words in plan["lines"]:
        import_module(command).main(words)


if __name__ == "__main__":
    set_dropout(0.0)
    run_command(main)
