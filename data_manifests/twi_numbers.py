"""Numbers in Twi words, for digits in a text that is to be spoken.

    number_in_words(2021, "asante")  ->  "mpem mmienu ne aduonu baako"
    spell_numbers("Ɛyɛ GH¢5.50, bra 10:30.", "asante")
        ->  text "Ɛyɛ sidi num ne pɛsewa aduonum, bra 10:30.", unknown ("10:30",)

From 0 to 999,999, in Asante and Akuapem. The forms are the tables below, for a linguist to edit;
`tests/golden/twi_numbers.tsv` shows them at work. Speakers often say numbers in English; these
words are for text that is to be Twi throughout.

"Not attested" marks a form that does not occur in the available texts; it is the regular one. These
texts are the Universal Declarations, AfriQA, MasakhaPOS (which mixes both spellings), WAXAL, Common
Voice and AfriSenti's tweets. The number after a form says how often it occurs in them.
"""

import functools
import re
from dataclasses import dataclass

from data_manifests.language import language

MAX_NUMBER = 999_999

# In counting, and after the noun that is counted (sidi nan, mpem num), where ɛnan and enum lose
# their vowel: mfeɛ nan 6, mfeɛ num 3. Also attested after plural nouns, but not chosen here: nnipa
# nnan 11, nnum 5. People are counted with separate words (baanu, baasa), which digits do not show.
UNITS = {
    "asante": ("baako", "mmienu", "mmiɛnsa", "ɛnan", "enum", "nsia", "nson", "nwɔtwe", "nkron"),
    "akuapem": ("biako", "abien", "abiɛsa", "anan", "anum", "asia", "ason", "awɔtwe", "akron"),
}
COUNTED_UNITS = {
    "asante": ("baako", "mmienu", "mmiɛnsa", "nan", "num", "nsia", "nson", "nwɔtwe", "nkron"),
    # nnɔnhwerew abiɛsa, nkyem anum, asram asia, nnɔn akron: the same as in counting
    "akuapem": UNITS["akuapem"],
}
# After a ten. Asante: baako 55, mmienu 28, mmiɛnsa 7, nan 3 (ɛnan 1, nnan 1), num 9, nsia 11,
# nson 3, wɔtwe 6 (nwɔtwe 0), nkron 1 (nkronɔ 2). Akuapem: not attested, as in counting.
UNITS_AFTER_TEN = {
    "asante": ("baako", "mmienu", "mmiɛnsa", "nan", "num", "nsia", "nson", "wɔtwe", "nkron"),
    "akuapem": UNITS["akuapem"],
}
# 10 to 19: as one word 35, most of them in AfriQA (dunwɔtwe also in the Asante declaration); as two
# (du baako) 30, nearly all in MasakhaPOS. dumienu 4, dummienu 2. Akuapem: dumien 1, dumiɛnsa 1,
# dubiako not attested; from 14 on the same as in Asante.
TEENS = {
    "asante": ("du", "dubaako", "dummienu", "dummiɛnsa", "dunan", "dunum", "dunsia", "dunson",
               "dunwɔtwe", "dunkron"),
    "akuapem": ("du", "dubiako", "dumien", "dumiɛnsa", "dunan", "dunum", "dunsia", "dunson",
                "dunwɔtwe", "dunkron"),
}  # fmt: skip
# 20 to 90: aduonu 118, aduasa 14, aduanan 6, aduonum 7, aduosia 5, aduɔwɔtwe 2. From 70 in the
# standard spelling; aduɔson and aduɔkron are not attested: MasakhaPOS has aduoson 6, aduowɔtwe 3,
# aduonkron 2, aduakron 1, which sound nearly the same.
TENS = ("aduonu", "aduasa", "aduanan", "aduonum", "aduosia", "aduɔson", "aduɔwɔtwe", "aduɔkron")
# 100 to 900: ɔha 24, ahanu 4, ahasa 1 (ahaasa 1), ahanan 3, ahanum 2, ahanwɔtwe 2; ahansia,
# ahanson and ahankron are not attested. One series for both dialects.
HUNDREDS = ("ɔha", "ahanu", "ahasa", "ahanan", "ahanum", "ahansia", "ahanson", "ahanwɔtwe",
            "ahankron")  # fmt: skip
THOUSAND, THOUSANDS = "apem", "mpem"  # mpem mmienu (2,000) 110, mpem ahanum (500,000) 1
ZERO = "hwee"  # "nothing"; as a number not attested
AND = "ne"
CEDI, PESEWA = "sidi", "pɛsewa"  # sidi 1, before its number (cedi, cedis 13); pɛsewa not attested

