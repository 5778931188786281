"""Later phases of the demo's Gemma: the decoder learns to answer typed questions (`train_decoder`
without clips), speech is aligned with its token embeddings (`align_speech`), and both are trained
together (`train_decoder` with clips)."""

# B rows, T frames (25 per second), D tower width, W decoder width, V vocabulary

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm
from transformers import Gemma4ForConditionalGeneration, get_cosine_schedule_with_warmup
from transformers.models.gemma4.modeling_gemma4 import Gemma4AudioModel

from commands.checkpoint import resume_from_latest, save_checkpoint
from commands.seeds import derive_seed
from commands.training_log import TrainingLog, training_steps
from demo.gemma.chat_rows import RowMaker, TypedDialogues
from demo.gemma.clips import Clips, LengthBatches
from demo.gemma.ear import BLANK, token_ctc_loss, token_log_probs
from demo.gemma.model import tower_frames
from demo.gemma.tokenizer import heard_ids
from gemma4.gemma import FRAME_RATE_HZ
from stage1_rvq.data import iterate_batches, pad_frames
from stage3_finetune.data import collate
from stage3_finetune.dialogue import NO_LABEL, EncodedDialogue

SPEECH_SECONDS_PER_STEP = 45.0  # about 20 sentences, a third of the typed questions
TYPED_QUESTIONS_PER_STEP = 64
ALIGNMENT_WEIGHT = 0.3
# Strong, in the decoder: to answer unseen questions, it must store facts separately from their
# phrasings, which weight decay favours over memorising pairs.
WEIGHT_DECAY = 0.5


@dataclass(frozen=True)
class EncodedClips:
    """The trained tower's output for clips: frames before `output_proj`, in bfloat16."""

    frames_ND: Tensor
    ends: np.ndarray
    texts: list[str]

    @property
    def durations_s(self) -> np.ndarray:
        """Length of each clip in seconds."""
        return np.diff(self.ends, prepend=0) / FRAME_RATE_HZ

    def frames(self, index: int) -> Tensor:
        """Frames of one clip, float32 `[T, D]`."""
        start = self.ends[index - 1] if index else 0
        return self.frames_ND[start : self.ends[index]].float()


@torch.no_grad()
def encode_clips(tower: Gemma4AudioModel, clips: Clips) -> EncodedClips:
    """Run the tower over clips."""
    order = np.argsort(clips.durations_s)
    frames: list[Tensor] = [torch.empty(0)] * len(clips)
    for positions in tqdm(iterate_batches(len(clips), 24), desc="hear", unit=" batches"):
        picks = [int(order[p]) for p in positions]
        with torch.autocast("cpu", torch.bfloat16):
            frames_BTD, mask_BT = tower_frames(tower, *clips.features(picks))
        for i, frames_TD, mask_T in zip(picks, frames_BTD, mask_BT, strict=True):
            frames[i] = frames_TD[mask_T].bfloat16()
    ends = np.cumsum([len(frames_TD) for frames_TD in frames])
    return EncodedClips(torch.cat(frames), ends, clips.texts)


class SpeechAlignment(nn.Module):
    """Scores soft speech tokens against the decoder's own token embeddings."""

    def __init__(self, gemma: Gemma4ForConditionalGeneration) -> None:
        super().__init__()
        self.projection = nn.ModuleDict(
            {"output": gemma.model.audio_tower.output_proj, "embed": gemma.model.embed_audio}
        )
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.blank_bias = nn.Parameter(torch.tensor(2.0))

    def forward(self, frames_BTD: Tensor, table_VW: Tensor) -> Tensor:
        """Log-probabilities of tokens, `[B, T, V]`; `table_VW` holds token embeddings."""
        soft_BTW = self.projection["embed"](inputs_embeds=self.projection["output"](frames_BTD))
        scores_BTV = soft_BTW @ table_VW.t() * self.log_scale.exp()
        is_blank_V = torch.arange(scores_BTV.shape[-1]) == BLANK
        return token_log_probs(scores_BTV + self.blank_bias * is_blank_V)


