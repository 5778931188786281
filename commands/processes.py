"""Several processes as one run: the same batches, sums and random draws as one process has.

    accelerator = join_processes(device, dtype)
    processes = processes_of(accelerator.device)
    with shared_run_folder(processes, config.out, ...):
        for step in ...:
            seed_step(seed, step)                           # the same draws in every process,
            hidden = draw(len(batch))                       # for the whole batch,
            mine = processes.own(batch), processes.own(hidden)      # of which each takes its part
            loss = model(mine, shares)                      # its mean counts by its share
            numbers = processes.mean(loss.as_numbers())     # those of the whole batch

One process with `--batch-size 2B` and two with `--batch-size B` have the same losses and weights,
but for rounding. Dropout inside layers is the exception: its draws are another in each process.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from commands.checkpoint import resume_from_latest
from commands.errors import InputError, PartnerEnded
from commands.run_folder import OutputFolder, run_folder

PARTNER = "another process of this run has ended; its own message says why"

CPU = torch.device("cpu")

Value = TypeVar("Value")
Batch = TypeVar("Batch", Tensor, Sequence[Any])


@dataclass(frozen=True)
class Shares:
    """What the means of this process count for in those of the whole batch, times the number of
    processes: 1 where it is alone. The mean over the processes of a mean times its share is the
    mean of the whole batch, and so are the gradients that DistributedDataParallel averages.

    Attributes:
        frames: share of the batch's frames.
        drawn: share of the frames that were drawn for the code-frame decoder.
        utterances: share of the utterances.
        tokens: share of the text tokens.
    """

    frames: float = 1.0
    drawn: float = 1.0
    utterances: float = 1.0
    tokens: float = 1.0


ALONE = Shares()


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and which of them this is.

    Attributes:
        rank: number of this process.
        count: number of processes.
        device: where this one computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        """Whether this is the process that measures, saves and logs."""
        return self.rank == 0

    def own(self, batch: Batch) -> Batch:
        """The items of a batch that are this process's: every `count`-th, so that a batch sorted
        by length is shared out evenly."""
        return batch[self.rank :: self.count]

    def share(self, sizes: Sequence[int]) -> float:
        """This process's share of a batch, times the number of processes.

        Args:
            sizes: of all items of the batch: what a mean is taken over.
        """
        return sum(self.own(sizes)) * self.count / sum(sizes)

    def mean(self, numbers: dict[str, float]) -> dict[str, float]:
        """The mean of each number over the processes; NaN in one of them is NaN in all."""
        if self.count == 1:
            return numbers
        values = torch.tensor(list(numbers.values()), device=self.device)
        torch.distributed.all_reduce(values)
        return dict(zip(numbers, (values / self.count).tolist(), strict=True))

    def from_first(self, value: Value) -> Value:
        """What the first process has for a value."""
        if self.count == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, device=self.device)
        return values[0]

    def refuse_idle(self, num_items: int, flag: str) -> None:
        """Raise InputError if a batch cannot have an item for every process."""
        if num_items < self.count:
            raise InputError(
                f"{flag} holds {num_items} usable utterances, fewer than the {self.count} "
                "processes of this run: start fewer processes"
            )


def processes_of(device: torch.device) -> Processes:
    """The processes that were joined, or this one alone."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return Processes(device=device)
    return Processes(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)


@contextlib.contextmanager
def shared_run_folder(
    processes: Processes,
    out: Path,
    config: Any,
    command: str,
    *,
    inputs: Iterable[str],
    per_process: Iterable[Sequence[str]],
) -> Iterator[OutputFolder]:
    """`run_folder` of all processes: the first makes it, then the others go on, and all end
    together.

    Args:
        processes: those of the run.
        out, config, command, inputs, per_process: as for `run_folder`.

    Raises:
        InputError: as there, in the first process.
        PartnerEnded: another process has ended too soon. A launcher ends the rest when one fails;
            gloo notices it itself.
    """
    with contextlib.ExitStack() as stack:
        folder = OutputFolder(out, is_done=False, is_writer=False)
        if processes.is_first:
            try:
                folder = stack.enter_context(
                    run_folder(out, config, command, inputs=inputs, per_process=per_process)
                )
            except BaseException:
                processes.from_first(None)  # the others wait for it
                raise
        with _partners_may_end(processes):
            is_done = processes.from_first(folder.is_done)
            if is_done is None:
                raise PartnerEnded(f"process {processes.rank}: {PARTNER}")
            yield dataclasses.replace(folder, is_done=is_done)
            if processes.count > 1:  # the first may still measure and save
                torch.distributed.barrier()


@contextlib.contextmanager
def _partners_may_end(processes: Processes) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        is_of_group = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if processes.count == 1 or not is_of_group:
            raise
        raise PartnerEnded(f"process {processes.rank}: {PARTNER}") from None


def resume_together(
    processes: Processes,
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    """`resume_from_latest` in every process, whatever number of them saved the checkpoint.

    Raises:
        InputError: as there, or a process does not see what the first one sees.
    """
    done = resume_from_latest(run, model, optimizer, schedule, is_writer=processes.is_first)
    first = processes.from_first(done)
    if done != first:
        raise InputError(
            f"--out {run}: process {processes.rank} sees step {done}, the first one step {first}: "
            "it must be on a file system that all machines share"
        )
    return done
