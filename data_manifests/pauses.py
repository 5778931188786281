"""Cut long recordings where the speaker pauses, for models that hear a few seconds at once.

    for piece in cut_at_pauses(blocks, rate_hz):     # as the blocks come, in constant memory
        piece.start_s, piece.end_s, piece.samples_N
    cut_evenly(waveform_N, max_samples, rate_hz)     # pieces of about the same length

A pause is a stretch that is much quieter than the loudest speech around it: background noise of any
steady loudness does not hide it. Where nobody pauses for long enough, the cut is in the middle of
the quietest tenth of a second within reach, which is rarely inside a word.
"""

# N samples, F frames of 20 ms

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

QUIET_S = 0.1  # where there is no pause: the quietest stretch of this length is looked for
SEARCHED = 0.05  # `cut_evenly`: share of the longest piece that is searched before and after a cut
FRAME_S = 0.02  # loudness is measured in frames of this length
LONGEST_PIECE_S = 20.0  # Gemma hears 30 s at once, and its training sentences are shorter
SHORTEST_PAUSE_S = 0.6  # stops and hesitations inside a sentence are mostly shorter
# Levels in dB below full scale. What is quieter than the floor is silence in any recording; a frame
# is quiet if it is at most half as far above the background as the speech is, and at most 15 dB.
FLOOR_DB = -60.0
MOST_ABOVE_BACKGROUND_DB = 15.0
# With less between background and speech (steady noise, music) nothing tells pauses from speech.
LEAST_DIFFERENCE_DB = 6.0
BACKGROUND_PERCENTILE, SPEECH_PERCENTILE = 10, 99
SHORTEST_SOUND_S = 0.1  # what is shorter is a click, and no word
# Of a pause, kept on each side: soft consonants at the edges of speech are quieter than the limit.
# More of it makes the demo's Gemma, whose training sentences begin at once, hear words there.
MARGIN_S = 0.1


@dataclass(frozen=True)
class SpeechPiece:
    """Part of a recording, cut out at pauses.

    Attributes:
        samples_N: the part, at the recording's rate.
        start_s, end_s: when its speech begins and ends, in seconds of the recording, with
            `MARGIN_S` of the pauses around it.
    """

    samples_N: np.ndarray
    start_s: float
    end_s: float


