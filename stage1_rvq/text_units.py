"""Units of the CTC recogniser: pieces of words no longer than a syllable.

At 25 frames a second characters are too many (17 a second in fast Twi, and CTC needs a blank
between equal ones) and words too few; syllables come at about 8 a second. Units are byte-pair
merges that never cross a syllable, learned by the `tokenizers` library: frequent syllables are one
unit and rare ones are split, down to letters, so that any word can be read.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_manifests.language import Language, language
from data_manifests.normalization import normalize_for_scoring

BLANK = "<blank>"
UNKNOWN = "<unk>"


def train_units(texts: Iterable[str], num_units: int) -> Tokenizer:
    """Learn the recogniser's units from transcripts.

    Args:
        texts: transcripts; they are normalised for scoring first.
        num_units: size of the vocabulary, blank (id 0) and unknown (id 1) included.

    Returns:
        A tokenizer whose `encode` takes scoring-normalised text and whose `decode` restores it.
    """
    alphabet = _alphabet(language())
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
            pre_tokenizers.Split(Regex(_syllable(language())), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=num_units,
        special_tokens=[BLANK, UNKNOWN],
        initial_alphabet=sorted(alphabet),
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator((normalize_for_scoring(text) for text in texts), trainer)
    return tokenizer


def _alphabet(of: Language) -> str:
    """What is always a unit: every letter of the language, of loanwords and names, but for the
    rarest; "▁" marks a word's start."""
    return "".join(char for char in of.characters if char not in of.rare_letters) + "▁"


def _syllable(of: Language) -> str:
    """Open syllables, and any consonants left at the end of a word."""
    vowels = of.vowels + of.marked_vowels
    mark = f"[{of.kept_marks}]*" if of.kept_marks else ""
    return f"▁?[^{vowels}▁]*[{vowels}]{mark}|▁?[^{vowels}▁]+|▁"
