"""A compact set of 64-bit hashes, with which a streaming check remembers what it has seen.

A Python set of strings needs over 100 bytes per entry besides the strings; this needs 12 to 24, so
that 30 million utterances (a terabyte of compressed speech) fit into a workstation's memory. Two of
n different items share a hash with a probability of about n²/2⁶⁵: one in 40,000 for 30 million.
"""

import hashlib
from array import array

import numpy as np

INITIAL_SLOTS = 1 << 8


def hash_text(*parts: str) -> int:
    """A 64-bit hash of strings, the same in every process (Python's own `hash` is not)."""
    return hash_bytes("\0".join(parts).encode())


def hash_bytes(content: bytes | memoryview) -> int:
    """A 64-bit hash of a buffer."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


class HashSet:
    """A set of 64-bit hashes in one array: open addressing, at most two thirds of it used."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * INITIAL_SLOTS))
        self._num_hashes = 0

    def __len__(self) -> int:
        return self._num_hashes

    def __contains__(self, hashed: int) -> bool:
        return self._slots[self._slot_of(hashed or 1)] != 0

    def add(self, hashed: int) -> bool:
        """Remember a hash in [0, 2**64); returns whether it is new."""
        hashed = hashed or 1  # 0 marks a free slot
        slot = self._slot_of(hashed)
        if self._slots[slot]:
            return False
        self._slots[slot] = hashed
        self._num_hashes += 1
        if 3 * self._num_hashes > 2 * len(self._slots):
            self._double()
        return True

    def _slot_of(self, hashed: int) -> int:
        """Where a hash lies, or else the free slot where it belongs."""
        slots = self._slots
        last = len(slots) - 1  # the length is a power of two
        slot = hashed & last
        while (found := slots[slot]) and found != hashed:
            slot = (slot + 1) & last
        return slot

    def _double(self) -> None:
        """Move all hashes into an array twice as long, all at once.

        Sorted by the slot that each would like, every hash takes that slot or, if it is taken, the
        one after its predecessor's: where it would lie if they were added in this order.
        """
        before = np.frombuffer(self._slots, dtype=np.uint64)
        hashes = before[before != 0]
        num_slots = 2 * len(before)
        self._slots = array("Q", [0]) * num_slots
        wanted = (hashes & np.uint64(num_slots - 1)).astype(np.int64)
        order = np.argsort(wanted, kind="stable")
        ranks = np.arange(len(hashes))
        slots = np.maximum.accumulate(wanted[order] - ranks) + ranks
        num_inside = int(np.searchsorted(slots, num_slots))
        after = np.frombuffer(self._slots, dtype=np.uint64)
        after[slots[:num_inside]] = hashes[order[:num_inside]]
        for hashed in hashes[order[num_inside:]].tolist():  # those that go on at the beginning
            self._slots[self._slot_of(hashed)] = hashed
