"""Measure how much codes change under noise that a listener hardly hears.

Semantic tokenizers can be brittle: inaudible noise may change most tokens (StableToken,
arXiv:2509.22220). The measure is the unit edit distance: the Levenshtein distance between the codes
of a recording and of the same recording with white noise, divided by its number of frames; 0 is
perfectly robust. There is one figure per codebook.
"""

# N samples, T frames (25 per second), K codebooks

from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from tqdm import tqdm

from commands.seeds import derive_seed
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.manifest import Utterance, read_utterance_audio
from gemma4.gemma import AudioEncoder
from stage1_rvq.model import SpeechRVQ

SIGNAL_TO_NOISE_DB = (30, 20)


def measure_noise_robustness(
    utterances: Sequence[Utterance], encoder: AudioEncoder, rvq: SpeechRVQ, *, seed: int = 0
) -> dict[str, list[float]]:
    """Unit edit distance of each codebook at 30 and 20 dB signal-to-noise ratio; every recording
    has noise of its own.

    Returns:
        "30" and "20" -> K distances, pooled over all frames.
    """
    changed = {db: np.zeros(rvq.config.num_codebooks) for db in SIGNAL_TO_NOISE_DB}
    num_frames = 0
    for utterance in tqdm(utterances, desc="noise", unit=" utterances"):
        samples_N = read_utterance_audio(utterance, GEMMA_SAMPLE_RATE_HZ)
        clean_TK = _codes(samples_N, encoder, rvq)
        num_frames += len(clean_TK)
        for db in SIGNAL_TO_NOISE_DB:
            generator = np.random.default_rng(derive_seed(seed, utterance.id, db))
            noisy_TK = _codes(add_white_noise(samples_N, db, generator), encoder, rvq)
            changed[db] += edit_distances(clean_TK, noisy_TK)
    return {str(db): (counts / num_frames).tolist() for db, counts in changed.items()}


def add_white_noise(
    samples_N: np.ndarray, signal_to_noise_db: float, generator: np.random.Generator
) -> np.ndarray:
    """Add Gaussian noise at a given number of decibels below the recording's mean power; float32
    `[N]`."""
    noise_rms = np.sqrt(np.mean(samples_N**2)) * 10 ** (-signal_to_noise_db / 20)
    noise_N = noise_rms * generator.standard_normal(len(samples_N))
    return (samples_N + noise_N).astype(np.float32)


def edit_distances(a_TK: Tensor, b_TK: Tensor) -> np.ndarray:
    """Levenshtein distance of two code sequences, codebook by codebook: float64 `[K]`."""
    pairs = zip(a_TK.T.tolist(), b_TK.T.tolist(), strict=True)
    return np.array([float(Levenshtein.distance(a, b)) for a, b in pairs])


def _codes(samples_N: np.ndarray, encoder: AudioEncoder, rvq: SpeechRVQ) -> Tensor:
    [frames_TD] = encoder.encode([samples_N])
    return rvq.encode(frames_TD.to(rvq.frame_scale_D.device)).cpu()
