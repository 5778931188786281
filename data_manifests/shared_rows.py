"""What a manifest shares with others: recordings, speakers, sentences.

    with other_manifests(paths, manifest, by=SHARED, decode=True, num_workers=0) as others:
        others[0].find_shared(utterance, examination)    # ["recording", "sentence"]

A recording is shared if its samples are equal, or if it says the same and sounds the same
(`audio_fingerprint.py`), whatever its format. In memory are some hashes of each row of the others,
and one of each row of the manifest; fingerprints are on disk.
"""

import base64
import contextlib
import tempfile
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from tqdm import tqdm

from commands.stores import url_of
from data_manifests.audio_defects import AudioDefect
from data_manifests.audio_fingerprint import Fingerprint, fingerprint, is_same_recording
from data_manifests.defects import Examination, Finding, hash_audio
from data_manifests.hash_set import HashSet, hash_text
from data_manifests.held_out import comparison_key
from data_manifests.line_writer import LineWriter, spooled_lines
from data_manifests.manifest import Utterance, decode_utterance, read_manifest
from data_manifests.normalization import normalize_for_scoring
from data_manifests.ordered_map import map_in_order

Shared = Literal["recording", "speaker", "sentence"]
SHARED: tuple[Shared, ...] = get_args(Shared)


@dataclass(frozen=True)
class Heard:
    """What is kept of a recording that was decoded; None of one that could not be."""

    audio_hash: int | None
    fingerprint: bytes | None


class OtherManifest:
    """What another manifest holds; `other_manifests` makes it.

    Attributes:
        path: where it is.
        counts: what is shared -> number of rows that share it.
    """

    def __init__(self, path: Path, by: Sequence[Shared], lines: LineWriter) -> None:
        self.path = path
        self.counts: Counter[Shared] = Counter()
        self._by = by
        self._speakers, self._sentences, self._recordings = HashSet(), HashSet(), HashSet()
        self._lines = lines
        self._spoken, self._begins = array("Q"), array("Q")

    def add(self, utterance: Utterance, heard: Heard, *, is_said: bool) -> None:
        """Note a row of it.

        Args:
            utterance: the row.
            heard: its recording.
            is_said: its sentence is in the manifest, so that recordings are compared.
        """
        self._speakers.add(hash_text(utterance.speaker))
        self._sentences.add(_sentence_hash(utterance))
        if heard.audio_hash is not None:
            self._recordings.add(heard.audio_hash)
        if heard.fingerprint is not None and is_said:
            self._spoken.append(_spoken_hash(utterance))
            line = base64.b64encode(heard.fingerprint) + b"\n"
            self._begins.append(self._lines.write(line))

    def sort(self) -> None:
        """Make what was added findable."""
        order = np.argsort(np.frombuffer(self._spoken, dtype=np.uint64), kind="stable")
        self._spoken = _in_order(self._spoken, order)
        self._begins = _in_order(self._begins, order)

    def find_shared(self, utterance: Utterance, examination: Examination) -> list[Shared]:
        """What a row shares with it; it is counted."""
        found: list[Shared] = []
        if "recording" in self._by and self._has_recording(utterance, examination):
            found.append("recording")
        if "speaker" in self._by and hash_text(utterance.speaker) in self._speakers:
            found.append("speaker")
        if "sentence" in self._by and _sentence_hash(utterance) in self._sentences:
            found.append("sentence")
        self.counts.update(found)
        return found

    def report(self) -> dict[str, int]:
        """How many rows share what with it, of all that is compared."""
        return {what: self.counts[what] for what in SHARED if what in self._by}

    def _has_recording(self, utterance: Utterance, examination: Examination) -> bool:
        if examination.audio_hash is None:
            return False
        if examination.audio_hash in self._recordings:
            return True
        spoken = _spoken_hash(utterance)
        first, end = bisect_left(self._spoken, spoken), bisect_right(self._spoken, spoken)
        if first == end:
            return False
        own = fingerprint(decode_utterance(utterance))
        encoded = self._lines.read(self._begins[first:end])
        others = (Fingerprint.from_bytes(base64.b64decode(line)) for line in encoded)
        return any(is_same_recording(own, other) for other in others)


@contextlib.contextmanager
def other_manifests(
    paths: Sequence[Path],
    manifest: Path,
    *,
    by: Sequence[Shared],
    decode: bool,
    num_workers: int,
) -> Iterator[list[OtherManifest]]:
    """Read other manifests, to find what a manifest shares with them.

    Args:
        paths: the others.
        manifest: the one that is compared with them.
        by: what is compared.
        decode: their recordings are decoded; off, recordings are not compared.
        num_workers: processes that decode.

    Raises:
        InputError: one of them cannot be read.
    """
    decode = decode and "recording" in by
    said = HashSet()
    if paths and decode:
        for utterance in read_manifest(manifest, unique_ids=False):
            said.add(_spoken_hash(utterance))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        others = []
        for number, path in enumerate(paths):
            lines = stack.enter_context(spooled_lines(Path(folder, f"{number}.tmp")))
            other = OtherManifest(path, by, lines)
            utterances = read_manifest(path, unique_ids=False)
            function = hear if decode else _do_not_hear
            heard = map_in_order(function, utterances, num_workers=num_workers if decode else 0)
            for utterance, of_row in tqdm(heard, f"read {path.name}", unit=" utterances"):
                other.add(utterance, of_row, is_said=_spoken_hash(utterance) in said)
            other.sort()
            others.append(other)
        yield others


def hear(utterance: Utterance) -> Heard:
    """Decode a row's recording."""
    try:
        decoded = decode_utterance(utterance)
    except AudioDefect:
        return Heard(None, None)
    return Heard(hash_audio(decoded), fingerprint(decoded).to_bytes())


def find_shared(
    others: Sequence[OtherManifest], utterance: Utterance, examination: Examination
) -> Finding | None:
    """The problem of a row that shares something with others: the first of what it shares."""
    finding = None
    for other in others:
        shared = other.find_shared(utterance, examination)
        if shared and finding is None:
            of_row = {"recording": utterance.audio, "speaker": utterance.speaker}
            reason = f"{of_row.get(shared[0], utterance.text)!r} is in it too"
            finding = Finding(f"{shared[0]} of {url_of(other.path)}", reason)
    return finding


def format_shared(shared: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A table: how many rows share what with each of the others; no line if there are none.

    Args:
        shared: path of another manifest -> what is shared -> number of rows that share it.
    """
    if not shared:
        return []
    line = "  {:>12}{:>12}{:>12}  {}".format
    table = [line(*(f"{what}s" for what in SHARED), "rows that share them with")]
    for path, counts in shared.items():
        table.append(line(*(counts.get(what, "-") for what in SHARED), path))
    return table


def _do_not_hear(utterance: Utterance) -> Heard:
    return Heard(None, None)


def _sentence_hash(utterance: Utterance) -> int:
    return hash_text(normalize_for_scoring(utterance.text))


def _spoken_hash(utterance: Utterance) -> int:
    return hash_text(comparison_key(utterance.text))


def _in_order(values: "array[int]", order: np.ndarray) -> "array[int]":
    return array("Q", np.frombuffer(values, dtype=np.uint64)[order].tobytes())
