"""How well a codec preserves the demo's speech.

Intelligibility is STOI (Taal et al. 2011), 0 to 1, against the time-aligned original.
"""

# F Mimi frames (12.5 per second), K codebooks, N samples (24,000 per second), W windows of 64 ms

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from commands.errors import InputError
from demo.mimi.losses import SAMPLE_RATE_HZ, log, mel_filters
from demo.mimi.speech import Clip
from speech_head.mimi import Mimi
from stage1_rvq.codebook_metrics import measure_usage

WINDOW, NUM_BANDS = 1024, 96  # of the log-mel distance
PITCH_PERIOD = 240  # samples: 10 ms is a period of 100 Hz, and two of 200 Hz
PERIODICITY_WINDOW = 1536  # samples
VOICED = 0.7  # correlation of neighbouring periods, above which the original is voiced


@dataclass(frozen=True)
class CodecFigures:
    """Figures of the codec on some utterances.

    `periodicity` is the mean correlation of voiced speech with itself 10 ms earlier, after and
    before the codec; `used_K` is the number of codes of each codebook that occur; `perplexity_K` is
    the equivalent number of equally frequent codes.
    """

    num_utterances: int
    duration_s: float
    num_frames: int
    stoi: float
    stoi_min: float
    log_mel_l1: float
    periodicity: float
    periodicity_original: float
    used_K: list[int]
    perplexity_K: list[float]

    def summary(self) -> dict[str, float]:
        """The figures that are single numbers."""
        return {name: value for name, value in asdict(self).items() if not isinstance(value, list)}


def measure_codec(mimi: Mimi, clips: Sequence[Clip]) -> CodecFigures:
    """Encode and decode every clip, and compare the result with the original."""
    stoi = import_stoi()
    stois, distances, kept, periodic = [], [], [], []
    codes = []
    for clip in clips:
        x_N = waveform_of(clip)
        codes_FK = mimi.encode([x_N])[0]
        decoded_N = mimi.decode(codes_FK, num_samples=len(x_N))
        codes.append(codes_FK)
        stois.append(stoi(x_N.numpy(), decoded_N.numpy(), SAMPLE_RATE_HZ))
        distances.append((_log_mel(decoded_N) - _log_mel(x_N)).abs().mean().item())
        original_W, decoded_W = _periodicity(x_N), _periodicity(decoded_N)
        kept.append(decoded_W[original_W > VOICED])
        periodic.append(original_W[original_W > VOICED])
    codes_FK = torch.cat(codes)
    usage = measure_usage(codes_FK, mimi.codebook_size)
    return CodecFigures(
        num_utterances=len(clips),
        duration_s=sum(len(clip.samples_N) for clip in clips) / SAMPLE_RATE_HZ,
        num_frames=len(codes_FK),
        stoi=float(np.mean(stois)),
        stoi_min=float(np.min(stois)),
        log_mel_l1=float(np.mean(distances)),
        periodicity=torch.cat(kept).mean().item(),
        periodicity_original=torch.cat(periodic).mean().item(),
        used_K=[round(share * mimi.codebook_size) for share in usage.used_fraction],
        perplexity_K=[round(p, 1) for p in usage.perplexity],
    )


def import_stoi() -> Callable[[np.ndarray, np.ndarray, int], float]:
    """pystoi's `stoi`; nothing else here needs the package.

    Raises:
        InputError: it is not installed.
    """
    try:
        from pystoi import stoi
    except ImportError:
        raise InputError("STOI is measured by pystoi: pip install pystoi") from None
    measure: Callable[[np.ndarray, np.ndarray, int], float] = stoi
    return measure


def waveform_of(clip: Clip) -> Tensor:
    """Samples `[N]` of a clip, float32 in [-1, 1)."""
    return torch.from_numpy(clip.samples_N.astype(np.float32) / 32768)


def _log_mel(x_N: Tensor) -> Tensor:
    """Log-mel spectrum, natural logarithm, relative to full scale."""
    window_N = torch.hann_window(WINDOW)
    spectrum = torch.stft(x_N, WINDOW, WINDOW // 4, window=window_N, return_complex=True).abs()
    return log(mel_filters(WINDOW, NUM_BANDS) @ spectrum / (WINDOW / 4))


def _periodicity(x_N: Tensor) -> Tensor:
    """Correlation of each 64 ms window with the signal 10 ms earlier; 0 in silence."""
    now_WN = x_N[PITCH_PERIOD:].unfold(0, PERIODICITY_WINDOW, PERIODICITY_WINDOW // 4)
    before_WN = x_N[:-PITCH_PERIOD].unfold(0, PERIODICITY_WINDOW, PERIODICITY_WINDOW // 4)
    is_heard_W = now_WN.square().mean(dim=1) > 1e-4
    return functional.cosine_similarity(now_WN, before_WN) * is_heard_W
