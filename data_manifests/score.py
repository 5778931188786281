"""Score Twi transcripts against references: WER, CER and their errors.

    python -m data_manifests.score --references R.txt --hypotheses H.txt
    python -m data_manifests.score --references data/cv/test.jsonl --hypotheses heard.jsonl \\
        --by dialect speaker --english

Add `--json` for machine-readable output, `--per-utterance U.jsonl` to see where the errors are.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from commands.atomic_write import write_json_lines
from commands.command_line import parse_config, run_command
from commands.errors import InputError, describe_os_error
from commands.new_paths import refuse_unwritable
from commands.setting_types import Seed
from data_manifests.alignments import UtteranceErrors, align_utterances
from data_manifests.error_breakdowns import (
    GroupRates,
    errors_by_language,
    rates_by_group,
    rates_of_speakers,
)
from data_manifests.error_rates import pool_error_rates
from data_manifests.score_files import GroupKind, Pairs, read_pairs
from data_manifests.score_report import ScoreReport
from data_manifests.text_rules import TextRules


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Score Twi transcripts against references: WER, CER and their errors.

    Texts are UTF-8 with one utterance per line, in the same order; an empty line is an utterance
    without words. Definitions: docs/data.md, "Word error rate".
    """

    references: Path
    """text of what was said, or a manifest (.jsonl)"""
    hypotheses: Path
    """text of what was recognised, or, with a manifest, rows with id and heard (.jsonl)"""
    speakers: Path | None = None
    """text with the speaker of each utterance; a manifest says it itself"""
    by: tuple[GroupKind, ...] = ()
    """also print the rates of each speaker, dialect or corpus"""
    english: bool = False
    """also count errors in English words and in all others"""
    normalize: bool = True
    """compare normalised Twi: case, punctuation, tone marks and look-alikes of ɛ ɔ do not count"""
    numbers_as_digits: bool = False
    """write numbers in words as digits first, so that both count as the same"""
    leave_out_tags: bool = False
    """leave out what stands in brackets: [noise], <unk>, (laughs)"""
    leave_out_empty: bool = False
    """leave out utterances whose reference has no word, instead of counting what was heard there"""
    json: bool = False
    """print JSON with rates as fractions, instead of a table in percent"""
    per_utterance: Path | None = None
    """also write each utterance's WER, CER, word errors and compared texts (JSON Lines)"""
    seed: Seed = 0
    """seed for the resampling behind the 95 % interval"""

    def __post_init__(self) -> None:
        if self.english and not self.normalize:
            raise ValueError("--english needs normalised texts: leave out --no-normalize")


def main(argv: list[str] | None = None) -> None:
    config = parse_config(ScoreConfig, argv)
    if config.per_utterance is not None:
        refuse_unwritable(config.per_utterance, flag="--per-utterance")
    rules = TextRules(
        normalize=config.normalize,
        numbers_as_digits=config.numbers_as_digits,
        leave_out_tags=config.leave_out_tags,
    )
    pairs = read_pairs(config.references, config.hypotheses, config.speakers)
    utterances = align_utterances(
        [reference.text for reference in pairs.references], pairs.hypotheses, rules=rules
    )
    num_utterances = len(utterances)
    if config.leave_out_empty:
        pairs = pairs.with_words([utterance.reference for utterance in utterances])
        utterances = [utterance for utterance in utterances if utterance.reference]
    report = score(config, pairs, utterances, rules, num_left_out=num_utterances - len(utterances))
    if config.per_utterance is not None:
        try:
            write_per_utterance(config.per_utterance, pairs, utterances)
        except OSError as error:
            reason = describe_os_error(error)
            raise InputError(f"--per-utterance cannot be written: {reason}") from None
        print(f"wrote {config.per_utterance}", file=sys.stderr)
    if config.json:
        print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        print(report.format())


def score(
    config: ScoreConfig,
    pairs: Pairs,
    utterances: Sequence[UtteranceErrors],
    rules: TextRules,
    *,
    num_left_out: int,
) -> ScoreReport:
    """The rates, and what the flags ask for beside them.

    Args:
        config: the command's settings.
        pairs: what was compared.
        utterances: the same, aligned.
        rules: what was done to both before.
        num_left_out: utterances that are no longer among them.
    """
    seed = config.seed
    rates = pool_error_rates(utterances, rules=rules, seed=seed)
    speakers = None
    if config.speakers is not None or all(row.speaker for row in pairs.references):
        names = pairs.groups("speaker", flag="--speakers")
        speakers = rates_of_speakers(utterances, names, seed=seed)
    by: dict[str, Mapping[str, GroupRates]] = {
        kind: rates_by_group(utterances, pairs.groups(kind, flag=f"--by {kind}"), seed=seed)
        for kind in config.by
    }
    return ScoreReport(
        rates=rates,
        num_left_out=num_left_out if config.leave_out_empty else None,
        speakers=speakers,
        words=errors_by_language(utterances, seed=seed) if config.english else None,
        by=by or None,
    )


def write_per_utterance(path: Path, pairs: Pairs, utterances: Sequence[UtteranceErrors]) -> None:
    """Write one JSON object per utterance: id or line, rates (fractions), word errors, texts."""
    rows = (
        {
            **({"id": reference.id} if pairs.has_ids else {"line": int(reference.id)}),
            "wer": utterance.words.rate,
            "cer": utterance.characters.rate,
            "substitutions": utterance.words.substitutions,
            "deletions": utterance.words.deletions,
            "insertions": utterance.words.insertions,
            "reference": utterance.reference,
            "hypothesis": utterance.hypothesis,
        }
        for reference, utterance in zip(pairs.references, utterances, strict=True)
    )
    write_json_lines(path, rows)


if __name__ == "__main__":
    run_command(main)
