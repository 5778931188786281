"""What makes a public text unfit to be spoken or answered: markup, another language, loops,
characters that nobody reads.

    find_markup("**Nsuo** yɛ nkwa")                       ->  "Markdown"
    unreadable_characters("Ɛyɛ 🙂")                        ->  "🙂"

Markup must be looked for in the text as it is in the table: normalising takes away the line breaks
of lists and tables.
"""

import functools
import re
from collections.abc import Callable

from data_manifests.inventory import outside_characters
from data_manifests.language import Language, language
from data_manifests.language_guess import guess_language, untranslated_english
from data_manifests.left_out_rows import LeftOut
from data_manifests.normalization import normalize_for_scoring
from data_manifests.word_shape import shape_test

_MARKUP = {
    "code": re.compile(r"```|\\[a-zA-Z]+\{|[{}]"),
    "HTML": re.compile(r"</?[a-zA-Z][^<>]*>|&(?:[a-zA-Z]+|#\d+);"),
    "a link": re.compile(r"https?://|www\.|\[[^\[\]]+\]\([^()]+\)|\S@\S+\.\w"),
    "a table": re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.MULTILINE),
    "Markdown": re.compile(r"\*\*|__|^#{1,6} ", re.MULTILINE),
    "a list": re.compile(r"(?:^|\s)1[.)]\s.*\s2[.)]\s"),
}
_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]", re.MULTILINE)
# Up to four words, said four times in a row: how machine translation fails. Twi doubles words, and
# "paa paa paa" is no mistake.
_LOOP = re.compile(r"\b(\w+(?: \w+){0,3})(?: \1){3,}\b")
# Digits, and signs beside them, are read as words (`twi_numbers.py`): GH¢5, $5, 50 %, 13/3/1957.
_READ_AS_WORDS = {
    "none": re.compile("[0-9¢₵]"),
    "twi": re.compile(r"[0-9¢₵]|[$](?= ?[0-9])|(?<=[0-9]) ?%|(?<=[0-9])/(?=[0-9])"),
}


def find_markup(text: str) -> str:
    """What kind of markup a text holds, "" if none.

    Args:
        text: before any normalisation.
    """
    if len(_LIST_ITEM.findall(text)) > 1:
        return "a list"
    return next((kind for kind, pattern in _MARKUP.items() if pattern.search(text)), "")


def unreadable_characters(text: str) -> str:
    """The characters of a normalised text that nobody reads aloud, each once, in order."""
    text = _READ_AS_WORDS[language().numbers].sub(" ", text)
    return "".join(dict.fromkeys(outside_characters(text)))


def shorthand_words(text: str) -> list[str]:
    """Words of a normalised text in which a letter may be typed for another that is left as it is:
    in Twi wc and kc, for wɔ and kɔ. Each once, in order.

    They have the shape of a word of the language. English ones (doctor, cream) and acronyms are
    not meant: no word in capitals, and no c before l, r or t. A text that has the letter itself
    (ɔ) has none: who can type it does.
    """
    of = language()
    if of.word_shape is None or any(
        letter in text.lower() for letter in of.word_shape.shorthand.values()
    ):
        return []
    words = dict.fromkeys(_shorthand(of).findall(text))
    return [word for word in words if not word.isupper() and _shape_test(of)(word)]


def why_foreign(text: str, what: str) -> LeftOut | None:
    """Why a text is not taken for one in the language; None if it is, or if nothing tells (a name,
    a number).

    Args:
        text: normalised or not.
        what: "question", "answer" or "sentence", for the reason.
    """
    guess = guess_language(text)
    if guess == "english":
        return LeftOut(f"{what} in English")
    if guess == "other":
        return LeftOut(f"{what} in another language than {language().name}")
    if english := untranslated_english(text):
        kind = f"{what} left in English in part"
        return LeftOut(kind, f"{kind}: {english}")
    return None


def why_unreadable(text: str, what: str) -> LeftOut | None:
    """Why a normalised text cannot be read aloud, or nobody would; None if it can."""
    if loop := _LOOP.search(normalize_for_scoring(text)):
        kind = f"{what} that goes in a loop"
        return LeftOut(kind, f"{kind}: {loop[1]}")
    if characters := unreadable_characters(text):
        kind = f"{what} with characters that nobody reads"
        return LeftOut(kind, f"{kind}: {' '.join(characters)}")
    return None


@functools.cache
def _shape_test(of: Language) -> Callable[[str], bool]:
    assert of.word_shape is not None
    return shape_test(of.word_shape, of.vowels)


@functools.cache
def _shorthand(of: Language) -> re.Pattern[str]:
    """Words of two letters and more with a shorthand letter, in lower case, that stands for another
    one by what follows it."""
    assert of.word_shape is not None
    typed = "".join(of.word_shape.shorthand)
    if not typed:
        return re.compile("(?!)")
    letter = r"[^\W\d_]"
    follows = f"(?![{of.vowels}hlrt])"
    return re.compile(rf"\b(?={letter}{{2}})(?={letter}*[{typed}]{follows}){letter}+\b")
