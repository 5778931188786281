"""Evaluate Speechless: run the CTC reader on its codes, and on the codes of real speech.

    python -m stage2_speechless.evaluate --speechless runs/speechless --codes data/codes/test \
        --rvq runs/rvq --reader runs/reader --out runs/speechless-test

Writes `metrics.json`, `durations.png` (generated against real) and `wer.png`; prints the table: all
sentences, then by dialect, by length, and by how many codebooks the reader is given. Every sentence
counts in every number: one that never ended is read up to the point where it was cut off. Speaking
rates are drawn at random, as when the model is used.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.atomic_write import write_json
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, describe_machine, pick_device
from commands.run_folder import run_folder
from commands.setting_types import (
    ModelName,
    NonNegativeInt,
    PositiveInt,
    Seed,
)
from stage1_rvq.codes import read_code_format, refuse_other_format
from stage2_speechless.breakdown import (
    measure_by_codebooks,
    measure_by_dialect,
    measure_by_length,
    plot_durations,
    plot_error_rates,
)
from stage2_speechless.data import print_left_out, read_utterances
from stage2_speechless.metrics import pool_sentences, speak_and_read
from stage2_speechless.model import load_speechless
from stage2_speechless.round_trip import load_round_trip
from stage2_speechless.sampling import SamplingSettings


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure Speechless on sentences of which real codes exist."""

    speechless: ModelName
    """model: folder of stage2_speechless.train, or hub name"""
    codes: Path
    """folder of stage1_rvq.tokenize_corpus: held-out codes with transcripts"""
    rvq: ModelName
    """quantiser that made the codes: folder of stage1_rvq.train, or hub name"""
    reader: Path
    """folder of stage1_rvq.train_reader"""
    out: Path
    """new folder for metrics.json and plots"""
    num_utterances: NonNegativeInt = 0
    """number of utterances to measure on, from the first; 0 takes all"""
    sampling: SamplingSettings = SamplingSettings()
    batch_size: PositiveInt = 32
    """sentences generated together"""
    seed: Seed = 0
    """seed for sampling; another seed speaks the same sentences differently"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    overwrite: bool = False
    """delete what an earlier run wrote into --out, and write it again"""


def main(argv: list[str] | None = None) -> None:
    """Measure, write `metrics.json`, print the table."""
    config = parse_config(EvaluateConfig, argv)
    device = pick_device(config.device)
    model = load_speechless(config.speechless, device=device)
    expected_by = f"--speechless {config.speechless}"
    refuse_other_format(
        read_code_format(config.codes),
        model.config.code_format,
        flag=f"--codes {config.codes}",
        expected_by=expected_by,
    )
    round_trip = load_round_trip(
        config.rvq,
        config.reader,
        model.config,
        expected_by=expected_by,
        device=device,
    )
    listed = read_utterances(config.codes, model.vocabulary)
    print_left_out(listed, "--codes")
    with run_folder(
        config.out,
        config,
        "stage2_speechless.evaluate",
        inputs=("speechless", "codes", "rvq", "reader"),
    ) as output:
        output.record(**describe_machine(device, "float32"), num_left_out=dict(listed.left_out))
        sentences = speak_and_read(
            model,
            listed.utterances[: config.num_utterances or None],
            round_trip,
            seed=config.seed,
            temperature=config.sampling.temperature,
            top_k=config.sampling.top_k,
            batch_size=config.batch_size,
        )
        metrics = {
            **pool_sentences(sentences),
            "by_dialect": measure_by_dialect(sentences),
            "by_length": measure_by_length(sentences),
            "by_codebooks": measure_by_codebooks(sentences, round_trip),
        }
        write_json(config.out / "metrics.json", metrics)
        plot_durations(sentences, model.config.frame_rate_hz, config.out / "durations.png")
        plot_error_rates(metrics, config.out / "wer.png")
        print(format_table(metrics))


def format_table(metrics: dict[str, Any]) -> str:
    """The numbers as a table for the terminal."""
    lines = []
    for name, label in (("real_codes", "real codes"), ("generated", "generated")):
        low, high = 100 * metrics[f"wer_{name}_low"], 100 * metrics[f"wer_{name}_high"]
        interval = f"95 % interval {low:.2f} to {high:.2f}"
        lines += [
            f"{f'WER, {label}':<26}{100 * metrics[f'wer_{name}']:8.2f} %  {interval}",
            f"{f'CER, {label}':<26}{100 * metrics[f'cer_{name}']:8.2f} %",
        ]
    lines += [
        f"{'length, generated / real':<26}{metrics['length_ratio']:8.3f}",
        f"{'  at the rates asked for':<26}{metrics['length_ratio_asked']:8.3f}",
        f"{'never ended':<26}{100 * metrics['never_ended']:8.2f} %",
        f"{'sentences':<26}{metrics['num_utterances']:8d}",
        "",
        f"{'':<22}{'real codes':^16}{'generated':^16}",
        f"{'':<22}{'WER %':>8}{'CER %':>8}{'WER %':>8}{'CER %':>8}"
        f"{'length':>9}{'never ended %':>15}{'sentences':>11}",
    ]
    parts = {
        "dialect": "by_dialect",
        "length in characters": "by_length",
        "codebooks heard": "by_codebooks",
    }
    for title, key in parts.items():
        rows = metrics[key].items()
        lines += [title, *(f"  {name:<20}{_format_row(row)}" for name, row in rows)]
    return "\n".join(lines)


def _format_row(row: dict[str, Any]) -> str:
    names = ("wer_real_codes", "cer_real_codes", "wer_generated", "cer_generated")
    line = "".join(f"{100 * row[name]:8.1f}" for name in names)
    if "num_utterances" in row:  # rows by codebooks have no lengths
        line += f"{row['length_ratio']:9.3f}{100 * row['never_ended']:15.1f}"
        line += f"{row['num_utterances']:11d}"
    return line


if __name__ == "__main__":
    run_command(main)
