"""Sentences -> codes in memory: what `generate`, `evaluate` and training's own measurement call.

spoken = speak(model, [Sentence("greeting-1", "Me din de Ama.", "asante")])
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from tqdm import tqdm

from data_manifests.config import InputError
from data_manifests.twi_numbers import Dialect, speak_numbers
from data_manifests.twi_text import normalize_for_scoring, normalize_for_training
from stage1_rvq.device import derive_seed
from stage2_speechless.generation import MAX_FRAMES, GeneratedCodes
from stage2_speechless.model import Speechless
from stage2_speechless.round_trip import RoundTrip
from stage2_speechless.sampling import DEFAULT_TEMPERATURE, DEFAULT_TOP_K
from stage2_speechless.vocabulary import UNKNOWN_DIALECT, Vocabulary

MAX_CHARACTERS = 500  # 30 s at 17 characters a second, the fastest Twi


@dataclass(frozen=True)
class Sentence:
    """What to say and how.

    Attributes:
        id: decides, with the seed, what is drawn.
        text: as written; normalised by the model.
        dialect: asante, akuapem, fante or unknown.
        rate_cps: characters per second; None draws one of training's.
    """

    id: str
    text: str
    dialect: str = UNKNOWN_DIALECT
    rate_cps: float | None = None


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
        seed: as `Speechless.generate`, as are the other settings.
        batch_size: sentences per batch; changes nothing but speed.

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
            generated = model.generate(
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


def speak_and_select(
    model: Speechless,
    sentences: Sequence[Sentence],
    round_trip: RoundTrip | None,
    *,
    takes: int,
    max_cer: float,
    max_characters: int = MAX_CHARACTERS,
    seed: int = 0,
    temperature: float = DEFAULT_TEMPERATURE,
    top_k: int = DEFAULT_TOP_K,
    batch_size: int = 32,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Speak sentences until each is good enough or its takes are used up.

    Args:
        model: the speaker.
        sentences: any, numbers in words where they should be (`with_numbers_in_words`);
            unspeakable ones are reported.
        round_trip: reads codes back; None keeps every utterance that ended.
        takes: attempts at a sentence, each drawn differently.
        max_cer: with `round_trip`, the highest CER of an utterance that is kept (0.3 = 30 %).
        max_characters: longer sentences are not spoken.
        seed: as `Speechless.generate`, as are the other settings.

    Returns:
        Codes `[T, K]` by id of what is kept, and the reason by id of what is not.
    """
    codes: dict[str, Tensor] = {}
    reasons: dict[str, str] = {}
    waiting = []
    for sentence in sentences:
        reason = why_unspeakable(sentence.text, model.vocabulary, max_characters=max_characters)
        reason = reason or _unread_digits(sentence)
        if reason:
            reasons[sentence.id] = reason
        else:
            waiting.append(sentence)
    for take in range(takes):
        spoken = speak(
            model, waiting, seed=derive_seed(seed, take) if take else seed,
            temperature=temperature, top_k=top_k, batch_size=batch_size,
        )  # fmt: skip
        ended = {s.id: g.codes_TK for s, g in zip(waiting, spoken, strict=True) if g.ended}
        reasons |= {s.id: "never ended within 30 s" for s in waiting if s.id not in ended}
        if round_trip:
            texts = [s.text for s in waiting if s.id in ended]
            rates = round_trip.character_error_rates(list(ended.values()), texts)
            for id_, cer in zip(list(ended), rates, strict=True):
                if cer > max_cer:
                    reasons[id_] = f"read back with a CER of {cer:.2f}, over {max_cer:g}"
                    del ended[id_]
        codes |= ended
        reasons = {id_: reason for id_, reason in reasons.items() if id_ not in ended}
        waiting = [s for s in waiting if s.id not in ended]
    return codes, reasons


def with_numbers_in_words(sentence: Sentence) -> Sentence:
    """The sentence as it is read aloud: "GH¢5" is sidi num. Only in Asante and Akuapem; digits that
    no rule reads (see `speak_numbers`) stay as they are."""
    if sentence.dialect not in ("asante", "akuapem"):
        return sentence
    dialect: Dialect = "asante" if sentence.dialect == "asante" else "akuapem"
    text = speak_numbers(normalize_for_training(sentence.text), dialect).text
    return replace(sentence, text=text) if text != sentence.text else sentence


def why_unspeakable(
    text: str, vocabulary: Vocabulary, *, max_characters: int = MAX_CHARACTERS
) -> str | None:
    """The reason not to speak a text: empty, no letter, a foreign character, too long; None if it
    can be spoken."""
    if not text.strip():
        return "empty"
    num_characters = len(normalize_for_scoring(text))
    if num_characters > max_characters:
        return f"too long: {num_characters} characters, at most {max_characters} (30 s of speech)"
    try:
        vocabulary.spoken_characters(text)
    except InputError as error:
        return str(error)
    return None


def _unread_digits(sentence: Sentence) -> str | None:
    """The reason not to speak what a reader of this dialect would have put in words."""
    digits = [word for word in sentence.text.split() if any(map(str.isnumeric, word))]
    if not digits or sentence.dialect not in ("asante", "akuapem"):
        return None
    return f"no rule says how to read {' '.join(digits)}"
