"""Fine-tune Gemma 4 with LoRA on spoken dialogues made of codes.

    python -m stage3_finetune.train --dialogues data/spoken-dialogues --rvq runs/rvq \
        --gemma google/gemma-4-E4B-it --out runs/finetune

The adapter is `runs/finetune/adapter` (peft's format). trl's `SFTTrainer` holds the loop; runs
unchanged under `accelerate launch`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from data_manifests.artifact import create_output
from data_manifests.config import parse_config, run_command
from data_manifests.setting_types import (
    ModelName,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Probability,
    Seed,
)
from stage1_rvq.codes import code_format
from stage1_rvq.device import DtypeName, describe_machine, pick_device, pick_dtype, seed_step
from stage1_rvq.gemma import load_gemma, load_tokenizer
from stage1_rvq.model import load_rvq
from stage1_rvq.training_log import TrainingLog
from stage1_rvq.weight_quantization import QuantizeName
from stage3_finetune.data import SpokenDialogues, TaskMixture, collate, read_spoken_dialogues
from stage3_finetune.dialogue import Target, render_example
from stage3_finetune.memory import GIB, load_gemma_config, peak_memory, plan_memory
from stage3_finetune.model import accept_embeddings, lora_config


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Fine-tune Gemma 4 with LoRA to answer speech, on spoken dialogues made of codes."""

    dialogues: Path
    """folder written by stage3_finetune.speak_dialogues"""
    rvq: ModelName
    """quantiser the dialogues' codes were made for: folder of stage1_rvq.train, or hub name"""
    out: Path
    """new folder for this run"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of an instruction-tuned Gemma 4 (E2B, E4B)"""
    target: Target = "chain"
    """chain: write the transcript, a line break, the answer; direct: the answer alone"""
    transcribe_share: NonNegativeFloat = 0.2
    """transcription rows for every answering row"""
    typed_share: NonNegativeFloat = 0.2
    """typed rows for every answering row, so that typed chat is not unlearned"""
    lora_rank: PositiveInt = 32
    """rank of the LoRA matrices"""
    lora_alpha: PositiveInt = 64
    """scale of the LoRA matrices"""
    lora_dropout: Probability = 0.05
    """dropout before the LoRA matrices"""
    train_embed_audio: bool = False
    """also train, in full, the linear map that leads speech into the decoder"""
    steps: PositiveInt = 2000
    """optimizer steps"""
    batch_size: PositiveInt = 4
    """rows per forward pass and process"""
    accumulate: PositiveInt = 4
    """forward passes per optimizer step"""
    learning_rate: NonNegativeFloat = 2e-4
    """peak learning rate"""
    warmup_steps: NonNegativeInt = 50
    """steps of linear warm-up"""
    gradient_checkpointing: bool = True
    """recompute activations in the backward pass: slower, and far less memory"""
    save_every: PositiveInt = 250
    """steps between checkpoints"""
    seed: Seed = 0
    """of LoRA's start, the mixture, batches and dropout"""
    device: str = "auto"
    """auto, cpu, cuda"""
    dtype: DtypeName = "auto"
    """precision of the frozen weights: bfloat16 on CUDA, float32 elsewhere"""
    quantize: QuantizeName = "none"
    """8bit or 4bit: train the adapter on a decoder loaded so (QLoRA; needs bitsandbytes)"""
    resume: bool = False
    """continue from the newest checkpoint"""

    def __post_init__(self) -> None:
        for name in ("transcribe_share", "typed_share"):
            if getattr(self, name) < 0:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} must not be negative, got {getattr(self, name)}")


