"""What do 8 and 4 bits cost? Gemma in several precisions, on the same held-out questions.

    python -m pipeline.compare_precision --gemma google/gemma-4-E4B-it --finetune runs/finetune \
        --dialogues data/test-dialogues.jsonl --recordings data/cv/test.jsonl \
        --head runs/head --mimi kyutai/mimi --recognizer runs/recognizer \
        --precisions bfloat16 8bit 4bit --out runs/precision

Each precision is loaded, asked and freed before the next, in a process of its own: a process's peak
memory never falls. Writes `precision.json` and `answers.jsonl` (what each precision wrote); prints
one table. Without `--head`, nothing is spoken. In "8bit" and "4bit" only the decoder's linear
layers are quantised (see `--quantize` of the other commands); the rest is in bfloat16 on CUDA, in
float32 elsewhere. A precision that this machine cannot run gets a row that says why.
"""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from commands.atomic_write import write_json, write_json_lines
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, describe_machine, pick_device
from commands.errors import InputError
from commands.finished_folder import open_input, read_provenance
from commands.origins import refuse_mixture
from commands.run_folder import run_folder
from commands.setting_types import ModelName, NonNegativeInt, PositiveInt, Seed, StorePath
from gemma4.speech_encoder import load_encoder, require_tower
from gemma4.weight_quantization import refuse_missing_bitsandbytes
from pipeline.own_process import ProcessEnded, in_own_process
from pipeline.precision_scores import (
    Job,
    Measured,
    NotRun,
    PrecisionName,
    measure,
    quantization_of,
)
from speech_head.model import load_head
from stage1_rvq.judge import OTHER_JUDGE, JudgeSettings, load_asr
from stage1_rvq.recognizer import load_recognizer
from stage3_finetune.recorded_questions import match_recordings

