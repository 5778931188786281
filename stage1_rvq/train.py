"""Train the residual vector quantiser on cached embeddings.

    python -m stage1_rvq.train --embeddings data/cv-embeddings/train \
        --dev-embeddings data/cv-embeddings/dev --out runs/rvq

`runs/rvq/model` (`SpeechRVQ.from_pretrained`) is the model at the step with the lowest error on
dev: the recogniser's CER with `--recognizer`, else the relative error (without dev, the model at
the last step). Several processes (`accelerate launch`) train as one: the same sums over the frames
of the whole batch, the same draws, the same codes replaced. Nothing differs but rounding.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from commands.command_line import parse_config, run_command
from commands.device import DeviceName, describe_machine, pick_device, seed_step
from commands.errors import InputError
from commands.launchers import join_processes
from commands.origins import refuse_mixture
from commands.processes import processes_of, shared_run_folder
from commands.seeds import derive_seed
from commands.setting_types import (
    CodebookSize,
    NonNegativeFloat,
    NumCodebooks,
    PositiveInt,
    Seed,
)
from commands.sources import QUANTIZER, Sources, as_facts, merge, refuse_licenses, used_for
from commands.training import Training
from commands.training_settings import InputSettings, ScheduleSettings
from stage1_rvq.config import RVQConfig
from stage1_rvq.data import EmbeddingFolder, ShuffledBatches
from stage1_rvq.dev_set import measure_on_dev
from stage1_rvq.joint_codebooks import rows_of
from stage1_rvq.model import MIN_FRAMES_PER_CODE, SpeechRVQ
from stage1_rvq.task_loss import TaskLoss
from stage1_rvq.training_data import describe_training_data


@dataclass(frozen=True, kw_only=True)
class CodebookSettings:
    """Shape of the quantiser, and when a code is given up."""

    num_codebooks: NumCodebooks = 8
    """number of codebooks"""
    codebook_size: CodebookSize = 2048
    """codes per codebook; training needs 20 frames for each code"""
    min_code_usage: NonNegativeFloat = RVQConfig.min_code_usage
    """a code that fewer frames per batch use, on average, is replaced by a frame of the batch; 0
    replaces none"""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """With --recognizer: its loss on quantised speech, which is added to the training loss."""

    task_weight: NonNegativeFloat = 0.1
    """weight of the recogniser's loss"""
    task_utterances: PositiveInt = 16
    """transcribed utterances per step and process"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train the residual vector quantiser on cached embeddings."""

    embeddings: Path
    """folder written by stage1_rvq.embed"""
    out: Path
    """new folder for this run"""
    dev_embeddings: Path | None = None
    """embeddings of the dev split, to measure on while training"""
    recognizer: Path | None = None
    """folder of stage1_rvq.train_recognizer: adds its loss on quantised speech to the training
    loss"""
    task: TaskSettings = TaskSettings()
    codebooks: CodebookSettings = CodebookSettings()
    steps: PositiveInt = 20_000
    """optimizer steps"""
    batch_frames: PositiveInt = 8192
    """frames per step and process (one frame = 40 ms)"""
    schedule: ScheduleSettings = ScheduleSettings(learning_rate=1e-4, warmup_steps=200)
    """with --recognizer: learning rate of the linear maps (codebooks follow by moving average):
    linear warm-up, then a cosine down to 0 at the last step"""
    save_every: PositiveInt = 1000
    """steps between checkpoints, and between measurements on dev"""
    seed: Seed = 0
    """seed for k-means, batches and dropout"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    inputs: InputSettings = InputSettings()
    resume: bool = False
    """continue from the newest checkpoint"""


def main(argv: list[str] | None = None) -> None:
    """Train the quantiser; prints the run's folder."""
    config = parse_config(TrainConfig, argv)
    embeddings = EmbeddingFolder(config.embeddings)
    dev = None
    if config.dev_embeddings:
        dev = EmbeddingFolder(config.dev_embeddings, flag="--dev-embeddings")
    if dev and dev.dim != embeddings.dim:
        raise InputError(f"--dev-embeddings are {dev.dim} wide, --embeddings {embeddings.dim}")
    device = pick_device(config.device)
    accelerator = join_processes(device)
    processes = processes_of(accelerator.device)
    task = None
    if config.recognizer:
        task = TaskLoss(
            config.recognizer,
            embeddings,
            batch_size=config.task.task_utterances * processes.count,
            seed=derive_seed(config.seed, "task"),
            device=accelerator.device,
        )
        processes.refuse_idle(len(task.usable_N), "--embeddings")
    origins = {part.name: part.origin for part in (embeddings, dev) if part}
    if task:
        origins[f"--recognizer {config.recognizer}"] = task.recognizer.origin()
    refuse_mixture(origins, allowed=config.inputs.allow_mixture)
    sources = {embeddings.name: used_for(embeddings.sources, QUANTIZER)}
    if task:
        sources[f"--recognizer {config.recognizer}"] = task.recognizer.made_from()
    refuse_licenses(sources, config.inputs.allow_licenses)
    made_from = merge(*sources.values())
    inputs = ("embeddings", "dev_embeddings", "recognizer")
    with shared_run_folder(
        processes, config.out, config, "stage1_rvq.train", inputs=inputs,
        per_process=(("batch_frames",), *((("task_utterances",),) if task else ())),
    ) as output:  # fmt: skip
        if output.is_done:
            return
        output.record(
            **describe_machine(device, "float32"),
            num_processes=processes.count,
            training_data=asdict(describe_training_data(embeddings)),
            sources=as_facts(made_from),
        )
        _train(config, embeddings, made_from, dev, task, accelerator)


