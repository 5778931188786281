"""Whether a text is in Twi, in English or in another language: what web text and translations mix.

    guess_language("Ɛdeɛn na ɛma nsuo huru?")            ->  "twi"
    guess_language("What makes water boil?")              ->  "english"
    guess_language("Kofi Annan")                          ->  "unknown": names belong to all

Made as `twi_dialects` is: words and letters are cues, which are counted. English words inside Twi
are how Ghanaians speak, and do not make a text English; a text is English when it has more English
than Twi. `untranslated_english` finds what a translator left standing.
"""

import functools
import re
from typing import Literal

from data_manifests.inventory import outside_characters
from data_manifests.normalization import normalize_for_scoring, normalize_for_training

Language = Literal["twi", "english", "other", "unknown"]

# Frequent in Twi and in no English text; words with ɛ or ɔ need no list. Counted in AfriQA, WAXAL,
# MasakhaPOS and the Universal Declaration. Those that English has too (a, no, so, me, to, do, be,
# he, one, am, an, dan, ban, too, train) are cues of neither.
TWI_WORDS = frozenset((
    "na", "mu", "ne", "bi", "nso", "ho", "yi", "baako", "gyina", "nnipa", "mmienu", "nyinaa",
    "bebree", "si", "anim", "akyi", "nsa", "te", "mmaa", "ebi", "kwan", "da", "saa", "ma", "fam",
    "ase", "biara", "adwuma", "ama", "ara", "ti", "soro", "ano", "binom", "hena", "nsuo", "obi",
    "afe", "obiara", "kaa", "anaa", "nkwadaa", "di", "pii", "kan", "ani", "kurow", "nti", "wo",
    "wobɛ", "kae", "ka", "de", "fi", "firi", "ye", "aane", "daabi", "dabi", "enti", "ansa", "sika",
    "mpem", "aduonu", "amanfo", "onipa", "abofra", "nea", "deɛ", "papa", "paa", "oo", "ntumi",
    "hu", "kyerɛ", "nhyehyɛe", "mmere", "bere",
))  # fmt: skip
# English words of grammar. "in", "on", "of", "by", "at", "it" and "is" do occur in Twi sentences
# with English in them, which is what the comparison with the Twi cues is for.
ENGLISH_WORDS = frozenset((
    "the", "is", "of", "in", "which", "what", "was", "and", "who", "did", "on", "for", "are", "it",
    "that", "how", "out", "does", "many", "from", "with", "where", "at", "not", "as", "by", "when",
    "its", "same", "all", "can", "has", "or", "each", "they", "were", "them", "most", "than",
    "your", "you", "have", "had", "his", "her", "their", "there", "this", "these", "those", "will",
    "would", "should", "could", "about", "into", "after", "before", "because", "if", "then",
    "some", "any", "other", "also", "more", "very", "just", "only", "over", "such", "between",
    "through", "while", "during", "under", "my", "our", "us", "she", "we", "i",
))  # fmt: skip
# Languages whose texts stand beside Twi in the same collections, and get mixed up: Ga and Ewe.
OTHER_WORDS = frozenset((
    "lɛ", "kɛ", "akɛ", "mli", "hewɔ", "amɛ", "kɛji", "amɛhe", "nakai", "jogbaŋŋ", "enɛ", "heni",
    "loo", "gbɛ", "ƒe", "kple", "siwo", "eye", "aɖe", "nyuie", "wòle", "ame", "amewo", "alo",
    "gake", "elabena", "abe", "hafi",
))  # fmt: skip
# Twi words end in a vowel or in m, n, w, r (Fante) or ŋ, and have none of these letters.
_ENGLISH_SHAPE = re.compile(r"\w+[bcdfghjklpqstvxyz]|\w*[cjqvxz]\w*")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
MAX_FOREIGN_SHARE = 0.1
MIN_ENGLISH_CUES = 2
MIN_RUN = 3
"""So many English words in a row are a piece of English text, and not an expression used in Twi."""


def guess_language(text: str) -> Language:
    """Guess the language of a text.

    Returns:
        "other" if more than a tenth of its letters are not among those that Twi or English is
        written with, or if it has words of Ga or Ewe, and more than half as many as of Twi;
        "english" if it has at least two cues of English, and more than of Twi; "twi" if it has more
        of Twi; else "unknown", as for a name or a number.
    """
    text = normalize_for_training(text)
    if _foreign_share(text) > MAX_FOREIGN_SHARE:
        return "other"
    cues = [_cue_of(word) for word in _WORD.findall(text)]
    twi, english, other = (cues.count(language) for language in ("twi", "english", "other"))
    if other >= 2 and other > twi / 2:
        return "other"
    if english >= MIN_ENGLISH_CUES and english > twi:
        return "english"
    return "twi" if twi > english else "unknown"


def untranslated_english(text: str) -> str:
    """The first piece of English in a text: `MIN_RUN` English words or more, none of them a name;
    "" if there is none.

    "Ghana Cocoa Board" is none, "planting seedlings next" is one.
    """
    run: list[str] = []
    for word in [*_WORD.findall(normalize_for_training(text)), ""]:
        if word.islower() and _cue_of(word) == "english":
            run.append(word)
        elif len(run) >= MIN_RUN:
            return " ".join(run)
        else:
            run = []
    return ""


def _foreign_share(text: str) -> float:
    """The share of letters outside Twi's inventory, which holds those of English too."""
    foreign = sum(map(str.isalpha, outside_characters(text)))
    return foreign / sum(map(str.isalpha, text)) if foreign else 0.0


@functools.lru_cache(maxsize=2**14)
def _cue_of(written: str) -> str:
    """Which language a word is a cue of; "" if of none.

    A capital may begin a name, which is English in shape in any language.
    """
    word = normalize_for_scoring(written)
    if word in OTHER_WORDS:
        return "other"
    if word in TWI_WORDS or "ɛ" in word or "ɔ" in word:
        return "twi"
    has_english_shape = len(word) > 2 and _ENGLISH_SHAPE.fullmatch(word)
    if word in ENGLISH_WORDS or (has_english_shape and written.islower()):
        return "english"
    return ""
