"""A written text to phonemes, in espeak-ng's ASCII notation for its voice `hi`.

    phonemize("Me din de Kofi.")  ->  one clause of four words, and its full stop

How a text is read is in `data_manifests/pronunciation.py`; how the voice says it is in `espeak.py`.
"""

from dataclasses import replace

from data_manifests.language import language
from data_manifests.pronunciation import Clause, read_clauses
from data_manifests.twi_phonemes import TILDE
from demo.voice.espeak import SAID_AS


def phonemize(text: str) -> list[Clause]:
    """Transcribe a text: its clauses, their words, and the phonemes of each word, keys of
    `espeak.IPA_OF`.

    Raises:
        ValueError: as `read_clauses`.
    """
    return [
        replace(clause, words=tuple(map(in_espeak, clause.words))) for clause in read_clauses(text)
    ]


def in_espeak(phonemes: tuple[str, ...]) -> tuple[str, ...]:
    """The phonemes of a word in espeak-ng's notation. In Twi, where hardly anybody writes them,
    nasal vowels are said as oral ones: so the shipped models learned it."""
    if language().phonemes == "twi":
        phonemes = tuple(phoneme.removesuffix(TILDE) for phoneme in phonemes)
    return tuple(name for phoneme in phonemes for name in SAID_AS[phoneme])
