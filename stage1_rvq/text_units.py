"""Units of the CTC recogniser: pieces of Twi words no longer than a syllable.

At 25 frames a second characters are too many (17 a second in fast speech, and CTC needs a blank
between equal ones) and words too few; syllables come at about 8 a second. Units are byte-pair
merges that never cross a syllable, learned by the `tokenizers` library: frequent syllables are one
unit and rare ones are split, down to letters, so that any word can be read.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_manifests.normalization import normalize_for_scoring

BLANK = "<blank>"
UNKNOWN = "<unk>"
# Every letter is always a unit: those of Twi and Fante, and of loanwords and names.
ALPHABET = "abcdeɛfghijklmnoɔpqrstuvwxyz0123456789▁"
# Open syllables, and any consonants left at the end of a word; "▁" marks a word's start.
SYLLABLE = "▁?[^aeiouɛɔ▁]*[aeiouɛɔ]|▁?[^aeiouɛɔ▁]+|▁"


def train_units(texts: Iterable[str], num_units: int) -> Tokenizer:
    """Learn the recogniser's units from transcripts.

    Args:
        texts: transcripts; they are normalised for scoring first.
        num_units: size of the vocabulary, blank (id 0) and unknown (id 1) included.

    Returns:
        A tokenizer whose `encode` takes scoring-normalised text and whose `decode` restores it.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
            pre_tokenizers.Split(Regex(SYLLABLE), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=num_units,
        special_tokens=[BLANK, UNKNOWN],
        initial_alphabet=sorted(ALPHABET),
        limit_alphabet=len(ALPHABET),
        show_progress=False,
    )
    tokenizer.train_from_iterator((normalize_for_scoring(text) for text in texts), trainer)
    return tokenizer
