"""Align each Mimi frame of a recording with a token of its transcript.

    recogniser units (25 per s) -> characters of the transcript -> tokens -> frames (12.5 per s)

The result is the path of the head's text cursor: it never goes back, advances by at most three
tokens per frame, and ends on the token that closes the turn.
"""

# S answer tokens, F Mimi frames (12.5 per second)

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from commands.errors import InputError
from data_manifests.normalization import normalize_for_scoring
from stage1_rvq.recognizer import UnitSpan
from stage1_rvq.text_units import UNKNOWN

MAX_ADVANCE = 3
RECOGNIZER_FRAMES_PER_MIMI_FRAME = 2  # 25 and 12.5 per second


def cursor_path(
    spans: Sequence[UnitSpan], text: str, offsets: Sequence[tuple[int, int]], num_frames: int
) -> Tensor:
    """The token under the cursor at every frame.

    A unit's duration is divided evenly among its letters. A token lasts from its first letter to
    the first letter of the next token; one without a letter (a comma, a byte of an emoji) has no
    duration. A frame belongs to the token at its midpoint.

    Args:
        spans: `CTCRecognizer.align` of the recording with `text`; they cover it without gaps.
        text: the transcript that was tokenized.
        offsets: first and last + 1 character in `text` of each of its S - 1 tokens, in order.
        num_frames: F, Mimi frames of the recording.

    Returns:
        int64 `[F + 1]` in [0, S): the first is 0; the last, after the end of speech, is S - 1, the
        token that closes the turn; neighbours differ by 0 to `MAX_ADVANCE`.

    Raises:
        InputError: there are more tokens than the cursor can pass in that many frames.
    """
    num_tokens = len(offsets)
    if num_tokens > MAX_ADVANCE * num_frames:
        raise InputError(
            f"{num_tokens} tokens in {num_frames} frames of speech: more than {MAX_ADVANCE} a frame"
        )
    boundaries = letter_boundaries(spans)
    places = scoring_positions(text)
    starts_S = boundaries[[min(places[start], len(boundaries) - 1) for start, _ in offsets]]
    middles_F = RECOGNIZER_FRAMES_PER_MIMI_FRAME * np.arange(num_frames) + 1
    middles_F = np.minimum(middles_F, boundaries[-1] - 0.5)  # Mimi pads its last frame
    cursor_F = np.searchsorted(starts_S, middles_F, side="right") - 1
    return limit_steps(torch.tensor([*cursor_F.clip(min=0), num_tokens]))


def letter_boundaries(spans: Sequence[UnitSpan]) -> np.ndarray:
    """When each letter of the normalised text begins, and the last one ends.

    Returns: float64 `[letters + 1]`, in recogniser frames; spaces count as letters, except the one
        before the first word.
    """
    times: list[float] = []
    for span in spans:
        num_letters = 1 if span.text == UNKNOWN else len(span.text)
        times += np.linspace(span.start_frame, span.end_frame, num_letters, endpoint=False).tolist()
    boundaries = np.array([*times, spans[-1].end_frame], dtype=np.float64)
    # Every unit sequence begins with a word-start mark, which the text does not have.
    boundaries[1] = boundaries[0]
    return boundaries[1:]


def scoring_positions(text: str) -> list[int]:
    """For each character of a text, and its end, the number of normalised characters before it.

    Normalisation drops, merges and adds characters, so the length of the normalised prefix is used.
    The numbers never decrease.
    """
    positions = [0]
    for end in range(1, len(text) + 1):
        length = len(normalize_for_scoring(text[:end]))
        positions.append(max(positions[-1], length))
    return positions


def limit_steps(cursor: Tensor) -> Tensor:
    """The nearest path that starts at 0 and advances by at most `MAX_ADVANCE` per frame.

    Args:
        cursor: int64 `[F + 1]`, never decreasing, its last value at most `MAX_ADVANCE` times F.
    """
    num_frames = len(cursor) - 1
    reach = MAX_ADVANCE * torch.arange(num_frames + 1)
    # Advance early enough to arrive in time: at least as far as every later frame requires.
    needed = (cursor - reach).flip(0).cummax(0).values.flip(0) + reach
    return torch.minimum(needed, reach)
