"""Whether numbers are read as people write them in words, and which patterns no rule reads.

    python -m benchmarks.number_reading --data ../shared/data

A number that people wrote both ways is a judge: in AfriQA in digits in the English question and
in words in the Twi one; in MasakhaPOS and WAXAL twice in one sentence, as in "aduasa (30)". Each is
put back into digits, read again, and compared with what was written:

- equal: the same words, apart from case and hyphens
- spelled otherwise: the same parts, in another spelling (du-num for dunum)
- put together otherwise: the conjunction stands elsewhere, or the words are no number that
  `words_to_digits` understands: these are all listed

Texts are parted by a hash into two halves. The rules were made with the first one; the counts in
`data_manifests/languages/twi_numbers.tsv` are of both. The dialect is guessed from the spelling:
Asante where nothing tells.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from data_manifests.normalization import normalize_for_scoring, normalize_for_training
from data_manifests.twi_dialects import guess_dialect
from data_manifests.twi_number_forms import conjunctions, spellings
from data_manifests.twi_number_groups import find_group, split_pieces
from data_manifests.twi_number_patterns import read_pattern
from data_manifests.twi_number_words import find_number_words

OUTCOMES = ("equal", "spelled otherwise", "put together otherwise")
HALVES = ("first half", "second half")
_IN_BRACKETS = re.compile(r"\((?P<digits>[^()\d]{0,5}\d[^()]*)\)?")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Compare the reading of numbers with what people wrote in words."""

    data: Path
    """folder with afriqa_twi, masakhapos_twi and waxal_aka_text"""


@dataclass(frozen=True)
class Text:
    """A text of a corpus.

    Attributes:
        corpus: its name.
        twi: the text, normalised.
        english: its translation, "" if there is none.
    """

    corpus: str
    twi: str
    english: str = ""

    @property
    def half(self) -> str:
        return HALVES[hashlib.sha256(self.twi.encode()).digest()[0] % 2]

    @property
    def dialect(self) -> str:
        guess = guess_dialect(self.twi)
        return "asante" if guess == "unknown" else guess


@dataclass(frozen=True)
class Pair:
    """A number that was written in words and in digits.

    Attributes:
        written: the words of the text.
        read: what its digits are read as, "" if no rule reads them.
    """

    text: Text
    digits: str
    written: str
    read: str

    @property
    def outcome(self) -> str:
        if _plain(self.written) == _plain(self.read):
            return OUTCOMES[0]
        parts = _parts(self.written)
        return OUTCOMES[1] if parts and parts == _parts(self.read) else OUTCOMES[2]


def main(argv: list[str] | None = None) -> None:
    """Print how many numbers are read as they were written, and which patterns were left."""
    config = parse_config(BenchmarkConfig, argv)
    texts = list(dict.fromkeys(read_texts(config.data)))
    pairs = [pair for text in texts for pair in find_pairs(text)]
    print(format_pairs(pairs))
    print(format_patterns(texts))


