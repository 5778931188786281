"""Sentences -> codes in memory: called by `generate`, by `evaluate`, and by training to measure
progress.

spoken = speak(model, [Sentence("greeting-1", "Me din de Ama.", "asante")])
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from tqdm import tqdm

from commands.device import derive_seed
from commands.errors import InputError
from data_manifests.twi_numbers import NUMBER_DIALECTS, spell_numbers
from data_manifests.twi_text import normalize_for_scoring, normalize_for_training
from stage2_speechless.generation import MAX_FRAMES, GeneratedCodes, generate_batch
from stage2_speechless.model import Speechless
from stage2_speechless.round_trip import RoundTrip
from stage2_speechless.sampling import DEFAULT_TEMPERATURE, DEFAULT_TOP_K
from stage2_speechless.vocabulary import UNKNOWN_DIALECT, Vocabulary

MAX_CHARACTERS = 500  # 30 s at 17 characters a second, the fastest Twi


@dataclass(frozen=True)
class Sentence:
    """What to say and how.

    Attributes:
        id: together with the seed, it decides what is drawn.
        text: as written; normalised by the model.
        dialect: asante, akuapem, fante or unknown.
        rate_cps: characters per second; None draws a rate from the training data.
    """

    id: str
    text: str
    dialect: str = UNKNOWN_DIALECT
    rate_cps: float | None = None


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


def speak(
    model: Speechless,
    sentences: Sequence[Sentence],
    *,
    seed: int = 0,
    temperature: float = DEFAULT_TEMPERATURE,
    top_k: int = DEFAULT_TOP_K,
    batch_size: int = 32,
    max_frames: int = MAX_FRAMES,
) -> list[GeneratedCodes]:
    """Generate any number of sentences; batches hold sentences of similar length.

    Args:
        sentences: speakable ones (see `why_unspeakable`).
        seed: as in `generate_batch`, like the other settings.
        batch_size: sentences per batch; affects only speed.

    Returns:
        Codes in the order of the sentences.

    Raises:
        InputError: a text or condition that the model refuses.
    """
    by_length = sorted(range(len(sentences)), key=lambda i: len(sentences[i].text))
    results: dict[int, GeneratedCodes] = {}
    with tqdm(total=len(sentences), desc="speak", unit=" sentences", leave=False) as progress:
        for start in range(0, len(by_length), batch_size):
            picks = by_length[start : start + batch_size]
            batch = [sentences[i] for i in picks]
            generated = generate_batch(
                model,
                [sentence.text for sentence in batch],
                [sentence.id for sentence in batch],
                dialects=[sentence.dialect for sentence in batch],
                rates_cps=[sentence.rate_cps for sentence in batch],
                seed=seed,
                temperature=temperature,
                top_k=top_k,
                max_frames=max_frames,
            )
            results.update(zip(picks, generated, strict=True))
            progress.update(len(batch))
    return [results[i] for i in range(len(sentences))]


def generate_takes(
    model: Speechless,
    sentences: Sequence[Sentence],
    round_trip: RoundTrip | None,
    *,
    takes: int,
    max_cer: float,
    seed: int = 0,
    temperature: float = DEFAULT_TEMPERATURE,
    top_k: int = DEFAULT_TOP_K,
    batch_size: int = 32,
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

    Returns:
        The takes that are kept, by id, and the reasons why other sentences are not, by id.
    """
    reasons = {
        s.id: reason
        for s in sentences
        if (reason := why_unspeakable(s.text, model.vocabulary)) or (reason := _unread_digits(s))
    }
    speakable = [s for s in sentences if s.id not in reasons]
    kept: dict[str, Take] = {}
    num_unended: Counter[str] = Counter()
    waiting = speakable
    for number in range(takes):
        spoken = speak(
            model, waiting, seed=derive_seed(seed, number) if number else seed,
            temperature=temperature, top_k=top_k, batch_size=batch_size,
        )  # fmt: skip
        num_unended.update(s.id for s, g in zip(waiting, spoken, strict=True) if not g.ended)
        for id_, take in _read_takes(number, waiting, spoken, round_trip).items():
            if id_ not in kept or take.errors < kept[id_].errors:
                kept[id_] = take
        waiting = [s for s in waiting if s.id not in kept or kept[s.id].errors > 0]
    for id_ in (sentence.id for sentence in speakable):
        count = _describe_takes(takes, num_unended[id_])
        if reason := _why_unusable(kept.get(id_), max_cer, count):
            reasons[id_] = reason
            kept.pop(id_, None)
    return kept, reasons


def count_takes(numbers: Iterable[int]) -> dict[str, int]:
    """How many sentences were kept from which take, for `provenance.json`: {"0": 90, "1": 7}."""
    return {str(number): count for number, count in sorted(Counter(numbers).items())}


def with_numbers_in_words(sentence: Sentence) -> Sentence:
    """The sentence as it is read aloud: "GH¢5" becomes sidi num. Only in Asante and Akuapem; digits
    that no rule covers (see `spell_numbers`) are unchanged."""
    if sentence.dialect not in NUMBER_DIALECTS:
        return sentence
    text = spell_numbers(normalize_for_training(sentence.text), sentence.dialect).text
    return replace(sentence, text=text) if text != sentence.text else sentence


def why_unspeakable(text: str, vocabulary: Vocabulary) -> str | None:
    """The reason not to speak a text: empty, no letter, a foreign character, too long; None if it
    can be spoken."""
    if not text.strip():
        return "empty"
    num_characters = len(normalize_for_scoring(text))
    if num_characters > MAX_CHARACTERS:
        return f"too long: {num_characters} characters, at most {MAX_CHARACTERS} (30 s of speech)"
    try:
        vocabulary.spoken_characters(text)
    except InputError as error:
        return str(error)
    return None


def _unread_digits(sentence: Sentence) -> str | None:
    """The reason not to speak digits that were left although this dialect has number words."""
    digits = [word for word in sentence.text.split() if any(map(str.isnumeric, word))]
    if not digits or sentence.dialect not in NUMBER_DIALECTS:
        return None
    return f"no rule says how to read {' '.join(digits)}"


def _read_takes(
    number: int,
    sentences: Sequence[Sentence],
    spoken: Sequence[GeneratedCodes],
    round_trip: RoundTrip | None,
) -> dict[str, Take]:
    """The utterances that ended, by id, read back if there is a recogniser."""
    ended = [(s, g.codes_TK) for s, g in zip(sentences, spoken, strict=True) if g.ended]
    rates: list[float | None] = [None] * len(ended)
    if round_trip:
        codes, texts = [codes_TK for _, codes_TK in ended], [s.text for s, _ in ended]
        rates = [*round_trip.character_error_rates(codes, texts)]
    return {s.id: Take(number, c, cer) for (s, c), cer in zip(ended, rates, strict=True)}


def _why_unusable(best: Take | None, max_cer: float, count: str) -> str | None:
    """The reason to leave out a sentence whose best take is given; None if it can be used."""
    if best is None:
        return f"never ended within 30 s ({count})"
    if best.cer is not None and not best.cer <= max_cer:
        return f"read back with a CER of {best.cer:.3g} at best ({count}), over {max_cer:g}"
    return None


def _describe_takes(takes: int, num_unended: int) -> str:
    shown = "1 take" if takes == 1 else f"{takes} takes"
    return shown + (f", {num_unended} never ended" if 0 < num_unended < takes else "")
