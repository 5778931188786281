"""What one precision of Gemma costs and what it answers: called in a process of its own, once for
each row of `pipeline.compare_precision`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from commands.device import pick_dtype
from data_manifests.error_rates import compute_error_rates
from gemma4.memory_plan import peak_memory
from gemma4.weight_quantization import QuantizeName
from speech_head.held_out import HeldOutSet, speakable_answers
from speech_head.metrics import HeadMetrics, compute_metrics, speak, transcribe
from speech_head.spoken_answers import SpokenRow
from speech_head.stream import Sampling
from speech_head.talker import Talker, load_talker
from stage1_rvq.data import iterate_batches
from stage1_rvq.judge import JudgeSettings, load_judge
from stage3_finetune.answer_scores import chrf, exact_match
from stage3_finetune.conversation import Conversation, load_conversation
from stage3_finetune.dialogue import EncodedDialogue, Turn, encode_prompt
from stage3_finetune.generate import decode_answers, generate_tokens
from stage3_finetune.recorded_questions import (
    Matches,
    RecordedQuestion,
    as_spoken,
    as_typed,
    embed_questions,
    read_spoken_replies,
)

PrecisionName = Literal["float32", "bfloat16", "8bit", "4bit"]
# What bitsandbytes 0.50 and transformers 5.23 raise where a device has no kernel for a layer.
REFUSALS = (ImportError, RuntimeError, ValueError, AssertionError)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every precision is asked, and with which models.

    Attributes:
        gemma, finetune, head, mimi: as the command's flags.
        judge: what hears the speech.
        allow_mixture: go on although they belong to different audio towers or quantisers.
        matches: the recorded questions.
        max_new_tokens: longest answer.
        batch_size: questions answered together, and answers spoken together.
        seed: of the head's sampling.
        device: where the models run.
    """

    gemma: str
    finetune: Path | None
    head: str | None
    mimi: str
    judge: JudgeSettings
    allow_mixture: bool
    matches: Matches
    max_new_tokens: int
    batch_size: int
    seed: int
    device: torch.device


@dataclass(frozen=True)
class Cost:
    """What a precision costs.

    Attributes:
        weights_bytes: parameters and buffers of Gemma and its adapter.
        peak_bytes: peak memory until the last answer was written: of tensors on CUDA, elsewhere of
            the whole process, with its libraries and what it read of files. A head and Mimi are
            included, what judges the speech is not.
        seconds_to_load: Gemma, its adapter, and the head and Mimi if they are given. What is loaded
            first is read from the disk, the others perhaps from what the system kept of it.
        seconds_per_answer: typed and spoken questions, in batches; without the audio tower.
        tokens_per_second: tokens written, over the same time.
    """

    weights_bytes: int
    peak_bytes: int
    seconds_to_load: float
    seconds_per_answer: float
    tokens_per_second: float


@dataclass(frozen=True)
class Scores:
    """How good a precision is; rates are fractions.

    Attributes:
        exact_match_typed, exact_match_spoken: share of right answers, by how it was asked.
        chrf_typed, chrf_spoken: chrF2 of the same answers.
        wer_transcript: WER of Gemma's own transcripts of the recordings; None if it writes none.
        speech: of the spoken answers to spoken questions; None without a head, or if none of the
            answers can be spoken.
    """

    exact_match_typed: float
    exact_match_spoken: float
    chrf_typed: float
    chrf_spoken: float
    wer_transcript: float | None
    speech: HeadMetrics | None


@dataclass(frozen=True)
class Measured:
    """One precision: its scores, its cost, and what it wrote, in the order of the questions."""

    scores: Scores
    cost: Cost
    typed: list[str]
    spoken: list[str]
    transcripts: list[str] | None


@dataclass(frozen=True)
class NotRun:
    """Why a precision could not be measured on this machine."""

    reason: str


@dataclass(frozen=True)
class _Written:
    """Tokens of the answers, and how long they took."""

    prompts: list[EncodedDialogue]
    tokens: list[list[int]]
    seconds: float


def quantization_of(precision: PrecisionName) -> QuantizeName:
    """What `--quantize` would be; a quantised decoder's other weights have the dtype that `--dtype
    auto` gives."""
    return precision if precision in ("8bit", "4bit") else "none"


def measure(job: Job, precision: PrecisionName) -> Measured | NotRun:
    """Load Gemma in one precision, let it answer, and speak; raises InputError if that is a
    mistake of the user's."""
    try:
        begun = time.perf_counter()
        try:
            conversation, talker = _load(job, precision)
            seconds_to_load = time.perf_counter() - begun
            _warm_up(job, precision, conversation)
        except REFUSALS as error:
            is_memory = isinstance(error, torch.OutOfMemoryError)
            if quantization_of(precision) == "none" or is_memory:
                raise
            return NotRun(f"on {job.device.type}: {' '.join(str(error).split())}")
        return _measure(job, precision, conversation, talker, seconds_to_load)
    except torch.OutOfMemoryError:
        return NotRun(f"needs more memory than {job.device} has free")


