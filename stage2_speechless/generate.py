"""Speak a file of Twi sentences as semantic codes: the spoken side of stage 3's dialogues.

    python -m stage2_speechless.generate --speechless runs/speechless --text sentences.txt \
        --rvq runs/rvq --recognizer runs/recognizer --max-cer 0.3 --takes 3 --out data/spoken

Every sentence is spoken `--takes` times; the take with the lowest CER, measured by the recogniser,
is kept, unless that is over `--max-cer`; without a recogniser, the first take that ended is kept.
Numbers in Asante and Akuapem sentences are spoken as words.

Writes `codes_00000.parquet`, ... (see `stage1_rvq/codes.py`), `kept.jsonl` (for every sentence
among the codes, the number of its take and its CER) and `dropped.jsonl` (every other sentence, with
the reason). If killed, `--resume` continues it. With `--part` or `--ray`, many processes share the
work (`commands/shards.py`).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.licenses import leave_out_others
from commands.run_folder import run_folder
from commands.setting_types import PositiveFloat
from commands.shard import Shard
from commands.shards import split_into_shards, write_shards
from commands.sources import count_sources, merge
from stage1_rvq.codes import CODES_NAME, CodedUtterance, write_codes
from stage2_speechless.sentences import read_sentences
from stage2_speechless.speak import MAX_CHARACTERS, Sentence, with_numbers_in_words
from stage2_speechless.speaking_commands import SpeakingConfig, load_speech, record_spoken

SENTENCES_PER_SHARD = 256
SPEAKER = "speechless"


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(SpeakingConfig):
    """Speak every sentence of a text file as semantic codes."""

    text: Path
    """text file with one sentence per line; or .jsonl with id and text, and dialect, corpus and
    license if known"""
    rate: PositiveFloat | None = None
    """speaking rate in characters per second; if not given, drawn from the rates in the training
    data"""
    max_characters: ClassVar[int] = MAX_CHARACTERS


def main(argv: list[str] | None = None) -> None:
    """Speak the sentences; prints the folder."""
    config = parse_config(GenerateConfig, argv)
    sentences = leave_out_others(
        read_sentences(config.text, dialect=config.dialect, rate_cps=config.rate),
        config.allow_licenses,
        unit="sentences",
    )
    if not sentences:
        raise InputError(f"--text {config.text}: no sentence is under an allowed licence")
    with run_folder(
        config.out,
        config,
        "stage2_speechless.generate",
        inputs=("speechless", "text", "rvq", "recognizer"),
    ) as output:
        if output.is_done:
            return
        shards = split_into_shards(sentences, SENTENCES_PER_SHARD)
        write_shards(
            output, shards, CODES_NAME,
            partial(SpeechWriter, config), config.workers, description="speak", unit="sentences",
        )  # fmt: skip
        if config.workers.part:
            return
        record_spoken(
            output, len(shards), (sentence.text for sentence in sentences),
            unit="sentences", counted_as="num_utterances", takes_of=lambda row: [row["take"]],
        )  # fmt: skip


class SpeechWriter:
    """Speaks the sentences of a shard as codes."""

    def __init__(self, config: GenerateConfig, folder: Path) -> None:
        """Load the model, and what judges its takes; InputError if they do not belong together."""
        self.speech = load_speech(config)
        self.facts = self.speech.facts

    def write(self, shard: Shard[Sentence]) -> None:
        """Write which sentences were spoken and which were not, and then the codes."""
        chosen = [with_numbers_in_words(sentence) for sentence in shard.items]
        takes, reasons = self.speech.take(chosen)
        spoken = [(sentence, takes[sentence.id]) for sentence in chosen if sentence.id in takes]
        shard.write_rows(
            "kept", [{"id": s.id, "take": take.number, "cer": take.cer} for s, take in spoken]
        )
        shard.write_rows(
            "dropped",
            [
                {"id": s.id, "text": s.text, "reason": reasons[s.id]}
                for s in chosen
                if s.id in reasons
            ],
        )
        coded = [
            CodedUtterance(s.id, s.text, SPEAKER, s.dialect, take.codes_TK) for s, take in spoken
        ]
        texts = count_sources((s.corpus, s.license, 0) for s, _ in spoken)
        sources = merge(texts, self.speech.sources)
        shard.write_sources(sources)
        fmt = self.speech.model.config.code_format
        write_codes(shard.path, coded, fmt, self.speech.origin, sources)


if __name__ == "__main__":
    run_command(main)
