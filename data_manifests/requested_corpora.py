"""The corpora that `data_manifests.build` was asked for: refused if they cannot be right, and
opened by the recipe of each."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from commands.errors import InputError
from data_manifests.build_settings import DESCRIBED, CorpusSource
from data_manifests.corpora.audio_dataset import audio_dataset
from data_manifests.corpora.bibletts import bibletts, refuse_unpacking
from data_manifests.corpora.common_voice import common_voice
from data_manifests.corpora.converted_audio import ConvertedAudio
from data_manifests.corpora.dataset_rows import refuse_hub
from data_manifests.corpora.dropped_rows import DroppedRows
from data_manifests.corpora.fisd import fisd
from data_manifests.corpora.own_manifest import own_manifest
from data_manifests.corpora.own_table import own_table
from data_manifests.corpora.recording import CorpusRecordings, Recording, ReportDropped
from data_manifests.corpora.ugspeechdata import ugspeechdata
from data_manifests.corpora.waxal import waxal
from data_manifests.manifest import read_manifest

CORPORA_WITH_OWN_SPLITS = ("waxal_aka_asr",)


def refuse_impossible(corpora: Sequence[CorpusSource], out: Path, *, copy_audio: bool) -> None:
    """Raise InputError, before a folder is created, if the corpora named cannot be right."""
    if not corpora:
        raise InputError("no corpus given: name at least one, as in --corpus common_voice=FOLDER")
    if {"ugspeechdata", "waxal_aka_asr"} <= {corpus.kind for corpus in corpora}:
        raise InputError(
            "--corpus ugspeechdata=... and waxal_aka_asr=...: WAXAL's spontaneous Akan was made "
            "from UGSpeechData, so WAXAL's test recordings would be trained on; leave one out"
        )
    unpacked: set[Path] = set()
    for corpus in corpora:
        if not copy_audio and corpus.kind.startswith("bibletts_"):
            refuse_unpacking(Path(corpus.path))
        if not copy_audio and corpus.kind.startswith(("waxal_", "dataset")):
            refuse_hub(corpus.path)
        if corpus.kind.startswith("bibletts_"):
            into = _unpacked_folder(out, corpus)
            if into in unpacked:
                raise InputError(
                    f"--corpus {corpus.kind}=...: two archives named {into.name}; rename one"
                )
            unpacked.add(into)


def refuse_unknown_names(corpora: Sequence[CorpusSource], named: dict[str, Iterable[str]]) -> None:
    """Raise InputError if a setting names a corpus that is not there.

    Args:
        corpora: those that are.
        named: flag -> names of corpora.
    """
    if not any(named.values()):
        return
    names = {corpus.name for corpus in corpora}
    for corpus in corpora:
        if corpus.kind == "manifest":
            names |= {utterance.corpus for utterance in read_manifest(Path(corpus.path))}
    for flag, of_flag in named.items():
        if unknown := set(of_flag) - names:
            given = ", ".join(sorted(names))
            raise InputError(f"{flag}: {min(unknown)!r} is none of the corpora given: {given}")


def open_corpora(
    corpora: Sequence[CorpusSource],
    dropped: DroppedRows,
    *,
    out: Path,
    common_voice_tables: Sequence[str],
    copy_audio: bool,
    converted: ConvertedAudio,
) -> Iterator[CorpusRecordings]:
    """The recordings of every corpus.

    Args:
        corpora: in the order in which they are to be read.
        dropped: takes the rows that recipes leave out.
        out: the folder in which archives are unpacked.
        common_voice_tables: which tables of Common Voice are read.
        copy_audio: off, recordings stay where they are.
        converted: keeps what had to be converted until it is copied.
    """
    numbers: dict[str, int] = {}
    for number, corpus in enumerate(corpora):
        is_one_of_many = corpus.kind in (*DESCRIBED, "manifest")
        key = f"{corpus.kind} {number}" if is_one_of_many else corpus.kind
        source = numbers.setdefault(key, len(numbers))
        report_dropped = dropped.reporter(corpus.name)
        kind, _, part = corpus.kind.partition("_")
        path = Path(corpus.path)
        recordings: Iterable[Recording]
        if kind == "fisd":
            recordings = fisd(path, report_dropped, dialect=part, copy_audio=copy_audio)
        elif kind == "bibletts":
            recordings = bibletts(
                path, report_dropped, dialect=part, unpack_into=_unpacked_folder(out, corpus),
                copy_audio=copy_audio,
            )  # fmt: skip
        elif kind == "waxal":
            recordings = waxal(corpus.path, report_dropped, config=part, copy_audio=copy_audio)
        elif corpus.kind == "common_voice":
            recordings = common_voice(path, report_dropped, tables=common_voice_tables)
        elif corpus.kind == "ugspeechdata":
            recordings = ugspeechdata(path, report_dropped)
        elif corpus.kind == "manifest":
            recordings = own_manifest(path, report_dropped)
        elif corpus.kind == "table":
            recordings = own_table(
                path, report_dropped, corpus=corpus.name, columns=corpus.columns,
                dialect=corpus.dialect, license=corpus.license,
                converted=converted if copy_audio else None,
            )  # fmt: skip
        else:
            recordings = _any_dataset(corpus, report_dropped, copy_audio=copy_audio)
        yield CorpusRecordings(corpus.name, source, recordings)


def _any_dataset(
    corpus: CorpusSource, report_dropped: ReportDropped, *, copy_audio: bool
) -> Iterable[Recording]:
    return audio_dataset(
        corpus.path,
        report_dropped,
        corpus=corpus.name,
        dialect=corpus.dialect,
        license=corpus.license,
        config=corpus.config or None,
        audio_column=corpus.columns["audio"],
        text_column=corpus.columns["text"],
        speaker_column=corpus.columns.get("speaker"),
        id_column=corpus.columns.get("id"),
        dialect_column=corpus.columns.get("dialect"),
        copy_audio=copy_audio,
    )


def _unpacked_folder(out: Path, corpus: CorpusSource) -> Path:
    archive = Path(corpus.path).name.partition(".")[0][:100] or "archive"
    return out / "audio" / corpus.kind / archive
