"""Evaluate Speechless: run the CTC recogniser on its codes, and on the codes of real speech.

    python -m stage2_speechless.evaluate --speechless runs/speechless --codes data/codes/test \
        --rvq runs/rvq --recognizer runs/recognizer --out runs/speechless-test

Writes `metrics.json`, `durations.png` (generated against real) and `wer.png`; prints the table: all
sentences, then by dialect, by length, and by how many codebooks the recogniser is given. Every
sentence counts in every number: one that never ended is read up to the point where it was cut off.
Speaking rates are drawn at random, as when the model is used.
"""

from dataclasses import dataclass
from pathlib import Path

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
from stage1_rvq.codes import read_code_format, read_codes_origins, refuse_other_format
from stage2_speechless.breakdown import (
    Breakdown,
    break_down,
    plot_durations,
    plot_error_rates,
)
from stage2_speechless.corpus import open_corpus, print_left_out
from stage2_speechless.metrics import PooledErrors, SpeechMetrics, generate_and_transcribe
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
    recognizer: Path
    """folder of stage1_rvq.train_recognizer"""
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
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""


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
        config.recognizer,
        model.config.code_format,
        {expected_by: model.config.origin, **read_codes_origins(config.codes)},
        expected_by=expected_by,
        device=device,
        allow_mixture=config.allow_mixture,
    )
    corpus = open_corpus(config.codes, model.vocabulary)
    print_left_out(corpus, "--codes")
    with run_folder(
        config.out,
        config,
        "stage2_speechless.evaluate",
        inputs=("speechless", "codes", "rvq", "recognizer"),
    ) as output:
        output.record(**describe_machine(device, "float32"), num_left_out=dict(corpus.left_out))
        sentences = generate_and_transcribe(
            model,
            corpus.utterances[: config.num_utterances or None],
            round_trip,
            seed=config.seed,
            sampling=config.sampling,
            batch_size=config.batch_size,
        )
        metrics = break_down(sentences, round_trip)
        write_json(config.out / "metrics.json", metrics.as_dict())
        plot_durations(sentences, model.config.frame_rate_hz, config.out / "durations.png")
        plot_error_rates(metrics, config.out / "wer.png")
        print(format_table(metrics))


def format_table(metrics: Breakdown) -> str:
    """The numbers as a table for the terminal."""
    lines = []
    total, errors = metrics.total, metrics.total.errors
    for label, rates in (("real codes", errors.real_codes), ("generated", errors.generated)):
        interval = f"95 % interval {100 * rates.wer_low:.2f} to {100 * rates.wer_high:.2f}"
        lines += [
            f"{f'WER, {label}':<26}{100 * rates.wer:8.2f} %  {interval}",
            f"{f'CER, {label}':<26}{100 * rates.cer:8.2f} %",
        ]
    lines += [
        f"{'length, generated / real':<26}{total.length_ratio:8.3f}",
        f"{'  at the rates asked for':<26}{total.length_ratio_asked:8.3f}",
        f"{'never ended':<26}{100 * total.never_ended:8.2f} %",
        f"{'sentences':<26}{total.num_utterances:8d}",
        "",
        f"{'':<22}{'real codes':^16}{'generated':^16}",
        f"{'':<22}{'WER %':>8}{'CER %':>8}{'WER %':>8}{'CER %':>8}"
        f"{'length':>9}{'never ended %':>15}{'sentences':>11}",
    ]
    for title, groups in (
        ("dialect", metrics.by_dialect),
        ("length in characters", metrics.by_length),
    ):
        lines += [title, *(f"  {name:<20}{_format_group(row)}" for name, row in groups.items())]
    by_codebooks = metrics.by_codebooks.items()
    lines += ["codebooks heard", *(f"  {k:<20}{_format_errors(row)}" for k, row in by_codebooks)]
    return "\n".join(lines)


def _format_group(row: SpeechMetrics) -> str:
    lengths = f"{row.length_ratio:9.3f}{100 * row.never_ended:15.1f}{row.num_utterances:11d}"
    return _format_errors(row.errors) + lengths


def _format_errors(errors: PooledErrors) -> str:
    return "".join(
        f"{100 * rates.wer:8.1f}{100 * rates.cer:8.1f}"
        for rates in (errors.real_codes, errors.generated)
    )


if __name__ == "__main__":
    run_command(main)
