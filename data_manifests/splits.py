"""Train, dev and test: assigned by hashing, so that a corpus added later never moves an utterance.

Data is held out in two ways: no speaker and no normalised sentence is in two splits, across all
corpora in the mixture. Utterances that cannot satisfy both are left out and counted.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from data_manifests.manifest import Utterance
from data_manifests.twi_text import normalize_for_scoring

# A corpus with fewer speakers is used for training only: a tenth of them would be nobody, or its
# one main voice.
MIN_SPEAKERS_TO_SPLIT = 20

HeldOut = Literal["speaker", "sentence"]


@dataclass(frozen=True)
class SplitCorpus:
    """Utterances with their split, and what had to be left out to keep the splits apart.

    Attributes:
        utterances: those in train, dev and test.
        seen_prompts: recordings of test speakers whose sentence is trained on, read by others: a
            second, easier test set, never to be merged with the first. Split "test".
        left_out: utterances whose speaker and sentence belong to different splits.
        surplus: utterances beyond the training hours allowed for their corpus.
    """

    utterances: list[Utterance]
    seen_prompts: list[Utterance]
    left_out: list[Utterance]
    surplus: list[Utterance]


def assign_splits(
    utterances: Sequence[Utterance],
    *,
    seed: int,
    dev_fraction: float,
    test_fraction: float,
    hold_out: HeldOut = "speaker",
    with_own_splits: Collection[str] = (),
    max_hours: Mapping[str, float] | None = None,
) -> SplitCorpus:
    """Split a mixture of corpora by speaker and by sentence.

    Every utterance has one possible split, which depends only on itself, its corpus and the seed:
    the corpus's own split if that can be trusted; train if the corpus has fewer than
    `MIN_SPEAKERS_TO_SPLIT` speakers; otherwise the split that its speaker hashes to. If utterances
    of one speaker, or of one sentence, have different possible splits, one of these wins (a
    held-out split of the corpus's own, else by the hash of the speaker or sentence), and the
    utterances with another are left out. So adding corpora later never moves an utterance to
    another split.

    Args:
        utterances: of all corpora; `split` is read only for those in `with_own_splits`.
        seed: another seed gives another split.
        dev_fraction: share of speakers (or sentences) for dev, in [0, 1).
        test_fraction: share for test, in [0, 1).
        hold_out: "sentence" holds out sentences only, and speakers may be in every split: for a
            corpus with one voice.
        with_own_splits: names of the corpora whose own splits are kept.
        max_hours: corpus -> the most hours of it to train on; dev and test do not depend on it.
    """

    def hashed(key: str) -> str:
        position = _hash_fraction(seed, key)
        if position < test_fraction:
            return "test"
        return "dev" if position < test_fraction + dev_fraction else "train"

    sentences = [normalize_for_scoring(utterance.text) for utterance in utterances]
    placed = _place(utterances, sentences, hashed, hold_out, with_own_splits)
    pinned = [u.split if u.corpus in with_own_splits else "train" for u in placed]
    of_sentence = _settle(sentences, placed, pinned, hashed)
    of_speaker = {}
    if hold_out == "speaker":
        of_speaker = _settle([u.speaker for u in placed], placed, pinned, hashed)
    kept, seen, left_out = [], [], []
    for utterance, sentence in zip(placed, sentences, strict=True):
        if of_speaker.get(utterance.speaker, utterance.split) != utterance.split:
            left_out.append(utterance)
        elif of_sentence[sentence] == utterance.split:
            kept.append(utterance)
        elif utterance.split == "test" and of_sentence[sentence] == "train":
            seen.append(utterance)
        else:
            left_out.append(utterance)
    kept, surplus = _cap_training_hours(kept, max_hours or {}, seed)
    trained = {normalize_for_scoring(u.text) for u in kept if u.split == "train"}
    left_out += [u for u in seen if normalize_for_scoring(u.text) not in trained]
    seen = [u for u in seen if normalize_for_scoring(u.text) in trained]
    return SplitCorpus(kept, seen, left_out, surplus)


def _place(
    utterances: Sequence[Utterance],
    sentences: Sequence[str],
    hashed: Callable[[str], str],
    hold_out: HeldOut,
    with_own_splits: Collection[str],
) -> list[Utterance]:
    """The utterances with the one split that is possible for each of them."""
    speakers: defaultdict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        speakers[utterance.corpus].add(utterance.speaker)

    def possible(utterance: Utterance, sentence: str) -> str:
        if utterance.corpus in with_own_splits:
            return utterance.split
        if hold_out == "sentence":
            return hashed(sentence)
        if len(speakers[utterance.corpus]) < MIN_SPEAKERS_TO_SPLIT:
            return "train"
        return hashed(utterance.speaker)

    return [
        replace(u, split=possible(u, sentence))
        for u, sentence in zip(utterances, sentences, strict=True)
    ]


def _cap_training_hours(
    utterances: Sequence[Utterance], max_hours: Mapping[str, float], seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Those kept, and the surplus: chosen by hash, so that a larger cap keeps the same ones and
    more."""
    position = {u.id: _hash_fraction(seed, f"cap\0{u.corpus}\0{u.id}") for u in utterances}
    seconds: defaultdict[str, float] = defaultdict(float)
    full: set[str] = set()
    surplus: set[tuple[str, str]] = set()
    for u in sorted(utterances, key=lambda u: (position[u.id], u.id)):
        if u.split == "train" and u.corpus in max_hours:
            # Stop at the first that does not fit, so that a larger cap only adds utterances.
            if seconds[u.corpus] + u.duration_s > 3600 * max_hours[u.corpus]:
                full.add(u.corpus)
            if u.corpus in full:
                surplus.add((u.corpus, u.id))
            else:
                seconds[u.corpus] += u.duration_s
    kept = [u for u in utterances if (u.corpus, u.id) not in surplus]
    return kept, [u for u in utterances if (u.corpus, u.id) in surplus]


def _settle(
    keys: Sequence[str],
    placed: Sequence[Utterance],
    pinned: Sequence[str],
    hashed: Callable[[str], str],
) -> dict[str, str]:
    """Choose one split for each speaker, or sentence, among those possible for its utterances."""
    candidates: defaultdict[str, set[str]] = defaultdict(set)
    held_out: defaultdict[str, set[str]] = defaultdict(set)
    for key, utterance, own in zip(keys, placed, pinned, strict=True):
        candidates[key].add(utterance.split)
        if own != "train":
            held_out[key].add(own)
    settled = {}
    for key, splits in candidates.items():
        if len(splits) == 1:
            (settled[key],) = splits
        elif held_out[key]:
            settled[key] = max(held_out[key])  # "test" before "dev"
        else:
            drawn = hashed(key)
            settled[key] = drawn if drawn in splits else "train"
    return settled


def _hash_fraction(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on seed and key alone, the same on every machine."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
