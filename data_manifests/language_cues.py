"""What tells words and texts of the language from English and from those of its neighbours."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, eq=False)
class Cues:
    """What tells texts of the language from English and from its neighbours.

    Attributes:
        words: frequent words of the language that are in no English text.
        letters: letters that no English word has: each word with one is a cue.
        other_words: frequent words of languages whose texts get mixed up with it.
        absent: letters of no word of the language, as in English words.
        never_final: letters that end no word of the language.
    """

    words: tuple[str, ...] = ()
    letters: str = ""
    other_words: tuple[str, ...] = ()
    absent: str = ""
    never_final: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeSwitching:
    """What keeps words of the language from being taken for English ones.

    Attributes:
        own_words: words of the language, also if English spells one alike.
        shared_words: words that are frequent in both: their neighbours decide.
    """

    own_words: tuple[str, ...] = ()
    shared_words: tuple[str, ...] = ()
