"""How well does Gemma answer, and hear, in noise, in a room, over the telephone?

    python -m data_manifests.degrade --manifest data/cv/test.jsonl --out data/cv-degraded
    python -m stage3_finetune.evaluate_noise --degraded data/cv-degraded \
        --dialogues data/test-dialogues.jsonl --gemma google/gemma-4-E4B-it \
        --finetune runs/finetune --recognizer runs/recognizer \
        --asr openai/whisper-large-v3 --asr-language yo --out runs/noise

The fine-tuned Gemma, our recogniser and any recogniser of transformers hear the same clips. Writes
`metrics.json`, `answers.jsonl` (a row for each question and condition) and `noise.svg`; prints the
table. Its ceiling is the same questions typed into the base model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from commands.atomic_write import write_json, write_json_lines
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName, describe_machine, pick_device, pick_dtype
from commands.finished_folder import open_input
from commands.json_files import read_json
from commands.origins import refuse_mixture
from commands.run_folder import run_folder
from commands.setting_types import ModelName, PositiveInt
from data_manifests.bootstrap import share_interval
from data_manifests.quoted_rates import QuotedRates, quote_rates
from gemma4.kinds import AnyGemma
from gemma4.speech_encoder import SpeechEncoder, encoder_of, require_tower
from gemma4.weight_quantization import QuantizeName
from stage1_rvq.asr import AsrListener
from stage1_rvq.judge import OTHER_JUDGE, transcribe_recordings
from stage1_rvq.recognizer import CTCRecognizer, load_recognizer
from stage3_finetune.answer_scores import chrf, exact_match, right_answers
from stage3_finetune.dialogue import Turn
from stage3_finetune.generate import generate_answers
from stage3_finetune.model import add_adapter, finetuned_origins, load_finetuned
from stage3_finetune.noise_table import Heard, NoiseScores, format_table, plot_scores
from stage3_finetune.recorded_questions import (
    Matches,
    as_spoken,
    embed_questions,
    match_recordings,
    read_spoken_replies,
)


@dataclass(frozen=True, kw_only=True)
class EvaluateNoiseConfig:
    """Ask the fine-tuned model recorded questions under several conditions."""

    degraded: Path
    """folder of data_manifests.degrade: recordings of the questions under each condition"""
    dialogues: Path
    """held-out dialogues (`messages` JSONL): first user turn and first answer are used"""
    finetune: Path
    """folder of stage3_finetune.train"""
    out: Path
    """new folder for metrics.json, answers.jsonl and noise.svg"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of the base model"""
    recognizer: Path | None = None
    """folder of stage1_rvq.train_recognizer, to hear the same clips"""
    asr: ModelName | None = None
    """hub name or folder of a speech recogniser of transformers, to hear the same clips"""
    asr_language: str | None = None
    """with --asr of several languages: code of the one it writes, as its card says (jw, aka)"""
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

    def __post_init__(self) -> None:
        if self.asr_language is not None and self.asr is None:
            raise ValueError("--asr-language needs --asr: it is the language which that writes")


@dataclass(frozen=True)
class _Listeners:
    """All that hear the clips."""

    model: AnyGemma
    tokenizer: PreTrainedTokenizerBase
    encoder: SpeechEncoder
    recognizer: CTCRecognizer | None
    asr: AsrListener | None
    writes_transcripts: bool


