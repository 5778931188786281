"""Dialogues + stage 2 -> spoken dialogues: stage 3's training data, without any recordings.

    python -m stage3_finetune.speak_dialogues --dialogues data/dialogues/dialogues.jsonl \
        --speechless runs/speechless --rvq runs/rvq --recognizer runs/recognizer \
        --out data/spoken-dialogues

Every user turn marked `"spoken": true` gets semantic codes. Writes `dialogues_*.parquet` (see
`dialogue_files.py`) shard by shard, so that `--resume` continues where a run was killed.
`kept.jsonl` lists every spoken turn with its take and CER. `dropped.jsonl` lists the dialogues with
a turn that could not be spoken, or that the recogniser did not understand, with the reason; such a
dialogue is left out whole. With `--dialect asante` or `akuapem`, numbers are spoken in words. With
`--part` or `--ray`, many processes share the work (`commands/shards.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.licenses import leave_out_others
from commands.run_folder import run_folder
from commands.setting_types import PositiveInt
from commands.shard import Shard
from commands.shards import split_into_shards, write_shards
from commands.sources import count_sources, merge
from data_manifests.held_out_rows import refuse_held_out
from stage2_speechless.speak import Sentence, with_numbers_in_words
from stage2_speechless.speaking_commands import SpeakingConfig, load_speech, record_spoken
from stage2_speechless.takes import Take
from stage3_finetune.dialogue import Dialogue
from stage3_finetune.dialogue_files import DIALOGUES_NAME, write_spoken_dialogues
from stage3_finetune.dialogue_rows import read_dialogues

# A killed run loses at most the shard it was working on.
DIALOGUES_PER_SHARD = 1024


@dataclass(frozen=True, kw_only=True)
class SpeakDialoguesConfig(SpeakingConfig):
    """Give the spoken turns of dialogues their semantic codes."""

    dialogues: Path
    """`messages` JSONL with user turns marked "spoken": true"""
    variants: PositiveInt = 1
    """number of different spoken versions of each dialogue"""


def main(argv: list[str] | None = None) -> None:
    """Speak the dialogues; prints the folder."""
    config = parse_config(SpeakDialoguesConfig, argv)
    refuse_held_out(config.dialogues, flag="--dialogues")
    dialogues = leave_out_others(
        read_dialogues(config.dialogues, takes_tools=True), config.allow_licenses, unit="dialogues"
    )
    if not dialogues:
        raise InputError(f"--dialogues {config.dialogues}: none is under an allowed licence")
    if not any(turn.spoken for dialogue in dialogues for turn in dialogue.turns):
        raise InputError(f'--dialogues {config.dialogues}: no user turn is marked "spoken": true')
    with run_folder(
        config.out,
        config,
        "stage3_finetune.speak_dialogues",
        inputs=("dialogues", "speechless", "rvq", "recognizer"),
    ) as output:
        if output.is_done:
            return
        copies = [
            replace(dialogue, id=f"{dialogue.id}@{variant}" if config.variants > 1 else dialogue.id)
            for variant in range(config.variants)
            for dialogue in dialogues
        ]
        shards = split_into_shards(copies, DIALOGUES_PER_SHARD)
        has_tools = any(dialogue.tools for dialogue in dialogues)
        write_shards(
            output, shards, DIALOGUES_NAME,
            partial(DialogueWriter, config, has_tools), config.workers, description="speak",
            unit="dialogues",
        )  # fmt: skip
        if config.workers.part:
            return
        spoken = (turn for dialogue in dialogues for turn in dialogue.turns if turn.spoken)
        record_spoken(
            output, len(shards), (turn.content for turn in spoken),
            unit="dialogues", counted_as="num_dialogues",
            takes_of=lambda row: [turn["take"] for turn in row["turns"].values()],
        )  # fmt: skip


class DialogueWriter:
    """Gives the spoken turns of a shard of dialogues their codes."""

    def __init__(self, config: SpeakDialoguesConfig, has_tools: bool, folder: Path) -> None:
        """Load the model, and what judges its takes; InputError if they do not belong together.

        Args:
            has_tools: whether any of the dialogues, of all shards, declares functions.
        """
        self.has_tools = has_tools
        self.speech = load_speech(config)
        self.facts = self.speech.facts

    def write(self, shard: Shard[Dialogue]) -> None:
        """Write which dialogues were spoken and which were not, and then the dialogues."""
        sentences = _sentences(shard.items, self.speech.config.dialect)
        takes, reasons = self.speech.take(sentences)
        spoken = [one for dialogue in shard.items if (one := _with_codes(dialogue, takes))]
        shard.write_rows("kept", [{"id": d.id, "turns": _described(d, takes)} for d in spoken])
        spoken_ids = {dialogue.id for dialogue in spoken}
        shard.write_rows(
            "dropped",
            [
                {"id": d.id, "turns": _reasons(d, reasons)}
                for d in shard.items
                if d.id not in spoken_ids
            ],
        )
        texts = count_sources((d.corpus, d.license, 0) for d in spoken)
        sources = merge(texts, self.speech.sources)
        shard.write_sources(sources)
        fmt = self.speech.model.config.code_format
        write_spoken_dialogues(
            shard.path, spoken, fmt, self.speech.origin, sources, has_tools=self.has_tools
        )


def _sentences(dialogues: Sequence[Dialogue], dialect: str) -> list[Sentence]:
    """The turns to be spoken, with numbers in words."""
    return [
        with_numbers_in_words(Sentence(_turn_id(dialogue, i), turn.content, dialect))
        for dialogue in dialogues
        for i, turn in enumerate(dialogue.turns)
        if turn.spoken
    ]


def _turn_id(dialogue: Dialogue, position: int) -> str:
    return f"{dialogue.id}#{position}"


def _described(dialogue: Dialogue, takes: dict[str, Take]) -> dict[str, dict[str, Any]]:
    """Which take of each spoken turn was kept, by the turn's position."""
    kept = {i: takes.get(_turn_id(dialogue, i)) for i in range(len(dialogue.turns))}
    return {str(i): {"take": take.number, "cer": take.cer} for i, take in kept.items() if take}


def _reasons(dialogue: Dialogue, reasons: dict[str, str]) -> dict[str, str]:
    """The reasons why turns could not be spoken, by the turn's position."""
    why = {i: reasons.get(_turn_id(dialogue, i)) for i in range(len(dialogue.turns))}
    return {str(i): reason for i, reason in why.items() if reason}


def _with_codes(dialogue: Dialogue, takes: dict[str, Take]) -> Dialogue | None:
    """The dialogue with codes on every spoken turn; None if any of them has none."""
    turns = []
    for i, turn in enumerate(dialogue.turns):
        if not turn.spoken:
            turns.append(turn)
        elif _turn_id(dialogue, i) in takes:
            turns.append(replace(turn, codes_TK=takes[_turn_id(dialogue, i)].codes_TK))
        else:
            return None
    return replace(dialogue, turns=tuple(turns))


if __name__ == "__main__":
    run_command(main)
