"""What every recipe yields: an utterance, and its audio if that is not yet a file of its own."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from commands.errors import InputError
from data_manifests.manifest import Utterance
from data_manifests.normalization import is_speakable, normalize_for_training

MAX_TRANSCRIPT_BYTES = 2**16  # for a file with the transcript of one recording
MAX_TABLE_BYTES = 2**28  # for a file with the transcripts of all

# Called with (row id, reason) for every row a recipe leaves out.
ReportDropped = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class StoredAudio:
    """Encoded audio inside an archive or a table; calling it reads it.

    Attributes:
        read: reads one member or row; one function for all recordings of an archive or a table.
        place: which one, as `read` takes it.
    """

    read: Callable[[Any], bytes]
    place: int | str

    def __call__(self) -> bytes:
        return self.read(self.place)


@dataclass(frozen=True, slots=True)
class Recording:
    """One usable row of a corpus.

    Attributes:
        utterance: the row. Its split is the corpus's own if the recipe's docstring says that these
            can be trusted, else "train".
        audio_bytes: reads the encoded audio out of an archive or a table; None if `utterance.audio`
            is a file already, by its absolute path without links, or names the recording where it
            stays (`contained_audio.make_reference`). If given, `utterance.audio` is
            the file name to write, as in "AsantiTwiFm23-MMuHe3cd-Tmp033-90pZBJ.ogg". Can still be
            called after the recipe has been read to its end; raises InputError if the archive is
            damaged.
        note: "", or how the row was changed beyond spelling, with the original last, as in "prompt
            rewritten: Aane (spoken)".
    """

    utterance: Utterance
    audio_bytes: StoredAudio | None = None
    note: str = ""


@dataclass(frozen=True)
class CorpusRecordings:
    """The recordings of one --corpus; nothing is read before they are asked for.

    Attributes:
        name: of the corpus.
        source: the same number for all that is read by one recipe; each dataset, table and manifest
            has its own. Recordings of different sources are compared (`same_recordings.py`).
        recordings: its rows.
    """

    name: str
    source: int
    recordings: Iterable[Recording]


def text_to_say(original: str) -> str:
    """A transcript, normalised; InputError, the reason to leave its row out, if it says nothing."""
    text = normalize_for_training(original)
    if not is_speakable(text):
        raise InputError(f"nothing to say in {original.strip()!r}")
    return text


def one_line(error: BaseException) -> str:
    """A library's error message on one line, truncated if long."""
    return " ".join(str(error).split())[:300] or type(error).__name__
