"""Statistics of a manifest, counted as it is streamed: hours, speakers, distinct sentences, and
histograms of durations and speaking rates, by corpus and dialect."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_manifests.defects import Examination
from data_manifests.hash_set import HashSet
from data_manifests.manifest import Utterance

# Bins of the plots. Durations range from a word to an hour, so their bins grow: 20 for each factor
# of 10. Speaking rates extend beyond what is possible; anything faster counts in the last bin.
DURATION_EDGES_S = [10 ** (i / 20) for i in range(-20, 72)]
RATE_EDGES_PER_S = [i / 2 for i in range(81)]


@dataclass
class Histogram:
    """Counts of values between edges; a value outside counts in the nearest bin."""

    edges: Sequence[float]
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.edges) - 1)

    def add(self, value: float) -> None:
        """Count one value."""
        position = bisect_right(self.edges, value) - 1
        self.counts[min(max(position, 0), len(self.counts) - 1)] += 1

    def add_all(self, other: "Histogram") -> None:
        """Add the counts of another histogram with the same edges."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]


@dataclass
class CorpusStatistics:
    """Running totals of one corpus and dialect; only hashes of speakers and sentences are kept."""

    num_utterances: int = 0
    num_problems: int = 0
    duration_s: float = 0.0
    num_characters: int = 0
    num_words: int = 0
    num_english_words: int = 0
    speakers: HashSet = field(default_factory=HashSet)
    sentences: HashSet = field(default_factory=HashSet)
    durations: Histogram = field(default_factory=lambda: Histogram(DURATION_EDGES_S))
    speaking_rates: Histogram = field(default_factory=lambda: Histogram(RATE_EDGES_PER_S))

    def add(self, utterance: Utterance, examination: Examination, *, is_problem: bool) -> None:
        """Count one utterance."""
        self.num_utterances += 1
        self.num_problems += is_problem
        self.duration_s += utterance.duration_s
        self.num_characters += examination.num_characters
        self.num_words += examination.num_words
        self.num_english_words += len(examination.english_words)
        self.speakers.add(examination.speaker_hash)
        self.sentences.add(examination.sentence_hash)
        self.durations.add(utterance.duration_s)
        self.speaking_rates.add(examination.num_characters / utterance.duration_s)

    def as_dict(self) -> dict[str, Any]:
        """A row of the table; hours and characters per second unrounded."""
        return {
            "rows": self.num_utterances,
            "hours": self.duration_s / 3600,
            "speakers": len(self.speakers),
            "sentences": len(self.sentences),
            "characters_per_s": self.num_characters / self.duration_s,
            "english_share": self.num_english_words / self.num_words if self.num_words else None,
            "problems": self.num_problems,
        }


StatisticsByCorpus = Mapping[tuple[str, str], CorpusStatistics]


def table_rows(statistics: StatisticsByCorpus) -> list[dict[str, Any]]:
    """One row for each corpus and dialect, sorted."""
    return [
        {"corpus": corpus, "dialect": dialect, **total.as_dict()}
        for (corpus, dialect), total in sorted(statistics.items())
    ]


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """`table_rows` as text."""
    columns = ("corpus", "dialect", "rows", "hours", "speakers", "sentences", "chars/s", "English",
               "problems")  # fmt: skip
    lines = ["{:<20} {:<9} {:>8} {:>8} {:>8} {:>9} {:>7} {:>7} {:>8}".format(*columns)]
    lines += [
        f"{row['corpus']:<20} {row['dialect']:<9} {row['rows']:>8} {row['hours']:>8.2f} "
        f"{row['speakers']:>8} {row['sentences']:>9} {row['characters_per_s']:>7.1f} "
        f"{_percent(row['english_share']):>7} {row['problems']:>8}"
        for row in rows
    ]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def histograms_by_corpus(
    statistics: StatisticsByCorpus, choose: Callable[[CorpusStatistics], Histogram]
) -> dict[str, Histogram]:
    """One histogram for every corpus, over all its dialects."""
    merged: dict[str, Histogram] = {}
    for (corpus, _), total in sorted(statistics.items()):
        histogram = choose(total)
        merged.setdefault(corpus, Histogram(histogram.edges)).add_all(histogram)
    return merged