# How the parts are joined. A ten and its unit stand side by side (aduonu baako; 130 of 130). `ne`
# occurs once, after the largest part: ɔha ne aduosia mmiɛnsa (163; with ne 5, without 3), mpem
# mmienu ne aduonu baako (2,021; 107 of 107), mpem mmiɛnsa ne ahanu dubaako (3,211; 1, against
# apem ahanwɔtwe ne dunkron, 1,819, and one number without any). There is none within the number of
# thousands (mpem ahanwɔtwe aduosia, 1; or of millions, 1). So mpem ahanu aduonu is 220,000 and mpem
# ahanu ne aduonu 200,020, and no two numbers have the same words.

# ----- What is read, and what is not
_WHOLE = r"(?:0|[1-9][0-9]{0,5}|[1-9][0-9]{0,2},[0-9]{3})"
_AMOUNT = rf"(?P<cedis>{_WHOLE})(?:\.(?P<pesewas>[0-9]{{2}}))?"
_SIGN_BEFORE = r"(?:GH[¢₵CS]?|[¢₵])"
_SIGN_AFTER = r"(?:GH[¢₵CS]?|[¢₵]|cedis?)"  # 50gh, 99cedis: a habit of tweets
_SUMS = (
    re.compile(rf"(?:{_SIGN_BEFORE}|cedis?|sidi) ?{_AMOUNT}(?: cedis?)?", re.IGNORECASE),
    re.compile(rf"{_AMOUNT} ?{_SIGN_AFTER}", re.IGNORECASE),
    re.compile(rf"(?P<cedis>)(?P<pesewas>{_WHOLE}) ?pes[ei]was?", re.IGNORECASE),
)
_NUMBER, _AMOUNT_ALONE = re.compile(_WHOLE), re.compile(_AMOUNT)
# Words that belong to the number next to them, with a space between. The words written here, sidi
# and pɛsewa, must not be among those that follow a number, or a second pass would change more.
_BEFORE = re.compile(rf"{_SIGN_BEFORE}|cedis?|sidi|[$€£₦]", re.IGNORECASE)
_AFTER = re.compile(
    rf"{_SIGN_AFTER}|pes[ei]was?|%|percent|hundred|thousand|[mbtr]+illion|[ap]\.?m|st|nd|rd|th",
    re.IGNORECASE,
)
_BETWEEN = re.compile("[-–—−/x×+=:*]")  # 3 - 4
# Punctuation and emoji around a number. A leading dot or colon (.5) and signs are part of the
# number.
_SIGNS = r"\w¢₵$€£₦%°+=/<>#@~^&*–—−\-"
_EDGES = re.compile(
    rf"(?P<opening>[^{_SIGNS}.,:]*)(?P<core>.*?)(?P<closing>[^{_SIGNS}]*)", re.DOTALL
)


@dataclass(frozen=True)
class SpelledText:
    """A text with its numbers in words.

    Args:
        text: the text.
        unknown: parts with digits that were left unchanged, in order.
    """

    text: str
    unknown: tuple[str, ...]


def number_dialects() -> tuple[str, ...]:
    """Dialects in whose words numbers are read; none if the language in use is not Twi."""
    return tuple(UNITS) if language().numbers == "twi" else ()


def number_in_words(number: int, dialect: str) -> str:
    """The words of a whole number, as in counting: 4 is ɛnan, 125 is ɔha ne aduonu num.

    Raises:
        ValueError: not in 0 to 999,999, or a dialect that has no forms here.
    """
    _check_dialect(dialect)
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"number {number}: expected 0 to {MAX_NUMBER}")
    return UNITS[dialect][number - 1] if 0 < number < 10 else _counted(number, dialect)


def spell_numbers(text: str, dialect: str) -> SpelledText:
    """Write the numbers of a text in words, and report those whose reading would be a guess.

    Read: whole numbers (12, 1000) and those with thousands separators (1,000), a year as a plain
    number; sums in cedis (GH¢5, GHC 5.50, GH₵20, ¢5, GHS 5, 5 cedis, 50gh) and pesewas (50
    pesewas). Everything else with a digit is left unchanged and reported: decimals, percentages,
    fractions, ranges, times, dates, ordinals (3rd), telephone numbers (a leading 0, more than 6
    digits, or numbers in a row), other currencies, digits beside a letter or a sign (covid19, 10k,
    #1), 5 million, 5 pm.

    The text must be normalised by `normalize_for_training`: s3 is a number beside a letter here.
    Words without a digit are not changed. Idempotent.

    Raises:
        ValueError: a dialect that has no forms here.
    """
    _check_dialect(dialect)
    pieces = re.split(r"(\s+)", text)  # word, space, word, ...
    spoken: list[str] = []
    unknown = []
    start = end = 0
    while (middle := _find_number(pieces, end)) is not None:
        start = _start_of_group(pieces, middle, end)
        spoken += pieces[end:start]
        end = _end_of_group(pieces, middle)
        opening, core, closing = _split_edges("".join(pieces[start:end]))
        words = _read(re.sub(r"\s+", " ", core), dialect)
        if words is None:
            unknown.append(core)
        spoken.append(opening + (core if words is None else words) + closing)
    return SpelledText("".join([*spoken, *pieces[end:]]), tuple(unknown))


