"""When each word of an answer is spoken: from the head's cursor over the answer's tokens."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class WordTime:
    """A word of the answer, and when it is spoken."""

    word: str
    start_s: float
    end_s: float


def word_times(
    ids: Sequence[int],
    cursor: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    frame_rate_hz: float,
) -> list[WordTime]:
    """When each word was spoken.

    Args:
        ids: tokens of the answer.
        cursor: token under the head's cursor at each Mimi frame.
        frame_rate_hz: of these frames.

    Returns:
        Words spoken at least in part, in order.
    """
    texts = [tokenizer.decode(ids[:i], skip_special_tokens=True) for i in range(len(ids) + 1)]
    ends = [len(text) for text in texts]
    words, position = [], 0
    for word in texts[-1].split():
        start = texts[-1].index(word, position)
        position = start + len(word)
        first = bisect.bisect_right(ends, start) - 1
        after = bisect.bisect_left(ends, position)
        # A token begins at the first frame at which the cursor has reached it.
        start_frame, end_frame = (bisect.bisect_left(cursor, token) for token in (first, after))
        if start_frame < len(cursor):
            words.append(WordTime(word, start_frame / frame_rate_hz, end_frame / frame_rate_hz))
    return words
