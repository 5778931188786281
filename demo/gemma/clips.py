"""Spoken sentences to train and test the demo's Gemma: synthesised once, batched by length."""

# N samples, B clips, M mel frames (100 per second), F mel bands

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import Gemma4AudioFeatureExtractor

from commands.atomic_write import written_aside
from commands.seeds import derive_seed
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from demo.voice.synthesizer import Synthesizer
from demo.voice.voices import draw_style, record

INT16_PEAK = 32767


@dataclass(frozen=True)
class Clips:
    """Recordings at 16 kHz, end to end in memory, and their sentences.

    Attributes:
        samples_N: int16.
        ends: for each clip the number of samples up to its end.
        texts: for each clip its sentence.
    """

    samples_N: np.ndarray
    ends: np.ndarray
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def durations_s(self) -> np.ndarray:
        """Length of each clip in seconds."""
        return np.diff(self.ends, prepend=0) / GEMMA_SAMPLE_RATE_HZ

    def waveform(self, index: int) -> np.ndarray:
        """One clip, float32 in [-1, 1]."""
        start = self.ends[index - 1] if index else 0
        return self.samples_N[start : self.ends[index]].astype(np.float32) / INT16_PEAK

    def features(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Gemma's log-mel features of some clips: float32 `[B, M, F]` and their mask, bool."""
        inputs = Gemma4AudioFeatureExtractor()(
            [self.waveform(i) for i in indices],
            sampling_rate=GEMMA_SAMPLE_RATE_HZ,
            return_tensors="pt",
        )
        return inputs["input_features"].float(), inputs["input_features_mask"].bool()


def record_clips(folder: Path, texts: Sequence[str], *, held_out: bool, seed: int) -> Clips:
    """Synthesise each sentence once, or load earlier recordings.

    Args:
        folder: where the recordings are, or will be.
        texts: sentences; one that is repeated is spoken differently each time.
        held_out: whether to use held-out voices, rates, pitches and noise levels.
        seed: seed for choosing the voices and how they speak.
    """
    path = folder / "clips.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        synthesizer = Synthesizer()
        parts = []
        for i, text in enumerate(tqdm(texts, desc=folder.name, unit=" clips")):
            generator = np.random.default_rng(derive_seed(seed, i, text))
            samples = record(
                synthesizer,
                text,
                draw_style(generator, held_out=held_out),
                sample_rate_hz=GEMMA_SAMPLE_RATE_HZ,
                generator=generator,
            )
            parts.append((samples.clip(-1, 1) * INT16_PEAK).astype(np.int16))
        ends = np.cumsum([len(part) for part in parts])
        with written_aside(path) as aside, aside.open("wb") as file:
            np.savez(file, samples=np.concatenate(parts), ends=ends, texts=list(texts))
    with np.load(path) as recorded:
        assert recorded["texts"].tolist() == list(texts), f"{folder} holds other sentences"
        return Clips(recorded["samples"], recorded["ends"], list(texts))


class LengthBatches:
    """Batches of about equal duration, each of clips of similar length, by step number; the longest
    lasts `seconds`, including padding."""

    def __init__(self, durations_s: np.ndarray, seconds: float, seed: int) -> None:
        self.durations_s = durations_s
        self.seconds = seconds
        self.seed = seed
        self.epoch = -1
        self.first_step = 0
        self.batches: list[list[int]] = []

    def at_step(self, step: int) -> list[int]:
        """Clips of a step; steps only go forward."""
        assert step >= self.first_step
        while step >= self.first_step + len(self.batches):
            self.first_step += len(self.batches)
            self.epoch += 1
            self.batches = self._shuffled(self.epoch)
        return self.batches[step - self.first_step]

    def _shuffled(self, epoch: int) -> list[list[int]]:
        generator = np.random.default_rng(derive_seed(self.seed, epoch))
        order = np.argsort(self.durations_s * generator.uniform(1.0, 1.15, len(self.durations_s)))
        batches: list[list[int]] = [[]]
        longest_s = 0.0
        for i in order.tolist():
            longest_s = max(longest_s, self.durations_s[i])
            if batches[-1] and longest_s * (len(batches[-1]) + 1) > self.seconds:
                batches.append([])
                longest_s = self.durations_s[i]
            batches[-1].append(i)
        return [batches[k] for k in generator.permutation(len(batches)).tolist()]


def with_random_level(features_BMF: Tensor, mask_BM: Tensor, generator: torch.Generator) -> Tensor:
    """Vary loudness: shift each clip's log-mel features by up to half a neper."""
    shift_B11 = torch.rand((len(features_BMF), 1, 1), generator=generator) - 0.5
    return features_BMF + shift_B11 * mask_BM[..., None]
