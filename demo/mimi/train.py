"""Train the demo's Mimi from scratch on synthetic Twi: 35 to 45 minutes on one CPU core.

    python -m demo.mimi.train --out runs/train-mimi

`runs/train-mimi/model` is then a stock `MimiModel`; `python -m demo.mimi.evaluate` measures it.
The steps are divided into three phases: encoder and decoder without codebooks; everything, with
codebooks initialised by k-means; the decoder alone, on fixed codebooks.
"""

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from commands.checkpoint import resume_from_latest, save_checkpoint
from commands.command_line import parse_config, run_command
from commands.device import seed_step
from commands.errors import InputError
from commands.json_files import read_json
from commands.run_folder import run_folder
from commands.setting_types import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Seed,
)
from commands.training_log import TrainingLog, training_steps
from demo.mimi.losses import LatentProbes, SpectralLoss
from demo.mimi.metrics import import_stoi, measure_codec
from demo.mimi.model import build_mimi, copy_mimi, save_mimi
from demo.mimi.quantizer import CodebookTrainer
from demo.mimi.speech import Clip, SpeechSegments, held_out_texts, speak_texts, training_texts
from demo.precision import describe_precision, half_precision
from speech_head.mimi import Mimi, reset_codebook_caches

# B utterances, N samples (24,000 per second), F Mimi frames (12.5 per second), T labels (50 per
# second), D latent width, V vectors

LOG_EVERY = 20  # steps, over which the logged numbers are averaged


@dataclass(frozen=True, kw_only=True)
class TrainMimiConfig:
    """Train the demo's tiny Mimi on monotone synthetic Twi."""

    out: Path
    """new folder for this run"""
    steps: PositiveInt = 12_000
    """optimizer steps of all phases together"""
    num_sentences: PositiveInt = 5000
    """Twi sentences to learn from"""
    batch_size: PositiveInt = 4
    """segments per step"""
    segment_frames: PositiveInt = 16
    """frames of 80 ms per segment"""
    learning_rate: NonNegativeFloat = 2e-3
    """peak learning rate"""
    warmup_steps: NonNegativeInt = 100
    """steps of linear warm-up, at the start and when only the decoder is trained further"""
    kmeans_latents: PositiveInt = 12_288
    """frames from which k-means initialises the codebooks"""
    num_dev: PositiveInt = 24
    """utterances of the dev split for evaluation"""
    eval_every: PositiveInt = 1000
    """steps between evaluations"""
    save_every: PositiveInt = 500
    """steps between checkpoints"""
    seed: Seed = 0
    """seed for weight initialisation, speech and segments"""
    resume: bool = False
    """continue from the newest checkpoint"""
    # Shares of the steps without and with codebooks; the rest trains the decoder alone.
    autoencoder_share: ClassVar[float] = 0.2
    codebook_share: ClassVar[float] = 0.55
    # Loss weights of the phoneme probe, the log-mel probe, and the encoder's distance to its codes.
    phoneme_weight: ClassVar[float] = 0.3
    band_weight: ClassVar[float] = 1.0
    commitment_weight: ClassVar[float] = 0.25
    # Decay of the codebooks' moving averages, per step.
    codebook_decay: ClassVar[float] = 0.995
    # Codes used less than this share of the mean usage are reset.
    dead_share: ClassVar[float] = 0.03
    # Share of segments that get only the first few codebooks.
    codebook_dropout: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        if self.steps < 3:
            raise InputError(f"--steps is {self.steps}, expected at least 3: there are 3 phases")

    @property
    def first_codebook_step(self) -> int:
        """The step at which the codebooks are made."""
        return max(1, round(self.steps * self.autoencoder_share))

    @property
    def first_decoder_step(self) -> int:
        """The first step that trains only the decoder."""
        share = self.autoencoder_share + self.codebook_share
        last = self.steps - 1
        return min(last, max(self.first_codebook_step + 1, round(self.steps * share)))


