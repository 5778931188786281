"""The written language of this process: its letters, marks, dialects and fixed phrases, as data.

    language().name                 ->  "Twi"
    language().normalization        ->  "twi-2", which weights and error rates carry

`SPOKEN_LANGUAGE` says which: the name of a file in `data_manifests/languages`, or the path of a
TOML file of your own; without it, twi. The file is read once, when it is first needed.
`languages/twi.toml` and `languages/ewe.toml` explain every key.
"""

import contextlib
import functools
import hashlib
import json
import os
import tomllib
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from commands.errors import InputError, nearest_name
from commands.schema import check_json, shorten
from data_manifests.language_cues import CodeSwitching, Cues
from data_manifests.word_shape import WordShape

VARIABLE = "SPOKEN_LANGUAGE"
DEFAULT = "twi"
UNKNOWN_DIALECT = "unknown"
# Files that came before there was a choice say no language.
FIRST_NORMALIZATION = "twi-1"
_SHIPPED = Path(__file__).with_name("languages")
_DIGITS = "0123456789"
# Of the rules in typed_letters.py, for the hash of a file of one's own. The shipped files have
# their `version`.
TYPED_LETTERS_VERSION = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Language:
    """A written language; compared by identity.

    Attributes:
        name: as texts and model cards have it: "Twi".
        codes: language codes of model cards, the first one first: ("tw", "ak").
        tags: tags of model cards, the first one first: ("twi", "akan").
        version: number of the rules by which its texts are normalised; only of shipped files.
        alphabet: every letter, lower case, in order; also those of names and loanwords.
        loan_letters: those that only names and loanwords have.
        rare_letters: those that are so rare that the recogniser has no unit for them.
        vowels: those that end an open syllable.
        marks: combining marks that texts may hold, for tone or nasality.
        kept_marks: those that tell words apart, and are kept for scoring where they stand on a
            vowel.
        punctuation: what else texts may hold.
        look_alikes: characters that are typed for a letter, beside those in `normalization.py`.
        typed_letters: letters by the digit, or the `)`, that is typed for them inside a word.
        numbers_with_unit: words in which such a digit is a number all the same; those in lower case
            in any case, those in capitals only so.
        word_shape: what words may consist of, where a digit or `)` at their edge may be a letter;
            without it, it always is.
        joins_initials: whether N.D.C. is the word ndc where error rates compare texts.
        still_read: earlier `normalization`s whose models are still used, each with the reason.
        dialects: names for the `dialect` of utterances.
        numbers: whose words numbers are read in; "none" leaves digits alone.
        phonemes: by whose rules its words are pronounced; "none" if nothing tells.
        speak: what asks Gemma to say a text, before a transcript.
        write: what asks it to write down what it hears.
        stop_words: what interrupts a spoken answer, normalised for scoring.
        cues: how its texts are told from others; None if nothing tells.
        code_switching: how its words are told from English ones among them; None if nothing tells.
        key: name of its file without ".toml".
        normalization: what weights and error rates carry: the key, and the version or, of files of
            one's own, a hash of what the rules depend on.
    """

    name: str
    codes: tuple[str, ...]
    tags: tuple[str, ...]
    alphabet: str
    vowels: str
    speak: str
    write: str
    version: int = 0
    loan_letters: str = ""
    rare_letters: str = ""
    marks: str = ""
    kept_marks: str = ""
    punctuation: str = " '-.,;:!?"
    look_alikes: dict[str, str] = field(default_factory=dict)
    typed_letters: dict[str, str] = field(default_factory=dict)
    numbers_with_unit: tuple[str, ...] = ()
    word_shape: WordShape | None = None
    joins_initials: bool = False
    still_read: dict[str, str] = field(default_factory=dict)
    dialects: tuple[str, ...] = ()
    numbers: Literal["twi", "none"] = "none"
    phonemes: Literal["twi", "ewe", "none"] = "none"
    stop_words: tuple[str, ...] = ()
    cues: Cues | None = None
    code_switching: CodeSwitching | None = None
    key: str = ""
    normalization: str = ""

    def __post_init__(self) -> None:
        for name, must_be in _faults(self):
            raise InputError(f"{name!r} must be {must_be}, got {shorten(getattr(self, name))}")

    @functools.cached_property
    def all_dialects(self) -> tuple[str, ...]:
        """Its dialects, and "unknown"."""
        return (*self.dialects, UNKNOWN_DIALECT)

    @functools.cached_property
    def marked_vowels(self) -> str:
        """Vowels with a kept mark that are one character: ã, but not ɛ and its tilde."""
        pairs = (unicodedata.normalize("NFC", v + m) for v in self.vowels for m in self.kept_marks)
        return "".join(pair for pair in pairs if len(pair) == 1)

    @functools.cached_property
    def characters(self) -> str:
        """Everything but spaces that is left of its texts once they are normalised for scoring."""
        return self.alphabet + self.marked_vowels + self.kept_marks + _DIGITS


