"""Does Gemma answer real recordings? Compares four systems on the same held-out questions.

    python -m stage3_finetune.evaluate --gemma google/gemma-4-E4B-it --finetune runs/finetune \
        --dialogues data/test-dialogues.jsonl --recordings data/cv/test.jsonl \
        --recognizer runs/recognizer \
        --out runs/finetune-test

A question counts when its transcript is the text of a recording (both normalised for scoring).
Writes `metrics.json` and `answers.jsonl` (every question, reference and answer); prints the table.
If the dialogues' rows name a "category", results are also given per category.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from commands.atomic_write import write_json, write_json_lines
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName, describe_machine, pick_device, pick_dtype
from commands.finished_folder import open_input
from commands.json_files import read_json
from commands.origins import refuse_mixture
from commands.run_folder import run_folder
from commands.setting_types import ModelName, PositiveInt, StorePath
from data_manifests.hypotheses import read_hypotheses
from data_manifests.manifest import read_manifest
from data_manifests.quoted_rates import format_rates
from gemma4.kinds import AnyGemma
from gemma4.speech_encoder import encoder_of, require_tower
from gemma4.weight_quantization import QuantizeName
from stage1_rvq.judge import OTHER_JUDGE, AnyJudgeSettings, load_asr, transcribe_recordings
from stage1_rvq.recognizer import load_recognizer
from stage3_finetune.answer_scores import LATER, SYSTEMS, AnswerScores, score_answers
from stage3_finetune.dialogue import Turn
from stage3_finetune.generate import generate_answers
from stage3_finetune.model import add_adapter, finetuned_origins, load_finetuned
from stage3_finetune.recorded_questions import (
    Matches,
    RecordedQuestion,
    as_later,
    as_spoken,
    as_typed,
    embed_questions,
    match_recordings,
    read_spoken_replies,
)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Ask the base model, a cascade and the fine-tuned model held-out recorded questions."""

    dialogues: Path
    """held-out dialogues (`messages` JSONL): first user turn and first answer are used"""
    recordings: StorePath
    """manifest of recordings of those questions"""
    finetune: Path
    """folder of stage3_finetune.train"""
    out: Path
    """new folder for metrics.json and answers.jsonl"""
    direct_finetune: Path | None = None
    """a second run, trained with --target direct, for comparison"""
    judge: AnyJudgeSettings = AnyJudgeSettings()
    """the recogniser of the cascade, which is left out of the comparison without one"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of the base model"""
    max_new_tokens: PositiveInt = 128
    """longest answer, in tokens"""
    batch_size: PositiveInt = 16
    """questions answered together"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "auto"
    """bfloat16 on CUDA, float32 elsewhere"""
    quantize: QuantizeName = "none"
    """8bit or 4bit: quantise the decoder as it is loaded (needs bitsandbytes)"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""


def main(argv: list[str] | None = None) -> None:
    """Evaluate, write the numbers and every answer, and print the table."""
    config = parse_config(EvaluateConfig, argv)
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    for flag, run in (
        ("--finetune", config.finetune), ("--direct-finetune", config.direct_finetune)
    ):  # fmt: skip
        if run:
            # The run is loaded last; report a bad folder now, not after the base model's answers.
            open_input(run, made_by="stage3_finetune.train", flag=flag)
    matches = match_recordings(config.dialogues, config.recordings)
    recognizer = None
    if config.judge.recognizer:
        recognizer = load_recognizer(config.judge.recognizer, device=device)
    heard = _transcribe(config, matches, device)
    base, tokenizer = load_finetuned(
        config.gemma, None, device=device, dtype=dtype, quantize=config.quantize
    )
    encoder = encoder_of(base, config.gemma)
    if recognizer:
        require_tower(encoder, instead=OTHER_JUDGE)
    origins = finetuned_origins(config.gemma, base, config.finetune)
    if recognizer:
        origins[f"--recognizer {config.judge.recognizer}"] = recognizer.origin()
    refuse_mixture(origins, allowed=config.allow_mixture)
    if config.direct_finetune:
        refuse_mixture(
            finetuned_origins(config.gemma, base, config.direct_finetune, flag="--direct-finetune"),
            allowed=config.allow_mixture,
        )
    inputs = (
        "dialogues", "recordings", "gemma", "finetune", "direct_finetune", "recognizer", "asr",
        "hypotheses",
    )  # fmt: skip
    with run_folder(config.out, config, "stage3_finetune.evaluate", inputs=inputs) as output:
        output.record(**describe_machine(device, dtype), quantize=config.quantize)
        questions = embed_questions(matches, encoder, config.batch_size)
        if recognizer:
            heard = recognizer.transcribe([q.frames_TD for q in questions])
        answers, transcripts = _ask_all(config, base, tokenizer, heard, questions)
        metrics = score_answers(
            questions, answers, transcripts, num_without_recording=matches.num_without_recording,
            judge=config.judge.name(), heard=heard,
        )  # fmt: skip
        write_json(config.out / "metrics.json", asdict(metrics))
        columns = {"transcript": transcripts, "heard": heard}
        _write_answers(config.out / "answers.jsonl", questions, answers, columns)
        print(format_table(metrics))


