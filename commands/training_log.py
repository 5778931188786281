"""Training logs: one line per entry in `metrics.jsonl`, and TensorBoard events beside it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from commands.atomic_write import write_errors, write_text
from commands.errors import InputError
from commands.event_file import EventFile
from commands.json_files import read_lines
from commands.schema import check_json

MAX_IDS_SHOWN = 8


def refuse_non_finite(step: int, ids: Sequence[str] = (), **numbers: float) -> None:
    """End training if a number is NaN or infinite, before it spoils weights or is kept as best.

    Args:
        step: steps done, including this one.
        ids: ids of the items in the batch, for the message.
        numbers: by name: loss, gradient norm.

    Raises:
        InputError: one is not finite; checkpoints and the best model so far are kept.
    """
    for name, value in numbers.items():
        if not math.isfinite(value):
            batch = f" (batch: {', '.join(ids[:MAX_IDS_SHOWN])}, ...)" if ids else ""
            raise InputError(
                f"step {step}: {name.replace('_', ' ')} is {value}{batch}: training has diverged. "
                "Start again in a new --out with a lower --learning-rate or more --warmup-steps; "
                "the last checkpoint is from before that"
            )


def training_steps(
    first_step: int, steps: int, description: str, *, is_writer: bool = True
) -> "tqdm[int]":
    """The numbers of the steps still to be done, as a progress bar over all of them.

    Args:
        first_step: steps done before this process began.
        steps: steps of the whole training.
        description: what is trained, in a word.
        is_writer: False in all but the first of several processes: they show no bar.
    """
    return tqdm(
        range(first_step, steps),
        initial=first_step, total=steps, desc=description, disable=not is_writer,
    )  # fmt: skip


class TrainingLog:
    """Append a run's numbers to its logs; used as a context manager.

    After a resume, entries beyond the resumed step are dropped, so that the file reads as if the
    run had never stopped.
    """

    def __init__(self, run: Path, *, first_step: int = 0, is_writer: bool = True) -> None:
        """
        Args:
            run: the run's output folder.
            first_step: steps done before this process began.
            is_writer: False in all but the first of several processes: nothing is then written.
        """
        self.path = run / "metrics.jsonl"
        self.events: EventFile | None = None
        if not is_writer:
            return
        # Steps after the checkpoint are repeated; the last line may have been cut off.
        kept = [line for line in self._lines() if self._step(line) <= first_step]
        if self.path.exists():
            write_text(self.path, b"".join(kept).decode())
        self.events = EventFile(run, first_step=first_step + 1)

    def log(self, step: int, split: str, **numbers: float) -> None:
        """Record numbers of one step under a split's name ("train", "dev").

        Raises:
            InputError: a number is NaN or infinite. This ends training; the earlier checkpoints and
                the best model are kept.
            WriteError: the entry cannot be written.
        """
        refuse_non_finite(step, (), **{f"{split} {name}": value for name, value in numbers.items()})
        if self.events is None:
            return
        line = json.dumps({"step": step, "split": split, **numbers}) + "\n"
        with write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        self.events.write(step, {f"{split}/{name}": value for name, value in numbers.items()})

    def lowest(self, split: str, name: str) -> float:
        """The lowest value logged so far for a number of a split; infinity if there is none."""
        values = [
            entry[name]
            for entry in map(self._entry, self._lines())
            if entry["split"] == split and name in entry
        ]
        return min((value for value in values if isinstance(value, int | float)), default=math.inf)

    def _lines(self) -> list[bytes]:
        """The complete lines of the file, including line endings."""
        if not self.path.exists():
            return []
        return [line for _, line in read_lines(self.path) if line.endswith(b"\n")]

    def _step(self, line: bytes) -> int:
        return int(self._entry(line)["step"])

    def _entry(self, line: bytes) -> dict[str, int | float | str]:
        """A line's numbers by name, with "step" and "split"; InputError if it is damaged."""
        entry = check_json(line, dict[str, int | float | str], where=str(self.path))
        if type(entry.get("step")) is not int or not isinstance(entry.get("split"), str):
            raise InputError(f"{self.path}: an entry without step or split; start again in a new "
                             "--out")  # fmt: skip
        return entry

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *error: object) -> None:
        if self.events is not None:
            self.events.__exit__(*error)