def _find_number(pieces: list[str], start: int) -> int | None:
    places = (i for i in range(start, len(pieces)) if any(map(str.isnumeric, pieces[i])))
    return next(places, None)


def _start_of_group(pieces: list[str], place: int, first: int) -> int:
    """A currency before the number (GH¢ 5) belongs to it; pieces before `first` are already
    used."""
    if place - 2 >= first and _split_edges(pieces[place])[0] == "":
        _, core, closing = _split_edges(pieces[place - 2])
        if not closing and _BEFORE.fullmatch(core):
            return place - 2
    return place


def _end_of_group(pieces: list[str], place: int) -> int:
    """Adjacent numbers, or numbers with a sign between, form one group, as does a number with its
    unit."""
    words = [*pieces[place::2], "", "", ""]
    last = 0
    while words[last][-1:].isdigit():
        step = 2 if _BETWEEN.fullmatch(words[last + 1]) else 1
        if not words[last + step][:1].isnumeric():
            break
        last += step
    opening, unit, _ = _split_edges(words[last + 1])
    is_unit = not opening and _AFTER.fullmatch(unit) and _takes_unit(words[last])
    # 5 GHS 10: the sign belongs to what follows it.
    is_sign_of_next = (
        re.fullmatch(_SIGN_BEFORE, unit, re.IGNORECASE) and words[last + 2][:1].isnumeric()
    )
    if last == 0 and is_unit and not is_sign_of_next:
        last += 1
    return place + 2 * last + 1


def _takes_unit(word: str) -> bool:
    _, core, closing = _split_edges(word)
    return not closing and any(pattern.fullmatch(core) for pattern in (_AMOUNT_ALONE, *_SUMS))


def _split_edges(word: str) -> tuple[str, str, str]:
    match = _EDGES.fullmatch(word)
    assert match is not None
    return match["opening"], match["core"], match["closing"]


def _read(core: str, dialect: str) -> str | None:
    if _NUMBER.fullmatch(core):
        return number_in_words(int(core.replace(",", "")), dialect)
    for pattern in _SUMS:
        if match := pattern.fullmatch(core):
            cedis, pesewas = (
                int((match[name] or "0").replace(",", "")) for name in match.re.groupindex
            )
            parts = [f"{CEDI} {_counted(cedis, dialect)}"] if cedis or not pesewas else []
            parts += [f"{PESEWA} {_counted(pesewas, dialect)}"] if pesewas else []
            return f" {AND} ".join(parts)
    return None


def _counted(number: int, dialect: str) -> str:
    """The words of a number that follows the noun it counts."""
    thousands, rest = divmod(number, 1000)
    if not thousands:
        return _below_thousand(rest, dialect, f" {AND} ")
    words = (
        THOUSAND if thousands == 1 else f"{THOUSANDS} {_below_thousand(thousands, dialect, ' ')}"
    )
    return f"{words} {AND} {_below_thousand(rest, dialect, ' ')}" if rest else words


@functools.cache
def _below_thousand(number: int, dialect: str, joint: str) -> str:
    """The words of a number below 1000; `joint` goes between the hundred and the rest."""
    hundreds, rest = divmod(number, 100)
    tens, units = divmod(rest, 10)
    if rest == 0:
        return HUNDREDS[hundreds - 1] if hundreds else ZERO
    if hundreds:
        return f"{HUNDREDS[hundreds - 1]}{joint}{_below_thousand(rest, dialect, joint)}"
    if tens == 0:
        return COUNTED_UNITS[dialect][units - 1]
    if tens == 1:
        return TEENS[dialect][units]
    return TENS[tens - 2] + (f" {UNITS_AFTER_TEN[dialect][units - 1]}" if units else "")


def _check_dialect(dialect: str) -> None:
    if dialect not in UNITS:
        raise ValueError(
            f"dialect {dialect!r}: numbers in words are known for {' and '.join(UNITS)} only"
        )
