"""Digits to Twi words and back, for a text or a file, with a list of what was left.

    python -m data_manifests.spell_numbers --text "Bra 10:30 na fa GH¢5.50 bra." --dialect asante
    python -m data_manifests.spell_numbers --file sentences.txt --dialect fante > spoken.txt
    python -m data_manifests.spell_numbers --text "mpem mmienu ne aduonu baako" --to-digits

Every line of the text, normalised as models read it, goes to stdout with its numbers in words; what
no rule reads stays in digits, and goes to stderr with the number of its line. Which rules there are
says `data_manifests/twi_numbers.py`; the words are in `data_manifests/languages/twi_numbers.tsv`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from data_manifests.language import DialectName, language
from data_manifests.normalization import normalize_for_training
from data_manifests.text_lines import read_lines
from data_manifests.twi_number_words import words_to_digits
from data_manifests.twi_numbers import number_dialects, spell_numbers


@dataclass(frozen=True, kw_only=True)
class SpellNumbersConfig:
    """Write the numbers of a text in Twi words, or words in digits; list what was left."""

    text: str = ""
    """a text"""
    file: Path | None = None
    """a UTF-8 file of texts, one a line; instead of --text"""
    dialect: DialectName = "asante"
    """whose words: asante, akuapem or fante; words are understood in all of them"""
    to_digits: bool = False
    """write number words in digits, instead of digits in words"""


def main(argv: list[str] | None = None) -> None:
    """Print the lines with their numbers in words or digits, and to stderr what was left."""
    config = parse_config(SpellNumbersConfig, argv)
    if bool(config.text.strip()) == (config.file is not None):
        raise InputError("give either --text or --file")
    if not number_dialects():
        raise InputError(
            f"numbers are read in Twi only, and the language in use is {language().name}"
        )
    if not config.to_digits and config.dialect not in number_dialects():
        known = ", ".join(number_dialects())
        raise InputError(f"--dialect {config.dialect}: numbers have words in {known}")
    lines = read_lines(config.file, flag="--file") if config.file else config.text.split("\n")
    num_left = 0
    for number, line in enumerate(lines, start=1):
        text = normalize_for_training(line)
        if config.to_digits:
            print(words_to_digits(text))
            continue
        spelled = spell_numbers(text, config.dialect)
        print(spelled.text)
        for left in spelled.unknown:
            num_left += 1
            print(f"line {number}: not read: {left}", file=sys.stderr)
    if not config.to_digits:
        print(f"{num_left} left in digits", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
