"""The CTC recogniser: units that spell every word, paths checked against brute force, and it
learns."""

import itertools

import pytest
import torch

from commands.errors import InputError
from data_manifests.normalization import normalize_for_scoring
from stage1_rvq.frame_noise import with_noise
from stage1_rvq.recognizer import CTCRecognizer, RecognizerConfig, viterbi_starts
from stage1_rvq.text_units import train_units

TEXTS = ["Baako ne mmienu yɛ mmiɛnsa.", "Ɛte sɛn?", "Me din de Kwabena."]


@pytest.fixture(scope="module")
def units():
    return train_units(TEXTS, 64)


def test_units_spell_any_word_and_give_it_back(units):
    for text in [*TEXTS, "Nkɔmmɔbɔ", "dze ntsi", "xylophone 2024"]:
        normal = normalize_for_scoring(text)
        encoding = units.encode(normal)
        assert units.decode(encoding.ids) == normal
        assert 1 not in encoding.ids  # unknown
        vowels = "aeiouɛɔ"
        assert all(sum(letter in vowels for letter in unit) <= 1 for unit in encoding.tokens)


def brute_force_starts(log_probs_TV, units):
    """The best of all paths, by trying every one."""
    best, best_score = None, -float("inf")
    num_frames, num_units_all = log_probs_TV.shape
    for path in itertools.product(range(num_units_all), repeat=num_frames):
        collapsed = [u for u, _ in itertools.groupby(path)]
        if [u for u in collapsed if u != 0] != list(units):
            continue
        score = sum(float(log_probs_TV[t, u]) for t, u in enumerate(path))
        if score > best_score:
            starts, previous = [], 0
            for t, u in enumerate(path):
                if u not in (0, previous):
                    starts.append(t)
                previous = u
            best, best_score = starts, score
    return best


@pytest.mark.parametrize("units", [[1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 2]])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_viterbi_equals_brute_force(units, seed):
    generator = torch.Generator().manual_seed(seed)
    log_probs_TV = (2 * torch.randn(6, 3, generator=generator)).log_softmax(dim=-1)
    assert viterbi_starts(log_probs_TV, units) == brute_force_starts(log_probs_TV, units)


def test_viterbi_needs_room():
    log_probs_TV = torch.zeros(2, 3).log_softmax(dim=-1)
    assert viterbi_starts(log_probs_TV, [1, 2]) == [0, 1]
    with pytest.raises(InputError, match="2 units need 3 frames, the speech has 2"):
        viterbi_starts(log_probs_TV, [1, 1])


@pytest.fixture(scope="module")
def trained(units):
    """A recogniser overfitted to frames that spell their text, and those frames."""
    torch.manual_seed(0)
    recognizer = CTCRecognizer(RecognizerConfig(16, units.get_vocab_size(), width=32, num_layers=1))
    recognizer.units = units
    embeddings = torch.randn(units.get_vocab_size(), 16)
    ids = [units.encode(normalize_for_scoring(text)).ids for text in TEXTS]
    frames = [embeddings[torch.tensor(row).repeat_interleave(3)] for row in ids]
    before = {name: value.clone() for name, value in recognizer.state_dict().items()}
    optimizer = torch.optim.AdamW(recognizer.parameters(), lr=1e-2)
    from stage1_rvq.data import pad_frames

    frames_BTD, mask_BT = pad_frames(frames)
    lengths_B = mask_BT.sum(dim=1)
    targets = torch.cat([torch.tensor(row) for row in ids])
    target_lengths = torch.tensor([len(row) for row in ids])
    for _ in range(150):
        log_probs = recognizer(frames_BTD, lengths_B).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(log_probs, targets, lengths_B, target_lengths)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = [
        n
        for n, _ in recognizer.named_parameters()
        if not torch.equal(before[n], recognizer.state_dict()[n])
    ]
    assert len(moved) == len(list(recognizer.parameters()))
    return recognizer.eval(), frames


def test_it_reads_what_it_learned(trained):
    recognizer, frames = trained
    assert recognizer.transcribe(frames) == [normalize_for_scoring(text) for text in TEXTS]


def test_batch_equals_single(trained):
    recognizer, frames = trained
    padded = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
    lengths_B = torch.tensor([len(f) for f in frames])
    together_BTV = recognizer(padded, lengths_B)
    for row_TV, f in zip(together_BTV, frames, strict=True):
        alone_1TV = recognizer(f[None], torch.tensor([len(f)]))
        torch.testing.assert_close(row_TV[: len(f)], alone_1TV[0], atol=1e-5, rtol=0)


def test_alignment_covers_the_utterance(trained):
    recognizer, frames = trained
    for f, text in zip(frames, TEXTS, strict=True):
        spans = recognizer.align(f, text)
        assert spans[0].start_frame == 0 and spans[-1].end_frame == len(f)
        for a, b in itertools.pairwise(spans):
            assert a.end_frame == b.start_frame > a.start_frame
        spelled = "".join(span.text for span in spans).replace("▁", " ").strip()
        assert spelled == normalize_for_scoring(text)
        # Every unit lasts three frames in these made-up utterances.
        assert all(abs(span.start_frame - 3 * i) <= 2 for i, span in enumerate(spans))
    with pytest.raises(InputError, match="nothing to align"):
        recognizer.align(frames[0], "...")


def test_width_mismatch(trained):
    with pytest.raises(InputError, match="8 wide, this recogniser takes 16"):
        trained[0].transcribe([torch.zeros(4, 8)])


def test_noise_is_in_proportion_and_drawn_by_its_seed():
    torch.manual_seed(0)
    scale_D = torch.tensor([1.0, 10.0, 0.1]).repeat(50)
    frames_TD = scale_D * torch.randn(400, 150)
    amounts = []
    for seed in range(40):
        noisy_TD = with_noise(frames_TD, scale_D, 0.6, seed=seed)
        assert torch.equal(noisy_TD, with_noise(frames_TD, scale_D, 0.6, seed=seed))
        rms_D = ((noisy_TD - frames_TD) / scale_D).square().mean(dim=0).sqrt()
        amounts.append(rms_D.mean().item())
        # Of 400 frames, a dimension's RMS is known to a thirtieth.
        torch.testing.assert_close(rms_D, torch.full_like(rms_D, amounts[-1]), rtol=0.2, atol=0)
    assert max(amounts) <= 0.63 and 0.2 < sum(amounts) / 40 < 0.4
    assert torch.equal(with_noise(frames_TD, scale_D, 0.0, seed=0), frames_TD)