def cut_at_pauses(
    blocks: Iterable[np.ndarray],
    rate_hz: int,
    *,
    longest_piece_s: float = LONGEST_PIECE_S,
    shortest_pause_s: float = SHORTEST_PAUSE_S,
) -> Iterator[SpeechPiece]:
    """Cut a recording at every pause; its silence and clicks are left out.

    The pieces do not depend on the blocks in which the recording comes. One that is no longer than
    a piece, and has no pause in it, is one piece: the recording itself, sample by sample.

    Args:
        blocks: the recording's samples, mono, in order.
        rate_hz: its sampling rate.
        longest_piece_s: length of the longest piece.
        shortest_pause_s: a pause of this length ends a piece.

    Yields:
        Pieces in order, each as soon as the blocks up to `longest_piece_s` after its beginning are
        there.
    """
    frame = max(1, round(FRAME_S * rate_hz))
    longest = max(2, int(longest_piece_s * rate_hz) // frame) * frame
    pause = max(2, round(shortest_pause_s / FRAME_S))
    kept = min(round(MARGIN_S / FRAME_S), pause // 2) * frame  # of a pause, on each side
    source = iter(blocks)
    first = 0  # index in the recording of the sample with which `ahead_N` begins
    ahead_N = np.zeros(0, np.float32)
    while True:
        ahead_N = _fill(ahead_N, source, longest + 1)
        window_N, at_end = ahead_N[:longest], len(ahead_N) <= longest
        if not len(window_N):
            return
        is_loud_F = find_loud(window_N, frame)
        span = _first_span(is_loud_F, pause)
        if span is None:
            cut = len(window_N) if at_end else max(frame, len(window_N) - kept)
            first, ahead_N = first + cut, ahead_N[cut:]
            continue
        begin, end = span.begin * frame, span.end * frame
        if first == 0 and at_end and span.is_last:
            cut = len(window_N)  # nothing to cut
        elif begin > kept:
            cut = begin - kept  # so that there is room for a longest piece behind the silence
        elif span.has_pause:
            cut = min(end + kept, len(window_N))
        elif at_end:
            cut = len(window_N)
        else:
            cut = find_quietest(window_N, round(QUIET_S * rate_hz), first=longest // 2)
        if is_loud_F[: cut // frame].sum() * FRAME_S >= SHORTEST_SOUND_S:
            start_s = (first + max(0, begin - kept)) / rate_hz
            end_s = (first + min(cut, end + kept)) / rate_hz
            yield SpeechPiece(window_N[:cut].copy(), start_s, end_s)
        first, ahead_N = first + cut, ahead_N[cut:]


def find_loud(waveform_N: np.ndarray, frame: int) -> np.ndarray:
    """Which frames of a recording are no pause: bool `[F]`; the last frame may be incomplete.

    Args:
        waveform_N: a few seconds.
        frame: samples per frame.
    """
    starts = np.arange(0, len(waveform_N), frame)
    sums_F = np.add.reduceat(np.square(waveform_N.astype(np.float64)), starts)
    powers_F = sums_F / np.minimum(frame, len(waveform_N) - starts)
    levels_F = 10 * np.log10(np.maximum(powers_F, 10 ** (FLOOR_DB / 10)))
    background, speech = np.percentile(levels_F, (BACKGROUND_PERCENTILE, SPEECH_PERCENTILE))
    difference = speech - background
    if difference < LEAST_DIFFERENCE_DB:
        limit = FLOOR_DB
    else:
        limit = background + min(difference / 2, MOST_ABOVE_BACKGROUND_DB)
    is_loud_F: np.ndarray = levels_F > limit
    return is_loud_F


def find_quietest(waveform_N: np.ndarray, quiet: int, *, first: int = 0) -> int:
    """The middle of the quietest stretch of `quiet` samples that begins at `first` or later."""
    near_N = waveform_N[first:].astype(np.float64)
    quiet = max(1, min(quiet, len(near_N) // 2))
    sums = np.concatenate([[0.0], np.square(near_N).cumsum()])
    return first + int((sums[quiet:] - sums[:-quiet]).argmin()) + quiet // 2


def cut_evenly(waveform_N: np.ndarray, max_samples: int, rate_hz: int) -> list[np.ndarray]:
    """Cut a recording into pieces of about the same length, where it is quietest near their ends.

    Args:
        waveform_N: the recording.
        max_samples: length of the longest piece.
        rate_hz: its sampling rate.

    Returns:
        Its pieces in order, none longer; the recording itself if it is not longer.
    """
    if len(waveform_N) <= max_samples:
        return [waveform_N]
    searched = int(SEARCHED * max_samples)
    num_pieces = -(-len(waveform_N) // (max_samples - 2 * searched))
    cuts = []
    for i in range(1, num_pieces):
        start = i * len(waveform_N) // num_pieces - searched
        near_N = waveform_N[start : start + 2 * searched]
        cuts.append(start + find_quietest(near_N, round(QUIET_S * rate_hz)))
    return np.split(waveform_N, cuts)


def _fill(ahead_N: np.ndarray, source: Iterator[np.ndarray], num_wanted: int) -> np.ndarray:
    """At least so many samples, unless the recording ends before."""
    parts, num_samples = [ahead_N], len(ahead_N)
    while num_samples < num_wanted and (block_N := next(source, None)) is not None:
        parts.append(block_N)
        num_samples += len(block_N)
    return np.concatenate(parts)


@dataclass(frozen=True)
class _Span:
    """The first loud frames of a window, and the short stops between them.

    Attributes:
        begin, end: the first of these frames, and the frame behind the last one.
        has_pause: whether a pause follows.
        is_last: whether no loud frame follows it.
    """

    begin: int
    end: int
    has_pause: bool
    is_last: bool


def _first_span(is_loud_F: np.ndarray, pause: int) -> _Span | None:
    """The first loud frames up to a pause of so many frames; None if no frame is loud."""
    [loud] = is_loud_F.nonzero()
    if not len(loud):
        return None
    [wide] = (np.append(loud[1:], len(is_loud_F)) - loud > pause).nonzero()
    last = int(wide[0]) if len(wide) else len(loud) - 1
    return _Span(int(loud[0]), int(loud[last]) + 1, bool(len(wide)), last == len(loud) - 1)
