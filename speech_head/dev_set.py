"""Evaluation during training: on cached dev states and, if there is a recogniser, on speech."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from commands.origins import refuse_mixture
from data_manifests.error_rates import compute_error_rates
from speech_head.build import AnyHead, references_for
from speech_head.data import StatesFolder, StatesFormat
from speech_head.head_batch import HeadExample, collate
from speech_head.mimi import Mimi, load_mimi, refuse_other_codec
from speech_head.model import SpeechHead
from speech_head.stream import Sampling, SpokenFrames, speak_answers
from stage1_rvq.data import iterate_batches
from stage1_rvq.listener import Listener, load_listener


@dataclass(frozen=True)
class Judge:
    """Turns codes back into words: Mimi decodes them, and the listener transcribes the speech."""

    mimi: Mimi
    listener: Listener


def load_judge(
    gemma: str,
    mimi: str,
    recognizer: Path,
    fmt: StatesFormat,
    *,
    device: torch.device,
    allow_mixture: bool,
) -> Judge:
    """Load the models that turn a head's codes back into words. They hear speech, so that their
    Gemma need not be the one that made the states.

    Raises:
        InputError: one cannot be loaded, or they do not fit together.
    """
    codec = load_mimi(mimi, num_codebooks=fmt.num_codebooks, device=device)
    refuse_other_codec(
        codec, expected_by="--states was made with", num_codebooks=fmt.num_codebooks,
        codebook_size=fmt.codebook_size, frame_rate_hz=fmt.frame_rate_hz,
    )  # fmt: skip
    listener = load_listener(gemma, recognizer, device=device)
    refuse_mixture(
        {
            f"--gemma {gemma}": listener.encoder.origin,
            f"--recognizer {recognizer}": listener.recognizer.origin(),
        },
        allowed=allow_mixture,
    )
    return Judge(codec, listener)


@dataclass(frozen=True)
class Dev:
    """Dev data: the loss is measured on all utterances, speech on the first few."""

    states: StatesFolder
    judge: Judge | None


@torch.no_grad()
def measure_loss(
    head: AnyHead, states: StatesFolder, weights_K: Tensor, batch_size: int
) -> dict[str, float]:
    """Losses over a folder of states, averaged over its frames, without history dropout."""
    device = weights_K.device
    totals: dict[str, float] = {}
    references = references_for(head, states)
    for picks in iterate_batches(len(states.utterances), batch_size):
        utterances = [states.utterances[i] for i in picks]
        batch = collate(states.read_all(utterances))
        if references:
            batch = batch.with_voices(references.read(references.first(picks)))
        share = sum(utterance.num_frames for utterance in utterances) / states.num_frames
        for name, value in head(batch.to(device), weights_K).as_numbers().items():
            totals[name] = totals.get(name, 0.0) + share * value
    return totals


@dataclass(frozen=True)
class DevSpeech:
    """How well speech is understood.

    Attributes:
        wer, cer: pooled error rates of the transcripts of the speech.
        runaway, cut_short: fractions that had to be cut off, as in `stream.End`.
    """

    wer: float
    cer: float
    runaway: float
    cut_short: float


def measure_speech(
    head: AnyHead,
    states: StatesFolder,
    judge: Judge,
    *,
    num_sentences: int,
    batch_size: int,
    seed: int,
) -> DevSpeech:
    """How well the first few texts are understood when the head speaks them by itself; if it knows
    several voices, each in that of another recording of its speaker."""
    utterances = states.utterances[:num_sentences]
    heard: list[str] = []
    ends: list[str] = []
    references = references_for(head, states)
    for picks in iterate_batches(len(utterances), batch_size):
        batch = [utterances[i] for i in picks]
        answers = states.read_all(batch)
        voices = None
        if references and isinstance(head, SpeechHead):
            shown = references.read(references.first(picks))
            voices = [head.voice_encoder.mean([codes_RK]) for codes_RK in shown]
        spoken = _speak(head, answers, [u.id for u in batch], Sampling(seed=seed), voices)
        samples = judge.mimi.decode([one.codes_FK for one in spoken])
        waveforms = [samples_N.cpu().numpy() for samples_N in samples]
        heard += judge.listener.transcribe(waveforms, judge.mimi.sample_rate_hz)
        ends += [one.end for one in spoken]
    rates = compute_error_rates([utterance.text for utterance in utterances], heard)
    runaway, cut_short = (ends.count(end) / len(ends) for end in ("runaway", "cut short"))
    return DevSpeech(rates.wer, rates.cer, runaway, cut_short)


def _speak(
    head: AnyHead,
    answers: Sequence[HeadExample],
    ids: Sequence[str],
    sampling: Sampling,
    voices: Sequence[Tensor] | None,
) -> list[SpokenFrames]:
    if isinstance(head, SpeechHead):
        return speak_answers(head, answers, ids, sampling, voices=voices)
    codes = head.speak(answers, [len(answer.codes_FK) for answer in answers])
    return [SpokenFrames(codes_FK, "ended", 0) for codes_FK in codes]
