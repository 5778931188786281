"""Everything a check keeps of the rows it streams: counts, a few examples, and hashes.

For each row it keeps up to five 64-bit hashes (id, audio, sentence, speaker, reading), but no text,
path or samples.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from data_manifests.code_switching import EnglishShare
from data_manifests.corpus_statistics import CorpusStatistics, table_rows
from data_manifests.defects import THRESHOLDS, Examination, Finding
from data_manifests.hash_set import HashSet
from data_manifests.inventory import name_character
from data_manifests.language import language
from data_manifests.manifest import Utterance

NUM_EXAMPLES = 5
NUM_CHARACTERS = 20


@dataclass
class ManifestTotals:
    """Running totals of a manifest, and the hashes that later rows are compared with."""

    statistics: dict[tuple[str, str], CorpusStatistics] = field(default_factory=dict)
    num_rows: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    observations: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    outside_characters: Counter[str] = field(default_factory=Counter)
    loan_letters: Counter[str] = field(default_factory=Counter)
    english: EnglishShare = field(default_factory=EnglishShare)
    shared: dict[str, dict[str, int]] = field(default_factory=dict)
    _ids: HashSet = field(default_factory=HashSet)
    _recordings: HashSet = field(default_factory=HashSet)
    _readings: HashSet = field(default_factory=HashSet)

    @property
    def num_problems(self) -> int:
        """Number of rows with a problem; each counts once, under its first problem."""
        return self.problems.total()

    def add(
        self, utterance: Utterance, examination: Examination, shared: Finding | None = None
    ) -> Finding | None:
        """Count a row, and compare it with earlier ones.

        Only sound rows are compared with later ones: if the first of two rows with the same audio
        is removed for another reason, the second may stay.

        Args:
            utterance: the row.
            examination: what was found in it.
            shared: what it shares with another manifest, if that is a problem.

        Returns:
            The row's problem, or None if it is sound.
        """
        problem = examination.problem or self._find_duplicate(utterance, examination) or shared
        self.num_rows += 1
        key = (utterance.corpus, utterance.dialect)
        if key not in self.statistics:
            self.statistics[key] = CorpusStatistics()
        self.statistics[key].add(utterance, examination, is_problem=problem is not None)
        if examination.outside_characters:
            self.outside_characters.update(examination.outside_characters)
        if examination.loan_letters:
            self.loan_letters.update(examination.loan_letters)
        self.english.add_counted(examination.num_words, examination.english_words)
        if problem is not None:
            self._note(self.problems, utterance, problem)
            return problem
        for observation in examination.observations:
            self._note(self.observations, utterance, observation)
        self._remember(utterance, examination)
        return None

    def report(self) -> dict[str, Any]:
        """All counts and thresholds, ready for JSON."""
        characters = sorted(self.outside_characters.items(), key=lambda item: (-item[1], item[0]))
        return {
            "num_rows": self.num_rows,
            "num_problems": self.num_problems,
            "problems": _by_count(self.problems),
            "observations": _by_count(self.observations),
            "examples": dict(self.examples),
            "corpora": table_rows(self.statistics),
            f"characters_outside_{language().key}": {
                name_character(char): count for char, count in characters[:NUM_CHARACTERS]
            },
            f"num_distinct_characters_outside_{language().key}": len(characters),
            "loan_letters": _by_count(self.loan_letters),
            "english": self.english.as_dict(),
            "shared": self.shared,
            "thresholds": THRESHOLDS,
        }

    def _find_duplicate(self, utterance: Utterance, examination: Examination) -> Finding | None:
        if examination.id_hash in self._ids:
            return Finding("id used twice", f"id {utterance.id!r} is used twice")
        if examination.audio_hash is not None and examination.audio_hash in self._recordings:
            reason = "the same samples as in an earlier row"
            return Finding("duplicate audio", f"{utterance.audio}: {reason}")
        return None

    def _remember(self, utterance: Utterance, examination: Examination) -> None:
        self._ids.add(examination.id_hash)
        if examination.audio_hash is not None:
            self._recordings.add(examination.audio_hash)
        if not self._readings.add(examination.reading_hash):
            reason = f"speaker {utterance.speaker!r} reads {utterance.text!r} again"
            self._note(self.observations, utterance, Finding("repeated reading", reason))

    def _note(self, counts: Counter[str], utterance: Utterance, finding: Finding) -> None:
        counts[finding.kind] += 1
        if len(self.examples[finding.kind]) < NUM_EXAMPLES:
            self.examples[finding.kind].append(f"{utterance.origin}: {finding.reason}")


def _by_count(counts: Counter[str]) -> dict[str, int]:
    """Most frequent first; ties do not depend on the order of the rows."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
