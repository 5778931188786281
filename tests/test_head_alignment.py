"""Which token a frame belongs to: known answers, and the rules every path keeps."""

import random
from itertools import pairwise

import pytest
import torch

from commands.errors import InputError
from speech_head.alignment import (
    MAX_ADVANCE,
    cursor_path,
    letter_boundaries,
    limit_steps,
    scoring_positions,
)
from stage1_rvq.recognizer import UnitSpan

# "Me din." said in 16 recogniser frames (8 Mimi frames); tokens "Me", " din", "."
SPANS = [UnitSpan("▁me", 0, 6), UnitSpan("▁di", 6, 12), UnitSpan("n", 12, 16)]
OFFSETS = [(0, 2), (2, 6), (6, 7)]


def test_frames_belong_to_the_token_said_at_their_middle():
    # " din" begins with its space, at recogniser frame 6; the full stop has no letter, so no time.
    path = cursor_path(SPANS, "Me din.", OFFSETS, num_frames=8)
    assert path.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 3]


def test_a_last_frame_that_mimi_filled_up_belongs_to_the_last_letter():
    path = cursor_path(SPANS, "Me din.", OFFSETS, num_frames=9)
    assert path.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 3]


def test_letters_share_their_unit_evenly():
    assert letter_boundaries(SPANS).tolist() == [0, 4, 6, 8, 10, 12, 16]  # m e _ d i n, end


def test_positions_follow_what_normalisation_drops_joins_and_adds():
    assert scoring_positions("Mé, s3!") == [0, 1, 2, 2, 2, 4, 5, 5]
    assert scoring_positions("n'ani") == [0, 1, 1, 2, 3, 4]


def test_a_token_without_time_is_stepped_over():
    # An emoji in four byte tokens between two words: each of the four has no time of its own.
    spans = [UnitSpan("▁a", 0, 8), UnitSpan("▁a", 8, 16)]
    offsets = [(0, 1), (1, 3), (2, 3), (2, 3), (2, 3), (3, 5)]
    path = cursor_path(spans, "a 😂 a", offsets, num_frames=8)
    assert path.tolist() == [0, 0, 0, 2, 5, 5, 5, 5, 6]


def test_more_tokens_than_the_frames_can_pass_are_refused():
    with pytest.raises(InputError, match="7 tokens in 2 frames"):
        cursor_path([UnitSpan("▁a", 0, 4)], "a", [(0, 1)] * 7, num_frames=2)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ([0, 0, 5], [0, 2, 5]),
        ([2, 2, 2], [0, 2, 2]),
        ([0, 1, 2], [0, 1, 2]),
        ([0, 0, 0, 9], [0, 3, 6, 9]),
    ],
)
def test_steps_are_limited_with_the_least_change(wanted, given):
    assert limit_steps(torch.tensor(wanted)).tolist() == given


@pytest.mark.parametrize("seed", range(20))
def test_every_path_is_complete_and_moves_forward_by_at_most_three(seed):
    draw = random.Random(seed)
    words = ["".join(draw.choices("aeiɛɔmnkt", k=draw.randint(1, 5))) for _ in range(6)]
    text = " ".join(words) + draw.choice(["", ".", "!?"])
    units = [("▁" if i == 0 else "") + c for word in words for i, c in enumerate(word)]
    starts = [0, *sorted(draw.sample(range(1, 90), len(units) - 1)), 90]
    spans = [UnitSpan(u, *ends) for u, ends in zip(units, pairwise(starts), strict=True)]
    cuts = [0, *sorted(draw.sample(range(1, len(text)), min(9, len(text) - 1))), len(text)]
    offsets = list(pairwise(cuts))
    path = cursor_path(spans, text, offsets, num_frames=45)
    assert len(path) == 46 and path[0] == 0 and path[-1] == len(offsets)
    assert path.diff().min() >= 0 and path.diff().max() <= MAX_ADVANCE
