"""Dialogues + stage 2 -> spoken dialogues: what stage 3 is trained on, without a recording.

    python -m stage3_finetune.speak_dialogues --dialogues data/dialogues/dialogues.jsonl \
        --speechless runs/speechless --rvq runs/rvq --reader runs/reader --out data/spoken-dialogues

Every user turn marked `"spoken": true` gets semantic codes. Writes `dialogues.parquet` (see
`stage3_finetune/data.py`) and `dropped.jsonl`: a dialogue with a turn that could not be spoken, or
not understood by the reader, is left out whole, with the reason. With `--dialect asante` or
`akuapem`, numbers are spoken in words.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from data_manifests.artifact import create_output, write_json_lines
from data_manifests.config import InputError, parse_config, run_command
from data_manifests.manifest import DIALECTS
from stage1_rvq.device import pick_device
from stage2_speechless.model import load_speechless
from stage2_speechless.round_trip import load_round_trip
from stage2_speechless.sampling import DEFAULT_TEMPERATURE, DEFAULT_TOP_K, refuse_bad_sampling
from stage2_speechless.speak import (
    Sentence,
    Take,
    count_takes,
    speak_and_select,
    with_numbers_in_words,
)
from stage3_finetune.data import write_spoken_dialogues
from stage3_finetune.dialogue import Dialogue, read_dialogues


@dataclass(frozen=True, kw_only=True)
class SpeakDialoguesConfig:
    """Give the spoken turns of dialogues their semantic codes."""

    dialogues: Path
    """`messages` JSONL with user turns marked "spoken": true"""
    speechless: str
    """model that speaks: folder of stage2_speechless.train, or hub name"""
    out: Path
    """new folder for dialogues.parquet"""
    rvq: str | None = None
    """quantiser, to read the codes back; needs --reader"""
    reader: Path | None = None
    """folder of stage1_rvq.train_reader: picks the best take, drops what it cannot read
    (--max-cer); needs --rvq"""
    max_cer: float = 0.3
    """with --reader: the highest CER of a turn that is kept (0.3 = 30 %)"""
    takes: int = 1
    """times each turn is spoken; the take that the reader reads best is kept (one without an error
    ends the search), without --reader the first that ended"""
    variants: int = 1
    """times each dialogue is spoken, each time differently"""
    dialect: str = "unknown"
    """asante, akuapem, fante, unknown: how the turns are spoken"""
    temperature: float = DEFAULT_TEMPERATURE
    """of sampling; 0 takes the most probable code"""
    top_k: int = DEFAULT_TOP_K
    """draw from the k most probable codes; 0 draws from all"""
    batch_size: int = 32
    """turns generated together"""
    seed: int = 0
    """another seed speaks the same dialogues another way"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    resume: bool = False
    """accept an unfinished folder and write it again"""

    def __post_init__(self) -> None:
        refuse_bad_sampling(self.temperature, self.top_k)
        if bool(self.rvq) != bool(self.reader):
            raise ValueError("--rvq and --reader go together: one decodes, the other reads")
        if self.dialect not in DIALECTS:
            raise ValueError(
                f"--dialect must be one of {', '.join(DIALECTS)}, got {self.dialect!r}"
            )
        for name in ("takes", "variants"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")


def main(argv: list[str] | None = None) -> None:
    """Speak the dialogues; prints the folder."""
    config = parse_config(SpeakDialoguesConfig, argv)
    dialogues = list(read_dialogues(config.dialogues))
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
    sentences = {
        _turn_id(dialogue, i): Sentence(_turn_id(dialogue, i), turn.content, config.dialect)
        for dialogue in copies
        for i, turn in enumerate(dialogue.turns)
        if turn.spoken
    }
    if not sentences:
        raise InputError(f'--dialogues {config.dialogues}: no user turn is marked "spoken": true')
    takes, reasons = speak_and_select(
        model,
        [with_numbers_in_words(sentence) for sentence in sentences.values()],
        round_trip,
        takes=config.takes,
        max_cer=config.max_cer,
        seed=config.seed,
        temperature=config.temperature,
        top_k=config.top_k,
        batch_size=config.batch_size,
    )
    kept, dropped = [], []
    for dialogue in copies:
        spoken = _with_codes(dialogue, takes)
        if spoken is not None:
            kept.append(spoken)
            continue
        ids = [_turn_id(dialogue, i) for i in range(len(dialogue.turns))]
        turns = {str(i): reasons[id_] for i, id_ in enumerate(ids) if id_ in reasons}
        dropped.append({"id": dialogue.id, "turns": turns})
    write_json_lines(config.out / "dropped.jsonl", dropped)
    if not kept:
        raise InputError(
            f"all {len(dropped)} dialogues were dropped, see {config.out}/dropped.jsonl"
        )
    write_spoken_dialogues(config.out / "dialogues.parquet", kept, model.config.code_format)
    output.record(
        device=str(device), quantizer=model.config.quantizer,
        num_dialogues=len(kept), num_dropped=len(dropped),
        kept_takes=count_takes(take.number for take in takes.values()),
    )  # fmt: skip
    output.finish()
    print(f"{len(kept)} dialogues spoken, {len(dropped)} dropped", file=sys.stderr)
    print(config.out)


def _turn_id(dialogue: Dialogue, position: int) -> str:
    return f"{dialogue.id}#{position}"


def _with_codes(dialogue: Dialogue, takes: dict[str, Take]) -> Dialogue | None:
    """The dialogue with codes on every spoken turn; None where one of them has none."""
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
