"""trl's numbers of each step, in the training log that every stage writes."""

from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from commands.training_log import TrainingLog, refuse_non_finite
from stage3_finetune.data import SpokenDialogues
from stage3_finetune.trainer import SpeechTrainer


class LogSteps(TrainerCallback):
    """Logs the trainer's numbers in the form that every stage uses; a number that is not finite
    ends training before a checkpoint is saved."""

    def __init__(
        self, log: TrainingLog, progress: tqdm, trainer: SpeechTrainer, rows: SpokenDialogues
    ) -> None:
        self.log = log
        self.progress = progress
        self.trainer = trainer
        self.rows = rows

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Called after each step."""
        if logs and "loss" in logs:
            kept = {
                name: logs[name] for name in ("loss", "grad_norm", "learning_rate") if name in logs
            }
            ids = [self.rows.id_of(row) for row in torch.cat(self.trainer.rows_of_step).tolist()]
            self.trainer.rows_of_step.clear()
            named = {f"train {name}": value for name, value in kept.items()}
            refuse_non_finite(state.global_step, ids, **named)
            self.log.log(state.global_step, "train", **kept)
            self.progress.set_postfix(loss=f"{kept['loss']:.3f}", refresh=False)
            self.progress.update()
        # transformers would write all of them again into every checkpoint, with a count of tokens
        # that restarts whenever the run is resumed (trl 1.16).
        state.log_history.clear()
