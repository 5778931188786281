"""The published head: its size, that padding is masked, and that it learns."""

import pytest
import torch
from torch.nn import functional as F

from speech_head.head_batch import HeadExample, collate
from speech_head.parallel import ParallelHead, ParallelHeadConfig, stretch

CONFIG = ParallelHeadConfig(
    state_width=24, num_codebooks=4, codebook_size=16, width=32, num_layers=2, num_heads=2,
    dropout=0.0, max_frames=20,
)  # fmt: skip
WEIGHTS = torch.tensor([2.0, 1.0, 1.0, 0.5])


def make_example(num_tokens: int, num_frames: int, seed: int) -> HeadExample:
    generator = torch.Generator().manual_seed(seed)
    return HeadExample(
        states_SLD=3 * torch.randn(num_tokens, 6, 24, generator=generator),
        embeddings_SD=torch.randn(num_tokens, 24, generator=generator),
        codes_FK=torch.randint(0, 16, (num_frames, 4), generator=generator),
        cursor_F=torch.zeros(num_frames + 1, dtype=torch.long),
    )


def make_head() -> ParallelHead:
    torch.manual_seed(0)
    return ParallelHead(CONFIG).eval()


def test_it_has_as_many_parameters_as_the_published_one() -> None:
    with torch.device("meta"):
        head = ParallelHead(ParallelHeadConfig())
    assert sum(p.numel() for p in head.parameters()) == pytest.approx(152_096_262, rel=1e-3)


def test_padding_changes_nothing() -> None:
    head = make_head()
    examples = [make_example(9, 14, seed=1), make_example(3, 5, seed=2)]
    batched = head(collate(examples), WEIGHTS)
    single = [head(collate([example]), WEIGHTS) for example in examples]
    mean_K = sum(s.codebooks_K * n for s, n in zip(single, (14, 5), strict=True)) / 19
    torch.testing.assert_close(batched.codebooks_K, mean_K, atol=1e-5, rtol=0)
    together = head.speak(examples, [14, 5])
    alone = [head.speak([e], [n])[0] for e, n in zip(examples, (14, 5), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize(("num_tokens", "num_frames"), [(4, 9), (9, 4), (1, 5), (6, 6)])
def test_states_are_stretched_as_torch_interpolates(num_tokens: int, num_frames: int) -> None:
    text_BSW = torch.randn(1, num_tokens, 5, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(text_BSW.mT, size=num_frames, mode="linear").mT
    padded_BSW = F.pad(text_BSW, (0, 0, 0, 3), value=100.0)
    position_F = torch.arange(num_frames + 2)
    stretched = stretch(
        padded_BSW, torch.tensor([num_tokens]), position_F, torch.tensor([num_frames])
    )
    torch.testing.assert_close(stretched[:, :num_frames], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(stretched[:, -1], text_BSW[:, -1])


def test_a_few_utterances_are_learned_by_heart() -> None:
    head = make_head().train()
    examples = [make_example(7, 12, seed=3), make_example(4, 9, seed=4)]
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(150):
        head(collate(examples), WEIGHTS).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    codes = head.eval().speak(examples, [12, 9])
    assert all(torch.equal(a, e.codes_FK) for a, e in zip(codes, examples, strict=True))


def test_speech_longer_than_all_that_was_heard_still_has_codes() -> None:
    [codes_FK] = make_head().speak([make_example(5, 1, seed=1)], [30])
    assert codes_FK.shape == (30, 4) and codes_FK.max() < 16
