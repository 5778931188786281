"""Speechless in memory: cached steps == teacher forcing, batch == single, padding, learning."""

from pathlib import Path

import pytest
import torch
from speechless_world import TEXTS, TINY, sharp_speechless, utterances
from transformers import DynamicCache

from commands.errors import InputError
from stage2_speechless.config import SpeechlessConfig
from stage2_speechless.data import Batch, collate
from stage2_speechless.draws import draw_hidden
from stage2_speechless.frame_decoder import FrameDecoder
from stage2_speechless.generation import pad_in_front
from stage2_speechless.model import Speechless, load_speechless
from stage2_speechless.sampling import SamplingSettings, sample_codes
from stage2_speechless.speak import Sentence, speak
from stage2_speechless.vocabulary import NOTHING, Vocabulary, all_characters


@pytest.fixture
def model() -> Speechless:
    return sharp_speechless()


def test_frame_decoder_steps_equal_teacher_forcing() -> None:
    torch.manual_seed(0)
    decoder = FrameDecoder(8, 30, state_width=24, width=32, num_layers=2, num_heads=4).eval()
    states_ND, codes_NK = torch.randn(5, 24), torch.randint(30, (5, 8))
    logits_NJV = decoder(states_ND, codes_NK)
    cache = DynamicCache(config=decoder.transformer.config)
    projected_NW = decoder.project(states_ND)
    for codebook in range(7):
        step_NV = decoder.step(projected_NW, codes_NK[:, codebook], codebook, cache)
        torch.testing.assert_close(step_NV, logits_NJV[:, codebook], atol=1e-5, rtol=0)


def test_frame_decoder_generates_what_its_logits_say() -> None:
    torch.manual_seed(0)
    decoder = FrameDecoder(4, 30, state_width=24, width=32).eval()
    states_ND, code0_N = torch.randn(6, 24), torch.randint(30, (6,))
    uniforms_NJ = torch.rand(6, 3)
    codes_NK = decoder.generate(states_ND, code0_N, uniforms_NJ, temperature=0.7, top_k=9)
    logits_NJV = decoder(states_ND, codes_NK)
    assert torch.equal(codes_NK[:, 0], code0_N)
    for j in range(3):
        expected_N = sample_codes(logits_NJV[:, j], uniforms_NJ[:, j], temperature=0.7, top_k=9)
        assert torch.equal(codes_NK[:, j + 1], expected_N)


def test_temporal_steps_equal_teacher_forcing(model: Speechless) -> None:
    batch = collate(utterances()[2:3], model)
    states_BLD = model.temporal_states(batch.tokens_BLK, batch.positions_BL)
    cache = DynamicCache(config=model.temporal.config)
    mask_BL = torch.ones(batch.positions_BL.shape, dtype=torch.bool)
    num_prefix = 3 + len(TEXTS[2])
    chunks = [range(num_prefix), *([i] for i in range(num_prefix, mask_BL.shape[1]))]
    steps = [
        model.temporal_states(
            batch.tokens_BLK[:, list(chunk)],
            batch.positions_BL[:, list(chunk)],
            mask_BL[:, : chunk[-1] + 1],
            cache,
        )
        for chunk in chunks
    ]
    torch.testing.assert_close(torch.cat(steps, dim=1), states_BLD, atol=1e-5, rtol=0)


def test_hidden_history_hides_frames_but_not_what_is_to_be_predicted(model: Speechless) -> None:
    whole = collate(utterances(), model)
    torch.manual_seed(0)
    lengths = [len(u.codes_TK) for u in utterances()]
    drawn = draw_hidden(lengths, dialect_dropout=0.0, text_dropout=0.0, history_dropout=0.5)
    hidden = collate(utterances(), model, drawn)
    is_frame_BL = whole.tokens_BLK[..., 0] >= model.vocabulary.size
    is_hidden_BL = (hidden.tokens_BLK != whole.tokens_BLK).all(dim=-1)
    assert 0.3 < is_hidden_BL[is_frame_BL].float().mean() < 0.7
    assert not is_hidden_BL[~is_frame_BL].any()
    assert (hidden.tokens_BLK[is_hidden_BL] == NOTHING).all()
    assert torch.equal(hidden.tokens_BLK[~is_hidden_BL], whole.tokens_BLK[~is_hidden_BL])
    assert torch.equal(hidden.targets_BLK, whole.targets_BLK)
    assert torch.equal(hidden.positions_BL, whole.positions_BL)


def test_a_hidden_text_leaves_the_conditions_and_every_position(model: Speechless) -> None:
    whole = collate(utterances(), model)
    lengths = [len(u.codes_TK) for u in utterances()]
    drawn = draw_hidden(lengths, dialect_dropout=0.0, text_dropout=1.0, history_dropout=0.0)
    hidden = collate(utterances(), model, drawn)
    for i, text in enumerate(TEXTS):
        start = 2 + len(text)  # after dialect, rate and characters
        assert (hidden.tokens_BLK[i, 2:start] == NOTHING).all()
        assert torch.equal(hidden.tokens_BLK[i, :2], whole.tokens_BLK[i, :2])
        assert torch.equal(hidden.tokens_BLK[i, start:], whole.tokens_BLK[i, start:])
    assert torch.equal(hidden.targets_BLK, whole.targets_BLK)
    assert torch.equal(hidden.positions_BL, whole.positions_BL)


def test_the_last_codebook_weight_also_counts_for_those_after_it(model: Speechless) -> None:
    batch = vars(collate(utterances(), model))
    plain, weighted = model(**batch), model(**batch, codebook_weights=(4.0, 0.5))
    torch.testing.assert_close(weighted.codebooks_K, plain.codebooks_K)
    weights_K = torch.tensor([4.0, 0.5, 0.5])
    more = ((weights_K - 1) * plain.codebooks_K).sum()
    torch.testing.assert_close(weighted.total, plain.total + more)


