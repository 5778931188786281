"""What a training run reports: a line per entry in `metrics.jsonl`, and TensorBoard events beside
it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from data_manifests.atomic_write import write_errors, write_text
from data_manifests.errors import InputError
from stage1_rvq.event_file import EventFile

MAX_IDS_SHOWN = 8


def refuse_non_finite(step: int, ids: Sequence[str] = (), **numbers: float) -> None:
    """End training where a number is NaN or infinite, before it spoils weights or is kept as best.

    Args:
        step: steps done, this one included.
        ids: what the batch is made of, for the message.
        numbers: by what they are: loss, gradient norm.

    Raises:
        InputError: one is not finite; checkpoints and the best model so far stay.
    """
    for name, value in numbers.items():
        if not math.isfinite(value):
            batch = f" (batch: {', '.join(ids[:MAX_IDS_SHOWN])}, ...)" if ids else ""
            raise InputError(
                f"step {step}: {name.replace('_', ' ')} is {value}{batch}: training has diverged. "
                "Start again in a new --out with a lower --learning-rate or more --warmup-steps; "
                "the last checkpoint is from before that"
            )


class TrainingLog:
    """Append numbers of a run; used as a context manager.

    After a resume, entries beyond the resumed step are dropped, so that the file reads as if the
    run had never stopped.
    """

    def __init__(self, run: Path, *, first_step: int = 0, is_writer: bool = True) -> None:
        """
        Args:
            run: the run's output folder.
            first_step: steps done before this process began.
            is_writer: off in all but the first of several processes: nothing is then written.
        """
        self.path = run / "metrics.jsonl"
        self.events: EventFile | None = None
        if not is_writer:
            return
        if self.path.exists():
            # The last line may have been cut off in the middle.
            lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
            kept = [line + "\n" for line in lines if json.loads(line)["step"] <= first_step]
            write_text(self.path, "".join(kept))
        self.events = EventFile(run, first_step=first_step + 1)

    def log(self, step: int, split: str, **numbers: float) -> None:
        """Record numbers of one step under a split's name ("train", "dev").

        Raises:
            InputError: a number is NaN or infinite. Training ends with that; the checkpoints and
                the best model before it stay.
            WriteError: the machine refuses.
        """
        refuse_non_finite(step, (), **{f"{split} {name}": value for name, value in numbers.items()})
        if self.events is None:
            return
        line = json.dumps({"step": step, "split": split, **numbers}) + "\n"
        with write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        self.events.write(step, {f"{split}/{name}": value for name, value in numbers.items()})

    def lowest(self, split: str, name: str) -> float:
        """The lowest value of a number logged so far under a split; infinity where there is
        none."""
        if not self.path.exists():
            return math.inf
        entries = map(json.loads, self.path.read_text(encoding="utf-8").split("\n")[:-1])
        return min(
            (e[name] for e in entries if e["split"] == split and name in e), default=math.inf
        )

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.events is not None:
            self.events.__exit__(kind, error, traceback)
