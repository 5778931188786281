"""Sentences -> codes in memory: called by `generate`, by `evaluate`, and by training to measure
progress.

spoken = speak(model, [Sentence("greeting-1", "Me din de Ama.", "asante")])
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from commands.errors import InputError
from data_manifests.language import UNKNOWN_DIALECT
from data_manifests.normalization import normalize_for_scoring, normalize_for_training
from data_manifests.twi_numbers import number_dialects, spell_numbers
from stage2_speechless.generation import MAX_FRAMES, GeneratedCodes, generate_batch
from stage2_speechless.model import Speechless
from stage2_speechless.sampling import DEFAULT_SAMPLING, SamplingSettings
from stage2_speechless.vocabulary import Vocabulary

MAX_CHARACTERS = 500  # 30 s at 17 characters a second, the fastest Twi


@dataclass(frozen=True)
class Sentence:
    """What to say and how.

    Attributes:
        id: together with the seed, it decides what is drawn.
        text: as written; normalised by the model.
        dialect: of Twi asante, akuapem, fante or unknown.
        rate_cps: characters per second; None draws a rate from the training data.
        corpus, license: where the text is from, and its licence; "" if that is not known.
    """

    id: str
    text: str
    dialect: str = UNKNOWN_DIALECT
    rate_cps: float | None = None
    corpus: str = ""
    license: str = ""


def speak(
    model: Speechless,
    sentences: Sequence[Sentence],
    *,
    seed: int = 0,
    sampling: SamplingSettings = DEFAULT_SAMPLING,
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
                sampling=sampling,
                max_frames=max_frames,
            )
            results.update(zip(picks, generated, strict=True))
            progress.update(len(batch))
    return [results[i] for i in range(len(sentences))]


def with_numbers_in_words(sentence: Sentence) -> Sentence:
    """The sentence as it is read aloud: "GH¢5" becomes sidi num. Only where the dialect is known;
    digits that no rule covers (see `spell_numbers`) are unchanged."""
    if sentence.dialect not in number_dialects():
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


def unread_digits(sentence: Sentence) -> str | None:
    """The reason not to speak digits that were left although this dialect has number words."""
    digits = [word for word in sentence.text.split() if any(map(str.isnumeric, word))]
    if not digits or sentence.dialect not in number_dialects():
        return None
    return f"no rule says how to read {' '.join(digits)}"
