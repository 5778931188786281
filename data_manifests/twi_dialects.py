"""Which Akan dialect a text is spelt in: Asante, Akuapem, Fante, or unknown.

    guess_dialect("Adeɛ no firi Kumase.")   ->  "asante"
    guess_dialect("Nea ɔkae no.")           ->  "unknown": one weak cue does not decide

The guess is about the spelling, not the speaker: transcribers may spell speech of one dialect as
another. It fills in `dialect_guess` where a corpus names no dialect, and shows what a corpus holds.
The cues are few, because most Twi words are spelt alike in all three;
`tests/golden/twi_dialects.tsv` has examples.
"""

import functools
import re

from data_manifests.language import language
from data_manifests.normalization import normalize_for_scoring

DIALECTS = ("asante", "akuapem", "fante")
SURE, WEAK = 2, 1
MIN_EVIDENCE = 2
MIN_RATIO = 3
"""A dialect needs this many points (one sure cue or two weak ones), and three times as many as any
other dialect. With less, a single typing error or a quoted word would decide."""

# Words as normalised by `normalize_for_scoring`, and the source of each.
# "orthography": what sets the three written standards apart: final vowels that Asante writes and
# Akuapem drops, dz and ts in Fante. "UDHR": the word, or its spelling, is in only one of the three
# Universal Declarations (odd paragraphs). Corpora (WAXAL, MasakhaPOS, AfriQA, AfriSenti, Common
# Voice) showed which of these words occur together with cues of another dialect; these were made
# weak or dropped (ade, fi, hunu, hokwan, dɛ, hɔnom, mb-, nd-).
SURE_WORDS = {
    "asante": (
        *("adeɛ", "berɛ", "ɛberɛ", "aberɛ", "mmerɛ", "foforɔ", "afoforɔ"),  # orthography, UDHR
        *("firi", "ɛfiri", "ɔfiri", "wɔfiri", "sɛdeɛ", "ɛsiane", "ahodoɔ"),  # orthography, UDHR
        *("ɔhunu", "wɔhunu"),  # orthography; hunu alone also means "only"
    ),
    "akuapem": (
        *("bere", "berem", "foforo", "afoforo", "mmea", "yiye", "esiane"),  # UDHR
        *("biako", "ɔbea", "efisɛ"),  # orthography; in corpora without Asante endings
    ),
    "fante": (
        *("dze", "dza", "dzi", "adze", "wɔdze", "ɔdze", "hɔn", "nyimpa"),  # UDHR
        *("ntsi", "tsir", "tse", "ɔtse", "tsena"),  # orthography, UDHR, WAXAL
    ),
}
WEAK_WORDS = {
    "asante": ("yie", "mmienu", "mmiɛnsa"),  # AfriQA has mmienu in questions spelt as in Akuapem
    "akuapem": (
        *("nea", "sɛnea", "abiɛsa"),  # UDHR; nea stands beside Asante endings 17 times in WAXAL
        *("gyidi", "ahofadi", "asɛde", "asomdwoe"),  # UDHR; where Asante has a further vowel
    ),
    "fante": ("kor", "ebien", "ekyir", "enyim", "mber"),  # UDHR, WAXAL
}

# Endings and letters, all weak cues, of words that are in no list above.
PATTERNS = {
    "asante": re.compile(r"\w+(?:[ei]ɛ|oɔ|uo)"),  # aseɛ, anigyeɛ, abatoɔ, nkurɔfoɔ, nsuo
    "fante": re.compile(r"\w*(?:dz[aeɛio]|ts[eɛi])\w*"),  # fahodzi, wiadze, asetsena
}
# Written in Akuapem and in Fante, not in Asante. Each line counts once, however many words match,
# because transcribers of Asante sometimes omit the ɔ of -foɔ (WAXAL: nkurɔfo beside ntaadeɛ).
SHARED_PATTERNS = (
    re.compile(r"\w+[iu]w"),  # kuw, titiriw, abufuw
    re.compile(r"\w\w+fo"),  # asɛnnifo, nkurɔfo
    re.compile(r"(?:o|wo|wu|mi|ye)hu"),  # ohu: he sees
    re.compile(r"ahorow|abien"),  # UDHR; WAXAL has abien beside dz and ts 11 times of 17
)
# Words that match these patterns but occur in all three dialects, and names.
NO_CUES = frozenset(
    [
        *("nimdeɛ", "tuo", "atuo", "etuo", "duo"),
        *("abɛɛfo", "aborɔfo", "abrɔfo", "brofo", "borɔfo", "asafo", "asaafo", "info"),
        *("akufo", "akuffo", "sarfo", "dzifa", "tsikata", "tsitsi", "akatsi", "mantse"),
        *("itself", "outside"),
    ]
)


def guess_dialect(text: str) -> str:
    """Guess the dialect from the spelling: "asante", "akuapem", "fante" or "unknown".

    Every distinct word of the normalised text counts once, 2 points for a sure cue and 1 for a weak
    one. "unknown" if no dialect has `MIN_EVIDENCE` points, or if the evidence is contradictory:
    another dialect has more than a third of the points of the best.

    Measured on the Universal Declaration of Human Rights: see tests/test_data_twi_dialects.py.
    """
    points = count_evidence(text)
    if not any(points.values()):  # most sentences
        return "unknown"
    dialect, best = max(points.items(), key=lambda item: item[1])
    others = (number for other, number in points.items() if other != dialect)
    if best < MIN_EVIDENCE or any(MIN_RATIO * number > best for number in others):
        return "unknown"
    return dialect


def count_evidence(text: str) -> dict[str, int]:
    """Points of each dialect; 0 if there is no evidence for it, as in a language without them.

    Cues shared by Akuapem and Fante count for Fante if the text's other words are Fante, and for
    Akuapem otherwise: there are few Fante sentences without dz, ts or hɔn.
    """
    points = dict.fromkeys(DIALECTS, 0)
    if not set(DIALECTS) <= {*language().dialects}:
        return points
    cues = [cues for word in {*normalize_for_scoring(text).split()} if (cues := _cues_of(word))]
    for weights, _ in cues:
        for dialect, weight in zip(points, weights, strict=True):
            points[dialect] += weight
    shared = len({pattern for _, patterns in cues for pattern in patterns})
    points["fante" if points["fante"] >= MIN_EVIDENCE else "akuapem"] += WEAK * shared
    return points


@functools.lru_cache(maxsize=2**14)  # most words of a corpus are among its few thousand commonest
def _cues_of(word: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """What a word weighs for each dialect, and which of the shared patterns it matches; None if it
    is no cue at all."""
    if word in NO_CUES:
        return None
    weights = tuple(_weigh(word, dialect) for dialect in SURE_WORDS)
    shared = tuple(i for i, pattern in enumerate(SHARED_PATTERNS) if pattern.fullmatch(word))
    return (weights, shared) if any(weights) or shared else None


def _weigh(word: str, dialect: str) -> int:
    if word in SURE_WORDS[dialect]:
        return SURE
    pattern = PATTERNS.get(dialect)
    is_weak = word in WEAK_WORDS[dialect] or (pattern is not None and pattern.fullmatch(word))
    return WEAK if is_weak else 0
