"""Word and character error rates of Twi speech recognition, defined once for the whole project.

    rates = compute_error_rates(references, hypotheses)
    print(rates.format_table())

Both sides go through `normalize_for_scoring` first. The rate to quote is the corpus (pooled) WER:
all word errors over all reference words. The mean of the utterances' own WERs is given too, because
published Twi results use either and they can differ greatly (33.8 % pooled and 51.3 % mean for one
public system on Akuapem Bible readings). Twi word division is unstable (sɛ ebia / sɛebia), so every
WER should be quoted with the CER, with and without spaces.

An utterance whose reference is empty after normalisation adds no reference words, and every word of
its hypothesis is an insertion; its own WER and CER are 0 if the hypothesis is empty too, else 1.
An empty hypothesis is an utterance like any other: all deletions. Nothing is left out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import jiwer
import numpy as np

from commands.errors import InputError
from data_manifests.language import language
from data_manifests.normalization import normalize_for_scoring

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95

_FOLD_OPEN_VOWELS = str.maketrans("ɛƐɔƆ", "eEoO")


@dataclass(frozen=True)
class EditCounts:
    """Edits that turn references into hypotheses (Levenshtein, as jiwer aligns them)."""

    substitutions: int
    deletions: int
    insertions: int
    reference_length: int
    """Words or characters of the reference."""

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per unit of the reference; for an empty reference 0 without errors, else 1."""
        if self.reference_length == 0:
            return float(self.errors > 0)
        return self.errors / self.reference_length


@dataclass(frozen=True)
class UtteranceErrors:
    """One utterance, aligned. The texts are those compared, normalised if that was requested."""

    reference: str
    hypothesis: str
    words: EditCounts
    words_folded: EditCounts
    characters: EditCounts
    characters_without_spaces: EditCounts


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
    """Version of the normalisation both sides went through, or "none"."""

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
    references: Sequence[str], hypotheses: Sequence[str], *, normalize: bool = True, seed: int = 0
) -> ErrorRates:
    """Error rates of a corpus, as defined at the top of this file.

    Args:
        references: what was said, one string per utterance.
        hypotheses: what was recognised, in the same order.
        normalize: apply `normalize_for_scoring` to both; otherwise only white space is unified.
        seed: seed of the bootstrap's resampling.

    Raises:
        InputError: unequal lengths, no utterance, or no reference with a word in it.
    """
    utterances = align_utterances(references, hypotheses, normalize=normalize)
    return pool_error_rates(utterances, normalize=normalize, seed=seed)


def align_utterances(
    references: Sequence[str], hypotheses: Sequence[str], *, normalize: bool = True
) -> list[UtteranceErrors]:
    """The first half of `compute_error_rates`: one row per utterance. Raises the same errors."""
    if len(references) != len(hypotheses):
        raise InputError(
            f"{len(references)} references but {len(hypotheses)} hypotheses: "
            "each utterance needs one of each, in the same order"
        )
    if not references:  # jiwer 4.0 would count one empty utterance
        raise InputError("no utterances to score")
    refs, hyps = (
        [normalize_for_scoring(text) if normalize else " ".join(text.split()) for text in texts]
        for texts in (references, hypotheses)
    )
    refs_folded, hyps_folded = (
        [text.translate(_FOLD_OPEN_VOWELS) for text in texts] for texts in (refs, hyps)
    )
    refs_joined, hyps_joined = ([text.replace(" ", "") for text in texts] for texts in (refs, hyps))
    words = _count_edits(jiwer.process_words(refs, hyps))
    words_folded = _count_edits(jiwer.process_words(refs_folded, hyps_folded))
    characters = _count_edits(jiwer.process_characters(refs, hyps))
    without_spaces = _count_edits(jiwer.process_characters(refs_joined, hyps_joined))
    columns = zip(refs, hyps, words, words_folded, characters, without_spaces, strict=True)
    return [UtteranceErrors(*row) for row in columns]


