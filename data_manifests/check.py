"""Check that a manifest's audio is what its rows say, and show what is in it.

    python -m data_manifests.check --manifest data/common_voice/train.jsonl

Every file is decoded. Prints a table by corpus and dialect; each problem is one line that names
file and line of the manifest, and the exit code is 2 if there is any.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.config import InputError, parse_config, run_command
from data_manifests.manifest import Utterance, read_manifest, read_utterance_audio
from data_manifests.twi_text import is_speakable, normalize_for_scoring

MAX_SHOWN_PROBLEMS = 20


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Decode every utterance of a manifest, compare it with its row, and print what the corpus
    holds."""

    manifest: Path
    """manifest to check"""
    decode: bool = True
    """decode the audio (off: rows only, in seconds instead of minutes)"""


@dataclass
class CorpusStatistics:
    """Running totals of one corpus and dialect."""

    num_utterances: int = 0
    duration_s: float = 0.0
    num_characters: int = 0
    speakers: set[str] = field(default_factory=set)
    sentences: set[str] = field(default_factory=set)

    def add(self, utterance: Utterance) -> None:
        """Count one utterance."""
        sentence = normalize_for_scoring(utterance.text)
        self.num_utterances += 1
        self.duration_s += utterance.duration_s
        self.num_characters += len(sentence)
        self.speakers.add(utterance.speaker)
        self.sentences.add(sentence)


def main(argv: list[str] | None = None) -> None:
    """Check a manifest; table on stdout, problems raised as one `InputError`."""
    config = parse_config(CheckConfig, argv)
    statistics: dict[tuple[str, str], CorpusStatistics] = {}
    problems: list[str] = []
    ids: Counter[str] = Counter()
    for utterance in tqdm(read_manifest(config.manifest), desc="check", unit=" utterances"):
        statistics.setdefault((utterance.corpus, utterance.dialect), CorpusStatistics()).add(
            utterance
        )
        ids[utterance.id] += 1
        problems += find_problems(utterance, decode=config.decode)
        if ids[utterance.id] == 2:
            problems.append(f"{utterance.origin}: id {utterance.id!r} is used twice")
    print(format_table(statistics))
    if problems:
        more = len(problems) - MAX_SHOWN_PROBLEMS
        shown = problems[:MAX_SHOWN_PROBLEMS] + ([f"... and {more} more"] if more > 0 else [])
        raise InputError(f"{len(problems)} problem(s):\n  " + "\n  ".join(shown))
    print("no problem found")


def find_problems(utterance: Utterance, *, decode: bool) -> list[str]:
    """What is wrong with one utterance, a line each; empty where it is sound."""
    problems = []
    if not is_speakable(utterance.text):
        problems.append(f"{utterance.origin}: no speakable character in {utterance.text!r}")
    if decode:
        try:
            read_utterance_audio(utterance, GEMMA_SAMPLE_RATE_HZ)
        except InputError as error:
            problems.append(str(error))
    return problems


def format_table(statistics: dict[tuple[str, str], CorpusStatistics]) -> str:
    """Hours, speakers, distinct sentences and speaking rate by corpus and dialect."""
    columns = ("corpus", "dialect", "rows", "hours", "speakers", "sentences", "chars/s")
    header = "{:<20} {:<9} {:>8} {:>8} {:>8} {:>9} {:>7}".format(*columns)
    lines = [header]
    for (corpus, dialect), total in sorted(statistics.items()):
        lines.append(
            f"{corpus:<20} {dialect:<9} {total.num_utterances:>8} {total.duration_s / 3600:>8.2f} "
            f"{len(total.speakers):>8} {len(total.sentences):>9} "
            f"{total.num_characters / total.duration_s:>7.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
