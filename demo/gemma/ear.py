"""First training phase of the demo's Gemma: the audio tower learns to hear syllables, by CTC.

Its units are the tokens of Gemma's own tokenizer, so that its frames are already close to tokens.
"""

# B clips, T frames (25 per second), D tower width, V vocabulary

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedTokenizerBase, get_cosine_schedule_with_warmup
from transformers.models.gemma4.modeling_gemma4 import Gemma4AudioModel

from commands.checkpoint import resume_from_latest, save_checkpoint
from commands.device import seed_step
from commands.training_log import TrainingLog, training_steps
from data_manifests.error_rates import ErrorRates, compute_error_rates
from demo.gemma.clips import Clips, LengthBatches, with_random_level
from demo.gemma.model import tower_frames
from demo.gemma.tokenizer import heard_ids
from demo.precision import half_precision
from stage1_rvq.data import iterate_batches

# Seconds of audio, including padding: about 22 sentences.
SECONDS_PER_STEP = 50.0
LEARNING_RATE = 2e-3
WARMUP_STEPS = 200
BLANK = 0  # the tokenizer's padding
# By then, a causal tower has not heard a syllable. Without this constraint, these frames learn to
# guess the first one, and CTC never learns that waiting is better: two thirds of all first words
# were wrong, and hardly any others.
NUM_FRAMES_BEFORE_SPEECH = 4


class Ear(nn.Module):
    """The tower, and a linear map from its frames to token scores."""

    def __init__(self, tower: Gemma4AudioModel, vocabulary_size: int) -> None:
        super().__init__()
        self.tower = tower
        self.scores = nn.Linear(tower.config.hidden_size, vocabulary_size)

    def forward(self, features_BMF: Tensor, mask_BM: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel features -> log-probabilities `[B, T, V]` and the number of frames `[B]`."""
        with half_precision():
            frames_BTD, mask_BT = tower_frames(self.tower, features_BMF, mask_BM)
        return token_log_probs(self.scores(frames_BTD.float())), mask_BT.sum(dim=1)


def train_ear(
    run: Path,
    tower: Gemma4AudioModel,
    tokenizer: PreTrainedTokenizerBase,
    clips: Clips,
    dev: Clips,
    *,
    steps: int,
    save_every: int,
    seed: int,
) -> None:
    """Train the tower in place; continues from the run's newest checkpoint.

    Args:
        run: folder of the phase: checkpoints and metrics.
        tower: the tower; its `output_proj` is not trained here.
        dev: clips on which the error rate is measured whenever a checkpoint is saved.
    """
    seed_step(seed, -1)
    ear = Ear(tower, len(tokenizer))
    trained = [p for name, p in ear.named_parameters() if "output_proj" not in name]
    optimizer = torch.optim.AdamW(
        trained, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    warmup_steps = min(WARMUP_STEPS, steps // 10)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup_steps, steps)
    first_step = resume_from_latest(run, ear, optimizer, schedule)
    batches = LengthBatches(clips.durations_s, SECONDS_PER_STEP, seed)
    generator = torch.Generator()
    with TrainingLog(run, first_step=first_step) as log:
        progress = training_steps(first_step, steps, "ear")
        for step in progress:
            generator.manual_seed(seed * 1_000_003 + step)
            picks = batches.at_step(step)
            features_BMF, mask_BM = clips.features(picks)
            features_BMF = with_random_level(features_BMF, mask_BM, generator)
            log_probs_BTV, lengths_B = ear(features_BMF, mask_BM)
            targets = [heard_ids(tokenizer, clips.texts[i]) for i in picks]
            loss = token_ctc_loss(log_probs_BTV, lengths_B, targets)
            loss.backward()
            clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            progress.set_postfix(loss=f"{loss.item():.3f}")
            log.log(step + 1, "train", loss=loss.item())
            if step + 1 == steps or (step + 1) % save_every == 0:
                rates = measure_ear(lambda picks: ear(*dev.features(picks)), tokenizer, dev)
                log.log(step + 1, "dev", wer=rates.wer, cer=rates.cer)
                save_checkpoint(run, step + 1, ear, optimizer, schedule)


def token_log_probs(scores_BTV: Tensor) -> Tensor:
    """Scores -> log-probabilities `[B, T, V]`, all blank in the first frames."""
    is_early_T = torch.arange(scores_BTV.shape[1]) < NUM_FRAMES_BEFORE_SPEECH
    is_token_V = torch.arange(scores_BTV.shape[2]) != BLANK
    forbidden_TV = is_early_T[:, None] & is_token_V
    return scores_BTV.masked_fill(forbidden_TV, -1e4).log_softmax(dim=-1)


def token_ctc_loss(
    log_probs_BTV: Tensor, lengths_B: Tensor, targets: Sequence[Sequence[int]]
) -> Tensor:
    """CTC loss per token; a clip with more tokens than its frames can hold adds no loss."""
    return F.ctc_loss(
        log_probs_BTV.transpose(0, 1),
        torch.tensor([token for target in targets for token in target]),
        lengths_B,
        torch.tensor([len(target) for target in targets]),
        blank=BLANK,
        zero_infinity=True,
    )


@torch.no_grad()
def measure_ear(
    hear: Callable[[Sequence[int]], tuple[Tensor, Tensor]],
    tokenizer: PreTrainedTokenizerBase,
    clips: Clips,
) -> ErrorRates:
    """Error rates of greedy CTC decoding.

    Args:
        hear: positions of clips -> log-probabilities `[B, T, V]` and numbers of frames `[B]`.
    """
    order = np.argsort(clips.durations_s)
    heard = [""] * len(clips)
    for positions in iterate_batches(len(clips), 32):
        picks = [int(order[p]) for p in positions]
        log_probs_BTV, lengths_B = hear(picks)
        for i, best_T, length in zip(picks, log_probs_BTV.argmax(-1), lengths_B, strict=True):
            tokens = torch.unique_consecutive(best_T[:length])
            heard[i] = tokenizer.decode(tokens[tokens != BLANK])
    return compute_error_rates(clips.texts, heard)
