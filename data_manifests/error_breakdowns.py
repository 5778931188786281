"""Where the errors are: in which groups of utterances, of which speakers, in words of which
language.

Rates are pooled within what they are of: all its errors over all its reference words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from data_manifests.alignments import EditCounts, UtteranceErrors, sum_counts
from data_manifests.bootstrap import rate_interval
from data_manifests.code_switching import mark_english_words
from data_manifests.error_rates import interval

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class GroupRates:
    """Error rates of a group of utterances; fractions."""

    wer: float
    wer_interval: Interval
    """95 %, utterances resampled; None without a reference word."""
    cer: float
    num_reference_words: int
    num_utterances: int


@dataclass(frozen=True)
class SpeakerRates:
    """How much WER depends on the speakers."""

    wer_interval: Interval
    """95 % interval of the pooled WER, speakers resampled; None if there is one. This is the
    interval of what other speakers would give; that over utterances is that of other utterances of
    these speakers, and narrower."""
    cer_interval: Interval
    wer_speaker_mean: float
    """Mean of the speakers' own WERs: every speaker counts once, however much they said. Of those
    with a reference word."""
    wer_speaker_highest: float
    highest: str
    """Name of the speaker with the highest WER."""
    num_speakers: int


@dataclass(frozen=True)
class LanguageErrors:
    """Errors in reference words of one language, in the manner of the point-of-interest error rate
    (Ugan et al., arXiv:2501.09512). Insertions belong to no reference word and are not in `rate`:
    they are counted by the language of the word inserted. So all errors of both languages are those
    of the WER."""

    rate: float
    """Substitutions and deletions over reference words; 0 without any."""
    rate_interval: Interval
    substitutions: int
    deletions: int
    insertions: int
    """Words of this language that were heard and not said."""
    num_reference_words: int


def rates_by_group(
    utterances: Sequence[UtteranceErrors], groups: Sequence[str], *, seed: int = 0
) -> dict[str, GroupRates]:
    """Error rates of each group, by name in order.

    Args:
        utterances: aligned.
        groups: the name of each one's group.
        seed: seed of the bootstrap's resampling.
    """
    return {name: _rates_of(said, seed) for name, said in _members(utterances, groups).items()}


def rates_of_speakers(
    utterances: Sequence[UtteranceErrors], speakers: Sequence[str], *, seed: int = 0
) -> SpeakerRates:
    """What the error rates are over speakers; arguments as in `rates_by_group`, with the name of
    each utterance's speaker. Some reference has a word."""
    words = {
        name: sum_counts([utterance.words for utterance in said])
        for name, said in _members(utterances, speakers).items()
    }
    with_words = {name: total.rate for name, total in words.items() if total.reference_length}
    highest = max(with_words, key=lambda name: with_words[name])
    return SpeakerRates(
        wer_interval=interval([u.words for u in utterances], seed=seed, blocks=speakers),
        cer_interval=interval([u.characters for u in utterances], seed=seed, blocks=speakers),
        wer_speaker_mean=float(np.mean(list(with_words.values()))),
        wer_speaker_highest=with_words[highest],
        highest=highest,
        num_speakers=len(words),
    )


def errors_by_language(
    utterances: Sequence[UtteranceErrors], *, seed: int = 0
) -> dict[str, LanguageErrors]:
    """Errors in English words ("english") and in all others ("other").

    Args:
        utterances: aligned, normalised for scoring.
        seed: seed of the bootstrap's resampling.

    Raises:
        InputError: nothing tells words of the language in use from English ones.
    """
    aligned = jiwer.process_words(
        [u.reference for u in utterances], [u.hypothesis for u in utterances]
    )
    counts: dict[str, list[EditCounts]] = {"english": [], "other": []}
    for said, heard, chunks in zip(
        aligned.references, aligned.hypotheses, aligned.alignments, strict=True
    ):
        marks, heard_marks = mark_english_words(said), mark_english_words(heard)
        counts["english"].append(_count_where(marks, heard_marks, chunks))
        not_marks, not_heard = ([not mark for mark in row] for row in (marks, heard_marks))
        counts["other"].append(_count_where(not_marks, not_heard, chunks))
    return {name: _language_errors(rows, seed) for name, rows in counts.items()}


def _count_where(
    said: Sequence[bool], heard: Sequence[bool], chunks: Sequence[jiwer.AlignmentChunk]
) -> EditCounts:
    """The edits of marked words: of the reference, and inserted ones of the hypothesis."""
    edits = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
    for chunk in chunks:
        if chunk.type == "insert":
            edits["insert"] += sum(heard[chunk.hyp_start_idx : chunk.hyp_end_idx])
        else:
            edits[chunk.type] += sum(said[chunk.ref_start_idx : chunk.ref_end_idx])
    return EditCounts(edits["substitute"], edits["delete"], edits["insert"], sum(said))


def _language_errors(counts: Sequence[EditCounts], seed: int) -> LanguageErrors:
    total = sum_counts(counts)
    wrong = [count.substitutions + count.deletions for count in counts]
    lengths = [count.reference_length for count in counts]
    return LanguageErrors(
        rate=sum(wrong) / total.reference_length if total.reference_length else 0.0,
        rate_interval=rate_interval(wrong, lengths, seed=seed),
        substitutions=total.substitutions,
        deletions=total.deletions,
        insertions=total.insertions,
        num_reference_words=total.reference_length,
    )


def _members(
    utterances: Sequence[UtteranceErrors], groups: Sequence[str]
) -> dict[str, list[UtteranceErrors]]:
    members: dict[str, list[UtteranceErrors]] = {name: [] for name in sorted(set(groups))}
    for utterance, name in zip(utterances, groups, strict=True):
        members[name].append(utterance)
    return members


def _rates_of(utterances: Sequence[UtteranceErrors], seed: int) -> GroupRates:
    words = sum_counts([u.words for u in utterances])
    return GroupRates(
        wer=words.rate,
        wer_interval=interval([u.words for u in utterances], seed=seed),
        cer=sum_counts([u.characters for u in utterances]).rate,
        num_reference_words=words.reference_length,
        num_utterances=len(utterances),
    )
