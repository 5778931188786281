"""Cut texts into sentences: web pages, Bible verses, the examples of a dictionary.

split_sentences("Nsuo yɛ. Ɛyɛ nkwa! Dr. Mensah aba.")
    ->  ["Nsuo yɛ.", "Ɛyɛ nkwa!", "Dr. Mensah aba."]
"""

import re

# Titles of people, with a dot that ends no sentence; Twi abbreviates nothing else.
_TITLES = ("dr", "mr", "mrs", "ms", "rev", "hon", "prof")
# Such a title, or the initial of a name: J. B. Danquah.
_NO_END = re.compile(rf"(?:^|[\s(])(?:(?i:{'|'.join(_TITLES)})|[A-ZƐƆ])\.$")
# What ends a sentence, with what closes a quotation, before what may open the next one.
_END = re.compile(r"[.!?…]+[\"'”’»)]*(?=\s+[\"'“‘«(]*[A-ZƐƆŊ0-9])")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without white space around them.

    A line break ends a sentence. Within a line, so do . ! ? and … before white space and a capital
    letter or a digit, but for titles (Dr. Mensah) and initials (J. B. Danquah).
    """
    sentences = []
    for line in text.split("\n"):
        start = 0
        for match in _END.finditer(line):
            if _NO_END.search(line[start : match.end()]):
                continue
            sentences.append(line[start : match.end()].strip())
            start = match.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]
