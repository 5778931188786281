"""Training and test speech for the demo's Mimi: synthetic Twi at two pitches.

It is synthesised when a run starts, by `demo.voice.synthesizer`; nothing is downloaded or kept.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from commands.seeds import derive_seed
from data_manifests.manifest import Split
from demo.mimi.losses import LABELS_PER_FRAME, NUM_SAMPLES_PER_LABEL, SAMPLE_RATE_HZ
from demo.voice.synthesizer import PhonemeEvent, Synthesizer
from demo.voice.voices import MONOTONE_VOICES, monotone_style
from demo.world.grammar import all_questions, listening_sentences

# B utterances, N samples (24,000 per second), T labels (50 per second)

PAUSE = ""  # the label of silence
MAX_SILENCE_S = 0.3  # before and after an utterance: random, so that its alignment to frames varies
ONSETS = (
    "", "b", "d", "dw", "f", "g", "gy", "h", "hw", "hy", "k", "kw", "ky", "l", "m", "n", "nw", "ny",
    "p", "r", "s", "t", "tw", "w", "y",
)  # fmt: skip
RIMES = (
    "a", "e", "ɛ", "i", "o", "ɔ", "u", "aa", "ɛɛ", "ee", "ɔɔ", "oo", "ia", "ie", "ua", "uo", "am",
    "an", "em", "ɛn", "im", "om", "ɔn", "um", "un",
)  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """An utterance: int16 samples, and a phoneme for every 20 ms of them."""

    samples_N: np.ndarray
    labels_T: tuple[str, ...]


class SpeechSegments:
    """All clips end to end, cut at random positions into training segments."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        """
        Args:
            clips: at least one; their phonemes are the classes.
        """
        labels = [label for clip in clips for label in clip.labels_T]
        self.phonemes = tuple(sorted(set(labels)))
        classes = {phoneme: i for i, phoneme in enumerate(self.phonemes)}
        self._samples_N = torch.from_numpy(np.concatenate([clip.samples_N for clip in clips]))
        self._labels_T = torch.tensor([classes[label] for label in labels])
        self.duration_s = len(self._samples_N) / SAMPLE_RATE_HZ
        self.sha256 = hashlib.sha256(self._samples_N.numpy().tobytes()).hexdigest()

    def draw(self, num_segments: int, num_frames: int) -> tuple[Tensor, Tensor]:
        """Cut random segments, with torch's generator.

        Returns:
            x_BN float32 and the phoneme classes labels_BT, int64.
        """
        length = num_frames * LABELS_PER_FRAME
        starts_B = torch.randint(len(self._labels_T) - length + 1, (num_segments,))
        samples_per_label = NUM_SAMPLES_PER_LABEL
        segments = [
            self._samples_N[t * samples_per_label : (t + length) * samples_per_label]
            for t in starts_B.tolist()
        ]
        labels = [self._labels_T[t : t + length] for t in starts_B.tolist()]
        return torch.stack(segments).float() / 32768, torch.stack(labels)


def training_texts(count: int, seed: int) -> list[str]:
    """Training texts that enable the codec to code any sentence: half are the demo's words in
    random order, a quarter nonsense words, a quarter questions and answers of the train split."""
    generator = random.Random(derive_seed(seed, "demo Mimi's texts"))
    known = sorted(_texts_of(("train",)))
    held_out = _texts_of(("dev", "test")) - set(known)
    texts = generator.sample(known, min(count // 4, len(known)))
    texts += [_say_nonsense(generator) for _ in range(count // 4)]
    texts += listening_sentences(count - len(texts), seed)
    texts = [text for text in texts if text not in held_out]
    generator.shuffle(texts)
    return texts


def held_out_texts(split: Split, count: int) -> list[str]:
    """Questions of dev or test, then answers; none that another split also has.

    At most `count`, spread evenly, so that even a few contain both questions and answers.
    """
    others = _texts_of(tuple(other for other in get_args(Split) if other != split))
    chosen = [q for q in all_questions() if q.split == split]
    texts = [q.text for q in chosen] + [q.answer for q in chosen]
    own = [text for text in dict.fromkeys(texts) if text not in others]
    return [own[i] for i in np.linspace(0, len(own) - 1, min(count, len(own))).round().astype(int)]


def speak_texts(texts: Sequence[str], seed: int) -> list[Clip]:
    """Speak every text once, voices in turn, each with a random take and random silences."""
    synthesizer = Synthesizer()
    generator = np.random.default_rng(derive_seed(seed, "demo Mimi's speech"))
    clips = []
    for i, text in enumerate(texts):
        voice = MONOTONE_VOICES[i % len(MONOTONE_VOICES)]
        take = monotone_style(generator, voice)
        speech = synthesizer.speak(
            text, voice, sample_rate_hz=SAMPLE_RATE_HZ, rate_wpm=take.rate_wpm, pitch=take.pitch,
            pitch_range=take.pitch_range, warp=take.warp,
        )  # fmt: skip
        before, after = generator.integers(int(MAX_SILENCE_S * SAMPLE_RATE_HZ), size=2)
        samples_N = np.pad(speech.samples_N, (before, after))
        samples_N = samples_N[: len(samples_N) - len(samples_N) % NUM_SAMPLES_PER_LABEL]
        labels_T = _label(speech.phonemes, before / SAMPLE_RATE_HZ, len(samples_N))
        clips.append(Clip((samples_N * 32767).astype(np.int16), labels_T))
    return clips


def _texts_of(splits: tuple[Split, ...]) -> set[str]:
    questions = [q for q in all_questions() if q.split in splits]
    return {text for q in questions for text in (q.text, q.answer)}


def _say_nonsense(generator: random.Random) -> str:
    """One to six nonsense words, made of Twi syllables."""
    words = []
    for _ in range(generator.randint(1, 6)):
        num_syllables = generator.randint(1, 4)
        syllables = [
            generator.choice(ONSETS) + generator.choice(RIMES) for _ in range(num_syllables)
        ]
        words.append("".join(syllables))
    return " ".join(words)


def _label(events: Sequence[PhonemeEvent], delay_s: float, num_samples: int) -> tuple[str, ...]:
    label_rate_hz = SAMPLE_RATE_HZ / NUM_SAMPLES_PER_LABEL
    num_labels = num_samples // NUM_SAMPLES_PER_LABEL
    starts = [round((event.start_s + delay_s) * label_rate_hz) for event in events]
    labels = [PAUSE] * num_labels
    for event, start, end in zip(events, starts, [*starts[1:], num_labels], strict=True):
        for t in range(start, min(end, num_labels)):
            labels[t] = event.phoneme
    return tuple(labels)
