"""Phases of the demo's Gemma in which its decoder is trained: it learns to answer typed questions,
and then, with a `SpeechTask` beside, to write down what it hears."""

# B rows, S text positions

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from transformers import get_cosine_schedule_with_warmup

from commands.checkpoint import resume_from_latest, save_checkpoint
from commands.seeds import derive_seed
from commands.training_log import TrainingLog, training_steps
from demo.gemma.chat_rows import TypedDialogues
from demo.gemma.clips import LengthBatches
from demo.gemma.ear import BLANK
from demo.precision import half_precision
from gemma4.kinds import AnyGemma
from stage1_rvq.data import iterate_batches
from stage3_finetune.data import collate
from stage3_finetune.dialogue import NO_LABEL, EncodedDialogue

SPEECH_SECONDS_PER_STEP = 45.0  # about 20 sentences
ALIGNMENT_WEIGHT = 0.3
# Strong, in the decoder: to answer unseen questions, it must store facts separately from their
# phrasings, which weight decay favours over memorising pairs.
WEIGHT_DECAY = 0.5
# What is measured on dev, by the name under which it is logged.
Measures = dict[str, Callable[[], float]]


class SpeechTask(Protocol):
    """Speech that the decoder is trained on."""

    @property
    def module(self) -> nn.Module:
        """What is trained beside the decoder."""
        ...

    @property
    def durations_s(self) -> np.ndarray | None:
        """Length of each clip; None if another process hears them."""
        ...

    def losses(self, picks: Sequence[int]) -> dict[str, Tensor]:
        """Losses of some clips, by name; their sum is what counts."""
        ...


def train_decoder(
    run: Path,
    gemma: AnyGemma,
    *,
    typed: TypedDialogues | None,
    dev: Measures,
    learning_rate: float,
    steps: int,
    save_every: int,
    seed: int,
    typed_per_step: int,
    speech: SpeechTask | None = None,
    num_processes: int = 1,
    is_first: bool = True,
) -> None:
    """Train the decoder in place, on typed dialogues and on transcription.

    Processes share the work and add their gradients: one gets the dialogues, the other the clips. A
    single process that gets both takes the same steps.

    Args:
        gemma: float32; its tower is not trained.
        typed: typed dialogues, if this process trains on them.
        typed_per_step: about how many typed questions.
        dev: name -> a measure on other data, taken at checkpoints.
        speech: what is heard; all processes train its module.
        is_first: whether this process evaluates and saves.
    """
    trainee = nn.ModuleDict({"decoder": gemma.model.language_model})
    if speech:
        trainee["alignment"] = speech.module
    trained = list(trainee.parameters())
    optimizer = torch.optim.AdamW(
        trained, lr=learning_rate, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, min(100, steps // 10), steps)
    first_step = resume_from_latest(run, trainee, optimizer, schedule)
    durations_s = speech.durations_s if speech else None
    batches = (
        LengthBatches(durations_s, SPEECH_SECONDS_PER_STEP, seed)
        if durations_s is not None else None
    )  # fmt: skip
    gemma.train()
    with TrainingLog(run, first_step=first_step, is_writer=is_first) as log:
        progress = training_steps(first_step, steps, run.name, is_writer=is_first)
        for step in progress:
            losses: dict[str, Tensor] = {}
            if speech and batches:
                losses |= speech.losses(batches.at_step(step))
            if typed:
                draws = random.Random(derive_seed(seed, step))
                losses["typed"] = row_loss(gemma, typed.draw(typed_per_step, draws))
            torch.stack(list(losses.values())).sum().backward()
            if num_processes > 1:
                _add_gradients(trained)
            clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            numbers = {name: loss.item() for name, loss in losses.items()}
            progress.set_postfix({name: f"{number:.3f}" for name, number in numbers.items()})
            log.log(step + 1, "train", **numbers)
            if is_first and (step + 1 == steps or (step + 1) % save_every == 0):
                log.log(step + 1, "dev", **{name: measure() for name, measure in dev.items()})
                save_checkpoint(run, step + 1, trainee, optimizer, schedule)
                gemma.train()
    gemma.eval()


@torch.no_grad()
def exact_share(gemma: AnyGemma, rows: Sequence[EncodedDialogue]) -> float:
    """Share of rows in which every labelled token is the most probable one, which greedy decoding
    would get exactly right."""
    gemma.eval()
    num_exact = 0
    for positions in iterate_batches(len(rows), 32):
        batch = collate([rows[p] for p in positions], pad_id=BLANK)
        labels = batch.pop("labels")[:, 1:]
        best = gemma(**batch).logits[:, :-1].argmax(dim=-1)
        num_exact += int(((best == labels) | (labels == NO_LABEL)).all(dim=1).sum())
    return num_exact / len(rows)


def row_loss(gemma: AnyGemma, rows: Sequence[EncodedDialogue]) -> Tensor:
    """Mean cross-entropy of the labelled tokens of some rows, a scalar, in nats a token."""
    with half_precision():
        loss: Tensor = gemma(**collate(rows, pad_id=BLANK)).loss
    return loss


def _add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum gradients over processes; a parameter without one counts as zero."""
    flat = torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel())
                      for p in parameters])  # fmt: skip
    dist.all_reduce(flat)
    for parameter, part in zip(
        parameters, flat.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad = part.view_as(parameter)