def main(argv: list[str] | None = None) -> None:
    """Evaluate, write the numbers, every answer and the picture, and print the table."""
    config = parse_config(EvaluateNoiseConfig, argv)
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    conditions = _conditions_of(config.degraded)
    open_input(config.finetune, made_by="stage3_finetune.train", flag="--finetune")
    matches = {
        name: match_recordings(config.dialogues, config.degraded / f"{name}.jsonl")
        for name in conditions
    }
    recognizer = None
    if config.recognizer:
        recognizer = load_recognizer(config.recognizer, device=device)
    asr = AsrListener(config.asr, config.asr_language, device=device) if config.asr else None
    base, tokenizer = load_finetuned(
        config.gemma, None, device=device, dtype=dtype, quantize=config.quantize
    )
    origins = finetuned_origins(config.gemma, base, config.finetune)
    encoder = encoder_of(base, config.gemma)
    if recognizer:
        require_tower(encoder, instead=OTHER_JUDGE)
        origins[f"--recognizer {config.recognizer}"] = recognizer.origin()
    refuse_mixture(origins, allowed=config.allow_mixture)
    inputs = ("degraded", "dialogues", "gemma", "finetune", "recognizer", "asr")
    with run_folder(config.out, config, "stage3_finetune.evaluate_noise", inputs=inputs) as output:
        output.record(**describe_machine(device, dtype), quantize=config.quantize)
        typed = _ask_typed(config, base, tokenizer, matches[conditions[0]])
        is_chain = read_json(config.finetune / "config.json")["target"] == "chain"
        model = add_adapter(base, config.finetune, gemma=config.gemma, name="finetune")
        listeners = _Listeners(model, tokenizer, encoder, recognizer, asr, is_chain)
        scores, rows = [], []
        for name in tqdm(conditions, desc="conditions"):
            heard = _hear(config, matches[name], listeners)
            scores.append(_score(name, matches[name], heard))
            rows += list(_rows(name, matches[name], heard))
        metrics = {
            "typed": typed,
            "asr": config.asr,
            "num_without_recording": matches[conditions[0]].num_without_recording,
            "conditions": [asdict(of) for of in scores],
        }
        write_json(config.out / "metrics.json", metrics)
        write_json_lines(config.out / "answers.jsonl", rows)
        plot_scores(scores, typed, config.out / "noise.svg")
        print(format_table(scores, typed, asr=config.asr))


def _conditions_of(degraded: Path) -> list[str]:
    """Names of the conditions of a folder of `data_manifests.degrade`, in its order."""
    open_input(degraded, made_by="data_manifests.degrade", flag="--degraded")
    conditions: list[str] = read_json(degraded / "config.json")["conditions"]
    return conditions


def _ask_typed(
    config: EvaluateNoiseConfig,
    base: AnyGemma,
    tokenizer: PreTrainedTokenizerBase,
    matches: Matches,
) -> float:
    """Share of the questions that the base model answers exactly if they are typed."""
    answers = generate_answers(
        base, tokenizer, [[Turn("user", question)] for _, question, *_ in matches.rows],
        max_new_tokens=config.max_new_tokens, batch_size=config.batch_size, description="typed",
    )  # fmt: skip
    return exact_match([answer for _, _, answer, *_ in matches.rows], answers)


def _hear(config: EvaluateNoiseConfig, matches: Matches, listeners: _Listeners) -> Heard:
    """What the fine-tuned model answers, and what it and the recognisers hear."""
    questions = embed_questions(matches, listeners.encoder, config.batch_size)
    written = generate_answers(
        listeners.model, listeners.tokenizer, as_spoken(questions),
        max_new_tokens=config.max_new_tokens, batch_size=config.batch_size, description="answer",
    )  # fmt: skip
    replies = read_spoken_replies(written, writes_transcripts=listeners.writes_transcripts)
    texts: dict[str, Sequence[str] | None] = {"gemma": replies.transcripts}
    texts["recognizer"] = (
        listeners.recognizer.transcribe([question.frames_TD for question in questions])
        if listeners.recognizer
        else None
    )
    texts["asr"] = (
        transcribe_recordings(listeners.asr, [utterance for *_, utterance in matches.rows])
        if listeners.asr
        else None
    )
    return Heard(replies.answers, texts)


def _score(name: str, matches: Matches, heard: Heard) -> NoiseScores:
    asked = [question for _, question, *_ in matches.rows]
    references = [answer for _, _, answer, *_ in matches.rows]
    rates: dict[str, QuotedRates | None] = {
        by: None if texts is None else quote_rates(asked, texts)
        for by, texts in heard.transcripts.items()
    }
    return NoiseScores(
        condition=name,
        num_questions=len(asked),
        exact_match=exact_match(references, heard.answers),
        exact_match_interval=share_interval(right_answers(references, heard.answers)),
        chrf=chrf(references, heard.answers),
        error_rates=rates,
    )


def _rows(name: str, matches: Matches, heard: Heard) -> Iterator[dict[str, Any]]:
    for i, (id_, question, reference, _, utterance) in enumerate(matches.rows):
        row = {"condition": name, "id": id_, "recording": utterance.id, "question": question}
        row |= {"reference": reference, "answer": heard.answers[i]}
        yield row | {by: texts[i] for by, texts in heard.transcripts.items() if texts is not None}


if __name__ == "__main__":
    run_command(main)