def main(argv: list[str] | None = None) -> None:
    """Fine-tune; prints the run's folder."""
    # Heavy to import, and not needed for --help.
    from trl import SFTConfig, SFTTrainer

    config = parse_config(TrainConfig, argv)
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    rvq = load_rvq(config.rvq, device=torch.device("cpu"))
    dialogues = list(read_spoken_dialogues(config.dialogues, code_format(rvq.config)))
    tokenizer = load_tokenizer(config.gemma)
    rows = SpokenDialogues(
        dialogues,
        tokenizer,
        rvq.decode,
        target=config.target,
        mixture=TaskMixture(config.transcribe_share, config.typed_share),
        seed=config.seed,
    )
    plan = plan_memory(
        load_gemma_config(config.gemma), rank=config.lora_rank, dtype=dtype,
        train_embed_audio=config.train_embed_audio,
        batch_size=config.batch_size, num_tokens=rows.longest(),
        gradient_checkpointing=config.gradient_checkpointing, quantize=config.quantize,
    )  # fmt: skip
    print(plan.as_table(), file=sys.stderr)
    base, _ = load_gemma(config.gemma, device=device, dtype=dtype, quantize=config.quantize)
    model = accept_embeddings(base)
    # The loss is trl's, which divides by the labels of a whole optimizer step where it is told how
    # many; Gemma 4's own could not. Untold, it would average over forward passes, and the answers
    # of a pass with few labels would count more.
    model.accepts_loss_kwargs = True
    output = create_output(
        config.out,
        config,
        command="stage3_finetune.train",
        inputs={"dialogues": config.dialogues, "rvq": config.rvq, "gemma": config.gemma},
        resume=config.resume,
    )
    if output.is_done:
        print(config.out)
        return
    num_spoken = sum(turn.spoken for dialogue in dialogues for turn in dialogue.turns)
    output.record(
        **describe_machine(device, dtype), quantize=config.quantize,
        num_dialogues=len(dialogues),
        spoken_turns={"generated_codes": num_spoken, "recordings": 0},
        chat_template_example=render_example(tokenizer),
    )  # fmt: skip
    seed_step(config.seed, -1)  # LoRA's random start
    pad_id = tokenizer.pad_token_id

    def collate_rows(batch: list[dict[str, int]]) -> dict[str, Tensor]:
        return collate([rows[item["row"]] for item in batch], pad_id)

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(config.out / "checkpoints"),
            max_steps=config.steps,
            per_device_train_batch_size=config.batch_size,
            gradient_accumulation_steps=config.accumulate,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=config.warmup_steps,
            max_grad_norm=1.0,
            bf16=dtype == torch.bfloat16,
            use_cpu=device.type == "cpu",
            activation_checkpointing=config.gradient_checkpointing,
            # Reentrant checkpointing gives wrong gradients where layers share keys and values
            # (Gemma 4 E2B and E4B, transformers 5.23): equal loss, gradients off by up to 87 %.
            activation_checkpointing_kwargs={"use_reentrant": False},
            save_steps=config.save_every,
            save_total_limit=2,
            logging_steps=1,
            logging_strategy="steps",
            report_to=[],
            seed=config.seed,
            data_seed=config.seed,
            # Rows are encoded and labelled by us; trl must not touch, cut or pack them.
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            packing=False,
            dataloader_pin_memory=device.type == "cuda",
        ),
        # trl wants a table; ours holds row numbers, and rows are encoded when they are batched.
        train_dataset=Dataset.from_dict({"row": range(len(rows))}),
        data_collator=collate_rows,
        processing_class=tokenizer,
        peft_config=lora_config(
            config.lora_rank,
            config.lora_alpha,
            config.lora_dropout,
            train_embed_audio=config.train_embed_audio,
        ),
    )
    checkpoint = _last_checkpoint(config.out) if config.resume else None
    first_step = int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0
    is_writer = trainer.is_world_process_zero()
    with TrainingLog(config.out, first_step=first_step, is_writer=is_writer) as log:
        trainer.add_callback(_LogSteps(log))
        trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        trainer.model.save_pretrained(config.out / "adapter")
        peak = peak_memory(device)
        output.record(memory_planned_gib=plan.total / GIB, memory_peak_gib=peak / GIB)
        output.finish()
        of = "tensors" if device.type == "cuda" else "the whole process, libraries included"
        print(
            f"{len(rows)} rows, {plan.num_trained:,} weights; memory: {plan.total / GIB:.2f} GiB "
            f"planned, {peak / GIB:.2f} GiB at most ({of})",
            file=sys.stderr,
        )
        print(config.out)


class _LogSteps(TrainerCallback):
    """The Trainer's numbers, in the form every stage logs them."""

    def __init__(self, log: TrainingLog) -> None:
        self.log = log

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            kept = {
                name: logs[name] for name in ("loss", "grad_norm", "learning_rate") if name in logs
            }
            self.log.log(state.global_step, "train", **kept)


def _last_checkpoint(run: Path) -> str | None:
    folder = run / "checkpoints"
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


if __name__ == "__main__":
    run_command(main)
