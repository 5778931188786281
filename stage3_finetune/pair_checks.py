"""Which questions and answers are used for training, and why others are not."""

from dataclasses import dataclass

from commands.setting_types import PositiveInt
from data_manifests.corpora.instruction_sets import Pair
from data_manifests.corpora.text_tables import holds_half_pair
from data_manifests.language import DialectName
from data_manifests.left_out_rows import LeftOut
from data_manifests.normalization import is_speakable, normalize_for_scoring, normalize_for_training
from data_manifests.text_checks import find_markup, why_foreign, why_unreadable
from data_manifests.twi_dialects import guess_dialect
from stage3_finetune.template_marks import TEMPLATE_MARK

# A text more than this many times its limit is rejected before normalisation, which is slow for a
# whole book.
RAW_LENGTH_LIMIT = 10


@dataclass(frozen=True, kw_only=True)
class CorpusCheckSettings:
    """With --corpus: what is left out, beside markup, English and other languages, and characters
    that nobody reads."""

    max_answer_characters: PositiveInt = 600
    """longer answers are left out: 600 characters take about 40 s to say"""
    dialects: tuple[DialectName, ...] = ()
    """dialects to keep, told by the spelling: in Twi asante, akuapem, fante, unknown (most short
    texts); all if none is given"""


@dataclass(frozen=True)
class CheckedPair:
    """A question and an answer, normalised.

    Attributes:
        question: the question; "" if the pair was given up before.
        answer: the answer.
        left_out: why the pair is not used; None if it is.
    """

    question: str
    answer: str
    left_out: LeftOut | None = None


def check_pair(pair: Pair, max_characters: int, strict: CorpusCheckSettings | None) -> CheckedPair:
    """Normalise a pair, and say whether it can be used.

    Args:
        pair: as the table has it.
        max_characters: of a question.
        strict: the checks of public corpora; None for a user's own table.
    """
    if left_out := _why_not_read(pair, max_characters, strict):
        return CheckedPair("", "", left_out)
    question, answer = (normalize_for_training(text) for text in (pair.question, pair.answer))
    left_out = _why_unusable(question, answer, max_characters)
    if left_out is None and strict is not None:
        left_out = _why_unfit(question, answer, pair, strict)
    return CheckedPair(question, answer, left_out)


def _why_not_read(
    pair: Pair, max_characters: int, strict: CorpusCheckSettings | None
) -> LeftOut | None:
    """What is checked before normalisation."""
    if any(map(holds_half_pair, (pair.question, pair.answer))):
        return LeftOut("no text", "holds half of a surrogate pair, which is no text")
    if len(pair.question) > RAW_LENGTH_LIMIT * max_characters:
        return _too_long("question", pair.question, max_characters)
    if strict is None:
        return None
    if len(pair.answer) > RAW_LENGTH_LIMIT * strict.max_answer_characters:
        return _too_long("answer", pair.answer, strict.max_answer_characters)
    for what, text in (("question", pair.question), ("answer", pair.answer)):
        if not TEMPLATE_MARK.search(text) and (markup := find_markup(text)):
            return LeftOut(f"markup in the {what}", f"{markup} in the {what}")
    return None


def _why_unusable(question: str, answer: str, max_characters: int) -> LeftOut | None:
    if not is_speakable(question):
        return LeftOut("no speakable question")
    if not answer:
        return LeftOut("no answer")
    if len(question) > max_characters:
        return _too_long("question", question, max_characters)
    if mark := TEMPLATE_MARK.search(f"{question} {answer}"):
        kind = "a mark of Gemma's chat template"
        return LeftOut(kind, f"holds {mark[0]}, {kind}")
    return None


def _why_unfit(
    question: str, answer: str, pair: Pair, settings: CorpusCheckSettings
) -> LeftOut | None:
    """What a table of one's own may do, and a public corpus may not."""
    if len(answer) > settings.max_answer_characters:
        return _too_long("answer", answer, settings.max_answer_characters)
    for what, text, english in (
        ("question", question, pair.english_question),
        ("answer", answer, pair.english_answer),
    ):
        if _is_untranslated(text, english):
            return LeftOut(f"{what} not translated")
        if left_out := why_foreign(text, what) or why_unreadable(text, what):
            return left_out
    dialect = guess_dialect(f"{question} {answer}")
    if settings.dialects and dialect not in settings.dialects:
        return LeftOut(f"spelt in {dialect}")
    return None


def _is_untranslated(text: str, english: str) -> bool:
    """Whether a text is the English one, and no name or number, which are the same in both."""
    same = bool(english) and normalize_for_scoring(text) == normalize_for_scoring(english)
    return same and any(word[0].islower() for word in text.split())


def _too_long(what: str, text: str, limit: int) -> LeftOut:
    return LeftOut(f"{what} too long", f"{what} of {len(text)} characters, at most {limit}")
