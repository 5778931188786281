"""Fine-tune Gemma 4 with LoRA on spoken dialogues: made of codes, or recorded.

    python -m stage3_finetune.train --dialogues data/spoken-dialogues --rvq runs/rvq \
        --gemma google/gemma-4-E4B-it --out runs/finetune
    python -m stage3_finetune.train --dialogues data/dialogues/dialogues.jsonl \
        --recordings data/questions/train.jsonl --gemma google/gemma-4-12B-it --out runs/finetune

The adapter is `runs/finetune/adapter` (peft's format). trl's `SFTTrainer` runs the training loop.
Several processes (`accelerate launch`) train as one, but for rounding and for `--lora-dropout`,
whose draws are another in each process; with `--config_file stage3_finetune/fsdp.yaml` they share
Gemma's weights.
"""

import sys
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import sdpa_kernel
from transformers import PreTrainedTokenizerBase

from commands.checkpoint import list_checkpoints
from commands.command_line import parse_config, run_command
from commands.device import describe_machine, pick_device, pick_dtype, seed_step
from commands.launchers import FSDP, is_on, join_group
from commands.origins import combine, refuse_mixture
from commands.processes import processes_of, shared_run_folder
from commands.run_folder import OutputFolder
from commands.sources import as_facts, merge, refuse_licenses
from commands.training_log import TrainingLog, training_steps
from data_manifests.language import language
from gemma4.attention_kernels import TRAINING_KERNELS
from gemma4.base_model import gemma_sources
from gemma4.function_calls import refuse_unable_to_call
from gemma4.gemma import load_gemma, load_tokenizer
from gemma4.memory_plan import GIB, MemoryPlan, load_gemma_config, peak_memory, plan_memory
from gemma4.speech_embeddings import accept_embeddings
from gemma4.speech_encoder import model_origin
from stage3_finetune.data import SpokenDialogues
from stage3_finetune.dialogue import has_text_before_calls, render_example
from stage3_finetune.mixture import TaskMixture
from stage3_finetune.model_card import adapter_card
from stage3_finetune.training_data import TrainingData, load_training_data
from stage3_finetune.training_settings import TrainConfig

if TYPE_CHECKING:
    from stage3_finetune.trainer import SpeechTrainer


def main(argv: list[str] | None = None) -> None:
    """Fine-tune; prints the run's folder."""
    # trl is heavy to import, and not needed for --help.
    from stage3_finetune.adapter_files import copy_adapter
    from stage3_finetune.sharding import refuse_unusable_sharding
    from stage3_finetune.trainer import build_trainer

    config = parse_config(TrainConfig, argv)
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    refuse_unusable_sharding(config.quantize, train_embed_audio=config.lora.train_embed_audio)
    join_group(device)
    processes = processes_of(device)
    data = load_training_data(config, device=device, dtype=dtype, is_first=processes.is_first)
    tokenizer = load_tokenizer(config.gemma)
    if any(dialogue.tools for dialogue in data.dialogues):
        has_text = config.target == "chain" or any(map(has_text_before_calls, data.dialogues))
        refuse_unable_to_call(tokenizer, where="'tools' in --dialogues", has_text=has_text)
    sources = {**data.sources, f"--gemma {config.gemma}": gemma_sources(config.gemma)}
    refuse_licenses(sources, config.inputs.allow_licenses)
    made_from = merge(*sources.values())
    rows = _mix_rows(config, data, tokenizer)
    processes.refuse_idle(len(rows), "--dialogues")
    plan = plan_memory(
        load_gemma_config(config.gemma), adapter=config.lora.adapter(), device=device, dtype=dtype,
        batch_size=config.batch_size, num_tokens=rows.longest(),
        gradient_checkpointing=config.gradient_checkpointing, quantize=config.quantize,
    )  # fmt: skip
    if processes.is_first:
        print(plan.as_table(), file=sys.stderr)
    base, _ = load_gemma(config.gemma, device=device, dtype=dtype, quantize=config.quantize)
    model = accept_embeddings(base)
    origins = {**data.origins, f"--gemma {config.gemma}": model_origin(base)}
    refuse_mixture(origins, allowed=config.inputs.allow_mixture)
    inputs = ("dialogues", "more_dialogues", "recordings", "transcribed", "rvq", "gemma")
    with shared_run_folder(
        processes, config.out, config, "stage3_finetune.train", inputs=inputs,
        per_process=(("batch_size", "accumulate"),),
    ) as output:  # fmt: skip
        if output.is_done:
            return
        calls = data.calls()
        output.record(
            **describe_machine(device, dtype), **combine(*origins.values()).as_facts(),
            num_processes=processes.count, is_sharded=is_on(FSDP),
            quantize=config.quantize,
            normalization=language().normalization,
            num_dialogues=len(data.dialogues), num_recordings=len(data.recordings),
            num_calls=len(calls), called_functions=sorted({call.name for call in calls}),
            sources=as_facts(made_from),
            spoken_turns=data.count_spoken(),
            chat_template_example=render_example(tokenizer),
        )  # fmt: skip
        seed_step(config.seed, -1)  # LoRA's random start
        trainer = build_trainer(config, model, rows, tokenizer, device=device, dtype=dtype)
        _train(config, trainer, rows)
        if output.is_writer:
            card = adapter_card(
                config.gemma, rank=config.lora.lora_rank, steps=config.steps, target=config.target,
                sources=made_from,
            )  # fmt: skip
            copy_adapter(list_checkpoints(config.out)[-1], config.out / "adapter", card)
            _report(output, plan, len(rows), device)


def _mix_rows(
    config: TrainConfig, data: TrainingData, tokenizer: PreTrainedTokenizerBase
) -> SpokenDialogues:
    shares = config.mixture
    mixture = TaskMixture(
        shares.transcribe_share, shares.typed_share, shares.joined_share, shares.max_joined
    )
    return SpokenDialogues(
        data.dialogues, tokenizer, data.hear,
        target=config.target, mixture=mixture, seed=config.seed, recordings=data.recordings,
    )  # fmt: skip


def _report(output: OutputFolder, plan: MemoryPlan, num_rows: int, device: torch.device) -> None:
    """What was planned beside what was needed."""
    peak = peak_memory(device)
    output.record(memory_planned_gib=plan.total / GIB, memory_peak_gib=peak / GIB)
    of = "tensors" if device.type == "cuda" else "the whole process, libraries included"
    print(
        f"{num_rows} rows, {plan.num_trained:,} weights; memory: {plan.total / GIB:.2f} GiB "
        f"planned, {peak / GIB:.2f} GiB at most ({of})",
        file=sys.stderr,
    )


def _train(config: TrainConfig, trainer: "SpeechTrainer", rows: SpokenDialogues) -> None:
    from stage3_finetune.step_log import LogSteps

    newest = trainer.find_newest_checkpoint() if config.resume else None
    first_step = int(newest.name.removeprefix("step_")) if newest else 0
    # If resumed at the last step, transformers would train one more.
    if first_step == config.steps:
        return
    is_writer = trainer.is_world_process_zero()
    with (
        TrainingLog(config.out, first_step=first_step, is_writer=is_writer) as log,
        training_steps(first_step, config.steps, "train", is_writer=is_writer) as progress,
        sdpa_kernel(TRAINING_KERNELS),
    ):
        trainer.add_callback(LogSteps(log, progress, trainer, rows))
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)


if __name__ == "__main__":
    run_command(main)