def _train(
    config: TrainConfig,
    embeddings: EmbeddingFolder,
    made_from: Sources,
    dev: EmbeddingFolder | None,
    task: TaskLoss | None,
    accelerator: Accelerator,
) -> None:
    rvq = _build(config, embeddings, made_from).to(accelerator.device)
    # Only the task loss trains the linear maps; codebooks follow by moving average in the forward
    # pass. From reconstruction alone the maps shrink, and held-out error rises (by 3 % in 60 steps,
    # 8 x 256 on 5,120 frames; the same with the codebooks frozen).
    optimizer = torch.optim.AdamW(
        rvq.parameters(), lr=config.schedule.learning_rate, weight_decay=0.0
    )
    training = Training(
        accelerator, config.out, rvq, optimizer, config.schedule,
        steps=config.steps, save_every=config.save_every,
    )  # fmt: skip
    processes = training.processes
    if training.first_step == 0:
        _init_codebooks(config, rvq, embeddings)
    batches = ShuffledBatches(
        embeddings.num_frames, config.batch_frames * processes.count, config.seed
    )
    with training:
        # Step 0 is measured too: k-means alone may be the best quantiser of a small corpus.
        if processes.is_first and training.first_step == 0:
            _keep_best(training, config.out, rvq, dev, task)
        for step in training.progress("rvq"):
            # The same draws in all processes: those of the whole batch.
            seed_step(config.seed, step)
            positions_N = batches.at_step(step)
            utterances = task.utterances(step) if task else []
            rows = rows_of(processes, len(positions_N), [u.num_frames for u in utterances])
            share = len(rows.rows_R) * processes.count / rows.num_frames
            positions_N, mine = processes.own(positions_N), processes.own(utterances)
            frames_ND = embeddings.gather(positions_N.contiguous())
            if task:  # one forward pass for both losses keeps the processes in step
                frames_ND = torch.cat([frames_ND, task.frames(mine)])
            with torch.set_grad_enabled(task is not None):
                loss = training.model(
                    frames_ND.to(accelerator.device), rows if processes.count > 1 else None
                )
            numbers = {name: share * number for name, number in loss.as_numbers().items()}
            if task:
                read = task(mine, loss.decoded_ND[len(positions_N) :])
                read = processes.share([1] * len(utterances)) * read
                total = share * loss.total + config.task.task_weight * read
                numbers |= {"loss": total.item(), "task": read.item()}
                training.update(total, numbers, [u.id for u in mine])
            else:
                training.end_step(numbers)
            if training.is_due:
                _keep_best(training, config.out, rvq, dev, task)
                training.save()


def _build(config: TrainConfig, embeddings: EmbeddingFolder, made_from: Sources) -> SpeechRVQ:
    rvq = SpeechRVQ(
        RVQConfig(
            dim=embeddings.dim,
            num_codebooks=config.codebooks.num_codebooks,
            codebook_size=config.codebooks.codebook_size,
            min_code_usage=config.codebooks.min_code_usage,
            tower=embeddings.origin.tower,
            sources=made_from,
        )
    )
    rvq.set_metric(embeddings.metric)
    return rvq


def _init_codebooks(config: TrainConfig, rvq: SpeechRVQ, embeddings: EmbeddingFolder) -> None:
    """k-means on frames drawn from the whole corpus."""
    seed_step(config.seed, -1)
    seed = derive_seed(config.seed, "kmeans")
    sample_ND = embeddings.sample(4 * MIN_FRAMES_PER_CODE * config.codebooks.codebook_size, seed)
    device = rvq.frame_scale_D.device
    rvq.init_codebooks(sample_ND.to(device), embeddings.metric, seed=seed)


def _keep_best(
    training: Training,
    run: Path,
    rvq: SpeechRVQ,
    dev: EmbeddingFolder | None,
    task: TaskLoss | None,
) -> None:
    metrics = measure_on_dev(rvq, dev, task).as_numbers() if dev else None
    training.keep_best(
        metrics, judged_by="cer" if task else "relative_error", model_card_kwargs={"run": run}
    )


if __name__ == "__main__":
    run_command(main)
