"""Speech for a Gemma with a tower: aligned with its token embeddings (`align_speech`), then written
down by its decoder (`TowerSpeech`)."""

# B rows, T frames (25 per second), D tower width, W decoder width, V vocabulary

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm
from transformers import Gemma4ForConditionalGeneration, get_cosine_schedule_with_warmup
from transformers.models.gemma4.modeling_gemma4 import Gemma4AudioModel

from commands.checkpoint import resume_from_latest, save_checkpoint
from commands.training_log import TrainingLog, training_steps
from demo.gemma.chat_rows import RowMaker
from demo.gemma.clips import Clips, LengthBatches
from demo.gemma.decoder import ALIGNMENT_WEIGHT, SPEECH_SECONDS_PER_STEP, row_loss
from demo.gemma.ear import BLANK, token_ctc_loss, token_log_probs
from demo.gemma.model import tower_frames
from demo.gemma.tokenizer import heard_ids
from demo.precision import half_precision
from gemma4.gemma import FRAME_RATE_HZ
from stage1_rvq.data import iterate_batches, pad_frames
from stage3_finetune.dialogue import EncodedDialogue


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

    def rows(self, rows: RowMaker) -> list[EncodedDialogue]:
        """A transcription row of each clip."""
        return [rows.transcription(text, self.frames(i)) for i, text in enumerate(self.texts)]


@torch.no_grad()
def encode_clips(tower: Gemma4AudioModel, clips: Clips) -> EncodedClips:
    """Run the tower over clips."""
    order = np.argsort(clips.durations_s)
    frames: list[Tensor] = [torch.empty(0)] * len(clips)
    for positions in tqdm(iterate_batches(len(clips), 24), desc="hear", unit=" batches"):
        picks = [int(order[p]) for p in positions]
        with half_precision():
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


class TowerSpeech:
    """Transcription from a trained tower's frames, and their alignment; a `SpeechTask`."""

    def __init__(
        self,
        gemma: Gemma4ForConditionalGeneration,
        alignment: SpeechAlignment,
        rows: RowMaker,
        heard: EncodedClips | None,
    ) -> None:
        """
        Args:
            alignment: from `align_speech`.
            heard: None if another process hears.
        """
        self.module = alignment
        self.durations_s = heard.durations_s if heard else None
        self._gemma, self._rows, self._heard = gemma, rows, heard

    def losses(self, picks: Sequence[int]) -> dict[str, Tensor]:
        """As `SpeechTask.losses`."""
        heard, rows = self._heard, self._rows
        assert heard is not None
        spoken = [rows.transcription(heard.texts[i], heard.frames(i)) for i in picks]
        aligned = _alignment_loss(self.module, _token_table(self._gemma), rows, heard, picks)
        return {
            "transcription": row_loss(self._gemma, spoken),
            "alignment": ALIGNMENT_WEIGHT * aligned,
        }


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