def _transcribe(config: EvaluateConfig, matches: Matches, device: torch.device) -> list[str] | None:
    """The recordings as a recogniser that is not ours hears them; None if there is none."""
    utterances = [utterance for *_, utterance in matches.rows]
    if config.judge.hypotheses:
        return read_hypotheses(
            config.judge.hypotheses,
            [utterance.id for utterance in utterances],
            of=f"recordings of {config.recordings}",
            known=[utterance.id for utterance in read_manifest(config.recordings)],
        )
    asr = load_asr(config.judge, device=device)
    return transcribe_recordings(asr, utterances) if asr else None


def _ask_all(
    config: EvaluateConfig,
    base: AnyGemma,
    tokenizer: PreTrainedTokenizerBase,
    heard: Sequence[str] | None,
    questions: Sequence[RecordedQuestion],
) -> tuple[dict[str, list[str]], list[str] | None]:
    """Answers of every system, and the fine-tuned model's transcripts of the questions, if it
    writes any. One base serves all: it is asked first, then adapters are put on it in turn."""
    typed, spoken = as_typed(questions), as_spoken(questions)

    def ask(
        model: torch.nn.Module, asked: Sequence[Sequence[Turn]], name: str, num_before: int = 0
    ) -> list[str]:
        # Longer prompts, fewer of them together: as much memory as for first questions.
        return generate_answers(
            model, tokenizer, asked, max_new_tokens=config.max_new_tokens, description=name,
            batch_size=max(1, config.batch_size // (num_before + 1)),
        )  # fmt: skip

    answers = {
        "typed": ask(base, typed, "typed"),
        "spoken_before": ask(base, spoken, "spoken_before"),
    }
    if heard is not None:
        # An empty transcript becomes a question mark: the cascade recognised nothing.
        answers["cascade"] = ask(base, [[Turn("user", text or "?")] for text in heard], "cascade")
    transcripts = None
    model: torch.nn.Module = base
    for system, run in (
        ("spoken_after", config.finetune),
        ("spoken_direct", config.direct_finetune),
    ):
        if run is None:
            continue
        model = add_adapter(model, run, gemma=config.gemma, name=system)
        is_chain = read_json(run / "config.json")["target"] == "chain"
        written = ask(model, spoken, system)
        replies = read_spoken_replies(written, writes_transcripts=is_chain)
        answers[system] = replies.answers
        if system == "spoken_after":
            transcripts = replies.transcripts
            for later, num_before in LATER.items():
                asked = as_later(questions, written, num_before=num_before)
                again = ask(model, asked, later, num_before)
                answers[later] = read_spoken_replies(again, writes_transcripts=is_chain).answers
            answers["typed_after"] = ask(model, typed, "typed_after")
    return answers, transcripts


def format_table(metrics: AnswerScores) -> str:
    """Format the numbers as a readable table."""
    lines = [
        f"answers to {metrics.num_held_out} held-out recorded questions",
        f"{'':<14}{'exact match':>14}{'chrF2':>8}  95 % interval of the first",
    ]
    for name, meaning in SYSTEMS.items():
        value, overlap = metrics.exact_match[name], metrics.chrf[name]
        shown = f"{'not measured':>14}{'':8}"
        if value is not None and overlap is not None:
            shown = f"{100 * value:>12.1f} %{100 * overlap:>8.1f}"
        interval = metrics.exact_match_interval[name]
        ends = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else ""
        lines.append(f"{name:<14}{shown}  {ends:<14}{meaning}")
    for category, row in metrics.by_category.items():
        typed, after = 100 * row["typed"], 100 * row["spoken_after"]
        lines.append(
            f"  {category:<20}typed {typed:5.1f} %, spoken after {after:5.1f} % of "
            f"{row['num_held_out']}"
        )
    own, recogniser = metrics.error_rates["gemma"], metrics.error_rates["recognizer"]
    rows = {"Gemma's own transcript": own, "the cascade's": recogniser}
    if known := {label: rates for label, rates in rows.items() if rates}:
        lines += [f"the questions as heard; cascade: {metrics.judge}", *format_rates(known)]
    return "\n".join(lines)


def _write_answers(
    path: Path,
    questions: Sequence[RecordedQuestion],
    answers: dict[str, list[str]],
    columns: Mapping[str, Sequence[str] | None],
) -> None:
    """Write a row for each question; `columns` are further texts, by key, if there are any."""
    rows = []
    for i, question in enumerate(questions):
        row = {"id": question.id, "question": question.question, "reference": question.answer}
        row |= {"category": question.category} if question.category else {}
        english = {
            "english_question": question.english_question,
            "english_reference": question.english_answer,
        }
        row |= {name: text for name, text in english.items() if text}
        row |= {name: texts[i] for name, texts in answers.items()}
        row |= {name: texts[i] for name, texts in columns.items() if texts is not None}
        rows.append(row)
    write_json_lines(path, rows)


if __name__ == "__main__":
    run_command(main)
