"""Dialogues + stage 2 -> spoken dialogues: stage 3's training data, without any recordings.

    python -m stage3_finetune.speak_dialogues --dialogues data/dialogues/dialogues.jsonl \
        --speechless runs/speechless --rvq runs/rvq --reader runs/reader --out data/spoken-dialogues

Every user turn marked `"spoken": true` gets semantic codes. Writes `dialogues_*.parquet` (see
`stage3_finetune/data.py`) shard by shard, so that `--resume` continues where a run was killed.
`kept.jsonl` lists every spoken turn with its take and CER. `dropped.jsonl` lists the dialogues with
a turn that could not be spoken, or that the reader did not understand, with the reason; such a
dialogue is left out whole. With `--dialect asante` or `akuapem`, numbers are spoken in words.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from commands.atomic_write import write_json_lines
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, describe_machine, pick_device
from commands.errors import InputError
from commands.json_files import read_json_lines
from commands.run_folder import create_output
from commands.setting_types import (
    DialectName,
    ModelName,
    NonNegativeFloat,
    PositiveInt,
    Seed,
)
from stage1_rvq.data import iterate_batches
from stage2_speechless.model import load_speechless
from stage2_speechless.round_trip import load_round_trip
from stage2_speechless.sampling import SamplingSettings
from stage2_speechless.speak import (
    Sentence,
    Take,
    count_takes,
    speak_and_select,
    with_numbers_in_words,
)
from stage3_finetune.data import write_spoken_dialogues
from stage3_finetune.dialogue import Dialogue, read_dialogues

# A killed run loses at most the shard it was working on.
DIALOGUES_PER_SHARD = 1024


@dataclass(frozen=True, kw_only=True)
class SpeakDialoguesConfig:
    """Give the spoken turns of dialogues their semantic codes."""

    dialogues: Path
    """`messages` JSONL with user turns marked "spoken": true"""
    speechless: ModelName
    """model that generates the codes: folder of stage2_speechless.train, or hub name"""
    out: Path
    """new folder for dialogues_*.parquet"""
    rvq: ModelName | None = None
    """quantiser, to read the codes back; needs --reader"""
    reader: Path | None = None
    """folder of stage1_rvq.train_reader: picks the best take and drops turns it cannot read
    (--max-cer); needs --rvq"""
    max_cer: NonNegativeFloat = 0.3
    """with --reader: highest CER at which a turn is kept (0.3 = 30 %)"""
    takes: PositiveInt = 1
    """number of takes per turn; with --reader, the take with the lowest CER is kept (an error-free
    take ends the search), without it the first complete one"""
    variants: PositiveInt = 1
    """number of different spoken versions of each dialogue"""
    dialect: DialectName = "unknown"
    """asante, akuapem, fante, unknown: how the turns are spoken"""
    sampling: SamplingSettings = SamplingSettings()
    batch_size: PositiveInt = 32
    """turns generated together"""
    seed: Seed = 0
    """sampling seed; another seed speaks the same dialogues differently"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    resume: bool = False
    """continue an unfinished folder"""

    def __post_init__(self) -> None:
        if bool(self.rvq) != bool(self.reader):
            raise ValueError("--rvq and --reader go together: one decodes, the other reads")


def main(argv: list[str] | None = None) -> None:
    """Speak the dialogues; prints the folder."""
    config = parse_config(SpeakDialoguesConfig, argv)
    dialogues = list(read_dialogues(config.dialogues))
    if not any(turn.spoken for dialogue in dialogues for turn in dialogue.turns):
        raise InputError(f'--dialogues {config.dialogues}: no user turn is marked "spoken": true')
    device = pick_device(config.device)
    model = load_speechless(config.speechless, device=device)
    round_trip = None
    if config.rvq and config.reader:
        round_trip = load_round_trip(
            config.rvq,
            config.reader,
            model.config,
            expected_by=f"--speechless {config.speechless}",
            device=device,
        )
    output = create_output(
        config.out,
        config,
        command="stage3_finetune.speak_dialogues",
        inputs={
            "dialogues": config.dialogues,
            "speechless": config.speechless,
            "rvq": config.rvq,
            "reader": config.reader,
        },
        resume=config.resume,
    )
    if output.is_done:
        print(config.out)
        return
    copies = [
        replace(dialogue, id=f"{dialogue.id}@{variant}" if config.variants > 1 else dialogue.id)
        for variant in range(config.variants)
        for dialogue in dialogues
    ]
    output.record(**describe_machine(device, "float32"), quantizer=model.config.quantizer)
    kept_path, dropped_path = config.out / "kept.jsonl", config.out / "dropped.jsonl"
    kept, dropped = read_json_lines(kept_path), read_json_lines(dropped_path)
    shards = list(iterate_batches(len(copies), DIALOGUES_PER_SHARD))
    for number, positions in enumerate(tqdm(shards, desc="speak", unit=" shards")):
        path = config.out / f"dialogues_{number:05d}.parquet"
        if path.exists():
            continue
        shard = [copies[i] for i in positions]
        takes, reasons = speak_and_select(
            model,
            [
                with_numbers_in_words(Sentence(_turn_id(dialogue, i), turn.content, config.dialect))
                for dialogue in shard
                for i, turn in enumerate(dialogue.turns)
                if turn.spoken
            ],
            round_trip,
            takes=config.takes,
            max_cer=config.max_cer,
            seed=config.seed,
            temperature=config.sampling.temperature,
            top_k=config.sampling.top_k,
            batch_size=config.batch_size,
        )
        spoken = [one for dialogue in shard if (one := _with_codes(dialogue, takes))]
        # A killed run may have left rows of a shard without its codes: replace them.
        kept = [row for row in kept if row["shard"] != number] + [
            {"shard": number, "id": dialogue.id, "turns": _described(dialogue, takes)}
            for dialogue in spoken
        ]
        spoken_ids = {dialogue.id for dialogue in spoken}
        dropped = [row for row in dropped if row["shard"] != number] + [
            {"shard": number, "id": dialogue.id, "turns": _reasons(dialogue, reasons)}
            for dialogue in shard
            if dialogue.id not in spoken_ids
        ]
        write_json_lines(kept_path, kept)
        write_json_lines(dropped_path, dropped)
        write_spoken_dialogues(path, spoken, model.config.code_format)
    if not kept:
        raise InputError(f"all {len(dropped)} dialogues were dropped, see {dropped_path}")
    output.record(
        num_dialogues=len(kept), num_dropped=len(dropped),
        kept_takes=count_takes(turn["take"] for row in kept for turn in row["turns"].values()),
    )  # fmt: skip
    output.finish()
    print(f"{len(kept)} dialogues spoken, {len(dropped)} dropped", file=sys.stderr)
    print(config.out)


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
