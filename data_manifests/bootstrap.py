"""95 % bootstrap intervals of rates: percentiles over resamples of the utterances (Bisani and Ney,
ICASSP 2004), or of all utterances of a speaker at once (Liu and Peng, arXiv:1912.09508), which are
more alike than those of different speakers.
"""

# N utterances or speakers, R resamples

from collections.abc import Sequence

import numpy as np

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95
MAX_DRAWN_AT_ONCE = 2**20


def rate_interval(
    errors: Sequence[int],
    lengths: Sequence[int],
    *,
    seed: int = 0,
    blocks: Sequence[str] | None = None,
) -> tuple[float, float] | None:
    """Percentile interval of total errors / total length.

    A resample whose lengths are all zero has no rate and is left out of the percentiles.

    Args:
        errors: of each utterance.
        lengths: of each utterance, what its errors are counted against.
        seed: of the resampling.
        blocks: of each utterance, the name of what is drawn as a whole: its speaker. Without it,
            utterances are drawn.

    Returns:
        Lower and upper end; None if all lengths are zero, or if there is one block only.
    """
    errors_N, lengths_N = np.array(errors), np.array(lengths)
    if blocks is not None:
        names, places_N = np.unique(np.array(blocks), return_inverse=True)
        if len(names) < 2:
            return None
        errors_N = np.bincount(places_N, errors_N).astype(int)
        lengths_N = np.bincount(places_N, lengths_N).astype(int)
    generator = np.random.default_rng(seed)
    num_at_once = max(1, MAX_DRAWN_AT_ONCE // len(errors_N))
    rates = []
    for start in range(0, NUM_RESAMPLES, num_at_once):
        num_resamples = min(num_at_once, NUM_RESAMPLES - start)
        drawn_RN = generator.integers(len(errors_N), size=(num_resamples, len(errors_N)))
        errors_R, lengths_R = errors_N[drawn_RN].sum(axis=1), lengths_N[drawn_RN].sum(axis=1)
        rates.append(errors_R[lengths_R > 0] / lengths_R[lengths_R > 0])
    rates_R = np.concatenate(rates)
    if not len(rates_R):
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(rates_R, [tail, 1 - tail])
    return float(low), float(high)


def share_interval(hits: Sequence[bool], *, seed: int = 0) -> tuple[float, float]:
    """Interval of a share: of right answers among all."""
    interval = rate_interval([int(hit) for hit in hits], [1] * len(hits), seed=seed)
    assert interval is not None
    return interval
