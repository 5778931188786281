"""What can be wrong with one utterance: problems, which make it unusable or wrong for training, and
observations, which only deserve a look.

Two problems also depend on other rows and are found by `data_manifests.manifest_totals`: an id used
twice, and audio that an earlier row already has.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_manifests.audio import SILENCE_PEAK, DecodedAudio
from data_manifests.audio_defects import MISSING_TOLERANCE_S, AudioDefect
from data_manifests.code_switching import english_words
from data_manifests.hash_set import hash_bytes, hash_text
from data_manifests.inventory import loan_letters, outside_characters
from data_manifests.language import language
from data_manifests.manifest import Utterance, decode_utterance
from data_manifests.normalization import normalize_for_scoring, normalize_for_training
from data_manifests.text_checks import shorthand_words

# Characters (spaces included, as normalised for scoring) a second. Speakers of 17 languages read 4
# to 9 syllables a second (Coupé et al. 2019, doi:10.1126/sciadv.aaw2594), and Twi has 2.4 to 2.5
# characters a syllable (counted over 221 sentences of Common Voice and 2,092 of WAXAL): up to 23.
# Those recordings of Common Voice have 3.0 to 12.3. Misaligned rows go far beyond: up to 78 words
# a second in ghananlpcommunity/twi-speech-text-multispeaker-16k.
MAX_CHARACTERS_PER_S = 30.0
# FISD's prompts have 3 characters a second on average (3.2 words in 5.3 s), the shortest are one
# word. Less than a letter in two seconds means that the audio goes on without the sentence.
MIN_CHARACTERS_PER_S = 0.5

# In a sound recording few or no samples lie this close to full scale: in Common Voice 7 of 221 have
# any, at most 0.005 %. A clipped one has runs of them in every loud vowel.
CLIPPED_LEVEL = 0.999
MAX_CLIPPED_SHARE = 0.001

# A frame this far below the loudest one of its recording holds no speech: the softest consonants
# lie some 30 dB below the loudest vowels. In Common Voice up to three quarters of a recording's
# frames are silent; beyond nine tenths it is noise, a click, or one word in a long pause.
SILENT_FRAME_DB = -40.0
MAX_SILENT_SHARE = 0.9
FRAMES_PER_S = 50

THRESHOLDS = {
    "max_characters_per_s": MAX_CHARACTERS_PER_S,
    "min_characters_per_s": MIN_CHARACTERS_PER_S,
    "clipped_level": CLIPPED_LEVEL,
    "max_clipped_share": MAX_CLIPPED_SHARE,
    "silent_frame_db": SILENT_FRAME_DB,
    "max_silent_share": MAX_SILENT_SHARE,
    "silence_peak": SILENCE_PEAK,
    "missing_tolerance_s": MISSING_TOLERANCE_S,
}


@dataclass(frozen=True)
class Finding:
    """Something about an utterance.

    Attributes:
        kind: category under which findings are counted, e.g. "cut short".
        reason: what was found, with numbers, but without the row's place in the manifest.
    """

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Examination:
    """What is kept of an utterance once it has been examined: small, however long its audio.

    Attributes:
        problem: the first one found, or None.
        observations: made only if there is no problem.
        num_characters: length of the sentence as normalised for scoring, including spaces.
        id_hash: hash of the id; 64 bits, like all hashes here.
        speaker_hash: hash of corpus and speaker.
        sentence_hash: hash of the sentence as normalised for scoring.
        reading_hash: hash of corpus, speaker and sentence.
        audio_hash: hash of the decoded samples; None if they were not decoded or are defective.
        outside_characters: as `inventory.outside_characters`.
        loan_letters: as `inventory.loan_letters`.
        num_words: of the sentence; 0 in a language where nothing tells English words.
        english_words: as `code_switching.english_words`.
    """

    problem: Finding | None
    observations: tuple[Finding, ...]
    num_characters: int
    id_hash: int
    speaker_hash: int
    sentence_hash: int
    reading_hash: int
    audio_hash: int | None
    outside_characters: str
    loan_letters: str
    num_words: int = 0
    english_words: tuple[str, ...] = ()


def examine(utterance: Utterance, *, decode: bool) -> Examination:
    """Examine an utterance's text and, on request, its audio, which is decoded once.

    Args:
        utterance: a manifest row.
        decode: read the audio; otherwise only the row is examined.
    """
    text = normalize_for_training(utterance.text)
    sentence = normalize_for_scoring(text)
    speaker_hash = hash_text(utterance.corpus, utterance.speaker)
    sentence_hash = hash_text(sentence)
    outside = outside_characters(text)
    tells_english = language().code_switching is not None
    decoded = None
    problem = None
    if not any(map(str.isalpha, sentence)):
        problem = Finding("no speakable character", f"no speakable character in {utterance.text!r}")
    elif decode:
        try:
            decoded = decode_utterance(utterance)
        except AudioDefect as error:
            problem = Finding(error.kind, str(error))
    if problem is None:
        problem = _find_misalignment(len(sentence), utterance.duration_s)
    observations: list[Finding] = []
    if problem is None:
        observations += _observe_text(text, outside)
    if problem is None and decoded is not None:
        observations += _observe_audio(decoded)
    return Examination(
        problem=problem,
        observations=tuple(observations),
        num_characters=len(sentence),
        id_hash=hash_text(utterance.id),
        speaker_hash=speaker_hash,
        sentence_hash=sentence_hash,
        reading_hash=(3 * speaker_hash + sentence_hash) % 2**64,  # 3: they are not interchangeable
        audio_hash=None if decoded is None else hash_audio(decoded),
        outside_characters=outside,
        loan_letters=loan_letters(text),
        num_words=len(sentence.split()) if tells_english else 0,
        english_words=tuple(english_words(text)) if tells_english else (),
    )


def _find_misalignment(num_characters: int, duration_s: float) -> Finding | None:
    rate = num_characters / duration_s
    if MIN_CHARACTERS_PER_S <= rate <= MAX_CHARACTERS_PER_S:
        return None
    return Finding(
        "impossible speaking rate",
        f"{num_characters} characters in {duration_s:.2f} s are {rate:.2g} a second, people speak "
        f"{MIN_CHARACTERS_PER_S:g} to {MAX_CHARACTERS_PER_S:g}: text and audio are misaligned",
    )


def _observe_text(text: str, outside: str) -> Iterator[Finding]:
    digits = "".join(char for char in outside if char.isdigit())
    others = "".join(dict.fromkeys(char for char in outside if not char.isdigit()))
    if digits:
        yield Finding("digits", f"digits {digits}: how they are read is not in the text")
    if others:
        name = language().name
        yield Finding(f"characters outside {name}", f"{others!r} is not in the {name} inventory")
    if words := shorthand_words(text):
        yield Finding("letters typed for others", f"{' '.join(words)}: left as they are")


def _observe_audio(decoded: DecodedAudio) -> Iterator[Finding]:
    is_clipped = np.abs(decoded.samples) >= CLIPPED_LEVEL
    clipped_share = np.count_nonzero(is_clipped) / len(is_clipped)
    if clipped_share > MAX_CLIPPED_SHARE:
        yield Finding("clipped", f"{clipped_share:.1%} of the samples are at full scale")
    silent_share = _silent_share(decoded)
    if silent_share > MAX_SILENT_SHARE:
        yield Finding(
            "mostly silent",
            f"{silent_share:.0%} is more than {-SILENT_FRAME_DB:g} dB below the loudest moment",
        )


def _silent_share(decoded: DecodedAudio) -> float:
    """Share of 20 ms frames without speech; an incomplete last one is left out."""
    frame_length = max(1, decoded.sample_rate_hz // FRAMES_PER_S)
    num_frames = len(decoded.samples) // frame_length
    if num_frames == 0:
        return 0.0
    frames = decoded.samples[: num_frames * frame_length].reshape(num_frames, frame_length)
    power = np.square(frames).mean(axis=1)
    return float(np.mean(power < power.max() * 10 ** (SILENT_FRAME_DB / 10)))


def hash_audio(decoded: DecodedAudio) -> int:
    """Hash the samples, not the file: copies under another name or in another container have equal
    hashes, two slices of one file do not."""
    return hash_bytes(np.ascontiguousarray(decoded.samples).data.cast("B"))
