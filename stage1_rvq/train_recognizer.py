"""Train the CTC recogniser on cached embeddings and their transcripts.

    python -m stage1_rvq.train_recognizer --embeddings data/cv-embeddings/train \
        --dev-embeddings data/cv-embeddings/dev --out runs/recognizer

It learns on noisy embeddings, since it is to read those that codes stand for, and those of speech
that models made. `runs/recognizer/model` is the checkpoint with the lowest CER on dev (the last one
if there is no dev). Several processes (`accelerate launch`) train as one, but for rounding and for
dropout: what it drops is drawn in each process.
"""

# B utterances, T frames (25 per second), D width of a frame

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from torch import Tensor

from commands.atomic_write import write_text
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, describe_machine, pick_device, seed_step
from commands.errors import InputError
from commands.launchers import join_processes
from commands.origins import refuse_mixture
from commands.processes import processes_of, shared_run_folder
from commands.seeds import derive_seed
from commands.setting_types import (
    LayerWidth,
    NonNegativeFloat,
    NumLayers,
    PositiveInt,
    Seed,
)
from commands.sources import RECOGNIZER, as_facts, refuse_licenses, used_for
from commands.training import Training
from commands.training_settings import InputSettings, ScheduleSettings
from data_manifests.error_rates import ErrorRates, compute_error_rates
from data_manifests.language import language
from stage1_rvq.bucketed_batches import BucketedBatches
from stage1_rvq.data import EmbeddingFolder, pad_frames
from stage1_rvq.frame_noise import with_noise
from stage1_rvq.recognizer import CTCRecognizer, RecognizerConfig, ctc_loss, find_usable
from stage1_rvq.text_units import train_units


@dataclass(frozen=True, kw_only=True)
class ShapeSettings:
    """Shape of the model."""

    num_units: PositiveInt = 512
    """size of the vocabulary of text units, none longer than a syllable"""
    width: LayerWidth = 512
    """width of each LSTM direction"""
    num_layers: NumLayers = 2
    """LSTM layers"""


@dataclass(frozen=True, kw_only=True)
class TrainRecognizerConfig:
    """Train the CTC recogniser that turns speech embeddings into Twi text."""

    embeddings: Path
    """folder written by stage1_rvq.embed, with transcripts"""
    out: Path
    """new folder for this run"""
    dev_embeddings: Path | None = None
    """embeddings of the dev split: the checkpoint with the lowest CER on it is kept"""
    shape: ShapeSettings = ShapeSettings()
    steps: PositiveInt = 20_000
    """optimizer steps"""
    batch_size: PositiveInt = 32
    """utterances per step and process"""
    noise: NonNegativeFloat = 0.6
    """RMS of the noise that is added to the embeddings in training, relative to theirs: an amount
    between 0 and this, drawn for each utterance"""
    schedule: ScheduleSettings = ScheduleSettings(learning_rate=1e-3, warmup_steps=500)
    save_every: PositiveInt = 1000
    """steps between checkpoints, and between measurements on dev"""
    seed: Seed = 0
    """seed for weights, batches and dropout"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    inputs: InputSettings = InputSettings()
    resume: bool = False
    """continue from the newest checkpoint"""


def main(argv: list[str] | None = None) -> None:
    """Train the recogniser; prints the run's folder."""
    config = parse_config(TrainRecognizerConfig, argv)
    embeddings = EmbeddingFolder(config.embeddings)
    dev = None
    if config.dev_embeddings:
        dev = EmbeddingFolder(config.dev_embeddings, flag="--dev-embeddings")
    refuse_mixture(
        {part.name: part.origin for part in (embeddings, dev) if part},
        allowed=config.inputs.allow_mixture,
    )
    refuse_licenses({embeddings.name: embeddings.sources}, config.inputs.allow_licenses)
    device = pick_device(config.device)
    accelerator = join_processes(device)
    processes = processes_of(accelerator.device)
    units = train_units(embeddings.table.texts("text"), config.shape.num_units)
    usable_N = find_usable(embeddings, units)
    if not len(usable_N):
        raise InputError(f"--embeddings {config.embeddings}: no utterance with a usable transcript")
    processes.refuse_idle(len(usable_N), "--embeddings")
    dropped = len(embeddings.utterances) - len(usable_N)
    if dropped and processes.is_first:
        print(f"{dropped} utterances left out: more text than their frames hold", file=sys.stderr)
    inputs = ("embeddings", "dev_embeddings")
    with shared_run_folder(
        processes, config.out, config, "stage1_rvq.train_recognizer", inputs=inputs,
        per_process=(("batch_size",),),
    ) as output:  # fmt: skip
        if output.is_done:
            return
        output.record(
            **describe_machine(device, "float32"), num_processes=processes.count,
            num_utterances=len(usable_N), num_left_out=dropped,
            sources=as_facts(used_for(embeddings.sources, RECOGNIZER)),
        )  # fmt: skip
        _train(config, embeddings, usable_N, units, dev, accelerator)
        if output.is_writer:
            write_text(config.out / "units.json", units.to_str(pretty=True))


