"""Error rates against hand-worked cases, against jiwer, and against their own definitions."""

import json
import random
import subprocess
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest

from commands.errors import InputError
from data_manifests.alignments import EditCounts, align_utterances
from data_manifests.error_rates import compute_error_rates, difference_interval
from data_manifests.normalization import normalize_for_scoring
from data_manifests.text_rules import TextRules

RAW = TextRules(normalize=False)

WORDS = ["Ɛyɛ", "s3", "ɔbaa", "n'ani", "k)", "fie,", "ɛnnɛ", "de", "mmienu", "Kumase", "paa", "!"]


def random_corpus(num_utterances: int, seed: int) -> tuple[list[str], list[str]]:
    """References of 0-8 words, and hypotheses that drop, change and add some of them."""
    generator = random.Random(seed)
    references, hypotheses = [], []
    for _ in range(num_utterances):
        reference = generator.choices(WORDS, k=generator.randint(0, 8))
        hypothesis = []
        for word in reference:
            draw = generator.random()
            if draw > 0.1:
                hypothesis.append(generator.choice(WORDS) if draw < 0.25 else word)
            if draw > 0.9:
                hypothesis.append(generator.choice(WORDS))
        references.append(" ".join(reference))
        hypotheses.append(" ".join(hypothesis))
    return references, hypotheses


def test_pooled_and_utterance_mean_differ() -> None:
    # 1 word wrong of 1, 1 of 4: pooled 2/5, mean (1 + 1/4) / 2.
    rates = compute_error_rates(["aane", "me kɔ fie nnɛ"], ["dabi", "me kɔ fie"])
    assert rates.wer == pytest.approx(2 / 5)
    assert rates.wer_utterance_mean == pytest.approx(0.625)
    assert (rates.substitutions, rates.deletions, rates.insertions) == (1, 1, 0)
    assert (rates.num_reference_words, rates.num_utterances) == (5, 2)


def test_wer_exceeds_one_with_insertions() -> None:
    rates = compute_error_rates(["aane"], ["aane aane na bra"])
    assert rates.wer == rates.wer_utterance_mean == 3.0
    assert (rates.substitutions, rates.deletions, rates.insertions) == (0, 0, 3)


def test_cer_counts_spaces_and_its_sister_does_not() -> None:
    # "sɛ ebia" has 7 characters, 6 without the space, which is the only difference.
    rates = compute_error_rates(["sɛ ebia"], ["sɛebia"])
    assert rates.cer == pytest.approx(1 / 7)
    assert rates.cer_without_spaces == 0.0
    assert rates.wer == 1.0
    assert rates.num_reference_characters == 7


def test_folded_wer_takes_open_vowels_for_closed_ones() -> None:
    rates = compute_error_rates(["ɔbɛkɔ Kumase ɛnnɛ"], ["obeko Kumasi ɛnnɛ"])
    assert rates.wer == pytest.approx(2 / 3)
    assert rates.wer_folded == pytest.approx(1 / 3)


def test_normalisation_is_applied_to_both_sides_unless_turned_off() -> None:
    references, hypotheses = ["N'ani  y3 d3."], ["nani yɛ dɛ"]
    normalized = compute_error_rates(references, hypotheses)
    assert (normalized.wer, normalized.cer) == (0.0, 0.0)
    assert normalized.normalization == "twi-2"
    raw = compute_error_rates(references, hypotheses, rules=RAW)
    assert (raw.wer, raw.normalization) == (1.0, "none")
    spaced = compute_error_rates(["me  kɔ\u00a0fie "], ["me kɔ fie"], rules=RAW)
    assert (spaced.wer, spaced.cer) == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_jiwer_on_normalised_text(seed: int) -> None:
    references, hypotheses = random_corpus(60, seed)
    rates = compute_error_rates(references, hypotheses)
    refs = [normalize_for_scoring(text) for text in references]
    hyps = [normalize_for_scoring(text) for text in hypotheses]
    words = jiwer.process_words(refs, hyps)
    assert rates.wer == pytest.approx(words.wer)
    assert rates.substitutions == words.substitutions
    assert rates.deletions == words.deletions
    assert rates.insertions == words.insertions
    assert rates.cer == pytest.approx(jiwer.cer(refs, hyps))
    joined = [[text.replace(" ", "") for text in texts] for texts in (refs, hyps)]
    assert rates.cer_without_spaces == pytest.approx(jiwer.cer(*joined))
    per_utterance = [
        jiwer.wer(r, h) if r else float(bool(h)) for r, h in zip(refs, hyps, strict=True)
    ]
    assert rates.wer_utterance_mean == pytest.approx(np.mean(per_utterance))


def test_empty_reference_adds_insertions_and_no_words() -> None:
    rates = compute_error_rates(["me kɔ", "...", ""], ["me kɔ", "aane dabi", "?"])
    assert rates.wer == pytest.approx(2 / 2)
    assert rates.insertions == 2
    assert rates.num_reference_words == 2
    assert rates.num_empty_references == 2
    assert rates.num_empty_hypotheses == 1
    assert rates.wer_utterance_mean == pytest.approx((0 + 1 + 0) / 3)
    assert rates.cer == pytest.approx(9 / 5)