@functools.cache
def language() -> Language:
    """The language in use.

    Raises:
        InputError: `SPOKEN_LANGUAGE` is no name of a language here, or its file is faulty.
    """
    return _read(os.environ.get(VARIABLE) or DEFAULT)


@contextlib.contextmanager
def speaking(name: str) -> Iterator[Language]:
    """Use a language within a block, also in the processes that are started there.

    Args:
        name: as in `SPOKEN_LANGUAGE`; "" for the language that is in use.

    Raises:
        InputError: as `language`, or `SPOKEN_LANGUAGE` says another one.
    """
    before = os.environ.get(VARIABLE)
    if name and before and before != name:
        raise InputError(f"the language is to be {name}, and {VARIABLE} says {before}")
    try:
        if name:
            os.environ[VARIABLE] = name
            language.cache_clear()
        yield language()
    finally:
        if name:
            os.environ.pop(VARIABLE)
            if before:
                os.environ[VARIABLE] = before
            language.cache_clear()


def refuse_other_language(normalization: str, *, what: str) -> None:
    """Raise InputError if something was made for another language, or by other rules than those of
    which the language's file says that they are still read.

    Args:
        normalization: `Language.normalization` of what it was made for.
        what: its flag and value, for the message.
    """
    ours = language().normalization
    if normalization == ours or normalization in language().still_read:
        return
    made_for, _, _ = normalization.rpartition("-")
    advice = f"set {VARIABLE}={made_for}" if made_for != language().key else "train it again"
    raise InputError(f"{what} was made for texts in {normalization}, this is {ours}: {advice}")


def _check_dialect(name: str) -> str:
    known = language().all_dialects
    if name not in known:
        raise ValueError(f"must be a dialect of {language().name}: {', '.join(known)}")
    return name


DialectName = Annotated[str, AfterValidator(_check_dialect)]
"""A dialect of the language in use, or "unknown"."""


@functools.cache
def _read(name: str) -> Language:
    path = Path(name)
    is_own = path.suffix == ".toml" or len(path.parts) > 1
    if not is_own:
        path = _SHIPPED / f"{name}.toml"
        if not path.is_file():
            known = sorted(file.stem for file in _SHIPPED.glob("*.toml"))
            hint = nearest_name(name, known)
            raise InputError(f"{VARIABLE}={name}: {hint} (or the path of a .toml file of your own)")
    where = f"{VARIABLE}={name}"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        written = json.dumps(table)
    except OSError as error:
        raise InputError(f"{where}: {error.strerror or error}") from None
    except (ValueError, RecursionError, TypeError) as error:  # no UTF-8, no TOML, or a date in it
        raise InputError(f"{where}: not valid TOML: {error}") from None
    for key in ("key", "normalization", *(["version"] if is_own else [])):
        if key in table:
            raise InputError(f"{where}: {key!r} is not for you to say")
    read = check_json(written, Language, where=where)
    version = _hash(read) if is_own else str(read.version)
    return replace(read, key=path.stem, normalization=f"{path.stem}-{version}")


