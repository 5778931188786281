"""How texts are pronounced, in IPA: for aligners, synthesisers, and to read.

    python -m data_manifests.phonemes --text "Me din de Kofi."
    python -m data_manifests.phonemes --file sentences.txt --tokens
    python -m data_manifests.phonemes --file data/cv/train.jsonl --dictionary > twi.dict

Prints a line for each line of the text: its words in IPA. With `--tokens`, phonemes have blanks
between them, and words a `|`. With `--dictionary`, every distinct word of the file, a tab, and its
phonemes with blanks between them: what the Montreal Forced Aligner reads. Words are read by
`pronunciation.py`: tone is left open, and English words are said as in Ghana. Numbers are read as
words where `--dialect` is given, but for a dictionary, whose words are those of the text. What
cannot be read (a digit, a symbol) ends the command, or is left out of a dictionary, counted and
named.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.schema import as_mapping, parse_json
from data_manifests.language import DialectName
from data_manifests.normalization import normalize_for_training
from data_manifests.pronunciation import read_clauses
from data_manifests.text_lines import read_lines
from data_manifests.twi_numbers import number_dialects, spell_numbers

NUM_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class PhonemesConfig:
    """Print how a text is pronounced, in IPA, by the rules of the language in use."""

    text: str = ""
    """text to pronounce"""
    file: Path | None = None
    """in place of --text: a text file, a sentence a line; or .jsonl with a text in each row, as a
    manifest has"""
    dialect: DialectName = "unknown"
    """dialect of the text, in Twi asante, akuapem, fante or unknown; its numbers are read in it"""
    tokens: bool = False
    """print phonemes with blanks between them, and | between words"""
    dictionary: bool = False
    """print a pronunciation dictionary of the file's words, as the Montreal Forced Aligner reads
    it"""

    def __post_init__(self) -> None:
        if bool(self.text) == (self.file is not None):
            raise ValueError("give one of --text and --file")
        if self.tokens and self.dictionary:
            raise ValueError("--dictionary has its own form, without --tokens")


def main(argv: list[str] | None = None) -> None:
    """Print the phonemes."""
    config = parse_config(PhonemesConfig, argv)
    texts = _read_texts(config.file) if config.file else iter([("--text", config.text)])
    if config.dictionary:
        lines, unreadable = build_dictionary(texts, dialect=config.dialect)
        for line in lines:
            print(line)
        if unreadable:
            shown = ", ".join(word for word, _ in unreadable.most_common(NUM_SHOWN))
            print(f"words that cannot be read: {len(unreadable)}, as {shown}", file=sys.stderr)
        return
    for origin, text in texts:
        try:
            clauses = read_clauses(_with_numbers(text, config.dialect), dialect=config.dialect)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{origin}: {error}") from None
        words = [word for clause in clauses for word in clause.words]
        print(" | ".join(map(" ".join, words)) if config.tokens else " ".join(map("".join, words)))


def build_dictionary(
    texts: Iterator[tuple[str, str]], *, dialect: str
) -> tuple[list[str], Counter[str]]:
    """A pronunciation dictionary of the words of texts.

    Args:
        texts: where each text stands, and the text.
        dialect: of all texts.

    Returns:
        Lines in order: a word in lower case, a tab, its phonemes with blanks between them; a word
        with several pronunciations (n before k is ŋ; do is Twi or English) has several lines. And
        how often each word occurs that cannot be read.
    """
    said: set[tuple[str, tuple[str, ...]]] = set()
    unreadable: Counter[str] = Counter()
    for _, text in texts:
        pairs = _try_to_read(text, dialect)
        if pairs is not None:
            said.update(pairs)
            continue
        for word in text.split():
            pairs = _try_to_read(word, dialect)
            said.update(pairs or [])
            unreadable.update([word] if pairs is None else [])
    return [f"{word}\t{' '.join(phonemes)}" for word, phonemes in sorted(said)], unreadable


def _with_numbers(text: str, dialect: str) -> str:
    """A text with its numbers in words, where the dialect tells them."""
    if dialect not in number_dialects():
        return text
    return spell_numbers(normalize_for_training(text), dialect).text


def _try_to_read(text: str, dialect: str) -> list[tuple[str, tuple[str, ...]]] | None:
    """Words with their phonemes; None if part of the text cannot be read."""
    try:
        clauses = read_clauses(text, dialect=dialect)
    except InputError:
        raise
    except ValueError:
        return None
    return [
        (spelling.lower().strip("'"), word)
        for clause in clauses
        for spelling, word in zip(clause.spellings, clause.words, strict=True)
    ]


def _read_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Where each text of a file stands, and the text; blank lines are passed over."""
    for number, line in enumerate(read_lines(path, flag="--file"), start=1):
        origin = f"{path}:{number}"
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            yield origin, line
            continue
        row = as_mapping(parse_json(line, where=origin), where=origin)
        if not isinstance(row.get("text"), str):
            raise InputError(f"{origin}: needs a string 'text'")
        yield origin, row["text"]


if __name__ == "__main__":
    run_command(main)
