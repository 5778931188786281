"""Word and character error rates of Twi speech recognition, defined once for the whole project.

    rates = compute_error_rates(references, hypotheses)
    print(rates.format_table())

Both sides go through `normalize_for_scoring` first, and through what else `TextRules` says. The
rate to quote is the corpus (pooled) WER: all word errors over all reference words. The mean of the
utterances' own WERs is given too, because published Twi results use either and they can differ
greatly (33.8 % pooled and 51.3 % mean for one public system on Akuapem Bible readings). Twi word
division is unstable (sɛ ebia / sɛebia), so every WER should be quoted with the CER, with and
without spaces.

An utterance whose reference is empty after normalisation adds no reference words, and every word of
its hypothesis is an insertion; its own WER and CER are 0 if the hypothesis is empty too, else 1.
An empty hypothesis is an utterance like any other: all deletions. Nothing is left out.
`error_breakdowns.py` has the rates by speaker and dialect, and those of English words.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from commands.errors import InputError
from data_manifests.alignments import (
    DEFAULT_RULES,
    EditCounts,
    UtteranceErrors,
    align_utterances,
    sum_counts,
)
from data_manifests.bootstrap import rate_interval
from data_manifests.text_rules import TextRules


@dataclass(frozen=True)
class ErrorRates:
    """Error rates of a corpus. Rates are fractions (0.05 is 5 %) and can exceed 1."""

    wer: float
    """Pooled: all word errors over all reference words."""
    wer_low: float
    """Lower end of the 95 % bootstrap interval of `wer` over utterances."""
    wer_high: float
    wer_utterance_mean: float
    """Mean of the utterances' own WERs."""
    wer_folded: float
    """Pooled, with ɛ and e, ɔ and o taken as the same letter."""
    cer: float
    """Pooled, over characters; the space between two words counts as one."""
    cer_low: float
    """Lower end of the 95 % bootstrap interval of `cer` over utterances."""
    cer_high: float
    cer_without_spaces: float
    """Pooled, over characters other than spaces: not affected by word division."""
    substitutions: int
    """Number of words, as for deletions and insertions."""
    deletions: int
    insertions: int
    num_reference_words: int
    num_reference_characters: int
    """With spaces, as in `cer`."""
    num_utterances: int
    num_empty_references: int
    num_empty_hypotheses: int
    normalization: str
    """What both sides went through, with its version; `TextRules.name`."""

    def as_dict(self) -> dict[str, float | int | str]:
        """All fields by name, JSON-ready; rates stay fractions."""
        return asdict(self)

    def format_table(self) -> str:
        """The rates in percent and the counts, as lines of text for a terminal."""
        intervals = {"WER": (self.wer_low, self.wer_high), "CER": (self.cer_low, self.cer_high)}
        rates = {
            "WER": self.wer,
            "  mean of utterances": self.wer_utterance_mean,
            "  with ɛ = e, ɔ = o": self.wer_folded,
            "CER": self.cer,
            "  without spaces": self.cer_without_spaces,
        }
        counts = {
            "substitutions": self.substitutions,
            "deletions": self.deletions,
            "insertions": self.insertions,
            "reference words": self.num_reference_words,
            "reference characters": self.num_reference_characters,
            "utterances": self.num_utterances,
            "  empty references": self.num_empty_references,
            "  empty hypotheses": self.num_empty_hypotheses,
        }
        lines = []
        for name, rate in rates.items():
            lines.append(f"{name:22}{100 * rate:8.2f} %")
            if name in intervals:
                low, high = intervals[name]
                lines[-1] += f"  95 % interval {100 * low:.2f} to {100 * high:.2f}"
        lines += [f"{name:22}{count:8d}" for name, count in counts.items()]
        return "\n".join([*lines, f"{'normalisation':22}{self.normalization:>8}"])


def compute_error_rates(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    rules: TextRules = DEFAULT_RULES,
    seed: int = 0,
) -> ErrorRates:
    """Error rates of a corpus, as defined at the top of this file.

    Args:
        references: what was said, one string per utterance.
        hypotheses: what was recognised, in the same order.
        rules: what is done to both first.
        seed: seed of the bootstrap's resampling.

    Raises:
        InputError: unequal lengths, no utterance, or no reference with a word in it.
    """
    utterances = align_utterances(references, hypotheses, rules=rules)
    return pool_error_rates(utterances, rules=rules, seed=seed)


def pool_error_rates(
    utterances: Sequence[UtteranceErrors], *, rules: TextRules = DEFAULT_RULES, seed: int = 0
) -> ErrorRates:
    """The second half of `compute_error_rates`: pool aligned utterances. `rules` says how they were
    aligned. Raises the same errors."""
    num_empty_references = sum(utterance.reference == "" for utterance in utterances)
    if num_empty_references == len(utterances):
        after = " after normalisation" if rules.normalize else ""
        raise InputError(f"no reference has a word in it{after} ({len(utterances)} utterances)")
    words = sum_counts([u.words for u in utterances])
    characters = sum_counts([u.characters for u in utterances])
    wer_interval = interval([u.words for u in utterances], seed=seed)
    cer_interval = interval([u.characters for u in utterances], seed=seed)
    assert wer_interval is not None and cer_interval is not None
    return ErrorRates(
        wer=words.rate,
        wer_low=wer_interval[0],
        wer_high=wer_interval[1],
        wer_utterance_mean=float(np.mean([u.words.rate for u in utterances])),
        wer_folded=sum_counts([u.words_folded for u in utterances]).rate,
        cer=characters.rate,
        cer_low=cer_interval[0],
        cer_high=cer_interval[1],
        cer_without_spaces=sum_counts([u.characters_without_spaces for u in utterances]).rate,
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        num_reference_words=words.reference_length,
        num_reference_characters=characters.reference_length,
        num_utterances=len(utterances),
        num_empty_references=num_empty_references,
        num_empty_hypotheses=sum(u.hypothesis == "" for u in utterances),
        normalization=rules.name,
    )


def difference_interval(
    first: Sequence[EditCounts], other: Sequence[EditCounts], *, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of the pooled rate of `other` minus that of `first`, for two systems
    on the same utterances, which are resampled in pairs.

    Raises:
        InputError: unequal numbers of utterances, or no reference has a word in it.
    """
    if len(first) != len(other):
        raise InputError(f"{len(first)} utterances of one system but {len(other)} of the other")
    more = [b.errors - a.errors for a, b in zip(first, other, strict=True)]
    between = rate_interval(more, [count.reference_length for count in first], seed=seed)
    if between is None:
        raise InputError("no reference has a word in it")
    return between


def interval(
    counts: Sequence[EditCounts], *, seed: int = 0, blocks: Sequence[str] | None = None
) -> tuple[float, float] | None:
    """95 % bootstrap interval of the pooled rate; arguments and None as in `rate_interval`."""
    errors, lengths = ([c.errors for c in counts], [c.reference_length for c in counts])
    return rate_interval(errors, lengths, seed=seed, blocks=blocks)
