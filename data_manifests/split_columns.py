"""What splitting needs of every utterance: numbers in columns, 38 bytes a row, and no text.

Speakers and sentences are 64-bit hashes (`hash_set.py` says how rarely two are equal). What chance
decides about them is decided here, because it depends on their names.
"""

import hashlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from commands.errors import InputError
from data_manifests.hash_set import hash_text
from data_manifests.manifest import SPLITS, Utterance
from data_manifests.normalization import normalize_for_scoring

TRAIN, DEV, TEST = range(len(SPLITS))
"""Splits as numbers: their positions in `SPLITS`."""

HeldOut = Literal["speaker", "sentence", "recording"]
HELD_OUT: tuple[HeldOut, ...] = get_args(HeldOut)


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How a mixture of corpora is split.

    Attributes:
        seed: another seed gives another split.
        dev_fraction: share of speakers (or sentences) for dev, in [0, 1).
        test_fraction: share for test, in [0, 1).
        hold_out: what is held out of every corpus: its speakers; its sentences only, so that a
            speaker may be in every split, for a corpus with one voice; its recordings only, so that
            a sentence may be in every split too, for a few commands said many times.
        hold_out_of: corpus -> what is held out of it in place of that. Of one with few speakers,
            some are held out all the same.
        with_own_splits: names of the corpora whose own splits are kept.
        test_speakers: names of speakers who are in test, and nowhere else, in whatever corpus.
        dev_speakers: likewise in dev.
        max_hours: corpus -> the most hours of it to train on; dev and test do not depend on it.
    """

    seed: int
    dev_fraction: float
    test_fraction: float
    hold_out: HeldOut = "speaker"
    hold_out_of: Mapping[str, HeldOut] = field(default_factory=dict)
    with_own_splits: tuple[str, ...] = ()
    test_speakers: frozenset[str] = frozenset()
    dev_speakers: frozenset[str] = frozenset()
    max_hours: Mapping[str, float] = field(default_factory=dict)

    def held_out_of(self, corpus: str) -> HeldOut:
        """What is held out of a corpus."""
        return self.hold_out_of.get(corpus, self.hold_out)

    @property
    def names_speakers(self) -> bool:
        """Whether speakers are held out by name."""
        return bool(self.test_speakers or self.dev_speakers)

    @property
    def holds_out_recordings(self) -> bool:
        """Whether recordings are held out of some corpus."""
        return "recording" in (self.hold_out, *self.hold_out_of.values())


class SplitColumns:
    """A row for every utterance of a mixture, in the order in which they are added.

    Attributes:
        settings: as given.
        corpora: names of the corpora, in the order in which they first occur.
    """

    def __init__(self, settings: SplitSettings) -> None:
        self.settings = settings
        self.corpora: list[str] = []
        self._corpus = array("H")  # position in `corpora`
        self._own_split = array("B")
        self._speaker, self._sentence = array("Q"), array("Q")
        # The splits that they hash to.
        self._drawn_by_speaker, self._drawn_by_sentence = array("B"), array("B")
        self._duration_s = array("d")
        self._named_split, self._drawn_by_id = array("B"), array("B")
        # In the order of these, training hours are filled up; 0 where nothing is capped.
        self._turn = array("Q")

    def add(self, utterance: Utterance) -> None:
        """Append an utterance; `split` matters only in a corpus whose own splits are kept."""
        sentence = normalize_for_scoring(utterance.text)
        self._corpus.append(self._position_of(utterance.corpus))
        self._own_split.append(SPLITS.index(utterance.split))
        self._speaker.append(hash_text(utterance.speaker))
        self._sentence.append(hash_text(sentence))
        self._drawn_by_speaker.append(self._draw(utterance.speaker))
        self._drawn_by_sentence.append(self._draw(sentence))
        self._duration_s.append(utterance.duration_s)
        if self.settings.names_speakers:
            self._named_split.append(self._named_split_of(utterance.speaker))
        if self.settings.holds_out_recordings:
            self._drawn_by_id.append(self._draw(f"recording\0{utterance.corpus}\0{utterance.id}"))
        if self.settings.max_hours:
            is_capped = utterance.corpus in self.settings.max_hours
            key = f"cap\0{utterance.corpus}\0{utterance.id}"
            self._turn.append(self._hash(key) if is_capped else 0)

    def __len__(self) -> int:
        return len(self._corpus)

    def refuse_unknown_speakers(self) -> None:
        """Raise InputError if a speaker who is held out by name is not there."""
        known = set(self.speaker[self.named_split != TRAIN]) if self.settings.names_speakers else {}
        for flag, names in (
            ("--test-speakers", self.settings.test_speakers),
            ("--dev-speakers", self.settings.dev_speakers),
        ):
            if unknown := sorted(name for name in names if hash_text(name) not in known):
                raise InputError(
                    f"{flag}: nobody is called {unknown[0]!r} in these corpora: speakers are named "
                    "as in the manifests that build writes"
                )

    @property
    def corpus(self) -> np.ndarray:
        """Positions in `corpora`, uint16."""
        return np.frombuffer(self._corpus, dtype=np.uint16)

    @property
    def own_split(self) -> np.ndarray:
        """The corpus's own splits, uint8."""
        return np.frombuffer(self._own_split, dtype=np.uint8)

    @property
    def speaker(self) -> np.ndarray:
        """Hashes of the speakers, uint64."""
        return np.frombuffer(self._speaker, dtype=np.uint64)

    @property
    def sentence(self) -> np.ndarray:
        """Hashes of the sentences, as normalised for scoring, uint64."""
        return np.frombuffer(self._sentence, dtype=np.uint64)

    @property
    def drawn_by_speaker(self) -> np.ndarray:
        """The splits that the speakers hash to, uint8."""
        return np.frombuffer(self._drawn_by_speaker, dtype=np.uint8)

    @property
    def drawn_by_sentence(self) -> np.ndarray:
        """The splits that the sentences hash to, uint8."""
        return np.frombuffer(self._drawn_by_sentence, dtype=np.uint8)

    @property
    def named_split(self) -> np.ndarray:
        """The splits of speakers who are held out by name, `TRAIN` for all others, uint8; empty if
        there are none."""
        return np.frombuffer(self._named_split, dtype=np.uint8)

    @property
    def drawn_by_id(self) -> np.ndarray:
        """The splits that the recordings' ids hash to, uint8; empty if no recordings are held
        out."""
        return np.frombuffer(self._drawn_by_id, dtype=np.uint8)

    def spare_turn(self) -> np.ndarray:
        """In whose order sentences are held out where chance has held out none, uint64."""
        return self.sentence ^ np.uint64(self._hash("spare"))

    def speaker_turn(self) -> np.ndarray:
        """In whose order speakers are held out of a corpus that has few, uint64."""
        return self.speaker ^ np.uint64(self._hash("speakers"))

    @property
    def duration_s(self) -> np.ndarray:
        """Durations in seconds, float64."""
        return np.frombuffer(self._duration_s, dtype=np.float64)

    @property
    def turn(self) -> np.ndarray:
        """In whose order training hours are filled up, uint64; empty if no corpus is capped."""
        return np.frombuffer(self._turn, dtype=np.uint64)

    def num_distinct(self, values: np.ndarray, corpus: str) -> int:
        """Number of distinct speakers, or sentences, of a corpus."""
        return len(np.unique(values[self.corpus == self.corpora.index(corpus)]))

    def _position_of(self, corpus: str) -> int:
        if corpus not in self.corpora:
            self.corpora.append(corpus)
        return self.corpora.index(corpus)

    def _named_split_of(self, speaker: str) -> int:
        if speaker in self.settings.test_speakers:
            return TEST
        return DEV if speaker in self.settings.dev_speakers else TRAIN

    def _draw(self, key: str) -> int:
        """The split that a speaker or a sentence hashes to."""
        fraction = self._hash(key) / 2**64
        if fraction < self.settings.test_fraction:
            return TEST
        return DEV if fraction < self.settings.test_fraction + self.settings.dev_fraction else TRAIN

    def _hash(self, key: str) -> int:
        """64 bits that depend on seed and key alone, the same on every machine."""
        digest = hashlib.sha256(f"{self.settings.seed}\0{key}".encode()).digest()
        return int.from_bytes(digest[:8], "big")
