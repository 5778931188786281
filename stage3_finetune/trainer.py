"""trl's trainer as stage 3 uses it: complete checkpoints, our log, nothing hidden.

trainer = build_trainer(config, model, rows, tokenizer, device=device, dtype=dtype)
trainer.add_callback(LogSteps(log, progress, trainer, rows))
trainer.train(resume_from_checkpoint=checkpoint)

checkpoints/step_000500/adapter_model.safetensors    the adapter, in peft's format
                        adapter_config.json
                        optimizer.pt, scheduler.pt   as transformers writes and reads them
                        rng_state.pth, trainer_state.json

A single process draws LoRA's dropout from one stream, whose state is saved; several draw it from
the numbers of step and process, and what transformers saves of theirs (`rng_state_0.pth`) is not
needed.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from peft import set_peft_model_state_dict
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
)
from trl import SFTTrainer

from commands.atomic_write import (
    ASIDE_SUFFIX,
    remove,
    remove_leftovers,
    written_aside,
)
from commands.checkpoint import list_checkpoints
from commands.json_files import read_json
from commands.processes import processes_of
from commands.seeds import derive_seed
from commands.tensor_files import read_pickled_tensors, refuse_non_finite_weights
from stage3_finetune.adapter_files import keep_newest
from stage3_finetune.data import SpokenDialogues, collate
from stage3_finetune.dialogue import NO_LABEL
from stage3_finetune.model import (
    read_adapter_config,
    read_adapter_tensors,
)
from stage3_finetune.row_order import RowsByLength
from stage3_finetune.sharding import shard_on_cpus, share_out, trained_weights, whole_state
from stage3_finetune.trainer_arguments import arguments_for_device

if TYPE_CHECKING:
    from stage3_finetune.training_settings import TrainConfig

ROW = "row"  # in a batch: the numbers of its rows
OPTIMIZER, SCHEDULE = "optimizer.pt", "scheduler.pt"  # as transformers names them
# What torch and safetensors raise if a file cannot be written.
WRITER_ERRORS = (SafetensorError, RuntimeError)


class SpeechTrainer(SFTTrainer):
    """trl's trainer, but each checkpoint is either complete or absent.

    transformers 5.23 writes `checkpoint-N` in place, file by file: a run that dies meanwhile cannot
    be resumed, or silently goes on without the optimizer's state.

    Several processes train as one, but for rounding and LoRA's dropout, whose draws are another in
    each process: every process goes through the batches of the whole run, and takes its rows of
    each. A checkpoint is the same whatever number of processes wrote it, or will read it.

    Attributes:
        rows_of_step: numbers of the rows that this process has seen since the last step was logged.
    """

    def __init__(self, *arguments: Any, lengths: Sequence[int], **settings: Any) -> None:
        """As trl's, with about how many positions each row takes."""
        self.lengths = lengths
        super().__init__(*arguments, **settings)
        self.rows_of_step: list[Tensor] = []

    def create_accelerator_and_postprocess(self) -> None:
        """As transformers does; on CPUs with FSDP, too."""
        super().create_accelerator_and_postprocess()
        shard_on_cpus(self.accelerator)
        self.is_fsdp_enabled = self.accelerator.distributed_type == DistributedType.FSDP

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches of all processes together, those of a step similar in length;
        `build_trainer` collates this process's rows.

        accelerate would hand whole batches to each process in turn: other batches than a single
        process has. transformers' own grouping by length takes another order after a resumption.
        """
        num_processes = self.args.world_size
        batch_size = self._train_batch_size * num_processes
        of_step = batch_size * self.args.gradient_accumulation_steps
        order = RowsByLength(self.lengths, of_step, self.args.data_seed)
        loader = self._get_dataloader(
            self.train_dataset,
            "Training",
            batch_size,
            lambda dataset: order,
            is_training=True,
        )
        if num_processes > 1:
            batches = loader.batch_sampler
            batches.num_processes, batches.process_index, batches.even_batches = 1, 0, False
        return loader

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any) -> Tensor:
        """Take note of a batch's rows, then do as trl does."""
        self.rows_of_step.append(inputs.pop(ROW))
        if self.args.world_size > 1:  # not the same dropout for the rows of every process
            done = (self.state.global_step, len(self.rows_of_step))
            seed = derive_seed(self.args.seed, *done, self.args.process_index)
            torch.manual_seed(seed)
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
        tensors = read_adapter_tensors(newest, self.model)
        for name in (OPTIMIZER, SCHEDULE):
            read_pickled_tensors(newest / name)
        read_json(newest / "trainer_state.json")
        if self.is_fsdp_enabled:  # transformers would load it into weights that are sharded
            set_peft_model_state_dict(self.model, tensors)
        return newest

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        if not self.is_fsdp_enabled:  # else `find_newest_checkpoint` has done it
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = read_pickled_tensors(Path(checkpoint) / OPTIMIZER)
        self.optimizer.load_state_dict(share_out(state, self.optimizer))
        self.lr_scheduler.load_state_dict(read_pickled_tensors(Path(checkpoint) / SCHEDULE))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint under a temporary name and rename it; then delete all but the newest.

        trl 1.16 also uses this hook of transformers. Everything it calls writes into
        `args.output_dir`, which is therefore set to another folder meanwhile. Each of several
        processes adds the state of its random numbers; the first writes the rest.
        """
        step = self.state.global_step
        refuse_non_finite_weights(trained_weights(self.model).items(), where=f"step {step}")
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

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As transformers does, but of a sharded model only the adapter is put together."""
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        weights = trained_weights(self.model)
        if self.args.should_save:
            self._save(output_dir, weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole_state(self.optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULE)

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

    arguments = arguments_for_device(config, device, dtype)
    processes = processes_of(device)

    def collate_rows(batch: list[dict[str, int]]) -> dict[str, Tensor]:
        numbers = [item[ROW] for item in batch]
        own = processes.own(numbers)
        collated = collate([rows[number] for number in own or numbers[:1]], pad_id)
        if not own:  # the epoch's last batch has fewer rows than there are processes
            collated["labels"] = torch.full_like(collated["labels"], NO_LABEL)
        return {ROW: torch.tensor(own), **collated}

    trainer = SpeechTrainer(
        model=model,
        args=arguments,
        # trl expects a table; ours holds row numbers, and rows are encoded when they are batched.
        train_dataset=Dataset.from_dict({ROW: range(len(rows))}),
        data_collator=collate_rows,
        lengths=rows.lengths(),
        processing_class=tokenizer,
        peft_config=config.lora.adapter(),
    )
    trainer.remove_callback(PrinterCallback)  # replaces transformers' disabled progress bar
    return trainer
