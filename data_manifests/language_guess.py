"""Whether a text is in the language in use, in English or in another: what web text mixes.

    guess_language("Ɛdeɛn na ɛma nsuo huru?")            ->  "twi"
    guess_language("What makes water boil?")              ->  "english"
    guess_language("Kofi Annan")                          ->  "unknown": names belong to all

Made as `twi_dialects` is: words and letters are cues, which are counted. English words inside Twi
are how Ghanaians speak, and do not make a text English; a text is English when it has more English
than Twi. The cues are `[cues]` of the language's file; without them nothing is guessed.
`untranslated_english` finds what a translator left standing.
"""

import functools
import re

from data_manifests.inventory import outside_characters
from data_manifests.language import Language, language
from data_manifests.language_cues import Cues
from data_manifests.normalization import normalize_for_scoring, normalize_for_training

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
# Letters, with the marks that NFC leaves apart from them: ɛ and its tilde.
_LETTERS = r"(?:[^\W\d_][\u0300-\u036f]*)+"
_WORD = re.compile(rf"{_LETTERS}(?:['’-]{_LETTERS})*")
MAX_FOREIGN_SHARE = 0.1
MIN_ENGLISH_CUES = 2
MIN_RUN = 3
"""So many English words in a row are a piece of English text, and not an expression used in Twi."""


def guess_language(text: str) -> str:
    """Guess the language of a text.

    Returns:
        "other" if more than a tenth of its letters are not among those that the language or English
        is written with, or if it has words of its neighbours (of Twi, Ga and Ewe), and more than
        half as many as of the language itself; "english" if it has at least two cues of English,
        and more than of the language; the language's key ("twi") if it has more of that; else
        "unknown", as for a name or a number, and for every text where the language has no cues.
    """
    used = language()
    if used.cues is None:
        return "unknown"
    text = normalize_for_training(text)
    if _foreign_share(text) > MAX_FOREIGN_SHARE:
        return "other"
    cues = [_cue_of(word, used) for word in _WORD.findall(text)]
    own, english, other = (cues.count(found) for found in ("own", "english", "other"))
    if other >= 2 and other > own / 2:
        return "other"
    if english >= MIN_ENGLISH_CUES and english > own:
        return "english"
    return used.key if own > english else "unknown"


def untranslated_english(text: str) -> str:
    """The first piece of English in a text: `MIN_RUN` English words or more, none of them a name;
    "" if there is none, or if the language has no cues.

    "Ghana Cocoa Board" is none, "planting seedlings next" is one.
    """
    used = language()
    if used.cues is None:
        return ""
    run: list[str] = []
    for word in [*_WORD.findall(normalize_for_training(text)), ""]:
        if word.islower() and _cue_of(word, used) == "english":
            run.append(word)
        elif len(run) >= MIN_RUN:
            return " ".join(run)
        else:
            run = []
    return ""


def _foreign_share(text: str) -> float:
    """The share of letters outside the inventory, which holds those of English too."""
    foreign = sum(map(str.isalpha, outside_characters(text)))
    return foreign / sum(map(str.isalpha, text)) if foreign else 0.0


@functools.lru_cache(maxsize=2**14)
def _cue_of(written: str, of: Language) -> str:
    """What a word is a cue of: "own", "english", "other"; "" if of nothing.

    A capital may begin a name, which is English in shape in any language.
    """
    cues = of.cues
    assert cues is not None
    word = normalize_for_scoring(written)
    if word in _words(cues.other_words):
        return "other"
    if word in _words(cues.words) or any(letter in word for letter in cues.letters):
        return "own"
    has_english_shape = len(word) > 2 and _english_shape(cues).fullmatch(word)
    if word in ENGLISH_WORDS or (has_english_shape and written.islower()):
        return "english"
    return ""


_words = functools.cache(frozenset[str])


@functools.cache
def _english_shape(cues: Cues) -> re.Pattern[str]:
    """Words that end in a letter that ends no word of the language, or have one of no word."""
    shapes = [rf"\w+[{cues.never_final}]"] if cues.never_final else []
    shapes += [rf"\w*[{cues.absent}]\w*"] if cues.absent else []
    return re.compile("|".join(shapes) or "(?!)")
