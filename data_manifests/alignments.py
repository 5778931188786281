"""References and transcripts, aligned word by word and character by character.

align_utterances(["me kɔ fie"], ["me kɔ"])[0].words.deletions  ->  1
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

from commands.errors import InputError
from data_manifests.text_rules import TextRules

DEFAULT_RULES = TextRules()
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


def align_utterances(
    references: Sequence[str], hypotheses: Sequence[str], *, rules: TextRules = DEFAULT_RULES
) -> list[UtteranceErrors]:
    """One row per utterance.

    Args:
        references: what was said.
        hypotheses: what was recognised, in the same order.
        rules: what is done to both first.

    Raises:
        InputError: unequal lengths, or no utterance.
    """
    if len(references) != len(hypotheses):
        raise InputError(
            f"{len(references)} references but {len(hypotheses)} hypotheses: "
            "each utterance needs one of each, in the same order"
        )
    if not references:  # jiwer 4.0 would count one empty utterance
        raise InputError("no utterances to score")
    refs, hyps = ([rules.apply(text) for text in texts] for texts in (references, hypotheses))
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


def sum_counts(counts: Sequence[EditCounts]) -> EditCounts:
    """All edits and lengths of several utterances."""
    return EditCounts(
        substitutions=sum(count.substitutions for count in counts),
        deletions=sum(count.deletions for count in counts),
        insertions=sum(count.insertions for count in counts),
        reference_length=sum(count.reference_length for count in counts),
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