def _hash(read: Language) -> str:
    """Eight digits that change with what normalised texts depend on."""
    rules: list[Any] = [
        sorted(read.alphabet), sorted(read.vowels), sorted(read.kept_marks), read.look_alikes,
        read.typed_letters, sorted(read.numbers_with_unit),
    ]  # fmt: skip
    if read.typed_letters:
        rules.append(f"typed letters {TYPED_LETTERS_VERSION}")
    if read.word_shape:
        rules.append(asdict(read.word_shape))
    if read.joins_initials:
        rules.append("joins_initials")
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:8]


def _faults(read: Language) -> Iterator[tuple[str, str]]:
    """Names of wrong fields, and what they must be."""
    alphabet = set(read.alphabet)
    texts: dict[str, Any] = {name: getattr(read, name) for name in ("name", "speak", "write")}
    for name, text in texts.items():
        if not text.strip():
            yield name, "filled"
    if not read.codes or not all(code.isascii() and code.isalpha() for code in read.codes):
        yield "codes", 'language codes, as in ["tw", "ak"]'
    if not read.tags or not all(map(str.isidentifier, read.tags)):
        yield "tags", 'plain words, as in ["twi", "akan"]'
    if not all(map(_is_letter, read.alphabet)) or len(alphabet) < len(read.alphabet):
        yield "alphabet", "lower-case letters, each of them one character, and once"
    for name in ("vowels", "loan_letters", "rare_letters"):
        if not set(getattr(read, name)) <= alphabet:
            yield name, "letters of the alphabet"
    if not read.vowels:
        yield "vowels", "filled"
    if not all(map(unicodedata.combining, read.marks)):
        yield "marks", 'combining marks, as in "\\u0303"'
    if not set(read.kept_marks) <= set(read.marks):
        yield "kept_marks", "some of the marks"
    if any(map(str.isalnum, read.punctuation)) or " " not in read.punctuation:
        yield "punctuation", "a space, and characters that are no letters or digits"
    if any(len(typed) != 1 or typed not in f"{_DIGITS})" for typed in read.typed_letters):
        yield "typed_letters", "letters by a digit or `)`"
    if not set(read.typed_letters.values()) <= alphabet:
        yield "typed_letters", "letters of the alphabet, by what is typed for them"
    if any(word not in (word.lower(), word.upper()) for word in read.numbers_with_unit):
        yield "numbers_with_unit", "in lower case or in capitals"
    if read.word_shape and not all(alphabet.issuperset(part) for part in read.word_shape.parts()):
        yield "word_shape", "letters of the alphabet"
    if not all(reason.strip() for reason in read.still_read.values()):
        yield "still_read", "reasons by the normalisations of earlier models"
    if fault := _fault_of_look_alikes(read):
        yield "look_alikes", fault
    if any(not d.isidentifier() or d == UNKNOWN_DIALECT for d in read.dialects):
        yield "dialects", "plain names, without unknown, which is always one"


def _fault_of_look_alikes(read: Language) -> str:
    own = set(read.alphabet + read.alphabet.upper())
    for look_alike, letter in read.look_alikes.items():
        if len(look_alike) != 1 or look_alike.isascii() or look_alike in own:
            return "letters by single characters that are no letters of the alphabet"
        if unicodedata.normalize("NFD", look_alike) != look_alike:
            return "letters by characters without marks"
        if letter not in own:
            return "letters of the alphabet, by what looks like them"
        # Otherwise lower-casing for scoring would bring look-alikes back.
        small = look_alike.lower()
        if small != look_alike and read.look_alikes.get(small) != letter.lower():
            return f"in both cases: also {small!r}, not only {look_alike!r}"
    return ""


def _is_letter(char: str) -> bool:
    is_cased = char.islower() and len(char.upper()) == 1 and char.upper().lower() == char
    return char.isalpha() and is_cased and unicodedata.normalize("NFD", char) == char