def _load(job: Job, precision: PrecisionName) -> tuple[Conversation, Talker | None]:
    quantize = quantization_of(precision)
    dtype = pick_dtype(precision if precision in ("float32", "bfloat16") else "auto", job.device)
    if job.head is None:
        conversation = load_conversation(
            job.gemma, job.finetune, device=job.device, dtype=dtype, quantize=quantize
        )
        return conversation, None
    talker = load_talker(
        job.gemma, job.finetune, job.mimi, job.head, device=job.device, dtype=dtype,
        quantize=quantize, allow_mixture=job.allow_mixture,
    )  # fmt: skip
    return talker.conversation, talker


def _measure(
    job: Job,
    precision: PrecisionName,
    conversation: Conversation,
    talker: Talker | None,
    seconds_to_load: float,
) -> Measured:
    questions = embed_questions(job.matches, conversation.encoder, job.batch_size)
    typed = _write(job, conversation, as_typed(questions), f"{precision}, typed")
    spoken = _write(job, conversation, as_spoken(questions), f"{precision}, spoken")
    seconds = typed.seconds + spoken.seconds
    cost = Cost(
        weights_bytes=conversation.model.get_memory_footprint(),
        peak_bytes=peak_memory(job.device),
        seconds_to_load=seconds_to_load,
        seconds_per_answer=seconds / (2 * len(questions)),
        tokens_per_second=sum(map(len, typed.tokens + spoken.tokens)) / seconds,
    )
    tokenizer = conversation.tokenizer
    answers = decode_answers(typed.tokens, tokenizer)
    replies = read_spoken_replies(
        decode_answers(spoken.tokens, tokenizer), writes_transcripts=conversation.writes_transcripts
    )
    scores = _score(questions, answers, replies.answers, replies.transcripts)
    if talker:
        held_out = speakable_answers(
            [question.id for question in questions], spoken.prompts, spoken.tokens, conversation,
            has_transcripts=conversation.writes_transcripts, recordings={},
        )  # fmt: skip
        scores = replace(scores, speech=_speak(job, talker, held_out))
    return Measured(scores, cost, answers, replies.answers, replies.transcripts)


def _warm_up(job: Job, precision: PrecisionName, conversation: Conversation) -> None:
    """Write two tokens: finds layers that have no kernel, and what is done once is not timed."""
    short = replace(job, max_new_tokens=2)
    _write(short, conversation, [[Turn("user", "Maakye.")]], f"{precision}, warm-up")


def _write(
    job: Job, conversation: Conversation, asked: Sequence[Sequence[Turn]], description: str
) -> _Written:
    prompts = [encode_prompt(turns, conversation.tokenizer) for turns in asked]
    begun = time.perf_counter()
    tokens = generate_tokens(
        conversation.model, conversation.tokenizer, prompts,
        batch_size=job.batch_size, max_new_tokens=job.max_new_tokens, description=description,
    )  # fmt: skip
    return _Written(prompts, tokens, time.perf_counter() - begun)


def _score(
    questions: Sequence[RecordedQuestion],
    typed: list[str],
    spoken: list[str],
    transcripts: list[str] | None,
) -> Scores:
    references = [q.answer for q in questions]
    asked = [q.question for q in questions]
    return Scores(
        exact_match_typed=exact_match(references, typed),
        exact_match_spoken=exact_match(references, spoken),
        chrf_typed=chrf(references, typed),
        chrf_spoken=chrf(references, spoken),
        wer_transcript=None if transcripts is None else compute_error_rates(asked, transcripts).wer,
        speech=None,
    )


def _speak(job: Job, talker: Talker, held_out: HeldOutSet) -> HeadMetrics | None:
    """Speak answers, and transcribe the speech; None if there are none. The audio tower that hears
    the speech is in float32 at every precision: the judge is the same in all rows."""
    if not held_out.rows:
        return None
    listener = load_judge(job.judge, job.gemma, device=job.device, allow_mixture=job.allow_mixture)
    rows: list[SpokenRow] = []
    for picks in iterate_batches(len(held_out.rows), job.batch_size):
        spoken = speak([held_out.rows[i] for i in picks], talker, Sampling(job.seed))
        heard = transcribe(spoken, listener)
        rows += [one.as_row(texts, {}) for one, texts in zip(spoken, heard, strict=True)]
    return compute_metrics(rows, held_out.left_out, judge=job.judge.name())
