"""trl's trainer as stage 3 uses it: complete checkpoints, our log, nothing hidden.

trainer = build_trainer(config, model, rows, tokenizer, device=device, dtype=dtype)
trainer.add_callback(LogSteps(log, progress, trainer, rows))
trainer.train(resume_from_checkpoint=checkpoint)

checkpoints/step_000500/adapter_model.safetensors    the adapter, in peft's format
                        adapter_config.json
                        optimizer.pt, scheduler.pt   as transformers writes and reads them
                        rng_state.pth, trainer_state.json
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from commands.atomic_write import ASIDE_SUFFIX, remove, remove_leftovers, take_away, written_aside
from commands.checkpoint import list_checkpoints
from commands.device import accelerate_uses
from commands.errors import InputError
from commands.json_files import read_json
from commands.tensor_files import read_pickled_tensors, refuse_non_finite_weights
from commands.training_log import TrainingLog, refuse_non_finite
from stage3_finetune.data import SpokenDialogues, collate
from stage3_finetune.model import (
    ADAPTER_CONFIG,
    ADAPTER_TENSORS,
    read_adapter_config,
    read_adapter_tensors,
)

if TYPE_CHECKING:
    from stage3_finetune.training_settings import TrainConfig

NUM_KEPT = 2  # checkpoints
ROW = "row"  # in a batch: the numbers of its rows
# What torch and safetensors raise if a file cannot be written.
WRITER_ERRORS = (SafetensorError, RuntimeError)


class SpeechTrainer(SFTTrainer):
    """trl's trainer, but each checkpoint is either complete or absent.

    transformers 5.23 writes `checkpoint-N` in place, file by file: a run that dies meanwhile cannot
    be resumed, or silently goes on without the optimizer's state.

    Attributes:
        rows_of_step: numbers of the rows that this process has seen since the last step was logged.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.rows_of_step: list[Tensor] = []

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any) -> Tensor:
        """Take note of a batch's rows, then do as trl does."""
        self.rows_of_step.append(inputs.pop(ROW))
        return super().training_step(model, inputs, *arguments)

    def find_newest_checkpoint(self) -> Path | None:
        """The checkpoint to resume from, None if there is none yet; unfinished ones that a killed
        process left are removed.

        Raises:
            InputError: it cannot be read, or belongs to another model.
        """
        run = Path(self.args.output_dir).parent
        if self.args.should_save:
            remove_leftovers(run)
            keep_newest(run)
        self.accelerator.wait_for_everyone()
        checkpoints = list_checkpoints(run)
        if not checkpoints:
            return None
        newest = checkpoints[-1]
        read_adapter_config(newest)
        read_adapter_tensors(newest, self.model)
        for name in ("optimizer.pt", "scheduler.pt"):
            read_pickled_tensors(newest / name)
        read_json(newest / "trainer_state.json")
        is_alone = self.args.world_size == 1
        random = f"rng_state{'' if is_alone else f'_{self.args.process_index}'}.pth"
        if not (newest / random).is_file():
            raise InputError(
                f"{newest} has no {random}: resume with as many processes as the run began with"
            )
        return newest

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint under a temporary name and rename it; then delete all but the newest.

        trl 1.16 also uses this hook of transformers. Everything it calls writes into
        `args.output_dir`, which is therefore set to another folder meanwhile. Each of several
        processes adds the state of its random numbers; the first writes the rest.
        """
        step = self.state.global_step
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        refuse_non_finite_weights(trained, where=f"step {step}")
        folder, is_writer = Path(self.args.output_dir), self.args.should_save
        staging = folder / f"staging{ASIDE_SUFFIX}"
        whole = folder / f"step_{step:06d}"
        writing = (
            written_aside(whole, raised_by_writer=WRITER_ERRORS)
            if is_writer
            else contextlib.nullcontext(staging)
        )
        try:
            self.args.output_dir = str(staging)
            with writing as aside:
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if is_writer:
                    os.replace(staging / f"checkpoint-{step}", aside)
        finally:
            self.args.output_dir = str(folder)
            if is_writer:
                remove(staging)
        if is_writer:
            keep_newest(folder.parent)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        """Save only the adapter: transformers would add the tokenizer, which is the base model's,
        and its own settings as a pickle."""
        self.model.save_pretrained(
            output_dir or self.args.output_dir,
            state_dict=state_dict,
            is_main_process=self.args.should_save,
        )


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


def build_trainer(
    config: "TrainConfig",
    model: nn.Module,
    rows: SpokenDialogues,
    tokenizer: PreTrainedTokenizerBase,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> SpeechTrainer:
    """Build the trainer of a run.

    Args:
        model: Gemma, taking embeddings; LoRA is added, initialised from torch's global generator.
    """
    pad_id = tokenizer.pad_token_id
    # The loss is trl's. With this flag it is given the number of labels in a whole optimizer step
    # and divides by it, which Gemma 4's own loss could not. Otherwise it would average over forward
    # passes, and the answers of a pass with few labels would count more.
    model.accepts_loss_kwargs = True  # type: ignore[assignment]

    def collate_rows(batch: list[dict[str, int]]) -> dict[str, Tensor]:
        numbers = [item[ROW] for item in batch]
        return {ROW: torch.tensor(numbers), **collate([rows[n] for n in numbers], pad_id)}

    trainer = SpeechTrainer(
        model=model,
        args=arguments_for_device(config, device, dtype),
        # trl expects a table; ours holds row numbers, and rows are encoded when they are batched.
        train_dataset=Dataset.from_dict({ROW: range(len(rows))}),
        data_collator=collate_rows,
        processing_class=tokenizer,
        peft_config=config.lora.adapter(),
    )
    trainer.remove_callback(PrinterCallback)  # replaces transformers' disabled progress bar
    return trainer


def arguments_for_device(
    config: "TrainConfig", device: torch.device, dtype: torch.dtype
) -> SFTConfig:
    """The run's settings as trl takes them, with this device and no other.

    In a single process, transformers 5.23 would take GPU 0, and all others that are visible for
    DataParallel, which trl 1.16 refuses.
    """
    with accelerate_uses(device):
        arguments = _training_arguments(config, device, dtype)
    arguments.__dict__["_setup_devices"] = device  # a cached property
    arguments._n_gpu = 0 if device.type == "cpu" else 1
    if device.type in ("cuda", "xpu"):
        torch.get_device_module(device).set_device(device)  # transformers has set GPU 0
    return arguments


def _training_arguments(
    config: "TrainConfig", device: torch.device, dtype: torch.dtype
) -> SFTConfig:
    """The run's settings as trl takes them."""
    return SFTConfig(
        # Absolute: transformers would take a "~" in it for the user's home.
        output_dir=str(config.out.absolute() / "checkpoints"),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.schedule.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.schedule.warmup_steps,
        max_grad_norm=1.0,
        bf16=dtype == torch.bfloat16,
        use_cpu=device.type == "cpu",
        activation_checkpointing=config.gradient_checkpointing,
        # Reentrant checkpointing gives wrong gradients where layers share keys and values
        # (Gemma 4 E2B and E4B, transformers 5.23): equal loss, gradients off by up to 87 %.
        activation_checkpointing_kwargs={"use_reentrant": False},
        save_steps=config.save_every,
        # SpeechTrainer deletes old checkpoints: transformers would ignore a failed deletion and
        # leave half a checkpoint under its name.
        save_total_limit=None,
        logging_steps=1,
        logging_strategy="steps",
        # transformers would replace a NaN loss by the mean of earlier ones, and train on.
        logging_nan_inf_filter=False,
        report_to=[],
        # Its progress bar writes every number to stdout, and stays open if training ends with
        # an error, whose message would follow on the same line. LogSteps has its own bar.
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
        # Rows are encoded and labelled by us; trl must not touch, cut or pack them.
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        dataloader_pin_memory=device.type == "cuda",
    )


def keep_newest(run: Path) -> None:
    """Delete all but the newest two checkpoints of a run."""
    for old in list_checkpoints(run)[:-NUM_KEPT]:
        take_away(old)


def copy_adapter(checkpoint: Path, adapter: Path) -> None:
    """Copy the adapter of a run's last checkpoint to its own folder, unless it is there already."""
    if adapter.exists():
        return
    with written_aside(adapter) as aside:
        aside.mkdir()
        for name in (ADAPTER_CONFIG, ADAPTER_TENSORS):
            shutil.copyfile(checkpoint / name, aside / name)
