"""Answers written together are those written one at a time."""

from itertools import islice

import pytest
import torch

from stage3_finetune.decoding import Decoding, compute_together
from stage3_finetune.dialogue import Turn, encode_prompt
from stage3_finetune.generate import generate_tokens
from stage3_finetune.model import load_finetuned

NUM_TOKENS = 12
LAYERS = [-2, -1]


@pytest.fixture(scope="module")
def loaded(tiny_models):
    device = torch.device("cpu")
    # Random weights enlarge rounding errors; in float64 there is room for them.
    return load_finetuned(str(tiny_models / "gemma"), None, device=device, dtype=torch.float64)


@pytest.fixture(scope="module")
def prompts(loaded):
    """One typed, one longer than the window of sliding attention, one spoken."""
    model, tokenizer = loaded
    width = model.config.audio_config.hidden_size
    frames_TD = torch.randn(40, width, generator=torch.Generator().manual_seed(0))
    long = "Me nua, wo ho te sɛn? Ɛnnɛ deɛ ɛyɛ da pa ara, na me ani agye. " * 3
    turns = [
        Turn("user", "Kasa."), Turn("user", long),
        Turn("user", "", spoken=True, frames_TD=frames_TD),
    ]  # fmt: skip
    prompts = [encode_prompt([turn], tokenizer) for turn in turns]
    assert len(prompts[1].input_ids) > model.config.text_config.sliding_window
    return prompts


@pytest.fixture(scope="module")
def alone(loaded, prompts):
    model, _ = loaded
    return [list(islice(Decoding(model, p, layers=LAYERS), NUM_TOKENS)) for p in prompts]


def assert_same(found, expected):
    assert [int(t.id_1) for t in found] == [int(t.id_1) for t in expected]
    for token, other in zip(found, expected, strict=True):
        torch.testing.assert_close(token.logits_1V, other.logits_1V, atol=1e-6, rtol=0)
        for layer in LAYERS:
            torch.testing.assert_close(
                token.hidden_states[layer], other.hidden_states[layer], atol=1e-6, rtol=0
            )


# Which of the three take each step: always all; one joining later; in turns; one that pauses.
ROUNDS = {
    "all": [(0, 1, 2)] * NUM_TOKENS,
    "joining": [(0,)] * 3 + [(0, 1)] * 4 + [(0, 1, 2)] * 5 + [(1, 2)] * 3 + [(2,)] * 4,
    "other order": [(2, 0)] * 5 + [(1, 2, 0)] * 7 + [(1,)] * 5,
    "a pause": [(0, 1, 2)] * 2 + [(0, 2)] * 3 + [(0, 1, 2)] * 7 + [(1,)] * 3,
}


@pytest.mark.parametrize("rounds", ROUNDS.values(), ids=ROUNDS)
def test_together_is_as_alone(loaded, prompts, alone, rounds):
    model, _ = loaded
    decodings = [Decoding(model, prompt, layers=LAYERS) for prompt in prompts]
    found = [[], [], []]
    for members in rounds:
        compute_together([decodings[i] for i in members])
        for i in members:
            found[i].append(decodings[i].next())
    for tokens, expected in zip(found, alone, strict=True):
        assert_same(tokens, expected)


def test_a_token_is_computed_once(loaded, prompts, monkeypatch):
    model, _ = loaded
    decodings = [Decoding(model, prompt, layers=LAYERS) for prompt in prompts[:2]]
    passes = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **inputs: passes.append(1) or forward(**inputs))
    compute_together(decodings)  # a prompt each
    compute_together(decodings)
    assert len(passes) == 2
    first = [decoding.next() for decoding in decodings]
    compute_together(decodings)
    second = [decoding.next() for decoding in decodings]
    assert len(passes) == 3
    assert [d.ids for d in decodings] == [
        [int(a.id_1), int(b.id_1)] for a, b in zip(first, second, strict=True)
    ]


def test_no_answer_holds_a_place_for_sound_or_what_the_checkpoint_suppresses(
    loaded, prompts, alone, monkeypatch
):
    """The tokens that were most probable are made such ones; both ways of decoding avoid them."""
    model, tokenizer = loaded
    places, suppressed = (int(alone[0][i].id_1) for i in (0, 1))
    assert not {places, suppressed} & set(prompts[0].input_ids)
    monkeypatch.setattr(model.config, "image_token_id", places)
    monkeypatch.setattr(model.generation_config, "suppress_tokens", [suppressed])
    ids = [int(token.id_1) for token in islice(Decoding(model, prompts[0]), NUM_TOKENS)]
    assert not {places, suppressed} & set(ids)
    [written] = generate_tokens(model, tokenizer, prompts[:1], max_new_tokens=NUM_TOKENS)
    assert written == ids[: len(written)] and written
