"""Speak held-out answers, transcribe them, and compute error rates: stage 4's row of the report."""

# F Mimi frames (12.5 per second), K codebooks, N samples

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.error_rates import compute_error_rates
from data_manifests.manifest import read_utterance_audio
from speech_head.answer import answer_states
from speech_head.generate import Talker
from speech_head.held_out import HeldOut
from stage1_rvq.listener import Transcriber
from speech_head.mimi import Mimi
from speech_head.naturalness import Rater, Versions
from speech_head.parallel import ParallelHead
from speech_head.stream import End, Sampling, speak_answers


@dataclass(frozen=True)
class Spoken:
    """A spoken answer, and its transcripts.

    Attributes:
        held_out: the answer to speak.
        samples_N: the speech, at Mimi's rate.
        end: how the speech ended.
        num_pushed: tokens from which the cursor had to be moved on.
        heard: the recogniser's transcript of the speech.
        heard_in_recording, heard_through_mimi: transcripts of the recording, and of the recording
            coded by Mimi; None if there is no recording.
        heard_parallel: transcript of the parallel head's speech; None if there is none.
    """

    held_out: HeldOut
    samples_N: np.ndarray
    end: End
    num_pushed: int
    heard: str
    heard_in_recording: str | None
    heard_through_mimi: str | None
    heard_parallel: str | None


def speak_and_read(
    batch: Sequence[HeldOut],
    talker: Talker,
    listener: Transcriber,
    sampling: Sampling,
    parallel: ParallelHead | None = None,
) -> list[Spoken]:
    """Speak a batch of answers, and transcribe the speech and the recordings."""
    mimi = talker.mimi
    texts = [row.answer for row in batch]
    answers = answer_states(talker.conversation.model, texts, talker.head.config.layers)
    ids = [row.id for row in batch]
    spoken = speak_answers(talker.head, answers, ids, sampling)
    samples = [x_N.cpu().numpy() for x_N in mimi.decode([one.codes_FK for one in spoken])]
    heard = listener.transcribe(samples, mimi.sample_rate_hz)
    is_recorded = [row.recording is not None for row in batch]
    recordings = [row.recording for row in batch if row.recording is not None]
    from_recordings, through_mimi, from_parallel = [], [], []
    if recordings:
        waveforms = [read_utterance_audio(u, mimi.sample_rate_hz) for u in recordings]
        from_recordings = listener.transcribe(
            [read_utterance_audio(u, GEMMA_SAMPLE_RATE_HZ) for u in recordings],
            GEMMA_SAMPLE_RATE_HZ,
        )
        recorded = mimi.encode(waveforms)
        decoded = mimi.decode(recorded, [len(waveform) for waveform in waveforms])
        through_mimi = _read(decoded, mimi, listener)
        if parallel:
            told = [answer for answer, is_told in zip(answers, is_recorded, strict=True) if is_told]
            said = parallel.speak(told, [len(codes_FK) for codes_FK in recorded])
            from_parallel = _read(mimi.decode(said), mimi, listener)
    columns = zip(
        batch, samples, [one.end for one in spoken], [one.num_pushed for one in spoken], heard,
        _spread(from_recordings, is_recorded),
        _spread(through_mimi, is_recorded), _spread(from_parallel, is_recorded), strict=True,
    )  # fmt: skip
    return [Spoken(*row) for row in columns]


def _read(speech: Sequence[Tensor], mimi: Mimi, listener: Transcriber) -> list[str]:
    return listener.transcribe(
        [samples_N.cpu().numpy() for samples_N in speech], mimi.sample_rate_hz
    )


def _spread(texts: Sequence[str], is_there: Sequence[bool]) -> list[str | None]:
    """Put the texts at the rows that have one, None at the others; without texts, all are None."""
    remaining = iter(texts)
    return [next(remaining) if here and texts else None for here in is_there]


def rate_speech(
    spoken: Sequence[Spoken], mimi: Mimi, raters: Sequence[Rater]
) -> dict[str, dict[str, float]]:
    """Ratings of the speech and of recordings of the same words, by the rater's name."""
    recorded, through_mimi, samples = [], [], []
    for one in spoken:
        if one.held_out.recording is not None:
            waveform = read_utterance_audio(one.held_out.recording, mimi.sample_rate_hz)
            [codes_FK] = mimi.encode([waveform])
            recorded.append(waveform)
            through_mimi.append(mimi.decode(codes_FK, len(waveform)).cpu().numpy())
            samples.append(one.samples_N)
    versions = Versions(recorded, through_mimi, samples, mimi.sample_rate_hz)
    return {rater.name: rater.rate(versions) for rater in raters}


@dataclass(frozen=True)
class HeadMetrics:
    """Stage 4's row of the report; rates are fractions, None if there is nothing to measure.

    Attributes:
        wer_teacher, wer_mimi: WER of the recordings, and of the recordings coded by Mimi.
        wer_spoken, wer_spoken_low, wer_spoken_high: WER of the speech, and its 95 % interval.
        cer_spoken: its CER.
        wer_parallel: WER of the parallel head's speech.
        runaway, cut_short: fractions of answers that had to be cut off, as in `stream.End`.
        pushed_on: fraction of answers in which the cursor had to be moved on.
        num_held_out: number of answers.
        num_recorded: how many of them have a recording.
        left_out: ids of questions whose answers cannot be spoken.
        sound: as `rate_speech`; None if not measured.
    """

    wer_teacher: float | None
    wer_mimi: float | None
    wer_spoken: float
    wer_spoken_low: float
    wer_spoken_high: float
    cer_spoken: float
    wer_parallel: float | None
    runaway: float
    cut_short: float
    pushed_on: float
    num_held_out: int
    num_recorded: int
    left_out: list[str]
    sound: dict[str, dict[str, float]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `metrics.json`, without the sound if it was not rated."""
        numbers = asdict(self)
        if self.sound is None:
            del numbers["sound"]
        return numbers


def compute_metrics(spoken: Sequence[Spoken], left_out: list[str]) -> HeadMetrics:
    """Everything but the sound's ratings."""
    texts = [one.held_out.answer.text for one in spoken]
    rates = compute_error_rates(texts, [one.heard for one in spoken])

    def wer(heard: Sequence[str | None]) -> float | None:
        known = [(text, of) for text, of in zip(texts, heard, strict=True) if of is not None]
        return compute_error_rates(*zip(*known, strict=True)).wer if known else None

    return HeadMetrics(
        wer_teacher=wer([one.heard_in_recording for one in spoken]),
        wer_mimi=wer([one.heard_through_mimi for one in spoken]),
        wer_spoken=rates.wer,
        wer_spoken_low=rates.wer_low,
        wer_spoken_high=rates.wer_high,
        cer_spoken=rates.cer,
        wer_parallel=wer([one.heard_parallel for one in spoken]),
        runaway=sum(one.end == "runaway" for one in spoken) / len(spoken),
        cut_short=sum(one.end == "cut short" for one in spoken) / len(spoken),
        pushed_on=sum(one.num_pushed > 0 for one in spoken) / len(spoken),
        num_held_out=len(spoken),
        num_recorded=sum(one.held_out.recording is not None for one in spoken),
        left_out=left_out,
    )
