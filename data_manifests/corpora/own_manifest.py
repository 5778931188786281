"""A manifest as a corpus among others: what somebody has prepared already."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from commands.errors import InputError
from commands.stores import is_url
from data_manifests.contained_audio import find_reference, name_in_manifest
from data_manifests.corpora.recording import Recording, ReportDropped, text_to_say
from data_manifests.manifest import Utterance, read_manifest


def own_manifest(path: Path, report_dropped: ReportDropped) -> Iterator[Recording]:
    """Rows of a manifest, under the corpus, speaker, dialect and licence that they name.

    Their recordings stay where they are. `split` is theirs; `data_manifests.build` keeps it for the
    corpora of --keep-splits.

    Args:
        path: the manifest.
        report_dropped: called for every row that is left out.

    Raises:
        InputError: as `read_manifest`.
    """
    for utterance in read_manifest(path):
        try:
            recording = Recording(_with_own_path(utterance))
        except InputError as error:
            report_dropped(utterance.id, str(error))
            continue
        yield recording


def _with_own_path(utterance: Utterance) -> Utterance:
    """The row, its audio named from anywhere; raises InputError with the reason to leave it out."""
    audio = Path(utterance.audio)
    is_file = not is_url(audio) and find_reference(audio) is None
    if is_file and not audio.is_file():
        raise InputError(f"{audio}: no such audio file")
    named = name_in_manifest(audio if is_url(audio) else audio.absolute())
    return replace(utterance, text=text_to_say(utterance.text), audio=named, origin="")