def read_texts(data: Path) -> Iterator[Text]:
    """The texts of AfriQA (train, dev), MasakhaPOS (all) and WAXAL (dev).

    Raises:
        InputError: a corpus is not there.
    """
    for name in ("afriqa_twi", "masakhapos_twi", "waxal_aka_text"):
        if not (data / name).is_dir():
            raise InputError(f"--data {data}: no folder {name}")
    for path in sorted((data / "afriqa_twi").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            twi = normalize_for_training(row["question"])
            yield Text("AfriQA", twi, row["translated_question"])
    for path in sorted((data / "masakhapos_twi").glob("*.conll")):
        for sentence in path.read_text(encoding="utf-8").split("\n\n"):
            words = [line.split()[0] for line in sentence.splitlines() if line.strip()]
            yield Text("MasakhaPOS", normalize_for_training(untokenize(" ".join(words))))
    for line in (data / "waxal_aka_text" / "dev.jsonl").read_text(encoding="utf-8").splitlines():
        yield Text("WAXAL", normalize_for_training(json.loads(line)["text"]))


def untokenize(text: str) -> str:
    """Numbers as they were before MasakhaPOS parted them at their signs: "GH ¢ 1 , 292" and
    "aduasa ( 30 )"."""
    text = re.sub(r"\bGH ¢ ?|(?<!\w)¢ ", lambda sign: sign[0].replace(" ", ""), text)
    text = re.sub(r"(?<=\d) , ?(?=\d{3}\b)", ",", text)
    text = re.sub(r"(?<=\d) ([.:/]) ?(?=\d)", r"\1", text)
    text = re.sub(r"(?<=\d) %", "%", text)
    text = re.sub(r"\( ", "(", text)
    return re.sub(r" ([),.:;?!])", r"\1", re.sub(r"(?<=\w) - (?=\w)", "-", text))


def find_pairs(text: Text) -> Iterator[Pair]:
    """Numbers of a text that stand in it, or in it and its translation, in words and in digits."""
    in_digits = Counter(_numbers_in_digits(text.english or text.twi))
    for number in find_number_words(text.twi):
        if in_digits[number.value]:
            written = text.twi[number.start : number.end]
            read = _read_in_place(text, number.start, number.end, str(number.value))
            yield Pair(text, str(number.value), written, read)
    if text.english:
        return
    for match in _IN_BRACKETS.finditer(text.twi):
        before = text.twi[: match.start()].rstrip()
        spans = [span for span in find_number_words(before) if span.end >= len(before) - 1]
        if not spans or in_digits[spans[-1].value]:
            continue  # no words before it, or a pair already
        read = read_pattern(match["digits"].strip(), text.dialect) or ""
        yield Pair(text, match["digits"].strip(), " ".join(before.split()[-7:]), read)


def format_pairs(pairs: list[Pair]) -> str:
    """A table of outcomes by half and corpus, and what was not equal."""
    counts = Counter((pair.text.half, pair.text.corpus, pair.outcome) for pair in pairs)
    lines = [f"{'written both ways':26}" + "".join(f"{outcome:>24}" for outcome in OUTCOMES)]
    for half in HALVES:
        for corpus in sorted({pair.text.corpus for pair in pairs}):
            cells = [counts[half, corpus, outcome] for outcome in OUTCOMES]
            lines.append(f"{half + ', ' + corpus:26}" + "".join(f"{cell:>24}" for cell in cells))
    for outcome in OUTCOMES[1:]:
        lines.append(f"\n{outcome}: in digits, as it was written, as it is read")
        kinds = Counter(
            (pair.text.half, pair.digits, pair.written, pair.read)
            for pair in pairs
            if pair.outcome == outcome
        )
        lines += [
            f"  {count} x {half}: {digits} | {written} | {read or '(not read)'}"
            for (half, digits, written, read), count in sorted(kinds.items())
        ]
    return "\n".join(lines)


def format_patterns(texts: list[Text]) -> str:
    """Patterns with digits, how many of each are read, and the most frequent that are not."""
    read, left = Counter[str](), Counter[str]()
    examples: dict[tuple[str, bool], str] = {}
    for text in texts:
        for core, words in _read_groups(text):
            shape = re.sub(r"\d+", "9", core)
            shape = re.sub(r"[^\W\d_]{3,}", "word", shape) if words is None else shape
            (left if words is None else read)[shape] += 1
            examples.setdefault((shape, words is None), core)
    lines = [f"\npatterns with digits: {read.total()} read, {left.total()} left"]
    for title, counts in (("read", read), ("left", left)):
        lines.append(f"{title}:")
        for shape, count in sorted(counts.items(), key=lambda row: (-row[1], row[0])):
            lines.append(f"{count:>6}  {shape:24} as in {examples[shape, title == 'left']}")
    return "\n".join(lines)


def _numbers_in_digits(text: str) -> Iterator[int]:
    for match in re.finditer(r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?![\w,])|(?<!\w)\d+(?!\w)", text):
        yield int(match[0].replace(",", ""))


def _read_in_place(text: Text, start: int, end: int, digits: str) -> str:
    """What the digits are read as where the words stand."""
    pieces = split_pieces(text.twi[:start] + digits + text.twi[end:])
    first = len(split_pieces(text.twi[:start])) - 1
    group = find_group(pieces, first)
    if group is None or group.core != digits:
        return ""
    return read_pattern(digits, text.dialect, group.around) or ""


def _read_groups(text: Text) -> Iterator[tuple[str, str | None]]:
    pieces, end = split_pieces(text.twi), 0
    while (group := find_group(pieces, end)) is not None:
        core = re.sub(r"\s+", " ", group.core)
        yield core, read_pattern(core, text.dialect, group.around)
        end = group.end


def _plain(words: str) -> str:
    return normalize_for_scoring(words.replace("-", " "))


def _parts(words: str) -> list[int | str]:
    """The values of number words, with a ten and its unit as one; [] if there is another word."""
    parts: list[int | str] = []
    for word in _plain(words).split():
        if word in conjunctions():
            parts.append("and")
            continue
        value = spellings().get(word)
        if value is None:
            return []
        last = parts[-1] if parts else None
        if isinstance(last, int) and 0 < last < 100 and last % 10 == 0 and 0 < value < 10:
            parts[-1] = last + value
        else:
            parts.append(value)
    return parts


if __name__ == "__main__":
    run_command(main)
