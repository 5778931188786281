"""How Speechless draws codes: as its logits say, guided towards the text or not."""

from dataclasses import replace

import pytest
import torch
from speechless_world import TEXTS, TINY, sharp_speechless
from torch import Tensor

from commands.errors import InputError
from stage2_speechless.data import TrainingUtterance, collate
from stage2_speechless.draws import Hidden
from stage2_speechless.frame_decoder import guide
from stage2_speechless.model import Speechless
from stage2_speechless.sampling import SamplingSettings, sample_codes, utterance_uniforms
from stage2_speechless.speak import Sentence, speak


@pytest.fixture
def model() -> Speechless:
    return sharp_speechless()


def test_generated_codes_follow_from_teacher_forced_logits(model: Speechless) -> None:
    """The whole generation loop, against one forward pass over what it made."""
    spoken = speak(model, [Sentence("a", TEXTS[0], "asante", 10.0)], seed=3, max_frames=25)[0]
    num_frames = len(spoken.codes_TK)
    uniforms_TK = utterance_uniforms(3, "a", 26, 3)
    utterance = TrainingUtterance("a", TEXTS[0], "asante", 10.0, spoken.codes_TK)
    batch = collate([utterance], model)
    states_TD = model.temporal_states(batch.tokens_BLK, batch.positions_BL)[0, -num_frames - 1 :]
    logits_TV = model.code0_head(states_TD)
    logits_TV[0, model.end_of_speech] = -torch.inf
    drawn_T = sample_codes(logits_TV, uniforms_TK[: num_frames + 1, 0], temperature=0.5, top_k=100)
    assert torch.equal(drawn_T[:num_frames], spoken.codes_TK[:, 0])
    assert (drawn_T[num_frames] == model.end_of_speech) == spoken.ended


def test_guided_codes_follow_from_logits_with_and_without_the_text(model: Speechless) -> None:
    """The whole loop again, for a model that was also trained without texts."""
    guided = as_guided(model)
    sampling = SamplingSettings(guidance=1.7)
    sentence = Sentence("a", TEXTS[0], "asante", 10.0)
    spoken = speak(guided, [sentence], seed=3, sampling=sampling, max_frames=25)[0]
    num_frames = len(spoken.codes_TK)
    utterance = TrainingUtterance("a", TEXTS[0], "asante", 10.0, spoken.codes_TK)
    hidden = Hidden(dialect=False, text=True, frames_T=torch.zeros(num_frames, dtype=torch.bool))
    states = []
    for kept_back in (None, hidden):
        batch = collate([utterance], guided, [kept_back] if kept_back else ())
        states_LD = guided.temporal_states(batch.tokens_BLK, batch.positions_BL)[0]
        states.append(states_LD[-num_frames - 1 : -1])
    with_text_TV, without_text_TV = (guided.code0_head(states_TD) for states_TD in states)
    logits_TV = guide(with_text_TV, without_text_TV, 1.7)
    logits_TV[0, guided.end_of_speech] = -torch.inf
    uniforms_TK = utterance_uniforms(3, "a", 26, 3)[:num_frames]
    drawn_T = sample_codes(logits_TV, uniforms_TK[:, 0], temperature=0.5, top_k=100)
    assert torch.equal(drawn_T, spoken.codes_TK[:, 0])
    codes_TK = guided.frame_decoder.generate(
        states[0], drawn_T, uniforms_TK[:, 1:], temperature=0.5, top_k=100, guidance=1.7,
        unconditional_ND=states[1],
    )  # fmt: skip
    assert torch.equal(codes_TK, spoken.codes_TK)
    unguided = replace(sampling, guidance=1.0)
    other = speak(guided, [sentence], seed=3, sampling=unguided, max_frames=25)[0]
    assert not torch.equal(other.codes_TK, spoken.codes_TK)


@pytest.mark.parametrize("guidance", [None, 0.5])
def test_guided_batch_equals_single(model: Speechless, guidance: float | None) -> None:
    guided, sampling = as_guided(model), SamplingSettings(guidance=guidance)
    sentences = [Sentence(f"s{i}", text) for i, text in enumerate(TEXTS)]
    together = speak(guided, sentences, sampling=sampling, max_frames=40)
    assert len({len(s.codes_TK) for s in together}) > 1
    for one, sentence in zip(together, sentences, strict=True):
        [alone] = speak(guided, [sentence], sampling=sampling, max_frames=40)
        assert torch.equal(one.codes_TK, alone.codes_TK) and one.ended == alone.ended


def test_without_guidance_towards_it_the_text_does_not_matter(model: Speechless) -> None:
    guided = as_guided(model)
    for guidance, is_same in ((0.0, True), (1.0, False)):
        sampling = SamplingSettings(guidance=guidance)
        one, other = (
            speak(guided, [Sentence("a", text, "asante", 10.0)], sampling=sampling, max_frames=9)[0]
            for text in ("me din de ama", "me din de efi")
        )
        assert torch.equal(one.codes_TK, other.codes_TK) == is_same


def test_only_what_was_trained_without_texts_is_guided(model: Speechless) -> None:
    with pytest.raises(InputError, match="--guidance needs a model that was also trained"):
        speak(model, [Sentence("a", "kofi")], sampling=SamplingSettings(guidance=2.0))
    speak(model, [Sentence("a", "kofi")], sampling=SamplingSettings(guidance=1.0), max_frames=3)


def as_guided(model: Speechless) -> Speechless:
    """The same weights, as if trained with text dropout."""
    guided = Speechless(replace(TINY, text_dropout=0.1)).eval()
    guided.load_state_dict(model.state_dict())
    return guided


def test_sampling_follows_the_distribution() -> None:
    logits_V = torch.tensor([0.0, 1.0, -torch.inf, 2.0, -1.0])
    uniforms_N = (torch.arange(100_000) + 0.5) / 100_000

    def frequencies(**settings: float | int) -> Tensor:
        rows_NV = logits_V.expand(len(uniforms_N), -1)
        codes_N = sample_codes(rows_NV, uniforms_N, **{"temperature": 1.0, "top_k": 0, **settings})
        return codes_N.bincount(minlength=5) / len(uniforms_N)

    torch.testing.assert_close(frequencies(), logits_V.softmax(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        frequencies(temperature=0.5), (2 * logits_V).softmax(-1), atol=1e-4, rtol=0
    )
    top_2 = torch.tensor([0.0, 0.26894, 0.0, 0.73106, 0.0])
    torch.testing.assert_close(frequencies(top_k=2), top_2, atol=1e-4, rtol=0)
    assert frequencies(temperature=0).tolist() == [0, 0, 0, 1, 0]


def test_extreme_uniforms_never_draw_an_impossible_code() -> None:
    torch.manual_seed(0)
    logits_NV = torch.randn(2000, 64)
    logits_NV[:, :8] = logits_NV[:, -8:] = -torch.inf
    for value in (0.0, 1 - 2**-24):
        codes_N = sample_codes(logits_NV, torch.full((2000,), value), temperature=0.3, top_k=0)
        assert codes_N.min() >= 8
        assert codes_N.max() < 56
