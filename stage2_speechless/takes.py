"""Several takes of each sentence, and the choice of the best one.

kept, reasons = generate_takes(model, sentences, round_trip, takes=3, max_cer=0.3)
"""

# T frames (25 per second), K codebooks (coarsest first)

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from commands.seeds import derive_seed
from commands.setting_types import ModelName, NonNegativeFloat, PositiveInt
from data_manifests.english_respelling import respell_english
from stage2_speechless.config import SpeechlessConfig
from stage2_speechless.generation import GeneratedCodes
from stage2_speechless.model import Speechless
from stage2_speechless.round_trip import RoundTrip, load_round_trip
from stage2_speechless.sampling import DEFAULT_SAMPLING, SamplingSettings
from stage2_speechless.speak import Sentence, speak, unread_digits, why_unspeakable


@dataclass(frozen=True, kw_only=True)
class ChoiceSettings:
    """How often a text is spoken, and which take is kept."""

    takes: PositiveInt = 1
    """how often each text is spoken, at most; the take with the lowest CER is kept (one without
    errors ends the search), or without a recogniser the first that ended"""
    max_cer: NonNegativeFloat = 0.3
    """with a recogniser: highest CER of a text that is kept (0.3 = 30 %)"""


@dataclass(frozen=True, kw_only=True)
class TakeSettings(ChoiceSettings):
    """How often a text is spoken as codes, and which take is kept."""

    rvq: ModelName | None = None
    """quantiser, to decode the codes for the recogniser; needs --recognizer"""
    recognizer: Path | None = None
    """folder of stage1_rvq.train_recognizer: chooses the best take and drops texts it cannot read
    (--max-cer); needs --rvq"""
    respell_english: bool = False
    """give English words to the model in Twi letters, as Ghanaians say them (laptɔp): for a model
    that has heard little English; what is written keeps their spelling"""

    def __post_init__(self) -> None:
        if bool(self.rvq) != bool(self.recognizer):
            raise ValueError("--rvq and --recognizer go together: one decodes, the other reads")

    def load_round_trip(
        self,
        speech: SpeechlessConfig,
        *,
        expected_by: str,
        device: torch.device,
        allow_mixture: bool,
    ) -> RoundTrip | None:
        """Load quantiser and recogniser, if they are given; see `round_trip.load_round_trip`.

        Args:
            speech: configuration of the model that speaks.
        """
        if self.rvq is None or self.recognizer is None:
            return None
        return load_round_trip(
            self.rvq, self.recognizer, speech.code_format, {expected_by: speech.origin},
            expected_by=expected_by, device=device, allow_mixture=allow_mixture,
        )  # fmt: skip


@dataclass(frozen=True)
class Take:
    """A spoken version of a sentence that ended by itself.

    Attributes:
        number: number of the attempt, from 0.
        codes_TK: int64 `[T, K]`.
        cer: CER of what the recogniser read in it, against the sentence; None without a recogniser.
    """

    number: int
    codes_TK: Tensor
    cer: float | None

    @property
    def errors(self) -> float:
        """The number that takes are compared by: the CER; 0 without a recogniser."""
        return 0.0 if self.cer is None else self.cer