def test_batch_equals_single(model: Speechless) -> None:
    sentences = [Sentence(f"s{i}", text) for i, text in enumerate(TEXTS)]
    together = speak(model, sentences, max_frames=40)
    alone = [speak(model, [sentence], max_frames=40)[0] for sentence in sentences]
    assert len({len(s.codes_TK) for s in together}) > 1
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.codes_TK, other.codes_TK)
        assert one.ended == other.ended
    assert not torch.equal(speak(model, sentences, seed=1)[0].codes_TK, together[0].codes_TK)


def test_cut_off_is_reported(model: Speechless) -> None:
    with torch.no_grad():  # never the end
        model.code0_head.weight[model.end_of_speech] = 0
        model.code0_head.weight[: model.end_of_speech] = 0
        model.code0_head.weight[0] = 100 * model.temporal.norm.weight
    spoken = speak(
        model, [Sentence("a", "kofi")], sampling=SamplingSettings(temperature=0), max_frames=7
    )[0]
    assert spoken.codes_TK.shape == (7, 3)
    assert not spoken.ended


def test_padding_in_front_is_not_seen(model: Speechless) -> None:
    prefixes = [model.vocabulary.encode(text, "fante", 9.0) for text in TEXTS]
    tokens_BSK, mask_BS = pad_in_front(prefixes, 3)
    longest = tokens_BSK.shape[1]
    assert not mask_BS.all()
    positions_BS = torch.stack(
        [
            torch.nn.functional.pad(model.positions(len(p), 0, 9.0), (longest - len(p), 0))
            for p in prefixes
        ]
    )
    states_BSD = model.temporal_states(tokens_BSK, positions_BS, mask_BS)
    for i, prefix in enumerate(prefixes):
        alone_1SK, _ = pad_in_front([prefix], 3)
        alone_1SD = model.temporal_states(alone_1SK, model.positions(len(prefix), 0, 9.0)[None])
        torch.testing.assert_close(states_BSD[i, -len(prefix) :], alone_1SD[0], atol=1e-5, rtol=0)


def test_padded_loss_is_the_weighted_mean_of_single_losses(model: Speechless) -> None:
    rows = utterances()
    together = model(**vars(collate(rows, model)))
    single = [model(**vars(collate([row], model))) for row in rows]
    frames_B = torch.tensor([float(len(row.codes_TK)) for row in rows])
    codebooks_BK = torch.stack([loss.codebooks_K for loss in single])
    expected_K = (codebooks_BK * frames_B[:, None]).sum(dim=0) / frames_B.sum()
    end = torch.stack([loss.end for loss in single]).mean()
    torch.testing.assert_close(together.codebooks_K, expected_K)
    torch.testing.assert_close(together.end, end)
    torch.testing.assert_close(together.total, expected_K.sum() + end * len(rows) / frames_B.sum())


def test_learns_a_tiny_set_by_heart() -> None:
    torch.manual_seed(0)
    model = Speechless(TINY)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = collate(utterances(), model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    losses = [_step(model, batch, optimizer) for _ in range(120)]
    assert losses[0] > 7
    assert losses[-1] < 0.3
    unmoved = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert unmoved == []
    model.eval()
    for u in utterances():
        sentence = Sentence(u.id, u.text, u.dialect, u.rate_cps)
        spoken = speak(model, [sentence], sampling=SamplingSettings(temperature=0), max_frames=40)[
            0
        ]
        assert spoken.ended
        assert torch.equal(spoken.codes_TK, u.codes_TK)


def test_save_and_load(model: Speechless, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    loaded = load_speechless(str(tmp_path / "model"), device=torch.device("cpu"))
    assert loaded.config == model.config
    sentences = [Sentence("a", "kofi")]
    first, second = (speak(m, sentences, max_frames=20)[0] for m in (model, loaded))
    assert torch.equal(first.codes_TK, second.codes_TK)


def test_prefix() -> None:
    vocabulary = Vocabulary()
    prefix = vocabulary.encode("Me din de Ŋama.", "fante", 100.0)
    assert len(prefix) == 3 + len("me din de ŋama")
    assert len(set(all_characters())) == len(all_characters())
    every = [vocabulary.encode(f"a {char}", "asante", 1.0)[4] for char in all_characters().strip()]
    assert len(set(every)) == len(every)
    assert max(every) < vocabulary.size
    assert vocabulary.encode("a", "asante", 24.2)[1] == prefix[1]
    assert vocabulary.encode("a", "asante", 23.4)[1] == prefix[1] - 1


@pytest.mark.parametrize(
    ("text", "dialect", "rate_cps", "message"),
    [
        ("...", "asante", 9.0, "no letter to pronounce in '...'"),
        ("Привет Kofi", "asante", 9.0, "no sound for"),
        ("Kofi", "asant", 9.0, "did you mean 'asante'?"),
        ("Kofi", "asante", 0.0, "rate must be a positive number"),
    ],
)
def test_refused_prefixes(text: str, dialect: str, rate_cps: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Vocabulary().encode(text, dialect, rate_cps)


def test_refused_shapes() -> None:
    with pytest.raises(InputError, match="at least 2 codebooks"):
        FrameDecoder(1, 16, 16)
    with pytest.raises(InputError, match="does not split into 5 heads"):
        Speechless(SpeechlessConfig(width=32, num_heads=5))


def _step(model: Speechless, batch: Batch, optimizer: torch.optim.Optimizer) -> float:
    loss = model(**vars(batch)).total
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())
