"""Public texts -> sentences for Speechless to speak.

    python -m stage2_speechless.build_text --corpus parallel_twi fineweb2_twi \
        bible_asante=twi-twiasante.txt --out data/text
    python -m stage2_speechless.generate --speechless runs/speechless \
        --text data/text/sentences.jsonl --out data/spoken

Writes `sentences.jsonl`: a sentence a row, normalised, with its numbers in words, its `corpus` and
`license`; `dropped.jsonl`, what was left out and why; and `held_out.jsonl`, a hundredth of the
sentences, to test with (`data_manifests/held_out.py`). `data_manifests/corpora/text_sets.py` says
what each corpus is and what is wrong with it.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.run_folder import run_folder
from commands.setting_types import PositiveInt
from data_manifests.code_switching import EnglishShare
from data_manifests.corpora.public_tables import OpenedTable, named_tables, open_public_table
from data_manifests.corpora.text_sets import OWN_TEXT, TEXT_SETS, PublicText, TextSet, read_texts
from data_manifests.held_out import HELD_OUT_SENTENCES
from data_manifests.held_out_rows import (
    RowsKeptApart,
    count_corpora,
    format_counts,
    rows_kept_apart,
)
from data_manifests.language import DialectName, language
from data_manifests.language_guess import guess_language
from data_manifests.left_out_rows import LeftOut, LeftOutRows
from data_manifests.line_writer import lines_written_aside
from data_manifests.normalization import normalize_for_scoring, normalize_for_training
from data_manifests.sentences import split_sentences
from data_manifests.text_checks import find_markup, why_foreign, why_unreadable
from data_manifests.twi_dialects import guess_dialect
from data_manifests.twi_numbers import number_dialects, spell_numbers

_ENDS = re.compile(r"[.!?…][\"'”’»)]*$")


@dataclass(frozen=True, kw_only=True)
class BuildTextConfig:
    """Turn public texts into sentences for Speechless to speak."""

    out: Path
    """new folder for sentences.jsonl"""
    corpus: tuple[str, ...] = ()
    """NAME of each public text, downloaded from Hugging Face, or NAME=PATH of a copy, a file or a
    folder: parallel_twi, fineweb2_twi; bible_asante=PATH, bible_akuapem=PATH; or text=PATH of your
    own, .txt or a table"""
    license: str = "unknown"
    """licence of --corpus text=..., by its SPDX name, as in CC-BY-4.0"""
    dialect: DialectName = "unknown"
    """dialect of texts whose corpus names none, in Twi asante, akuapem, fante or unknown; if
    unknown, sentences with numbers need a spelling that tells it"""
    dialects: tuple[DialectName, ...] = ()
    """dialects to keep, told by the spelling: in Twi asante, akuapem, fante, unknown (most
    sentences); all if none is given"""
    min_words: PositiveInt = 3
    """shorter sentences are left out"""
    max_characters: PositiveInt = 400
    """longer sentences are left out: read aloud, they would exceed the 30 s that Gemma can hear"""

    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""


@dataclass(frozen=True)
class PublicSentence:
    """A sentence that may be spoken.

    Attributes:
        text: normalised, numbers in words.
        dialect: of its corpus, or as the user says; unknown if neither does.
        dialect_guess: from its spelling.
    """

    text: str
    dialect: str
    dialect_guess: str


def main(argv: list[str] | None = None) -> None:
    """Write the sentences; prints a summary to stderr and the folder to stdout."""
    config = parse_config(BuildTextConfig, argv)
    tables = [
        (replace(table, license=config.license) if table is OWN_TEXT else table, path)
        for table, path in named_tables(config.corpus, TEXT_SETS)
    ]
    if not tables:
        raise InputError("no corpus given: name at least one, as in --corpus parallel_twi")
    sources = [(table, open_public_table(table, path)) for table, path in tables]
    with run_folder(
        config.out, config, "stage2_speechless.build_text", inputs=("corpus",)
    ) as output:
        with ExitStack() as stack:
            lines = stack.enter_context(lines_written_aside(config.out / "dropped.jsonl"))
            left_out = LeftOutRows(lines)
            rows = stack.enter_context(
                rows_kept_apart(
                    config.out, "sentences", share=HELD_OUT_SENTENCES, left_out=left_out
                )
            )
            english = EnglishShare()
            for table, opened in sources:
                _collect(table, opened, config, rows, left_out, english)
            if not rows.num_kept:
                first = f", the first: {left_out.first}" if left_out.first else ""
                named = " ".join(config.corpus)
                raise InputError(f"--corpus {named}: no usable sentence{first}")
        counts = count_corpora({t.name: t.license for t, _ in sources}, rows, left_out)
        output.record(
            corpora={corpus: vars(of) for corpus, of in counts.items()},
            held_out_share=HELD_OUT_SENTENCES,
            english=english.as_dict(),
        )
        print(format_counts(counts, "sentences"), file=sys.stderr)
        if english.num_words:
            print(english.format_line(), file=sys.stderr)


def _collect(
    table: TextSet,
    opened: OpenedTable,
    config: BuildTextConfig,
    rows: RowsKeptApart,
    left_out: LeftOutRows,
    english: EnglishShare,
) -> None:
    """Check every sentence of a corpus, and take those that can be spoken."""
    for number, text in tqdm(read_texts(table, opened), table.name, len(opened), unit=" rows"):
        if isinstance(text, LeftOut):
            left_out.add(table.name, number, text)
            continue
        for place, sentence in enumerate(_sentences_of(text, table, config)):
            if isinstance(sentence, LeftOut):
                left_out.add(table.name, number, sentence)
                continue
            row = {"id": f"{table.name}-{number}-{place}", "text": sentence.text}
            if sentence.dialect != "unknown":  # so that `generate --dialect` fills it in
                row["dialect"] = sentence.dialect
            elif sentence.dialect_guess != "unknown":
                row["dialect_guess"] = sentence.dialect_guess
            row |= {"corpus": table.name, "license": text.license}
            if rows.add(sentence.text, row, corpus=table.name, number=number):
                english.add(sentence.text)
            else:
                left_out.add(table.name, number, LeftOut("same sentence before"))


def _sentences_of(
    text: PublicText, table: TextSet, config: BuildTextConfig
) -> Iterator[PublicSentence | LeftOut]:
    """The sentences of a text, and the reasons why others are not used."""
    lines = (line for line in text.text.split("\n") if line.strip())
    for line in lines:
        if markup := find_markup(line):
            yield LeftOut("markup", markup)
            continue
        for sentence in split_sentences(normalize_for_training(line)):
            yield _check(sentence, table, config)


def _check(text: str, table: TextSet, config: BuildTextConfig) -> PublicSentence | LeftOut:
    if len(text) > config.max_characters:
        reason = f"sentence of {len(text)} characters, at most {config.max_characters}"
        return LeftOut("sentence too long", reason)
    if len(normalize_for_scoring(text).split()) < config.min_words:
        return LeftOut("sentence too short")
    if table.is_web and not _ENDS.search(text):
        return LeftOut("no end of a sentence")
    if left_out := why_foreign(text, "sentence") or why_unreadable(text, "sentence"):
        return left_out
    if language().cues and guess_language(text) != language().key:
        return LeftOut(f"not recognised as {language().name}")
    guess = guess_dialect(text)
    if config.dialects and guess not in config.dialects:
        return LeftOut(f"spelt in {guess}")
    dialect = config.dialect if table.dialect == "unknown" else table.dialect
    return _with_numbers_in_words(PublicSentence(text, dialect, guess))


def _with_numbers_in_words(sentence: PublicSentence) -> PublicSentence | LeftOut:
    if not any(map(str.isnumeric, sentence.text)):
        return sentence
    known = sentence.dialect if sentence.dialect != "unknown" else sentence.dialect_guess
    if known not in number_dialects():
        return LeftOut("number, and no dialect to read it in")
    spelled = spell_numbers(sentence.text, known)
    if spelled.unknown:
        reason = f"no rule says how to read {' '.join(spelled.unknown)}"
        return LeftOut("number that no rule reads", reason)
    return replace(sentence, text=spelled.text)


if __name__ == "__main__":
    run_command(main)
