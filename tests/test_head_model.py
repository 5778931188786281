"""The speech head: what it learns, what it draws, and that neither padding nor arrival matters."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from commands.errors import InputError
from speech_head.alignment import limit_steps
from speech_head.answer import AnswerTokens
from speech_head.config import SpeechHeadConfig
from speech_head.head_batch import HeadExample, collate
from speech_head.model import SpeechHead
from speech_head.state_statistics import compute_statistics
from speech_head.stream import (
    MAX_FRAMES_PER_TOKEN,
    HeadStream,
    Sampling,
    frame_budget,
    step_together,
)
from speech_head.word_times import word_times

CONFIG = SpeechHeadConfig(
    state_width=24, num_codebooks=4, codebook_size=16, width=32, num_layers=2, num_heads=2,
    depth_width=32, depth_layers=1, depth_heads=2, dropout=0.0,
)  # fmt: skip
WEIGHTS = torch.tensor([2.0, 1.0, 1.0, 0.5])


def make_head(seed=0):
    torch.manual_seed(seed)
    return SpeechHead(CONFIG).eval()


def make_example(num_tokens, num_frames, seed):
    generator = torch.Generator().manual_seed(seed)
    cursor = torch.randint(0, num_tokens, (num_frames,), generator=generator).sort().values
    return HeadExample(
        states_SLD=3 * torch.randn(num_tokens, 6, 24, generator=generator),
        embeddings_SD=torch.randn(num_tokens, 24, generator=generator),
        codes_FK=torch.randint(0, 16, (num_frames, 4), generator=generator),
        cursor_F=limit_steps(torch.cat([cursor, torch.tensor([num_tokens - 1])])),
    )


def as_tokens(example, part=slice(None)):
    ids_S = torch.arange(len(example.states_SLD))
    return AnswerTokens(ids_S[part], example.states_SLD[part], example.embeddings_SD[part])


def speak(head, examples, ids=("a", "b", "c"), sampling=Sampling(), chunk=None):  # noqa: B008
    """Codes of some utterances, spoken together, and their streams; tokens pushed `chunk` at a
    time."""
    streams = [HeadStream(head, id_, sampling) for id_ in ids[: len(examples)]]
    frames = [[] for _ in examples]

    def draw():
        while able := [i for i, stream in enumerate(streams) if stream.can_step]:
            stepped = step_together([streams[i] for i in able])
            for i, codes_K in zip(able, stepped, strict=True):
                frames[i] += [] if codes_K is None else [codes_K]

    for stream, example in zip(streams, examples, strict=True):
        size = chunk or len(example.states_SLD)
        for start in range(0, len(example.states_SLD), size):
            stream.push(as_tokens(example, slice(start, start + size)))
            if len(examples) == 1:
                draw()
        stream.close()
    draw()
    return [torch.stack(codes) for codes in frames], streams


def test_full_size_is_that_of_the_published_head():
    with torch.device("meta"):
        head = SpeechHead(SpeechHeadConfig())
    assert 145e6 <= sum(p.numel() for p in head.parameters()) <= 160e6


def test_states_are_standardised_by_what_was_measured():
    unit, standard = make_head(), SpeechHead(replace(CONFIG, standardizes=True)).eval()
    assert standard.state_dict().keys() - unit.state_dict().keys() == {
        "state_mean_LD", "state_std_LD",
    }  # fmt: skip
    standard.load_state_dict({**standard.state_dict(), **unit.state_dict()})
    example = make_example(9, 14, seed=1)
    sizes_D = 10 ** torch.linspace(-2, 2, 24)
    states_BSLD, embeddings_BSD = (example.states_SLD * sizes_D)[None], example.embeddings_SD[None]
    as_before = standard.read_tokens(states_BSLD, embeddings_BSD)  # by 0 and 1
    torch.testing.assert_close(as_before, unit.read_tokens(states_BSLD, embeddings_BSD))
    found = compute_statistics([states_BSLD[0]])
    standard.set_statistics(found.mean_LD, found.std_LD)
    unit_BSLD = F.rms_norm(states_BSLD, (24,))
    by_hand_BSLD = (unit_BSLD - unit_BSLD.mean(dim=1)) / unit_BSLD.std(dim=1, correction=0)
    torch.testing.assert_close(
        standard.read_tokens(states_BSLD, embeddings_BSD),
        unit.read_tokens(by_hand_BSLD, embeddings_BSD),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


def test_statistics_of_states():
    generator = torch.Generator().manual_seed(0)
    states = [5 * torch.randn(n, 2, 8, generator=generator) + 3 for n in (1, 40, 9)]
    states = [x_SLD.index_fill(2, torch.tensor([7]), 4.0) for x_SLD in states]
    unit_NLD = F.rms_norm(torch.cat(states), (8,))
    found = compute_statistics(states)
    torch.testing.assert_close(found.mean_LD, unit_NLD.mean(dim=0))
    torch.testing.assert_close(found.std_LD, unit_NLD.std(dim=0, correction=0))
    # What hardly varies is not magnified.
    constant = compute_statistics([torch.ones(50, 2, 8)])
    torch.testing.assert_close(constant.std_LD, torch.full((2, 8), 2.0**-8))


def test_padding_changes_nothing_in_the_loss():
    head = make_head()
    examples = [make_example(9, 14, seed=1), make_example(3, 5, seed=2)]
    batched = head(collate(examples), WEIGHTS)
    single = [head(collate([example]), WEIGHTS) for example in examples]
    for name in ("codebooks_K", "advance"):
        mean = sum(getattr(s, name) * n for s, n in zip(single, (14, 5), strict=True)) / 19
        torch.testing.assert_close(getattr(batched, name), mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(batched.end, (single[0].end + single[1].end) / 2)


@pytest.mark.parametrize("reads", ["gate", "sum", "states", "embedding"])
def test_what_is_read_of_a_token_is_what_was_asked_for(reads):
    torch.manual_seed(0)
    head = SpeechHead(replace(CONFIG, reads=reads))
    example, other = make_example(5, 6, seed=1), make_example(5, 6, seed=2)
    read = head.read_tokens(example.states_SLD[None], example.embeddings_SD[None])
    other_states = head.read_tokens(other.states_SLD[None], example.embeddings_SD[None])
    other_text = head.read_tokens(example.states_SLD[None], other.embeddings_SD[None])
    assert torch.equal(read, other_states) == (reads == "embedding")
    assert torch.equal(read, other_text) == (reads == "states")
    head(collate([example]), WEIGHTS).total.backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert len(head.layer_shares()) == (0 if reads == "embedding" else 6)


def test_hidden_history_changes_what_a_frame_hears_but_not_what_it_is_to_say():
    """Hidden for good, every frame is predicted from its text alone."""
    head = make_head()
    example, other = make_example(9, 14, seed=1), make_example(9, 14, seed=2)
    swapped = replace(example, codes_FK=torch.cat([other.codes_FK[:6], example.codes_FK[6:]]))

    def last_frames(one, history_dropout):
        seen = []
        hook = head.code0_head.register_forward_hook(lambda *call: seen.append(call[1][0]))
        batch = collate([one])
        head(batch, WEIGHTS, head.draw_told(*batch.frame_mask_BF.shape, history_dropout))
        hook.remove()
        return seen[0][8:]

    assert not torch.allclose(last_frames(example, 0.0), last_frames(swapped, 0.0), atol=1e-4)
    torch.testing.assert_close(last_frames(example, 1.0), last_frames(swapped, 1.0))


def test_a_few_utterances_are_learned_by_heart_and_spoken():
    head = make_head().train()
    examples = [make_example(7, 12, seed=3), make_example(4, 9, seed=4)]
    before = {name: value.clone() for name, value in head.named_parameters()}
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(120):
        loss = head(collate(examples), WEIGHTS)
        loss.total.backward()
        clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert loss.total.item() < 0.05
    unmoved = [name for name, value in head.named_parameters() if torch.equal(value, before[name])]
    assert not unmoved
    codes, streams = speak(head.eval(), examples, sampling=Sampling(temperature=0.0))
    for spoken_FK, example, stream in zip(codes, examples, streams, strict=True):
        assert stream.end == "ended"
        assert torch.equal(spoken_FK, example.codes_FK)
        assert stream.cursor == example.cursor_F[:-1].tolist()


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_frames_do_not_depend_on_how_tokens_arrive(chunk, seed):
    head, example = make_head(), make_example(30, 5, seed=5)
    [whole], _ = speak(head, [example], sampling=Sampling(seed))
    [pieces], _ = speak(head, [example], sampling=Sampling(seed), chunk=chunk)
    assert len(whole) >= 10 and torch.equal(whole, pieces)


def test_frames_come_before_the_last_token_is_there():
    head, example = make_head(), make_example(11, 5, seed=5)
    stream = HeadStream(head, "a", Sampling())
    stream.push(as_tokens(example, slice(0, 2)))
    assert not stream.can_step  # the token after next may still come
    stream.push(as_tokens(example, slice(2, 3)))
    assert stream.can_step and stream.step() is not None


def test_an_utterance_draws_the_same_alone_or_in_a_batch():
    head = make_head()
    examples = [make_example(size, 5, seed=size) for size in (3, 12, 6)]
    batched, streams = speak(head, examples)
    assert len({len(codes_FK) for codes_FK in batched}) == 3
    for i, example in enumerate(examples):
        [alone], [alone_stream] = speak(head, [example], ids=["abc"[i]])
        assert torch.equal(alone, batched[i])
        assert alone_stream.end == streams[i].end


@pytest.mark.parametrize("guidance", [None, 2.0])
def test_an_utterance_draws_the_same_beside_others_that_began_earlier(guidance):
    torch.manual_seed(0)
    head = SpeechHead(replace(CONFIG, text_dropout=0.5 if guidance else 0.0)).eval()
    sampling = Sampling(guidance=guidance)
    examples = [make_example(size, 5, seed=size) for size in (9, 12, 6)]
    alone = [speak(head, [e], ids=[id_], sampling=sampling)[0][0]
             for e, id_ in zip(examples, "abc", strict=True)]  # fmt: skip
    streams = [HeadStream(head, id_, sampling) for id_ in "abc"]
    frames = [[], [], []]

    def step(able):
        stepped = step_together([streams[k] for k in able])
        for k, codes_K in zip(able, stepped, strict=True):
            frames[k] += [] if codes_K is None else [codes_K]

    for i, (stream, example) in enumerate(zip(streams, examples, strict=True)):
        stream.push(as_tokens(example))
        stream.close()
        for number in range(5):  # b begins five frames after a; c leaves every third step out
            step([k for k in range(i + 1) if streams[k].can_step and (k != 2 or number % 3)])
    while able := [k for k, stream in enumerate(streams) if stream.can_step]:
        step(able)
    for found, expected in zip(frames, alone, strict=True):
        assert torch.equal(torch.stack(found), expected)


def test_speech_that_never_ends_is_stopped_and_named():
    head, example = make_head(), make_example(4, 5, seed=6)
    with torch.no_grad():
        head.code0_head.weight[-1] = 0.0  # an end that is never the most probable
        head.advance_head.bias[3] = 1e4  # a cursor that hurries to the last token
    [codes_FK], [stream] = speak(head, [example], sampling=Sampling(temperature=0.0))
    assert stream.end == "runaway" and len(codes_FK) == frame_budget(4)
    with torch.no_grad():
        head.advance_head.bias[0] = 1e5  # a cursor that never moves
    [codes_FK], [stream] = speak(head, [example])
    assert stream.end == "cut short" and len(codes_FK) == frame_budget(2)
    assert stream.cursor == [0] * MAX_FRAMES_PER_TOKEN + [1] * (frame_budget(2) - 25)
    assert stream.num_pushed == 1


def test_pace_speaks_faster_and_slower():
    head, example = make_head(), make_example(40, 5, seed=7)
    reached = []
    for pace in (-2.0, 0.0, 2.0):
        _, [stream] = speak(head, [example], sampling=Sampling(pace=pace))
        reached.append(stream.cursor[8])
    assert reached[0] < reached[1] < reached[2]


def test_guidance_goes_from_what_is_said_without_the_text_to_beyond_it():
    torch.manual_seed(0)
    head = SpeechHead(replace(CONFIG, text_dropout=0.5)).eval()
    examples = [make_example(6, 5, seed=n) for n in (1, 2, 3)]
    others = [
        replace(e, states_SLD=-e.states_SLD, embeddings_SD=-e.embeddings_SD) for e in examples
    ]
    told = {}
    for guidance in (0.0, 1.0, 1.000001, 3.0):
        codes, _ = speak(head, examples, sampling=Sampling(temperature=0.7, guidance=guidance))
        told[guidance] = [codes_FK[:3] for codes_FK in codes]
        alone, _ = speak(
            head, examples[1:2], ids=("b",), sampling=Sampling(temperature=0.7, guidance=guidance)
        )
        assert torch.equal(alone[0], codes[1])
    assert all(map(torch.equal, told[1.0], told[1.000001]))
    assert not all(map(torch.equal, told[1.0], told[3.0]))
    codes, _ = speak(head, others, sampling=Sampling(temperature=0.7, guidance=0.0))
    assert all(torch.equal(a[:3], b) for a, b in zip(codes, told[0.0], strict=True))
    with pytest.raises(InputError, match="--guidance needs a head trained with --text-dropout"):
        speak(make_head(), examples, sampling=Sampling(guidance=2.0))
    streams = [HeadStream(one, "a", Sampling()) for one in (head, make_head())]
    assert [stream.guidance for stream in streams] == [1.5, 1.0]


def test_text_dropout_hides_the_text_in_training_only():
    torch.manual_seed(0)
    head = SpeechHead(replace(CONFIG, text_dropout=0.999999))
    example, other = make_example(9, 14, seed=1), make_example(9, 14, seed=2)
    same_speech = replace(other, codes_FK=example.codes_FK, cursor_F=example.cursor_F)
    for is_training in (True, False):
        losses = [head.train(is_training)(collate([e]), WEIGHTS) for e in (example, same_speech)]
        assert torch.equal(losses[0].total, losses[1].total) == is_training


def test_layers_are_mixed_whatever_their_size():
    head, example = make_head(), make_example(5, 5, seed=8)
    sizes_L11 = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 0.5])[:, None]
    tokens = head.read_tokens(example.states_SLD[None], example.embeddings_SD[None])
    scaled = head.read_tokens(sizes_L11 * example.states_SLD[None], example.embeddings_SD[None])
    torch.testing.assert_close(tokens, scaled, atol=1e-4, rtol=0)


def test_words_have_the_times_of_their_tokens():
    class Letters:
        """Decodes ids to the letters they stand for."""

        def decode(self, ids, skip_special_tokens):
            assert skip_special_tokens
            return "".join(["me", " di", "n", "!", ""][i] for i in ids)

    words = word_times([0, 1, 2, 3, 4], [0, 0, 1, 2, 2, 3], Letters(), 12.5)
    assert [(w.word, w.start_s, w.end_s) for w in words] == [
        ("me", 0.0, 0.16),
        ("din!", 0.16, 0.48),
    ]
    spoken_in_part = word_times([0, 1, 2, 3, 4], [0, 0], Letters(), 12.5)
    assert [word.word for word in spoken_in_part] == ["me"]


@pytest.mark.parametrize("settings", [{"temperature": -1.0}, {"top_k": -1}])
def test_sampling_that_samples_nothing_is_refused(settings):
    with pytest.raises(InputError, match="must not be negative"):
        Sampling(**settings)
