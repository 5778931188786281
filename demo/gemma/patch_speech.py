"""Speech for a Gemma without a tower: the first half of its decoder learns to be an ear.

From transcriptions alone, a small decoder does not find out what patches of the waveform mean. So
the states of its middle layer, over the patches, are asked for two things more, through maps that
are thrown away afterwards: the frames of a trained tower, which come at the same rate, and the
tokens of what was said, by CTC.
"""

# B rows, S text positions, T patches (25 per second), D tower width, L patch samples, W decoder
# width, V vocabulary

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from torch import Tensor, nn
from transformers import Gemma4UnifiedAudioFeatureExtractor, Gemma4UnifiedForConditionalGeneration
from transformers.models.gemma4.modeling_gemma4 import Gemma4AudioModel
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedTextConfig

from commands.device import use_threads
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from demo.gemma.chat_rows import RowMaker
from demo.gemma.clips import Clips
from demo.gemma.decoder import Measures, row_loss, train_decoder
from demo.gemma.ear import BLANK, measure_ear, token_ctc_loss, token_log_probs
from demo.gemma.tokenizer import heard_ids
from demo.gemma.tower_speech import EncodedClips, encode_clips
from demo.precision import half_precision
from gemma4.patches import PatchEncoder
from stage1_rvq.data import pad_frames
from stage3_finetune.data import collate
from stage3_finetune.dialogue import EncodedDialogue

# In the sum of all losses; the others count once.
FRAME_WEIGHT = 3.0
LOWEST_HZ, HIGHEST_HZ = 80.0, 7000.0
# Standard deviation of a wave's envelope times the critical bandwidth: its spectrum then has a
# standard deviation of 1.3 critical bandwidths.
WAVE_LENGTH = 0.12


class PatchEar(nn.Module):
    """What is trained beside the decoder: its embedding of patches, and the maps out of its middle.

    Args of `forward` and `frames_of` are states of the middle layer, `[B, T, W]`.
    """

    def __init__(
        self, gemma: Gemma4UnifiedForConditionalGeneration, tower_width: int, *, seed: int
    ) -> None:
        """
        Args:
            gemma: its embedding of patches is overwritten, by `spectral_patterns`.
            tower_width: D, of the tower that teaches.
            seed: of the maps.
        """
        super().__init__()
        config = gemma.config.text_config
        self.embed = gemma.model.embed_audio
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.norm = nn.LayerNorm(config.hidden_size)
            self.scores = nn.Linear(config.hidden_size, config.vocab_size)
            self.frames = nn.Linear(config.hidden_size, tower_width)
        weight_WL = self.embed.embedding_projection.weight
        with torch.no_grad():
            patterns_WL = spectral_patterns(*weight_WL.shape, seed=seed)
            weight_WL.copy_(patterns_WL * (weight_WL.norm() / patterns_WL.norm()))

    def forward(self, states_BTW: Tensor) -> Tensor:
        """Log-probabilities of tokens, `[B, T, V]`."""
        return token_log_probs(self.scores(self.norm(states_BTW)))

    def frames_of(self, states_BTW: Tensor) -> Tensor:
        """The tower's frames as the decoder hears them, standardised, `[B, T, D]`."""
        frames_BTD: Tensor = self.frames(self.norm(states_BTW))
        return frames_BTD


