"""A prompt computed while the question is asked answers as the prompt computed at once."""

from itertools import islice

import pytest
import torch

from stage3_finetune.decoding import Decoding
from stage3_finetune.dialogue import Turn, encode_prompt
from stage3_finetune.generate import stream_tokens
from stage3_finetune.live_prompt import LivePrompt
from stage3_finetune.model import load_finetuned


@pytest.fixture(scope="module")
def loaded(tiny_models):
    device = torch.device("cpu")
    # Random weights enlarge rounding errors; in float64 there is room for them.
    return load_finetuned(str(tiny_models / "gemma"), None, device=device, dtype=torch.float64)


def speech(num_frames, width, seed=0):
    return torch.randn(num_frames, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def dialogue(loaded):
    """A conversation longer than the window of sliding attention, and a question of 90 frames."""
    model, _ = loaded
    width = model.config.audio_config.hidden_size
    heard = Turn("user", "[a.wav]", spoken=True, frames_TD=speech(40, width, seed=1))
    turns = [Turn("user", "Wo ho te sɛn?"), Turn("assistant", "Me ho yɛ."), heard,
             Turn("assistant", "Yoo.")]  # fmt: skip
    assert model.config.text_config.sliding_window < 90
    return turns, speech(90, width)


def listen(loaded, turns, frames_TD, sizes, **settings):
    live = LivePrompt(*loaded, turns, **settings)
    for piece_TD in frames_TD.split(sizes):
        live.hear(piece_TD)
    return live


@pytest.mark.parametrize(
    "sizes", [[90], [1] * 90, [0, 7, 80, 0, 3]], ids=["whole", "ones", "mixed"]
)
@pytest.mark.parametrize("prompt", ["", "Kyerɛw deɛ wote."])
def test_states_and_logits_are_those_of_the_whole_prompt(loaded, dialogue, sizes, prompt):
    turns, frames_TD = dialogue
    begun = listen(loaded, turns, frames_TD, sizes, prompt=prompt).begun()
    question = Turn("user", "", spoken=True, frames_TD=frames_TD, prompt=prompt)
    whole = encode_prompt([*turns, question], loaded[1])
    assert begun.prompt.input_ids == whole.input_ids
    model, _ = loaded
    decodings = [islice(Decoding(model, start, layers=[-2, -1]), 4) for start in (whole, begun)]
    for expected, found in zip(*decodings, strict=True):
        assert_same_token(found, expected)


def assert_same_token(found, expected):
    assert torch.equal(found.id_1, expected.id_1)
    torch.testing.assert_close(found.logits_1V, expected.logits_1V, atol=1e-6, rtol=0)
    for layer in (-2, -1):
        torch.testing.assert_close(
            found.hidden_states[layer], expected.hidden_states[layer], atol=1e-6, rtol=0
        )


def test_few_tokens_are_left_when_the_speaker_falls_silent(loaded, dialogue):
    turns, frames_TD = dialogue
    for num_frames in (10, 90):
        begun = listen(loaded, turns, frames_TD[:num_frames], [num_frames]).begun()
        assert len(begun.prompt.input_ids) - begun.cache.length < 10


def test_an_answer_begun_too_early_changes_nothing(loaded, dialogue):
    """The speaker paused, and went on."""
    turns, frames_TD = dialogue
    live = listen(loaded, turns, frames_TD[:50], [50])
    assert len(list(stream_tokens(*loaded, live.begun(), max_new_tokens=5))) == 5
    live.hear(frames_TD[50:])
    assert torch.equal(live.frames_TD, frames_TD)
    found = list(stream_tokens(*loaded, live.begun(), max_new_tokens=5))
    straight = listen(loaded, turns, frames_TD, [50, 40])
    assert found == list(stream_tokens(*loaded, straight.begun(), max_new_tokens=5))


@pytest.mark.parametrize("num_right", [0, 1, 6, 12])
def test_a_draft_is_kept_as_far_as_it_is_right(loaded, dialogue, num_right):
    """Beyond the window of sliding attention too: what is refused leaves no trace."""
    turns, frames_TD = dialogue
    model, _ = loaded
    live = listen(loaded, turns, frames_TD, [90])
    straight = Decoding(model, live.begun(), layers=[-2, -1])
    tokens = list(islice(straight, 15))
    draft = straight.ids[:12]
    draft[num_right:] = [(id_ + 1) % 100 for id_ in draft[num_right:]]
    begun = live.begun(draft)
    assert list(begun.written) == straight.ids[:num_right]
    drafted = Decoding(model, begun, layers=[-2, -1])
    for expected, found in zip(tokens[num_right:], drafted, strict=False):
        assert_same_token(found, expected)
    assert drafted.ids[:15] == straight.ids[:15]
