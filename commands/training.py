"""What the training loops of stages 1, 2 and 4 share: the step of the optimizer, and what is kept.

    training = Training(accelerator, config.out, model, optimizer, config.schedule,
                        steps=config.steps, save_every=config.save_every)
    with training:
        for step in training.progress("head"):
            loss = training.model(batch)
            training.update(loss.total, loss.as_numbers(), ids)
            if training.is_due:
                training.keep_best(measure(model), judged_by="cer")
                training.save()

It goes on from the run's newest checkpoint, in one process or several (`processes.py`), and a
number that is not finite ends it before it spoils anything.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from commands.checkpoint import model_written_aside, save_checkpoint
from commands.processes import processes_of, resume_together
from commands.training_log import TrainingLog, refuse_non_finite, training_steps
from commands.training_settings import ScheduleSettings

MAX_GRADIENT_NORM = 1.0


class Training:
    """A model in training, with its optimizer, learning rate, log and checkpoints.

    Attributes:
        processes: those of the run.
        first_step: steps done before this process began.
        model: what the loop calls; within the `with` block, accelerate's.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        run: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: ScheduleSettings,
        *,
        steps: int,
        save_every: int,
    ) -> None:
        """Load the run's newest checkpoint, if there is one, into model and optimizer.

        Args:
            accelerator: from `join_processes`.
            run: the run's output folder.
            model: on the accelerator's device; it can be saved with `save_pretrained`.
            optimizer: of its parameters.
            schedule: learning rate: linear warm-up, then a cosine down to 0 at the last step.
            steps: optimizer steps of the whole training.
            save_every: steps between checkpoints.

        Raises:
            InputError: the checkpoint is damaged or another run's, or a process sees another one.
        """
        self._accelerator = accelerator
        self._run = run
        self.model = self._unwrapped = model
        self._optimizer = optimizer
        self.processes = processes_of(accelerator.device)
        self._num_steps = steps
        self._save_every = save_every
        self._schedule = get_cosine_schedule_with_warmup(optimizer, schedule.warmup_steps, steps)
        self.first_step = self._num_done = resume_together(
            self.processes, run, model, optimizer, self._schedule
        )

    def __enter__(self) -> "Training":
        # The schedule is not prepared: accelerate would step it once per process.
        prepared = self._accelerator.prepare(self.model, self._optimizer)
        self.model, self._optimizer = prepared
        # What is measured before the first step is logged as step 0.
        self._log = TrainingLog(
            self._run, first_step=self.first_step or -1, is_writer=self.processes.is_first
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._log.__exit__(*error)

    def progress(self, description: str) -> Iterator[int]:
        """The numbers of the steps still to be done, from 0, with a bar over all of them.

        Args:
            description: what is trained, in a word.
        """
        self._bar: tqdm[int] = training_steps(
            self.first_step, self._num_steps, description, is_writer=self.processes.is_first
        )
        for step in self._bar:
            self.model.train()
            yield step

    def update(self, loss: Tensor, numbers: dict[str, float], ids: Sequence[str]) -> None:
        """One step of the optimizer, down the gradient of this process's loss.

        Args:
            loss: scalar of this process's part of the batch, times its share.
            numbers: this process's, by name, times their shares: their means are logged.
            ids: of the utterances in this process's part, for the message.

        Raises:
            InputError: loss, gradient or a number is not finite; nothing has been updated.
        """
        self._accelerator.backward(loss)
        norm = clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        means = self.processes.mean(numbers)
        refuse_non_finite(self._num_done + 1, ids, **means, gradient_norm=norm.item())
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        self._report(means)

    def end_step(self, numbers: dict[str, float]) -> None:
        """In place of `update` where a step needs no gradient: log its numbers.

        Args:
            numbers: as for `update`.

        Raises:
            InputError: one is not finite.
        """
        self._report(self.processes.mean(numbers))

    def _report(self, means: dict[str, float]) -> None:
        self._num_done += 1
        self._bar.set_postfix(loss=f"{means['loss']:.4g}")
        self._log.log(self._num_done, "train", **means)

    @property
    def is_due(self) -> bool:
        """Whether this process is to measure and save now."""
        is_last = self._num_done == self._num_steps
        return self.processes.is_first and (is_last or self._num_done % self._save_every == 0)

    def keep_best(
        self, metrics: dict[str, float] | None, *, judged_by: str, **saved_with: Any
    ) -> None:
        """Log what was measured on dev, and save the model to `model/` if it is the best so far.

        Args:
            metrics: by name; None if there is no dev: the newest model is then kept.
            judged_by: the metric of which the lowest is best.
            saved_with: further arguments of `save_pretrained`.

        Raises:
            InputError: a metric is not finite; the best model so far is kept.
        """
        if metrics is not None:
            best_before = self._log.lowest("dev", judged_by)
            self._log.log(self._num_done, "dev", **metrics)
            if metrics[judged_by] >= best_before:
                return
        assert isinstance(self._unwrapped, PyTorchModelHubMixin)
        with model_written_aside(self._run / "model") as aside:
            self._unwrapped.save_pretrained(aside, **saved_with)

    def save(self) -> None:
        """Save a checkpoint from which this run goes on exactly."""
        save_checkpoint(self._run, self._num_done, self._unwrapped, self._optimizer, self._schedule)
