"""What the demo's Gemma can do before any stage: transcribe and chat, but not yet answer speech.

    python -m demo.gemma.evaluate --gemma runs/train-gemma/model --out runs/gemma-test

It is loaded from disk like any checkpoint, and asked only held-out questions: (fact, phrasing)
pairs that no training has seen. Prints the table; writes `metrics.json` and `answers.jsonl`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from commands.atomic_write import write_json, write_json_lines
from commands.command_line import parse_config, run_command
from commands.device import DtypeName, describe_machine, pick_device, pick_dtype
from commands.run_folder import run_folder
from commands.seeds import derive_seed
from commands.setting_types import ModelName, NonNegativeInt, PositiveInt, Seed
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, MIMI_SAMPLE_RATE_HZ, resample
from data_manifests.error_rates import compute_error_rates
from data_manifests.language import language
from data_manifests.manifest import Split
from demo.gemma.clips import INT16_PEAK, record_clips
from demo.mimi.speech import speak_texts
from demo.world.grammar import Question, choose_questions
from gemma4.speech_encoder import encoder_of
from speech_head.mimi import Mimi, load_mimi
from stage1_rvq.data import iterate_batches
from stage3_finetune.answer_scores import exact_match
from stage3_finetune.dialogue import Turn
from stage3_finetune.generate import generate_answers
from stage3_finetune.model import load_finetuned

TARGETS = {
    "wer_training_voices": "<= 0.06",
    "wer_held_out_voices": "<= 0.08",
    "exact_match_typed": ">= 0.90",
    "lowest_relation": ">= 0.60",
    "exact_match_spoken": "<= 0.10",
    "wer_mimi_voices": "",
    "wer_mimi_round_trip": "<= 0.08 more than the line above",
}


@dataclass(frozen=True, kw_only=True)
class EvaluateGemmaConfig:
    """Measure transcription and chat of the demo's Gemma on held-out questions."""

    out: Path
    """new folder for recordings, metrics.json and answers.jsonl"""
    gemma: ModelName = "demo/weights/gemma"
    """folder of the checkpoint"""
    mimi: ModelName = "demo/weights/mimi"
    """folder of the Mimi whose two voices are transcribed before and after coding"""
    num_questions: NonNegativeInt = 0
    """number of questions to ask, spread over all relations; 0 asks all"""
    batch_size: PositiveInt = 32
    """questions answered together"""
    seed: Seed = 100
    """seed for the recordings"""
    device: str = "cpu"
    """cpu, cuda, ..."""
    dtype: DtypeName = "auto"
    """bfloat16 on CUDA, float32 elsewhere"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""
    split: ClassVar[Split] = "test"


def main(argv: list[str] | None = None) -> None:
    """Ask, transcribe, write the numbers and every answer, and print the table."""
    config = parse_config(EvaluateGemmaConfig, argv)
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    model, tokenizer = load_finetuned(config.gemma, None, device=device, dtype=dtype)
    encoder = encoder_of(model, config.gemma)
    with run_folder(config.out, config, "demo.gemma.evaluate", inputs=("gemma", "mimi")) as output:
        output.record(**describe_machine(device, dtype))
        questions = choose_questions(config.split, config.num_questions)
        texts = [q.text for q in questions]

        def ask(turns: Sequence[Turn], name: str) -> list[str]:
            return generate_answers(
                model, tokenizer, [[turn] for turn in turns], max_new_tokens=48,
                batch_size=config.batch_size, description=name,
            )  # fmt: skip

        answers = {"typed": ask([Turn("user", text) for text in texts], "typed")}
        metrics: dict[str, Any] = {"num_questions": len(questions)}

        def listen(waveforms: Sequence[np.ndarray], name: str, prompt: str) -> list[str]:
            frames = []
            for positions in iterate_batches(len(waveforms), config.batch_size):
                frames += encoder.encode([waveforms[i] for i in positions])
            turns = [
                Turn("user", text, spoken=True, frames_TD=frames_TD, prompt=prompt)
                for text, frames_TD in zip(texts, frames, strict=True)
            ]
            return ask(turns, name)

        recordings = {}
        for voices, held_out in (("training_voices", False), ("held_out_voices", True)):
            seed = derive_seed(config.seed, voices)
            clips = record_clips(config.out / "clips" / voices, texts, held_out=held_out, seed=seed)
            recordings[voices] = [clips.waveform(i) for i in range(len(clips))]
            answers[f"spoken_{voices}"] = listen(recordings[voices], f"answer, {voices}", "")
        recordings |= _before_and_after_mimi(texts, load_mimi(config.mimi), config.seed)
        for voices, waveforms in recordings.items():
            written = listen(waveforms, f"write, {voices}", language().write)
            answers[f"written_{voices}"] = written
            rates = compute_error_rates(texts, written)
            metrics[f"wer_{voices}"] = rates.wer
            metrics[f"wer_interval_{voices}"] = [rates.wer_low, rates.wer_high]
            metrics[f"cer_{voices}"] = rates.cer
            metrics[f"sentences_exact_{voices}"] = exact_match(texts, written)
        references = [q.answer for q in questions]
        spoken = answers["spoken_training_voices"] + answers["spoken_held_out_voices"]
        metrics["exact_match_typed"] = exact_match(references, answers["typed"])
        metrics["exact_match_by_relation"] = _by_relation(questions, answers["typed"])
        metrics["lowest_relation"] = min(metrics["exact_match_by_relation"].values())
        metrics["exact_match_spoken"] = exact_match(references * 2, spoken)
        write_json(config.out / "metrics.json", metrics)
        rows = [
            {"id": q.id, "question": q.text, "reference": q.answer}
            | {name: texts[i] for name, texts in answers.items()}
            for i, q in enumerate(questions)
        ]
        write_json_lines(config.out / "answers.jsonl", rows)
        print(format_table(metrics))


def format_table(metrics: dict[str, Any]) -> str:
    """Format the numbers and their targets as a readable table."""
    lines = [f"{metrics['num_questions']} held-out questions, each spoken once by each voice group"]
    lines += [f"{name:<24}{metrics[name]:>8.3f}   {target}" for name, target in TARGETS.items()]
    by_relation = metrics["exact_match_by_relation"].items()
    lines += [f"  typed, {name:<20}{share:>6.2f}" for name, share in by_relation]
    return "\n".join(lines)


def _before_and_after_mimi(
    texts: Sequence[str], mimi: Mimi, seed: int
) -> dict[str, list[np.ndarray]]:
    """The texts in Mimi's own voices, and the same recordings coded and decoded; at 16 kHz."""
    recordings: dict[str, list[np.ndarray]] = {"mimi_voices": [], "mimi_round_trip": []}
    for clip in speak_texts(texts, seed):
        waveform = clip.samples_N.astype(np.float32) / INT16_PEAK
        decoded = mimi.decode(mimi.encode([waveform]), [len(waveform)])[0].numpy()
        for name, samples in (("mimi_voices", waveform), ("mimi_round_trip", decoded)):
            recordings[name].append(resample(samples, MIMI_SAMPLE_RATE_HZ, GEMMA_SAMPLE_RATE_HZ))
    return recordings


def _by_relation(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
    grouped: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for question, answer in zip(questions, answers, strict=True):
        grouped[question.relation].append((question.answer, answer))
    return {
        relation: exact_match(*zip(*pairs, strict=True))
        for relation, pairs in sorted(grouped.items())
    }


if __name__ == "__main__":
    run_command(main)
