"""Score Twi transcripts against references: WER, CER and their errors, from two text files.

    python -m data_manifests.score --references R.txt --hypotheses H.txt

Add `--json` for machine-readable output, `--per-utterance U.jsonl` to see where the errors are.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands.atomic_write import write_json_lines
from commands.command_line import parse_config, run_command
from commands.errors import InputError, describe_os_error
from commands.new_paths import refuse_unwritable
from commands.setting_types import Seed
from data_manifests.error_rates import UtteranceErrors, align_utterances, pool_error_rates
from data_manifests.text_lines import read_lines


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Score Twi transcripts against references: WER, CER and their errors.

    Both files are UTF-8 text with one utterance per line, in the same order; an empty line is an
    utterance without words. Definitions: data_manifests/error_rates.py.
    """

    references: Path
    """file of what was said"""
    hypotheses: Path
    """file of what was recognised"""
    normalize: bool = True
    """compare normalised Twi: case, punctuation, tone marks and look-alikes of ɛ ɔ do not count"""
    json: bool = False
    """print JSON with rates as fractions, instead of a table in percent"""
    per_utterance: Path | None = None
    """also write each utterance's WER, CER, word errors and compared texts (JSON Lines)"""
    seed: Seed = 0
    """seed for the resampling behind the 95 % interval"""


def main(argv: list[str] | None = None) -> None:
    config = parse_config(ScoreConfig, argv)
    if config.per_utterance is not None:
        refuse_unwritable(config.per_utterance, flag="--per-utterance")
    references = read_lines(config.references)
    hypotheses = read_lines(config.hypotheses)
    if len(references) != len(hypotheses):
        counts = f"{_count_lines(config.references, references)} but "
        counts += _count_lines(config.hypotheses, hypotheses)
        raise InputError(f"{counts}: each utterance needs one line in both, in the same order")
    utterances = align_utterances(references, hypotheses, normalize=config.normalize)
    rates = pool_error_rates(utterances, normalize=config.normalize, seed=config.seed)
    if config.per_utterance is not None:
        try:
            write_per_utterance(config.per_utterance, utterances)
        except OSError as error:
            reason = describe_os_error(error)
            raise InputError(f"--per-utterance cannot be written: {reason}") from None
        print(f"wrote {config.per_utterance}", file=sys.stderr)
    if config.json:
        print(json.dumps(rates.as_dict(), indent=2, ensure_ascii=False))
    else:
        print(rates.format_table())


def write_per_utterance(path: Path, utterances: Sequence[UtteranceErrors]) -> None:
    """Write one JSON object per line: line number, rates (fractions), word errors, texts."""
    rows = (
        {
            "line": number,
            "wer": utterance.words.rate,
            "cer": utterance.characters.rate,
            "substitutions": utterance.words.substitutions,
            "deletions": utterance.words.deletions,
            "insertions": utterance.words.insertions,
            "reference": utterance.reference,
            "hypothesis": utterance.hypothesis,
        }
        for number, utterance in enumerate(utterances, start=1)
    )
    write_json_lines(path, rows)


def _count_lines(path: Path, lines: Sequence[str]) -> str:
    num_blank_at_end = 0
    while num_blank_at_end < len(lines) and not lines[-1 - num_blank_at_end].strip():
        num_blank_at_end += 1
    blank = f" ({num_blank_at_end} blank at the end)" if num_blank_at_end else ""
    return f"{path} has {len(lines)} lines{blank}"


if __name__ == "__main__":
    run_command(main)