class MimiTraining(nn.Module):
    """Everything a checkpoint holds: the model, and the modules that only training needs."""

    def __init__(self, config: TrainMimiConfig, num_phonemes: int) -> None:
        super().__init__()
        self.mimi = build_mimi()
        self.probes = LatentProbes(
            self.mimi.config.hidden_size, self.mimi.config.codebook_dim, num_phonemes
        )
        self.codebooks = CodebookTrainer(
            self.mimi.quantizer, decay=config.codebook_decay, dead_share=config.dead_share
        )

    def begin_phase(self, step: int, config: TrainMimiConfig) -> None:
        """Enable gradients for the parameters trained at this step, and disable them for others."""
        is_decoder_alone = step >= config.first_decoder_step
        self.requires_grad_(not is_decoder_alone)
        self.mimi.decoder.requires_grad_(True)


def main(argv: list[str] | None = None) -> None:
    """Train; prints the run's folder."""
    config = parse_config(TrainMimiConfig, argv)
    import_stoi()  # fail at once if it is not installed
    with run_folder(config.out, config, "demo.mimi.train") as output:
        if output.is_done:
            return
        segments = SpeechSegments(
            speak_texts(training_texts(config.num_sentences, config.seed), config.seed)
        )
        dev = speak_texts(held_out_texts("dev", config.num_dev), config.seed)
        refuse_other_speech(config, segments)
        output.record(
            dtype=describe_precision(), speech_h=round(segments.duration_s / 3600, 2),
            speech_sha256=segments.sha256, num_phonemes=len(segments.phonemes),
        )  # fmt: skip
        training = _train(config, segments, dev)
        save_mimi(training.mimi, config.out / "model")


def _train(config: TrainMimiConfig, segments: SpeechSegments, dev: list[Clip]) -> MimiTraining:
    seed_step(config.seed, -1)
    training = MimiTraining(config, len(segments.phonemes)).train()
    spectral_loss = SpectralLoss()
    optimizer = torch.optim.AdamW(
        training.parameters(), config.learning_rate, betas=(0.8, 0.99), weight_decay=1e-3,
        fused=True,
    )  # fmt: skip
    schedule = LambdaLR(optimizer, partial(learning_rate_factor, config=config))
    first_step = resume_from_latest(config.out, training, optimizer, schedule)
    reset_codebook_caches(training.mimi)
    with TrainingLog(config.out, first_step=first_step) as log:
        progress = training_steps(first_step, config.steps, "mimi")
        recent: list[dict[str, float]] = []
        for step in progress:
            began_s = time.perf_counter()
            seed_step(config.seed, step)
            training.begin_phase(step, config)
            if step == config.first_codebook_step:
                begin_codebooks(training, segments, config)
            x_BN, labels_BT = segments.draw(config.batch_size, config.segment_frames)
            loss, numbers = compute_loss(training, spectral_loss, x_BN, labels_BT, step, config)
            loss.backward()
            norm = clip_grad_norm_(training.parameters(), 1.0, error_if_nonfinite=True)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            numbers |= {"gradient_norm": norm.item(), "step_s": time.perf_counter() - began_s}
            recent.append(numbers)
            done = step + 1
            is_saved = done % config.save_every == 0 or done == config.steps
            # Also log when saving: a resumed run does not have the numbers of earlier steps.
            if done % LOG_EVERY == 0 or is_saved:
                means = {n: sum(r[n] for r in recent) / len(recent) for n in recent[-1]}
                log.log(done, "train", **means)
                progress.set_postfix(mel=f"{means['mel']:.3f}", phase=numbers["phase"])
                recent = []
            has_codebooks = step >= config.first_codebook_step
            if has_codebooks and (done % config.eval_every == 0 or done == config.steps):
                figures = measure_codec(Mimi(copy_mimi(training.mimi)), dev)
                log.log(done, "dev", **figures.summary())
            if is_saved:
                save_checkpoint(config.out, done, training, optimizer, schedule)
    return training