def align_speech(
    run: Path,
    gemma: Gemma4ForConditionalGeneration,
    alignment: SpeechAlignment,
    rows: RowMaker,
    heard: EncodedClips,
    *,
    steps: int,
    seed: int,
    scale_only: bool = False,
) -> None:
    """Train only `output_proj` and `embed_audio`, by CTC, to map speech to token embeddings.

    Without this, a decoder that can chat needs far longer to learn what the frames mean.

    Args:
        scale_only: both are trained already; find the scale of their scores alone.
    """
    scale = [alignment.log_scale, alignment.blank_bias]
    trained = scale if scale_only else list(alignment.parameters())
    learning_rate = 0.1 if scale_only else 4e-3
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(20, steps // 10), steps)
    first_step = resume_from_latest(run, alignment, optimizer, schedule)
    batches = LengthBatches(heard.durations_s, 2 * SPEECH_SECONDS_PER_STEP, seed)
    table_VW = _token_table(gemma).detach()
    with TrainingLog(run, first_step=first_step) as log:
        for step in training_steps(first_step, steps, "align"):
            loss = _alignment_loss(alignment, table_VW, rows, heard, batches.at_step(step))
            loss.backward()
            clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            alignment.zero_grad()
            log.log(step + 1, "train", loss=loss.item())
    if first_step < steps:
        save_checkpoint(run, steps, alignment, optimizer, schedule)


def train_decoder(
    run: Path,
    gemma: Gemma4ForConditionalGeneration,
    rows: RowMaker,
    *,
    typed: TypedDialogues | None,
    dev: Mapping[str, Sequence[EncodedDialogue]],
    learning_rate: float,
    steps: int,
    save_every: int,
    seed: int,
    heard: EncodedClips | None = None,
    alignment: SpeechAlignment | None = None,
    num_processes: int = 1,
    is_first: bool = True,
) -> None:
    """Train the decoder in place, on typed dialogues and on transcription.

    Processes share the work and add their gradients: one gets the dialogues, the other the clips. A
    single process that gets both takes the same steps.

    Args:
        gemma: float32; its tower is not trained.
        typed: typed dialogues, if this process trains on them.
        dev: name -> rows; at checkpoints, the share of exactly right answers is measured on them.
        heard: clips, if this process trains on them.
        alignment: from `align_speech`; if given, all processes continue to train it.
        is_first: whether this process evaluates and saves.
    """
    trainee = nn.ModuleDict({"decoder": gemma.model.language_model})
    if alignment:
        trainee["alignment"] = alignment
    trained = list(trainee.parameters())
    optimizer = torch.optim.AdamW(
        trained, lr=learning_rate, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, min(100, steps // 10), steps)
    first_step = resume_from_latest(run, trainee, optimizer, schedule)
    batches = LengthBatches(heard.durations_s, SPEECH_SECONDS_PER_STEP, seed) if heard else None
    gemma.train()
    with TrainingLog(run, first_step=first_step, is_writer=is_first) as log:
        progress = training_steps(first_step, steps, run.name, is_writer=is_first)
        for step in progress:
            losses = {}
            if heard and batches and alignment:
                picks = batches.at_step(step)
                spoken = [rows.transcription(heard.texts[i], heard.frames(i)) for i in picks]
                losses["transcription"] = _row_loss(gemma, spoken)
                table_VW = _token_table(gemma)
                aligned = _alignment_loss(alignment, table_VW, rows, heard, picks)
                losses["alignment"] = ALIGNMENT_WEIGHT * aligned
            if typed:
                draws = random.Random(derive_seed(seed, step))
                losses["typed"] = _row_loss(gemma, typed.draw(TYPED_QUESTIONS_PER_STEP, draws))
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
                log.log(step + 1, "dev", **{name: exact_share(gemma, r) for name, r in dev.items()})
                save_checkpoint(run, step + 1, trainee, optimizer, schedule)
                gemma.train()
    gemma.eval()


@torch.no_grad()
def exact_share(gemma: Gemma4ForConditionalGeneration, rows: Sequence[EncodedDialogue]) -> float:
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


def _row_loss(gemma: Gemma4ForConditionalGeneration, rows: Sequence[EncodedDialogue]) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        loss: Tensor = gemma(**collate(rows, pad_id=BLANK)).loss
    return loss


def _alignment_loss(
    alignment: SpeechAlignment,
    table_VW: Tensor,
    rows: RowMaker,
    heard: EncodedClips,
    picks: Sequence[int],
) -> Tensor:
    frames_BTD, mask_BT = pad_frames([heard.frames(i) for i in picks])
    targets = [heard_ids(rows.tokenizer, heard.texts[i]) for i in picks]
    return token_ctc_loss(alignment(frames_BTD, table_VW), mask_BT.sum(dim=1), targets)


def _token_table(gemma: Gemma4ForConditionalGeneration) -> Tensor:
    """Token embeddings as the decoder receives them, `[V, W]`."""
    table_VW: Tensor = gemma.model.language_model.embed_tokens.weight
    return table_VW * gemma.config.text_config.hidden_size**0.5


def _add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum gradients over processes; a parameter without one counts as zero."""
    flat = torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel())
                      for p in parameters])  # fmt: skip
    dist.all_reduce(flat)
    for parameter, part in zip(
        parameters, flat.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad = part.view_as(parameter)