def test_empty_hypothesis_is_all_deletions() -> None:
    rates = compute_error_rates(["me kɔ fie", "aane"], ["", "aane"])
    assert (rates.wer, rates.deletions, rates.num_empty_hypotheses) == (3 / 4, 3, 1)


@pytest.mark.parametrize("empty", ["", "...", "😂", "\u200b"])
def test_all_references_empty_is_refused(empty: str) -> None:
    with pytest.raises(InputError, match=r"no reference has a word in it.*2 utterances"):
        compute_error_rates([empty, empty], ["aane", ""])


def test_unequal_lengths_and_no_utterances_are_refused() -> None:
    with pytest.raises(InputError, match="2 references but 1 hypotheses"):
        compute_error_rates(["a", "b"], ["a"])
    with pytest.raises(InputError, match="no utterances"):
        compute_error_rates([], [])


def test_interval_holds_the_rate_and_is_reproducible() -> None:
    references, hypotheses = random_corpus(80, seed=5)
    rates = compute_error_rates(references, hypotheses, seed=1)
    assert 0 < rates.wer_low < rates.wer < rates.wer_high
    assert 0 < rates.cer_low < rates.cer < rates.cer_high
    assert compute_error_rates(references, hypotheses, seed=1) == rates
    assert compute_error_rates(references, hypotheses, seed=2).wer_low != rates.wer_low


def test_interval_has_the_width_of_the_sampling_error() -> None:
    # One-word utterances, 30 % wrong: the binomial interval is 0.3 ± 1.96 sqrt(0.3 * 0.7 / 1000).
    references = ["aane"] * 1000
    hypotheses = ["dabi"] * 300 + ["aane"] * 700
    rates = compute_error_rates(references, hypotheses)
    half_width = 1.96 * (0.3 * 0.7 / 1000) ** 0.5
    assert rates.wer_low == pytest.approx(0.3 - half_width, abs=0.004)
    assert rates.wer_high == pytest.approx(0.3 + half_width, abs=0.004)


def test_interval_of_one_utterance_is_its_rate() -> None:
    rates = compute_error_rates(["me kɔ fie", ""], ["me kɔ", ""])
    assert rates.wer_low == rates.wer == rates.wer_high == pytest.approx(1 / 3)


def test_difference_of_two_systems_is_drawn_in_pairs() -> None:
    """One system errs once more in every utterance: no resample says anything else."""
    generator = np.random.default_rng(0)
    first = [EditCounts(int(n), 0, 0, 10) for n in generator.integers(5, size=50)]
    other = [EditCounts(count.substitutions + 1, 0, 0, 10) for count in first]
    assert difference_interval(first, other) == pytest.approx((0.1, 0.1))
    low, high = difference_interval(first, first[::-1])
    assert low < 0 < high
    with pytest.raises(InputError, match="50 utterances of one system but 49"):
        difference_interval(first, other[1:])


def test_order_of_utterances_changes_no_rate() -> None:
    references, hypotheses = random_corpus(40, seed=7)
    forward = compute_error_rates(references, hypotheses).as_dict()
    backward = compute_error_rates(references[::-1], hypotheses[::-1]).as_dict()
    for name in set(forward) - {"wer_low", "wer_high", "cer_low", "cer_high", "normalization"}:
        assert forward[name] == pytest.approx(backward[name])


def test_aligned_utterances_are_those_of_one_by_one() -> None:
    references, hypotheses = random_corpus(30, seed=9)
    together = align_utterances(references, hypotheses)
    alone = [align_utterances([r], [h])[0] for r, h in zip(references, hypotheses, strict=True)]
    assert together == alone


def test_table_and_dict_show_the_same_numbers() -> None:
    rates = compute_error_rates(["me kɔ fie nnɛ", "aane"], ["me kɔ fi", "aane"])
    table = rates.format_table()
    assert table.startswith("WER                      40.00 %  95 % interval ")
    assert "deletions                    1" in table
    assert "twi-2" in table
    assert json.loads(json.dumps(rates.as_dict()))["wer"] == pytest.approx(0.4)


def test_metric_gives_the_same_rates(tmp_path: Path) -> None:
    from data_manifests.error_rate_metric import TwiErrorRate

    references, hypotheses = random_corpus(20, seed=3)
    expected = compute_error_rates(references, hypotheses).as_dict()
    assert (
        TwiErrorRate(cache_dir=str(tmp_path)).compute(references=references, predictions=hypotheses)
        == expected
    )
    batched = TwiErrorRate(cache_dir=str(tmp_path))
    for start in (0, 10):
        end = start + 10
        batched.add_batch(references=references[start:end], predictions=hypotheses[start:end])
    assert batched.compute() == expected
    raw = TwiErrorRate(cache_dir=str(tmp_path)).compute(
        references=["Aane"], predictions=["aane"], normalize=False
    )
    assert raw["wer"] == 1.0


def test_importing_score_and_error_rates_imports_no_torch() -> None:
    program = "import data_manifests.score, sys; print('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