def generate_takes(
    model: Speechless,
    sentences: Sequence[Sentence],
    round_trip: RoundTrip | None,
    *,
    takes: int,
    max_cer: float,
    seed: int = 0,
    sampling: SamplingSettings = DEFAULT_SAMPLING,
    batch_size: int = 32,
    respell: bool = False,
) -> tuple[dict[str, Take], dict[str, str]]:
    """Speak each sentence several times and keep its best take.

    The best take has the lowest CER when read back (of several, the earliest); without a recogniser
    it is the first that ended. A sentence that the recogniser reads without an error is not spoken
    again.

    Args:
        model: the model that speaks.
        sentences: any sentences, with numbers already in words (`with_numbers_in_words`);
            unspeakable ones are reported.
        round_trip: reads codes back; None keeps every utterance that ended.
        takes: number of attempts per sentence, each drawn differently; at least 1.
        max_cer: with `round_trip`, the highest CER of an utterance that is kept (0.3 = 30 %).
        seed: as in `generate_batch`, like the other settings.
        respell: give English words to the model in Twi letters (`respell_english`); the CER is then
            that against the sentence as it is written or as it is respelt, whichever is lower.

    Returns:
        The takes that are kept, by id, and the reasons why other sentences are not, by id.
    """
    written = {s.id: s.text for s in sentences}
    if respell:
        sentences = [replace(s, text=respell_english(s.text)) for s in sentences]
    reasons = {
        s.id: reason
        for s in sentences
        if (reason := why_unspeakable(s.text, model.vocabulary)) or (reason := unread_digits(s))
    }
    speakable = [s for s in sentences if s.id not in reasons]
    kept: dict[str, Take] = {}
    num_unended: Counter[str] = Counter()
    waiting = speakable
    for number in range(takes):
        spoken = speak(
            model, waiting, seed=derive_seed(seed, number) if number else seed,
            sampling=sampling, batch_size=batch_size,
        )  # fmt: skip
        num_unended.update(s.id for s, g in zip(waiting, spoken, strict=True) if not g.ended)
        for id_, take in _read_takes(number, waiting, spoken, round_trip, written).items():
            if id_ not in kept or take.errors < kept[id_].errors:
                kept[id_] = take
        waiting = [s for s in waiting if s.id not in kept or kept[s.id].errors > 0]
    for id_ in (sentence.id for sentence in speakable):
        count = describe_takes(takes, num_unended[id_])
        never = "never ended within 30 s"
        if reason := why_unusable(kept.get(id_), max_cer, count, never=never):
            reasons[id_] = reason
            kept.pop(id_, None)
    return kept, reasons


def count_takes(numbers: Iterable[int]) -> dict[str, int]:
    """How many sentences were kept from which take, for `provenance.json`: {"0": 90, "1": 7}."""
    return {str(number): count for number, count in sorted(Counter(numbers).items())}


def _read_takes(
    number: int,
    sentences: Sequence[Sentence],
    spoken: Sequence[GeneratedCodes],
    round_trip: RoundTrip | None,
    written: Mapping[str, str],
) -> dict[str, Take]:
    """The utterances that ended, by id, read back if there is a recogniser: compared with what the
    model was given and, if that is something else, with what is written."""
    ended = [(s, g.codes_TK) for s, g in zip(sentences, spoken, strict=True) if g.ended]
    rates: Sequence[float | None] = [None] * len(ended)
    if round_trip:
        codes, texts = [codes_TK for _, codes_TK in ended], [s.text for s, _ in ended]
        found = round_trip.character_error_rates(codes, texts)
        as_written = [written[s.id] for s, _ in ended]
        if as_written != texts:
            others = round_trip.character_error_rates(codes, as_written)
            found = [*map(min, found, others)]
        rates = found
    return {s.id: Take(number, c, cer) for (s, c), cer in zip(ended, rates, strict=True)}


class HeardTake(Protocol):
    """A take; the CER of what a recogniser heard in it, None without one."""

    @property
    def cer(self) -> float | None: ...


def why_unusable(
    best: HeardTake | None, max_cer: float, count: str, *, never: str = "never ended"
) -> str | None:
    """The reason to leave out a text whose best take is given; None if it can be used.

    Args:
        best: None if no take ended.
        max_cer: highest CER of a text that is kept, as a fraction.
        count: from `describe_takes`.
        never: the reason if no take ended.
    """
    if best is None:
        return f"{never} ({count})"
    if best.cer is not None and not best.cer <= max_cer:
        return f"read back with a CER of {best.cer:.3g} at best ({count}), over {max_cer:g}"
    return None


def describe_takes(takes: int, num_unended: int) -> str:
    """How many takes there were, and how many of some of them never ended."""
    shown = "1 take" if takes == 1 else f"{takes} takes"
    return shown + (f", {num_unended} never ended" if 0 < num_unended < takes else "")