def _train(
    config: TrainRecognizerConfig,
    embeddings: EmbeddingFolder,
    usable_N: Tensor,
    units: Tokenizer,
    dev: EmbeddingFolder | None,
    accelerator: Accelerator,
) -> None:
    recognizer = _build(config, embeddings, units).to(accelerator.device)
    optimizer = torch.optim.AdamW(
        recognizer.parameters(), lr=config.schedule.learning_rate, weight_decay=0.01
    )
    training = Training(
        accelerator, config.out, recognizer, optimizer, config.schedule,
        steps=config.steps, save_every=config.save_every,
    )  # fmt: skip
    processes = training.processes
    batches = BucketedBatches(
        embeddings.num_frames_N[usable_N.numpy()], config.batch_size * processes.count, config.seed
    )
    with training:
        for step in training.progress("recognizer"):
            seed_step(config.seed, step, processes.rank)  # dropout
            picks = usable_N[batches.at_step(step)].tolist()
            batch = [embeddings.utterances[i] for i in processes.own(picks)]
            frames = [
                with_noise(
                    embeddings.read(utterance), recognizer.frame_scale_D, config.noise,
                    seed=derive_seed(config.seed, "noise", step, utterance.id),
                )
                for utterance in batch
            ]  # fmt: skip
            loss = _loss(training.model, frames, [u.text for u in batch], units)
            loss = processes.share([1] * len(picks)) * loss
            training.update(loss, {"loss": loss.item()}, [u.id for u in batch])
            if training.is_due:
                metrics = None
                if dev:
                    rates = read_embeddings(recognizer.eval(), dev)
                    metrics = {"wer": rates.wer, "cer": rates.cer}
                training.keep_best(metrics, judged_by="cer")
                training.save()


def _build(
    config: TrainRecognizerConfig, embeddings: EmbeddingFolder, units: Tokenizer
) -> CTCRecognizer:
    seed_step(config.seed, -1)
    recognizer = CTCRecognizer(
        RecognizerConfig(
            embeddings.dim,
            units.get_vocab_size(),
            config.shape.width,
            config.shape.num_layers,
            tower=embeddings.origin.tower,
            sources=used_for(embeddings.sources, RECOGNIZER),
            normalization=language().normalization,
        )
    )
    recognizer.frame_scale_D.copy_(embeddings.metric.frame_scale_D)
    recognizer.units = units
    return recognizer


def read_embeddings(recognizer: CTCRecognizer, embeddings: EmbeddingFolder) -> ErrorRates:
    """The recogniser's error rates on a folder of cached embeddings."""
    return compute_error_rates(
        [u.text for u in embeddings.utterances],
        recognizer.transcribe([embeddings.read(u) for u in embeddings.utterances]),
    )


def _loss(
    model: torch.nn.Module, frames: Sequence[Tensor], texts: Sequence[str], units: Tokenizer
) -> Tensor:
    frames_BTD, mask_BT = pad_frames(frames)
    lengths_B = mask_BT.sum(dim=1)
    device = next(model.parameters()).device
    log_probs_BTV = model(frames_BTD.to(device), lengths_B)
    return ctc_loss(log_probs_BTV, lengths_B, texts, units)


if __name__ == "__main__":
    run_command(main)
