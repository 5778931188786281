"""Train, dev and test: assigned by hashing, so that a corpus added later never moves an utterance.

Held out means held out twice: no normalised sentence is in two splits, and, where there are
speakers enough, no speaker either.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_manifests.manifest import Utterance
from data_manifests.twi_text import normalize_for_scoring

# With fewer speakers a tenth of them is nobody: splits are then disjoint by sentence only.
MIN_SPEAKERS_TO_SPLIT = 20


@dataclass(frozen=True)
class SplitCorpus:
    """Utterances with their split, and what had to be left out to keep the splits apart."""

    utterances: list[Utterance]
    leaked: list[Utterance]
    by_speaker: bool


def assign_splits(
    utterances: Sequence[Utterance], *, seed: int, dev_fraction: float, test_fraction: float
) -> SplitCorpus:
    """Split one corpus by speaker where it has at least 20 of them, else by sentence.

    The split of a speaker or sentence depends on its own hash and the seed alone. Where a sentence
    is read by speakers of several splits, it gets a split of its own in the same way and stays
    there; its recordings by speakers of other splits are left out. No utterance ever changes its
    split when others are added: at most it is left out.

    Args:
        utterances: one corpus; their `split` is replaced.
        seed: another seed gives another split.
        dev_fraction: share of speakers (or sentences) for dev, in [0, 1).
        test_fraction: share for test, in [0, 1).

    Returns:
        The utterances with `split` set, and those left out to keep sentences apart.
    """

    def split_of(key: str) -> str:
        position = _hash_fraction(seed, key)
        if position < test_fraction:
            return "test"
        return "dev" if position < test_fraction + dev_fraction else "train"

    by_speaker = len({u.speaker for u in utterances}) >= MIN_SPEAKERS_TO_SPLIT
    sentences = [normalize_for_scoring(u.text) for u in utterances]
    keys = [u.speaker for u in utterances] if by_speaker else sentences
    splits_of_sentence: dict[str, set[str]] = {}
    for sentence, key in zip(sentences, keys, strict=True):
        splits_of_sentence.setdefault(sentence, set()).add(split_of(key))
    kept: list[Utterance] = []
    leaked: list[Utterance] = []
    for utterance, sentence, key in zip(utterances, sentences, keys, strict=True):
        split = split_of(key)
        shared = len(splits_of_sentence[sentence]) > 1
        belongs = not shared or split_of(sentence) == split
        (kept if belongs else leaked).append(replace(utterance, split=split))
    return SplitCorpus(kept, leaked, by_speaker)


def count_splits(utterances: Sequence[Utterance]) -> Counter[str]:
    """Number of utterances per split."""
    return Counter(u.split for u in utterances)


def _hash_fraction(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on seed and key alone, the same on every machine."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
