"""Which questions and sentences are held out: never trained on, so that models can be tested with
them.

    is_held_out("Ɛdeɛn na ɛma nsuo huru?", share=0.05)

Decided once and for all by a hash of the normalised text: no seed, no setting, no list. So a
question is on the same side in every corpus, every command and on every machine, and a corpus that
is added later moves nothing. `tests/golden/held_out.tsv` pins it.

What differs only in case, punctuation, tone marks, typed letters, word division, or in e and o for
ɛ and ɔ, is the same text here. What differs in a word or two may fall on the other side:
`NearDuplicates` finds such texts among those to train on, and they are left out.
"""

# N texts that are held out

import hashlib
import math
from array import array
from collections.abc import Iterable

from data_manifests.normalization import normalize_for_scoring

HELD_OUT_QUESTIONS = 0.05
HELD_OUT_SENTENCES = 0.01
"""Shares that are held out. What is held out of sentences would be held out of questions too."""

MIN_SIMILARITY = 0.7
"""Texts are nearly the same if they share so much of their pieces (Jaccard index). In AfriQA, pairs
above it differ in one name or number; below 0.6 are different questions of one pattern."""
PIECE_LENGTH = 4
_SALT = "held out, version 1"
_OPEN_LETTERS = str.maketrans("ɛɔ", "eo")


def comparison_key(text: str) -> str:
    """What is compared of a text: letters and digits without spaces, with e and o for ɛ and ɔ."""
    return normalize_for_scoring(text).translate(_OPEN_LETTERS).replace(" ", "")


def is_held_out(text: str, *, share: float) -> bool:
    """Whether a text is held out; what is held out of a share is held out of every larger one.

    Args:
        text: a question or a sentence, normalised or not.
        share: of all texts, in [0, 1].
    """
    digest = hashlib.sha256(f"{_SALT}\0{comparison_key(text)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


class NearDuplicates:
    """Finds the held-out text that another text is nearly the same as.

    Exact, not probable: of two similar texts, one of the rarest pieces of one is among the rarest
    of the other, so only these are indexed (prefix filtering; Chaudhuri et al., "A Primitive
    Operator for Similarity Joins in Data Cleaning", ICDE 2006). In memory are some hundred bytes of
    each held-out text, and nothing of the texts that are compared with them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Index the held-out texts."""
        self._ids: dict[str, int] = {}  # of each piece
        self._counts = array("I")  # in how many texts a piece is
        self._pieces_N: list[array[int]] = []
        for text in texts:
            pieces = [self._ids.setdefault(p, len(self._ids)) for p in _pieces(text)]
            self._counts.extend([0] * (len(self._ids) - len(self._counts)))
            for piece in pieces:
                self._counts[piece] += 1
            self._pieces_N.append(array("I", pieces))
        self._places: dict[int, array[int]] = {}  # rare piece -> numbers of the texts with it
        for number, indexed in enumerate(self._pieces_N):
            for piece in self._rarest(indexed, num_unknown=0):
                self._places.setdefault(piece, array("I")).append(number)

    def find(self, text: str) -> int | None:
        """The number of the held-out text that is most like this one, the first of several; None
        if none is similar enough."""
        pieces = _pieces(text)
        known = {self._ids[piece] for piece in pieces if piece in self._ids}
        rarest = self._rarest(known, num_unknown=len(pieces) - len(known))
        best, found = MIN_SIMILARITY, None
        for number in sorted({n for piece in rarest for n in self._places.get(piece, ())}):
            num_shared = len(known.intersection(self._pieces_N[number]))
            similarity = num_shared / (len(pieces) + len(self._pieces_N[number]) - num_shared)
            if similarity > best or (found is None and similarity == best):
                best, found = similarity, number
        return found

    def _rarest(self, known: Iterable[int], *, num_unknown: int) -> list[int]:
        """So many of a text's rarest pieces that a similar text has one of them among its own.

        Args:
            known: its pieces that are in held-out texts.
            num_unknown: how many others it has, which are rarer still.
        """
        order = sorted(known, key=lambda piece: (self._counts[piece], piece))
        num_pieces = len(order) + num_unknown
        num_shared = math.ceil(MIN_SIMILARITY * num_pieces)  # with a similar text, at least
        return order[: max(0, num_pieces - num_shared + 1 - num_unknown)]


def _pieces(text: str) -> set[str]:
    """Every run of four characters of a text's key; a shorter key is one piece."""
    key = comparison_key(text)
    return {key[i : i + PIECE_LENGTH] for i in range(max(1, len(key) - PIECE_LENGTH + 1))}