def pool_error_rates(
    utterances: Sequence[UtteranceErrors], *, normalize: bool = True, seed: int = 0
) -> ErrorRates:
    """The second half: pool aligned utterances. `normalize` says how they were aligned."""
    num_empty_references = sum(utterance.reference == "" for utterance in utterances)
    if num_empty_references == len(utterances):
        after = " after normalisation" if normalize else ""
        raise InputError(f"no reference has a word in it{after} ({len(utterances)} utterances)")
    words = _sum_counts([u.words for u in utterances])
    characters = _sum_counts([u.characters for u in utterances])
    wer_low, wer_high = _interval([u.words for u in utterances], seed)
    cer_low, cer_high = _interval([u.characters for u in utterances], seed)
    return ErrorRates(
        wer=words.rate,
        wer_low=wer_low,
        wer_high=wer_high,
        wer_utterance_mean=float(np.mean([u.words.rate for u in utterances])),
        wer_folded=_sum_counts([u.words_folded for u in utterances]).rate,
        cer=characters.rate,
        cer_low=cer_low,
        cer_high=cer_high,
        cer_without_spaces=_sum_counts([u.characters_without_spaces for u in utterances]).rate,
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        num_reference_words=words.reference_length,
        num_reference_characters=characters.reference_length,
        num_utterances=len(utterances),
        num_empty_references=num_empty_references,
        num_empty_hypotheses=sum(u.hypothesis == "" for u in utterances),
        normalization=language().normalization if normalize else "none",
    )


def _count_edits(output: jiwer.WordOutput | jiwer.CharacterOutput) -> list[EditCounts]:
    """jiwer's alignment of a corpus as one row of counts per utterance."""
    counts = []
    for reference, chunks in zip(output.references, output.alignments, strict=True):
        edits = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
        for chunk in chunks:  # an insertion spans no reference units, every other chunk does
            num_units = chunk.ref_end_idx - chunk.ref_start_idx
            edits[chunk.type] += num_units or chunk.hyp_end_idx - chunk.hyp_start_idx
        counts.append(
            EditCounts(edits["substitute"], edits["delete"], edits["insert"], len(reference))
        )
    return counts


def _sum_counts(counts: Sequence[EditCounts]) -> EditCounts:
    return EditCounts(
        substitutions=sum(count.substitutions for count in counts),
        deletions=sum(count.deletions for count in counts),
        insertions=sum(count.insertions for count in counts),
        reference_length=sum(count.reference_length for count in counts),
    )


def difference_interval(
    first: Sequence[EditCounts], other: Sequence[EditCounts], *, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of the pooled rate of `other` minus that of `first`, for two systems
    on the same utterances, which are resampled in pairs.

    Raises:
        InputError: unequal numbers of utterances.
    """
    if len(first) != len(other):
        raise InputError(f"{len(first)} utterances of one system but {len(other)} of the other")
    more = [b.errors - a.errors for a, b in zip(first, other, strict=True)]
    return _resample_rate(more, [count.reference_length for count in first], seed)


def share_interval(hits: Sequence[bool], *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of a share: of right answers among all."""
    return _resample_rate([int(hit) for hit in hits], [1] * len(hits), seed)


def _interval(counts: Sequence[EditCounts], seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of the pooled rate."""
    errors, lengths = ([c.errors for c in counts], [c.reference_length for c in counts])
    return _resample_rate(errors, lengths, seed)


def _resample_rate(errors: Sequence[int], lengths: Sequence[int], seed: int) -> tuple[float, float]:
    """Percentile interval of total errors / total length, resampling utterances (Bisani and Ney,
    ICASSP 2004).

    A resample that has only empty references has no rate and is left out of the percentiles.
    """
    errors_N, lengths_N = np.array(errors), np.array(lengths)
    generator = np.random.default_rng(seed)
    rates = []
    for _ in range(NUM_RESAMPLES):
        drawn = generator.integers(len(errors_N), size=len(errors_N))
        if (num_units := lengths_N[drawn].sum()) > 0:
            rates.append(errors_N[drawn].sum() / num_units)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(rates, [tail, 1 - tail])
    return float(low), float(high)
