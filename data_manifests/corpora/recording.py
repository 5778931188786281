"""What every recipe yields: an utterance, and its audio where that is not a file of its own yet."""

from collections.abc import Callable
from dataclasses import dataclass

from data_manifests.manifest import Utterance

MAX_TRANSCRIPT_BYTES = 2**16  # of a file that holds the words of one recording
MAX_TABLE_BYTES = 2**28  # of a file that holds those of all

# Called with (row id, reason) for every row a recipe leaves out.
ReportDropped = Callable[[str, str], None]


@dataclass(frozen=True)
class Recording:
    """One usable row of a corpus.

    Attributes:
        utterance: the row. Its split is the corpus's own where the recipe's docstring says that
            these can be trusted, else "train".
        audio_bytes: reads the encoded audio out of an archive or a table; None where
            `utterance.audio` is a file already. Where it is given, `utterance.audio` is the file
            name to write, as in "AsantiTwiFm23-MMuHe3cd-Tmp033-90pZBJ.ogg". Works after the recipe
            has been read to its end; raises InputError where the archive is damaged.
        note: "", or what was done to the row beyond spelling, as in "prompt rewritten: Aane
            (spoken)", the original last.
    """

    utterance: Utterance
    audio_bytes: Callable[[], bytes] | None = None
    note: str = ""


def report_into(dropped: list[dict[str, str]], corpus: str) -> ReportDropped:
    """A `ReportDropped` that adds to a list, as text that can be written: bytes of file names that
    are not UTF-8 become escapes."""

    def report(row: str, reason: str) -> None:
        named = {"corpus": corpus, "id": row, "reason": reason}
        dropped.append(
            {key: text.encode("utf-8", "backslashreplace").decode() for key, text in named.items()}
        )

    return report