class PatchSpeech:
    """Hearing in the middle of a decoder, and transcription at its end; a `SpeechTask`."""

    def __init__(
        self,
        gemma: Gemma4UnifiedForConditionalGeneration,
        rows: RowMaker,
        ear: PatchEar,
        clips: Clips | None,
        taught: EncodedClips | None,
        *,
        writes: bool,
    ) -> None:
        """
        Args:
            clips: None if another process hears.
            taught: what the tower makes of the clips.
            writes: False asks for no transcriptions, and computes the first half alone.
        """
        config = gemma.config.text_config
        self.module = ear
        self.durations_s = clips.durations_s if clips else None
        self._gemma, self._rows, self._clips, self._taught = gemma, rows, clips, taught
        self._writes = writes
        self._num_layers = config.num_hidden_layers // 2
        if taught:
            self._mean_D = taught.frames_ND.float().mean(dim=0)
            self._deviation_D = taught.frames_ND.float().std(dim=0) + 1e-3

    def losses(self, picks: Sequence[int]) -> dict[str, Tensor]:
        """As `SpeechTask.losses`."""
        assert self._clips is not None
        spoken = patch_rows(self._rows, self._clips, picks)
        losses, states_BTW, lengths_B = self._hear(spoken, writes=self._writes)
        targets = [heard_ids(self._rows.tokenizer, self._clips.texts[i]) for i in picks]
        losses["ear"] = token_ctc_loss(self.module(states_BTW), lengths_B, targets)
        losses["frames"] = FRAME_WEIGHT * self._frame_error(picks, states_BTW)
        return losses

    @torch.no_grad()
    def character_error_rate(self, clips: Clips) -> float:
        """Of what CTC reads in the middle of the decoder, on other clips, as a fraction."""
        self._gemma.eval()

        def hear(picks: Sequence[int]) -> tuple[Tensor, Tensor]:
            rows = patch_rows(self._rows, clips, picks)
            _, states_BTW, lengths_B = self._hear(rows, writes=False)
            return self.module(states_BTW), lengths_B

        return measure_ear(hear, self._rows.tokenizer, clips).cer

    def _hear(
        self, spoken: Sequence[EncodedDialogue], *, writes: bool
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Losses of transcription, states of the middle layer `[B, T, W]`, and lengths `[B]`."""
        heard: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            heard.append(output if isinstance(output, Tensor) else output[0])

        decoder = self._gemma.model.language_model
        hook = decoder.layers[self._num_layers - 1].register_forward_hook(keep)
        losses = {}
        try:
            if writes:
                losses["transcription"] = row_loss(self._gemma, spoken)
            else:
                batch = collate(spoken, pad_id=BLANK)
                del batch["labels"]
                with first_layers(decoder.config, self._num_layers), half_precision():
                    self._gemma.model(**batch)
        finally:
            hook.remove()
        slot = self._rows.special["audio"]
        states = [
            x_SW[: len(row.input_ids)][torch.tensor(row.input_ids) == slot].float()
            for x_SW, row in zip(heard[0], spoken, strict=True)
        ]
        states_BTW, mask_BT = pad_frames(states)
        return losses, states_BTW, mask_BT.sum(dim=1)

    def _frame_error(self, picks: Sequence[int], states_BTW: Tensor) -> Tensor:
        """Mean squared error of the tower's standardised frames."""
        assert self._taught is not None
        errors = []
        for i, frames_TD in zip(picks, self.module.frames_of(states_BTW), strict=True):
            # The tower leaves out a last frame of less than a few milliseconds.
            taught_TD = (self._taught.frames(i) - self._mean_D) / self._deviation_D
            length = min(len(taught_TD), len(frames_TD))
            errors.append((frames_TD[:length] - taught_TD[:length]).square().mean(dim=1))
        return torch.cat(errors).mean()


def train_patch_ear(
    run: Path,
    gemma: Gemma4UnifiedForConditionalGeneration,
    rows: RowMaker,
    tower: Gemma4AudioModel,
    clips: Clips | None,
    dev_clips: Clips | None,
    *,
    dev: Measures,
    seed: int,
    num_processes: int,
    **training: Any,
) -> PatchSpeech:
    """Train the first half of the decoder to hear, beside what else `train_decoder` trains it on.

    Args:
        run: folder of the phase: checkpoints and metrics.
        tower: shows how to hear.
        clips, dev_clips: None if another process hears.
        dev: what is measured beside the ear's character error rate.
        training: as for `train_decoder`.

    Returns:
        What comes next: to transcribe, beside hearing.
    """
    taught = None
    if clips:
        with use_threads(num_processes):  # the other process waits meanwhile
            taught = encode_clips(tower, clips)
    ear = PatchEar(gemma, tower.config.hidden_size, seed=seed)
    hearing = PatchSpeech(gemma, rows, ear, clips, taught, writes=False)
    measures = dict(dev)
    if dev_clips:
        measures["ear_cer"] = partial(hearing.character_error_rate, dev_clips)
    train_decoder(
        run, gemma, speech=hearing, dev=measures, seed=seed, num_processes=num_processes,
        **training,
    )  # fmt: skip
    return PatchSpeech(gemma, rows, ear, clips, taught, writes=True)


@contextmanager
def first_layers(config: Gemma4UnifiedTextConfig, count: int) -> Iterator[None]:
    """Inside, a decoder ends after so many of its layers."""
    whole = config.num_hidden_layers
    config.num_hidden_layers = count
    try:
        yield
    finally:
        config.num_hidden_layers = whole


def spectral_patterns(count: int, length: int, *, seed: int) -> Tensor:
    """Short waves to begin an embedding of waveforms with, unit vectors `[count, length]`.

    They come in pairs, a quarter of a period apart, so that the sum of their squares is the power
    at a frequency. Frequencies are even on the mel scale; a wave is as long as the ear's critical
    band there allows, somewhere in the patch.
    """
    generator = np.random.default_rng(seed)
    num_pairs = (count + 1) // 2
    frequencies = librosa.mel_frequencies(num_pairs, fmin=LOWEST_HZ, fmax=HIGHEST_HZ, htk=True)
    times = np.arange(length)
    patterns = np.zeros((count, length))
    for i, hz in enumerate(frequencies):
        # Glasberg and Moore's equivalent rectangular bandwidth, in Hz
        bandwidth_hz = 24.7 * (4.37 * hz / 1000 + 1)
        deviation = min(WAVE_LENGTH * GEMMA_SAMPLE_RATE_HZ / bandwidth_hz, length / 4)
        middle = generator.uniform(deviation, length - deviation)
        envelope = np.exp(-0.5 * ((times - middle) / deviation) ** 2)
        for k, wave in enumerate((np.cos, np.sin)):
            if 2 * i + k < count:
                pattern = envelope * wave(2 * np.pi * hz * times / GEMMA_SAMPLE_RATE_HZ)
                patterns[2 * i + k] = pattern / np.linalg.norm(pattern)
    return torch.from_numpy(patterns).float()


def patch_rows(rows: RowMaker, clips: Clips, picks: Sequence[int]) -> list[EncodedDialogue]:
    """Transcription rows of some clips, with their patches, float32 `[T, 640]` each."""
    encoder = PatchEncoder(Gemma4UnifiedAudioFeatureExtractor())
    frames = encoder.encode([clips.waveform(i) for i in picks])
    return [
        rows.transcription(clips.texts[i], frames_TD)
        for i, frames_TD in zip(picks, frames, strict=True)
    ]