def refuse_other_speech(config: TrainMimiConfig, segments: SpeechSegments) -> None:
    """Refuse to resume on other speech than the run began with: espeak-ng versions differ."""
    before = read_json(config.out / "provenance.json").get("speech_sha256", segments.sha256)
    if before != segments.sha256:
        raise InputError(
            f"--resume {config.out}: it began with other speech; resume in the environment "
            "that began it (espeak-ng), or name a new folder"
        )


def compute_loss(
    training: MimiTraining,
    spectral_loss: SpectralLoss,
    x_BN: Tensor,
    labels_BT: Tensor,
    step: int,
    config: TrainMimiConfig,
) -> tuple[Tensor, dict[str, float]]:
    """One batch's loss in the phase that the step belongs to, and the numbers to log."""
    mimi, codebooks = training.mimi, training.codebooks
    is_decoder_alone = step >= config.first_decoder_step
    with torch.set_grad_enabled(not is_decoder_alone):
        latents_BDF = encode(mimi, x_BN)
        if step < config.first_codebook_step:
            quantized = codebooks.bypass(latents_BDF)
        else:
            quantized = codebooks.quantize(
                latents_BDF, learn=not is_decoder_alone, dropout=config.codebook_dropout
            )
    with half_precision():
        decoded_BN = mimi.decoder(quantized.latents_BDF).audio_values[:, 0]
    loss, mel = spectral_loss(decoded_BN.float(), x_BN)
    numbers = {"phase": 3.0, "mel": mel.item()}
    if is_decoder_alone:
        return loss, numbers
    phonemes = training.probes.phoneme_loss(quantized.semantic_BCF, labels_BT)
    bands = training.probes.band_loss(quantized.latents_BDF, x_BN)
    loss = loss + config.phoneme_weight * phonemes + config.band_weight * bands
    loss = loss + config.commitment_weight * quantized.commitment
    numbers |= {
        "phase": 1.0 + (step >= config.first_codebook_step),
        "phonemes": phonemes.item(),
        "bands": bands.item(),
        "commitment": quantized.commitment.item(),
        "latent_variance": latents_BDF.detach().var().item(),
        "replaced_codes": float(codebooks.num_replaced),
    }
    codebooks.num_replaced = 0
    return loss, numbers


def encode(mimi: Any, x_BN: Tensor) -> Tensor:
    """Latents of speech, float32, before quantising."""
    with half_precision():
        latents_BDF = mimi.encoder(x_BN[:, None]).latents
    return latents_BDF.float()


@torch.no_grad()
def begin_codebooks(
    training: MimiTraining, segments: SpeechSegments, config: TrainMimiConfig
) -> None:
    """Make the codebooks from the latents of fresh segments."""
    latents, num_latents = [], 0
    while num_latents < config.kmeans_latents:
        x_BN, _ = segments.draw(16, config.segment_frames)
        latents.append(encode(training.mimi, x_BN).transpose(1, 2).flatten(0, 1))
        num_latents += len(latents[-1])
    vectors_per_step = config.batch_size * config.segment_frames
    shares_left = training.codebooks.begin(torch.cat(latents), vectors_per_step)
    tqdm.write("variance left by each codebook: " + " ".join(f"{s:.3f}" for s in shares_left))


def learning_rate_factor(step: int, config: TrainMimiConfig) -> float:
    """Cosine from 1 to 0.2 over the first two phases, from 0.5 to 0.01 over the decoder's."""
    begin, end, high, low = 0, config.first_decoder_step, 1.0, 0.2
    if step >= end:
        begin, end, high, low = end, config.steps, 0.5, 0.01
    warmup = min(1.0, (step - begin + 1) / config.warmup_steps)
    cosine = (1 + math.cos(math.pi * (step - begin) / (end - begin))) / 2
    return warmup * (low + (high - low) * cosine)


if __name__ == "__main__":
    run_command(main)
