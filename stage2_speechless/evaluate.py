"""How well does Speechless speak: the CTC reader on its codes, beside the codes of real speech.

    python -m stage2_speechless.evaluate --speechless runs/speechless --codes data/codes/test \
        --rvq runs/rvq --reader runs/reader --out runs/speechless-test

Writes `metrics.json` and prints the table. Every sentence counts in every number: one that never
ended is read up to where it was cut off. Speaking rates are drawn, as when the model is used.
"""

from dataclasses import dataclass
from pathlib import Path

from data_manifests.artifact import create_output, write_json
from data_manifests.config import InputError, parse_config, run_command
from stage1_rvq.codes import read_code_format, refuse_other_format
from stage1_rvq.device import pick_device
from stage2_speechless.data import print_left_out, read_utterances
from stage2_speechless.metrics import measure_speech
from stage2_speechless.model import load_speechless
from stage2_speechless.round_trip import load_round_trip
from stage2_speechless.sampling import DEFAULT_TEMPERATURE, DEFAULT_TOP_K, refuse_bad_sampling


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure Speechless on sentences of which real codes exist."""

    speechless: str
    """model: folder of stage2_speechless.train, or hub name"""
    codes: Path
    """held-out codes with transcripts, of stage1_rvq.tokenize_corpus"""
    rvq: str
    """quantiser that made the codes: folder of stage1_rvq.train, or hub name"""
    reader: Path
    """folder of stage1_rvq.train_reader"""
    out: Path
    """new folder for metrics.json"""
    num_utterances: int = 0
    """measure on the first so many; 0 takes all"""
    temperature: float = DEFAULT_TEMPERATURE
    """of sampling; 0 takes the most probable code"""
    top_k: int = DEFAULT_TOP_K
    """draw from the k most probable codes; 0 draws from all"""
    batch_size: int = 32
    """sentences generated together"""
    seed: int = 0
    """another seed speaks the same sentences another way"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    resume: bool = False
    """accept an unfinished folder and write it again"""


def main(argv: list[str] | None = None) -> None:
    """Measure, write `metrics.json`, print the table."""
    config = parse_config(EvaluateConfig, argv)
    refuse_bad_sampling(config.temperature, config.top_k)
    if config.num_utterances < 0:
        raise InputError(f"--num-utterances must not be negative, got {config.num_utterances}")
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
    output = create_output(
        config.out,
        config,
        command="stage2_speechless.evaluate",
        inputs={
            "speechless": config.speechless,
            "codes": config.codes,
            "rvq": config.rvq,
            "reader": config.reader,
        },
        resume=config.resume,
    )
    if output.is_done:
        print(config.out)
        return
    output.record(device=str(device), dtype="float32", num_left_out=dict(listed.left_out))
    metrics = measure_speech(
        model,
        listed.utterances[: config.num_utterances or None],
        round_trip,
        seed=config.seed,
        temperature=config.temperature,
        top_k=config.top_k,
        batch_size=config.batch_size,
    )
    write_json(config.out / "metrics.json", metrics)
    output.finish()
    print(format_table(metrics))
    print(config.out)


def format_table(metrics: dict[str, float | int]) -> str:
    """The numbers as a person reads them."""
    rows = {
        "WER, real codes": f"{100 * metrics['wer_real_codes']:8.2f} %",
        "WER, generated": f"{100 * metrics['wer_generated']:8.2f} %",
        "CER, generated": f"{100 * metrics['cer_generated']:8.2f} %",
        "length, generated / real": f"{metrics['length_ratio']:8.3f}",
        "never ended": f"{100 * metrics['never_ended']:8.2f} %",
        "sentences": f"{metrics['num_utterances']:8d}",
    }
    return "\n".join(f"{name:<26}{value}" for name, value in rows.items())


if __name__ == "__main__":
    run_command(main)
