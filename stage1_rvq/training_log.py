"""What a training run reports: a line per entry in `metrics.jsonl`, and TensorBoard events beside
it."""

import json
import math
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from data_manifests.artifact import write_text


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
        self.events: SummaryWriter | None = None
        if not is_writer:
            return
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [
                line
                for line in lines
                if line.endswith("\n") and json.loads(line)["step"] <= first_step
            ]
            write_text(self.path, "".join(kept))
        self.events = SummaryWriter(str(run), purge_step=first_step + 1)

    def log(self, step: int, split: str, **numbers: float) -> None:
        """Record numbers of one step under a split's name ("train", "dev")."""
        if self.events is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split, **numbers}) + "\n")
        for name, value in numbers.items():
            self.events.add_scalar(f"{split}/{name}", value, step)

    def lowest(self, split: str, name: str) -> float:
        """The lowest value of a number logged so far under a split; infinity where there is
        none."""
        if not self.path.exists():
            return math.inf
        entries = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
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
            self.events.close()
