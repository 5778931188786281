"""Cut texts into sentences: web pages, Bible verses, the examples of a dictionary.

split_sentences("Nsuo yɛ. Ɛyɛ nkwa! Dr. Mensah aba.")
    ->  ["Nsuo yɛ.", "Ɛyɛ nkwa!", "Dr. Mensah aba."]
"""

import functools
import re

from data_manifests.language import Language, language

# Titles of people, with a dot that ends no sentence; Twi abbreviates nothing else.
_TITLES = ("dr", "mr", "mrs", "ms", "rev", "hon", "prof")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without white space around them.

    A line break ends a sentence. Within a line, so do . ! ? and … before white space and a capital
    letter or a digit, but for titles (Dr. Mensah) and initials (J. B. Danquah).
    """
    no_end, ends = _patterns(language())
    sentences = []
    for line in text.split("\n"):
        start = 0
        for match in ends.finditer(line):
            if no_end.search(line[start : match.end()]):
                continue
            sentences.append(line[start : match.end()].strip())
            start = match.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]


@functools.cache
def _patterns(of: Language) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A title, or the initial of a name (J. B. Danquah); and what ends a sentence, with what closes
    a quotation, before what may open the next one."""
    capitals = f"A-Z{of.alphabet.upper()}"
    no_end = re.compile(rf"(?:^|[\s(])(?:(?i:{'|'.join(_TITLES)})|[{capitals}])\.$")
    ends = re.compile(rf"[.!?…]+[\"'”’»)]*(?=\s+[\"'“‘«(]*[{capitals}0-9])")
    return no_end, ends
