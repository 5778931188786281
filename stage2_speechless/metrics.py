"""Metrics of Speechless: its loss, and how well the CTC recogniser understands its speech."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from data_manifests.alignments import UtteranceErrors
from data_manifests.error_rates import ErrorRates, pool_error_rates
from stage1_rvq.data import iterate_batches
from stage2_speechless.data import TrainingUtterance, collate, move_batch
from stage2_speechless.generation import MAX_FRAMES, GeneratedCodes
from stage2_speechless.model import Speechless
from stage2_speechless.round_trip import RoundTrip
from stage2_speechless.sampling import DEFAULT_SAMPLING, SamplingSettings, draw_one
from stage2_speechless.speak import Sentence, speak


@torch.no_grad()
def measure_loss(
    model: Speechless,
    utterances: Sequence[TrainingUtterance],
    batch_size: int,
    codebook_weights: Sequence[float] = (1.0,),
) -> dict[str, float]:
    """Loss per frame, in total and for each codebook, without dropping conditions or history;
    weights as in `Speechless.forward`."""
    device = model.code0_head.weight.device
    by_length = sorted(utterances, key=lambda u: len(u.codes_TK))
    num_frames = sum(len(u.codes_TK) for u in utterances)
    sums: dict[str, float] = {}
    for positions in iterate_batches(len(by_length), batch_size):
        picks = [by_length[i] for i in positions]
        batch = move_batch(collate(picks, model), device)
        loss = model(**vars(batch), codebook_weights=codebook_weights)
        for name, value in loss.as_numbers().items():
            if name != "end":
                weight = sum(len(u.codes_TK) for u in picks) / num_frames
                sums[name] = sums.get(name, 0.0) + value * weight
    return sums


@dataclass(frozen=True)
class ReadSentence:
    """A sentence with real codes, spoken again by the model; the recogniser has read both versions.

    `asked_frames` is its length at exactly the speaking rate that was drawn for it.
    """

    real: TrainingUtterance
    generated: GeneratedCodes
    asked_frames: float
    real_errors: UtteranceErrors
    generated_errors: UtteranceErrors


def generate_and_transcribe(
    model: Speechless,
    utterances: Sequence[TrainingUtterance],
    round_trip: RoundTrip,
    *,
    seed: int = 0,
    sampling: SamplingSettings = DEFAULT_SAMPLING,
    batch_size: int = 32,
    max_frames: int = MAX_FRAMES,
) -> list[ReadSentence]:
    """Speak the utterances' sentences again, at randomly drawn rates, and read both versions.

    The settings are those of `generate_batch`.
    """
    texts = [u.text for u in utterances]
    rates = [draw_one(model.config.rates_cps, seed, u.id) for u in utterances]
    asked = [
        len(model.vocabulary.spoken_characters(text)) * model.config.frame_rate_hz / rate
        for text, rate in zip(texts, rates, strict=True)
    ]
    generated = speak(
        model,
        [
            Sentence(u.id, u.text, u.dialect, rate)
            for u, rate in zip(utterances, rates, strict=True)
        ],
        seed=seed,
        sampling=sampling,
        batch_size=batch_size,
        max_frames=max_frames,
    )
    real_errors = round_trip.align([u.codes_TK for u in utterances], texts)
    generated_errors = round_trip.align([g.codes_TK for g in generated], texts)
    rows = zip(utterances, generated, asked, real_errors, generated_errors, strict=True)
    return [ReadSentence(*row) for row in rows]


@dataclass(frozen=True)
class PooledErrors:
    """The recogniser's error rates on the same sentences: on their real codes, which are the
    ceiling, and on generated ones."""

    real_codes: ErrorRates
    generated: ErrorRates

    def as_dict(self) -> dict[str, float]:
        """For `metrics.json`: of both the pooled WER, its 95 % bootstrap interval over sentences
        (`_low`, `_high`), and the CER."""
        rates = {}
        for name, pooled in vars(self).items():
            rates[f"wer_{name}"] = pooled.wer
            rates[f"wer_{name}_low"] = pooled.wer_low
            rates[f"wer_{name}_high"] = pooled.wer_high
            rates[f"cer_{name}"] = pooled.cer
        return rates


@dataclass(frozen=True)
class SpeechMetrics:
    """The metrics of a set of sentences.

    Attributes:
        errors: how both versions were read.
        length_ratio: all generated frames over all real ones.
        length_ratio_asked: what it would be if the drawn speaking rates were followed exactly.
        never_ended: fraction of sentences that had to be cut off.
        num_utterances: number of sentences.
    """

    errors: PooledErrors
    length_ratio: float
    length_ratio_asked: float
    never_ended: float
    num_utterances: int

    def as_dict(self) -> dict[str, float | int]:
        """For `metrics.json`, the numbers to quote first."""
        numbers = vars(self).copy()
        errors = numbers.pop("errors").as_dict()
        first = ("wer_real_codes", "wer_generated", "cer_generated")
        return {name: errors[name] for name in first} | numbers | errors


def pool_sentences(sentences: Sequence[ReadSentence]) -> SpeechMetrics:
    """The metrics of a set of sentences."""
    errors = pool_errors(
        [s.real_errors for s in sentences], [s.generated_errors for s in sentences]
    )
    num_real_frames = sum(len(s.real.codes_TK) for s in sentences)
    num_generated_frames = sum(len(s.generated.codes_TK) for s in sentences)
    return SpeechMetrics(
        errors=errors,
        length_ratio=num_generated_frames / num_real_frames,
        length_ratio_asked=sum(s.asked_frames for s in sentences) / num_real_frames,
        never_ended=sum(not s.generated.ended for s in sentences) / len(sentences),
        num_utterances=len(sentences),
    )


def pool_errors(
    real: Sequence[UtteranceErrors], generated: Sequence[UtteranceErrors]
) -> PooledErrors:
    """Error rates of both versions, pooled over sentences."""
    return PooledErrors(pool_error_rates(real), pool_error_rates(generated))