INPUTS = ("gemma", "finetune", "dialogues", "recordings", "head", "mimi", "recognizer", "asr")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare precisions of Gemma: right answers, transcripts, speech, memory and speed."""

    dialogues: Path
    """held-out dialogues (`messages` JSONL): first user turn and first answer are used"""
    recordings: StorePath
    """manifest of recordings of those questions"""
    out: Path
    """new folder for precision.json and answers.jsonl"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of Gemma 4 (E2B, E4B, 12B)"""
    finetune: Path | None = None
    """adapter, written by stage3_finetune.train; its precision in training may have been another"""
    head: ModelName | None = None
    """folder of speech_head.train, or hub name: answers are also spoken (needs a judge)"""
    mimi: ModelName = "kyutai/mimi"
    """with --head: hub name or folder of Mimi"""
    judge: JudgeSettings = JudgeSettings()
    """with --head"""
    precisions: Annotated[tuple[PrecisionName, ...], Field(min_length=1)] = (
        "bfloat16", "8bit", "4bit",
    )  # fmt: skip
    """float32, bfloat16, 8bit or 4bit; answers of the others are compared with the first one's"""
    num_questions: NonNegativeInt = 0
    """number of recorded questions to ask, from the first; 0 asks all"""
    max_new_tokens: PositiveInt = 128
    """longest answer, in tokens"""
    batch_size: PositiveInt = 16
    """questions answered together"""
    seed: Seed = 0
    """sampling seed of the head"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""

    def __post_init__(self) -> None:
        if len(set(self.precisions)) < len(self.precisions):
            raise ValueError(f"--precisions names one twice: {' '.join(self.precisions)}")
        if (self.head is None) != (self.judge.name() is None):
            raise ValueError(
                f"--head and one of {self.judge.flags()} go together: one speaks, the other listens"
            )


def main(argv: list[str] | None = None) -> None:
    """Measure every precision, write the numbers and every answer, and print the table."""
    config = parse_config(CompareConfig, argv)
    device = pick_device(config.device)
    for name in config.precisions:
        if quantization_of(name) != "none":
            refuse_missing_bitsandbytes(f"--precisions {name}")
    matches = match_recordings(config.dialogues, config.recordings)
    if config.num_questions:
        matches = replace(matches, rows=matches.rows[: config.num_questions])
    _refuse_mixture(config)
    job = Job(
        gemma=config.gemma, finetune=config.finetune, head=config.head, mimi=config.mimi,
        judge=config.judge, allow_mixture=config.allow_mixture, matches=matches,
        max_new_tokens=config.max_new_tokens, batch_size=config.batch_size, seed=config.seed,
        device=device,
    )  # fmt: skip
    inputs = [name for name in INPUTS if name != "mimi" or config.head]
    with run_folder(config.out, config, "pipeline.compare_precision", inputs=inputs) as output:
        output.record(**describe_machine(device, ", ".join(config.precisions)))
        rows = {name: _measure(job, name) for name in config.precisions}
        measured = {name: row for name, row in rows.items() if isinstance(row, Measured)}
        not_run = {name: row.reason for name, row in rows.items() if isinstance(row, NotRun)}
        if not measured:
            first, reason = next(iter(not_run.items()))
            raise InputError(f"--precisions {first} {reason}")
        comparison = Comparison(len(matches.rows), measured, not_run)
        write_json(config.out / "precision.json", comparison.as_dict())
        write_json_lines(config.out / "answers.jsonl", _answer_rows(job, measured))
        print(format_table(comparison))


@dataclass(frozen=True)
class Comparison:
    """The rows of the table: precisions that were measured, and those that could not be."""

    num_questions: int
    measured: Mapping[PrecisionName, Measured]
    not_run: Mapping[PrecisionName, str]

    @property
    def first(self) -> PrecisionName:
        """The precision that the others are compared with: the first that could be measured."""
        return next(iter(self.measured))

    def agreement(self, precision: PrecisionName) -> float:
        """Share of answers, to typed and spoken questions, that are the first precision's, to the
        letter."""
        one, other = self.measured[self.first], self.measured[precision]
        pairs = list(zip(one.typed + one.spoken, other.typed + other.spoken, strict=True))
        return sum(a == b for a, b in pairs) / len(pairs)

    def as_dict(self) -> dict[str, object]:
        """For `precision.json`."""
        return {
            "num_questions": self.num_questions,
            "compared_with": self.first,
            "scores": {
                name: {**asdict(row.scores), "agreement": self.agreement(name)}
                for name, row in self.measured.items()
            },
            "cost": {name: asdict(row.cost) for name, row in self.measured.items()},
            "not_run": dict(self.not_run),
        }


def format_table(comparison: Comparison) -> str:
    """Format the numbers as a readable table."""
    first = comparison.first
    lines = [
        f"answers to {comparison.num_questions} recorded questions, each typed and spoken; "
        "memory in MB",
        f"{'':<9}{'exact match':^16}{'chrF2':^14}{'same as':>9}{'WER':^16}"
        f"{'memory':^18}{'seconds':^16}{'tokens':>8}",
        f"{'':<9}{'typed':>8}{'spoken':>8}{'typed':>7}{'spoken':>7}{first:>9}"
        f"{'heard':>8}{'speech':>8}{'weights':>9}{'peak':>9}{'load':>8}{'answer':>8}{'/ s':>8}",
    ]
    for name, row in comparison.measured.items():
        scores, cost = row.scores, row.cost
        speech = scores.speech.wer_spoken if scores.speech else None
        lines.append(
            f"{name:<9}{_percent(scores.exact_match_typed):>8}"
            f"{_percent(scores.exact_match_spoken):>8}{100 * scores.chrf_typed:>7.1f}"
            f"{100 * scores.chrf_spoken:>7.1f}{_percent(comparison.agreement(name)):>9}"
            f"{_rate(scores.wer_transcript):>8}{_rate(speech):>8}"
            f"{cost.weights_bytes / 1e6:>9,.1f}{cost.peak_bytes / 1e6:>9,.0f}"
            f"{cost.seconds_to_load:>8.1f}{cost.seconds_per_answer:>8.2f}"
            f"{cost.tokens_per_second:>8.1f}"
        )
    lines += [f"{name:<9} not run: {reason}" for name, reason in comparison.not_run.items()]
    return "\n".join(lines)


def _measure(job: Job, precision: PrecisionName) -> Measured | NotRun:
    try:
        return in_own_process(measure, job, precision)
    except ProcessEnded as ended:
        if ended.exit_code != -signal.SIGKILL:
            raise
        return NotRun("the system killed it, most likely for want of memory")


def _refuse_mixture(config: CompareConfig) -> None:
    """Raise InputError if the models do not belong together, before any answers are written."""
    cpu = torch.device("cpu")
    # Fingerprints are taken of weights rounded to bfloat16.
    encoder = load_encoder(config.gemma, device=cpu, dtype=torch.bfloat16)
    origins = {f"--gemma {config.gemma}": encoder.origin}
    if config.finetune:
        open_input(config.finetune, made_by="stage3_finetune.train", flag="--finetune")
        origins[f"--finetune {config.finetune}"] = read_provenance(config.finetune).origin
    if config.head:
        origins[f"--head {config.head}"] = load_head(config.head, device=cpu).config.origin
    if config.judge.recognizer:
        recognizer = load_recognizer(config.judge.recognizer, device=cpu)
        tower = require_tower(encoder, instead=OTHER_JUDGE)
        recognizer.refuse_other_width(tower.dim, flag="--gemma")
        origins[f"--recognizer {config.judge.recognizer}"] = recognizer.origin()
    load_asr(config.judge, device=cpu)
    refuse_mixture(origins, allowed=config.allow_mixture)


def _answer_rows(
    job: Job, measured: Mapping[PrecisionName, Measured]
) -> Sequence[dict[str, object]]:
    rows = []
    for i, (id_, question, answer, _, recording) in enumerate(job.matches.rows):
        row: dict[str, object] = {
            "id": id_, "recording": recording.id, "question": question, "reference": answer,
            "typed": {name: one.typed[i] for name, one in measured.items()},
            "spoken": {name: one.spoken[i] for name, one in measured.items()},
            "transcript": {
                name: one.transcripts[i] for name, one in measured.items() if one.transcripts
            },
        }  # fmt: skip
        rows.append(row)
    return rows


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.3f}"


if __name__ == "__main__":
    run_command(main)
