"""Corpora -> train, dev and test manifests with splits that do not overlap.

    python -m data_manifests.build --corpus common_voice=cv-corpus/tw --hold-out sentence \
        --out data/cv
    python -m data_manifests.build --corpus fisd_asante=fisd-asanti-twi-90p.zip \
        bibletts_asante=asante-twi.tgz --max-hours fisd_asante=30 --out data/mixed
    python -m data_manifests.build --corpus table=recordings.csv --hold-out sentence --out data/own

Writes `train.jsonl`, `dev.jsonl`, `test.jsonl`, where applicable `test_seen_prompts.jsonl` (test
speakers reading sentences that are trained on), `dropped.jsonl` (every row left out, and why),
`rewritten.jsonl` (transcripts in which more than the spelling was changed) and `audio/` (recordings
copied from an archive or a table; with `--no-copy-audio` the manifests name them where they lie).
The splits are always the same for the same seed: see `data_manifests/splits.py`.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from commands.atomic_write import ASIDE_SUFFIX
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.licenses import LicenseName
from commands.run_folder import run_folder
from commands.setting_types import Probability, Seed
from data_manifests.build_settings import (
    DatasetSettings,
    LabelSettings,
    columns_of,
    corpora_of,
    hours_of,
    licenses_of,
)
from data_manifests.corpora.audio_dataset import audio_dataset
from data_manifests.corpora.bibletts import bibletts, refuse_unpacking
from data_manifests.corpora.collect import CollectedRecordings, collect_recordings
from data_manifests.corpora.common_voice import COMMON_VOICE_TABLES, common_voice
from data_manifests.corpora.dataset_rows import refuse_hub
from data_manifests.corpora.dropped_rows import DroppedRows
from data_manifests.corpora.fisd import fisd
from data_manifests.corpora.own_manifest import own_manifest
from data_manifests.corpora.own_table import own_table
from data_manifests.corpora.recording import Recording, ReportDropped
from data_manifests.corpora.recording_spool import RecordingSpool
from data_manifests.corpora.ugspeechdata import ugspeechdata
from data_manifests.corpora.waxal import waxal
from data_manifests.line_writer import lines_written_aside, spooled_lines
from data_manifests.manifest import read_manifest
from data_manifests.speaker_dialects import SpeakerDialects
from data_manifests.split_columns import HeldOut, SplitColumns, SplitSettings
from data_manifests.split_manifests import list_left_out, write_manifests
from data_manifests.split_summary import summarize_splits
from data_manifests.splits import KEPT, assign_splits

CORPORA_WITH_OWN_SPLITS = ("waxal_aka_asr",)


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Prepare Twi corpora, one or several together: manifests for training, development and test,
    disjoint by speaker and by sentence."""

    out: Path
    """new folder for the manifests, and for audio copied from archives"""
    corpus: tuple[str, ...] = ()
    """NAME=PATH of each corpus; a name may occur several times:
    fisd_asante, fisd_akuapem, fisd_fante: a zip, or the folder it unpacks to
    bibletts_asante, bibletts_akuapem: a tgz from OpenSLR 129, or the folder it unpacks to
    waxal_aka_asr, waxal_twi_tts, waxal_fat_tts: google/WaxalNLP, or a folder with its Parquet files
    common_voice: the folder that holds clips/
    ugspeechdata: unpacked, audio and transcripts
    dataset: any other Hugging Face audio dataset, by name or local path
    table: your own recordings: a CSV, TSV or JSONL file with the columns audio and text
    manifest: train.jsonl of another build, or one of your own"""
    common_voice_tables: tuple[str, ...] = ("validated",)
    """which tables of common_voice to use: validated, other (no votes yet), invalidated (voted
    down)"""
    dataset: DatasetSettings = DatasetSettings()
    copy_audio: bool = True
    """copy recordings out of archives and tables, into --out; off, the manifests name them where
    they lie: in zips, plain tars and local Parquet files"""
    max_hours: tuple[str, ...] = ()
    """the most hours of a corpus to train on: fisd_asante=30 bibletts_asante=8"""
    labels: LabelSettings = LabelSettings()
    allow_licenses: tuple[LicenseName, ...] = ()
    """leave out what is under another licence than these, by SPDX name (CC-BY-4.0 CC0-1.0);
    unknown is a name too; if none is given, nothing is left out"""
    hold_out: HeldOut = "speaker"
    """speaker: no speaker and no sentence in two splits; sentence: no sentence in two splits, for
    corpora with one voice, of which at least one sentence is then dev and one test"""
    keep_splits: tuple[str, ...] = ()
    """corpora in manifest=... whose own splits are kept, and not made anew"""
    dev_fraction: Probability = 0.1
    """share of speakers or sentences held out for choosing checkpoints"""
    test_fraction: Probability = 0.1
    """share held out for the reported results"""
    seed: Seed = 0
    """another seed gives another split"""
    resume: bool = False
    """continue an unfinished folder"""

    def __post_init__(self) -> None:
        if self.dev_fraction + self.test_fraction >= 1:
            raise ValueError("--dev-fraction and --test-fraction leave nothing to train on")
        for table in self.common_voice_tables:
            if table not in COMMON_VOICE_TABLES:
                raise ValueError(
                    f"--common-voice-tables: {table!r} is none of {', '.join(COMMON_VOICE_TABLES)}"
                )
        if not re.fullmatch(r"\w[\w.-]{0,99}", self.dataset.dataset_name):
            raise ValueError(
                "--dataset-name must be letters, digits, '_', '-' and '.', at most 100: it names a "
                f"folder; got {self.dataset.dataset_name!r}"
            )
        hours_of(self.max_hours)
        licenses_of(self.labels.license_of)
        names = [name for name, _ in corpora_of(self.corpus)]
        if {"ugspeechdata", "waxal_aka_asr"} <= {*names}:
            raise ValueError(
                "--corpus ugspeechdata=... and waxal_aka_asr=...: WAXAL's spontaneous Akan was "
                "made from UGSpeechData, so WAXAL's test recordings would be trained on; leave one "
                "out"
            )
        if {"dataset", "table"} <= {*names}:
            raise ValueError(
                "--corpus dataset=... and table=...: --dataset-columns is for one of them; build "
                "the table first, and give its manifest=... here"
            )
        if names.count("dataset") > 1 and "id" not in columns_of(self.dataset.dataset_columns):
            raise ValueError(
                "--corpus dataset=... several times: name their column of ids too "
                "(--dataset-columns id=...), because rows without ids are numbered"
            )


def main(argv: list[str] | None = None) -> None:
    """Build manifests; prints a summary to stderr and the folder to stdout."""
    config = parse_config(BuildConfig, argv)
    _refuse_mistakes(config)
    command = "data_manifests.build"
    with (
        run_folder(config.out, config, command, inputs=("corpus",)) as output,
        ExitStack() as stack,
    ):
        if output.is_done:
            return
        spool_path = config.out / f"recordings{ASIDE_SUFFIX}"
        spool = RecordingSpool(stack.enter_context(spooled_lines(spool_path)))
        dropped_lines = stack.enter_context(lines_written_aside(config.out / "dropped.jsonl"))
        rewritten = stack.enter_context(lines_written_aside(config.out / "rewritten.jsonl"))
        dropped = DroppedRows(dropped_lines)
        columns = SplitColumns(_split_settings(config))
        by_speaker = config.labels.guess_dialect_by == "speaker"
        collected = CollectedRecordings(
            spool, columns, rewritten,
            licenses=licenses_of(config.labels.license_of), allow_licenses=config.allow_licenses,
            speaker_dialects=SpeakerDialects() if by_speaker else None,
        )  # fmt: skip
        collect_recordings(list(_recipes(config, dropped)), dropped, collected)
        output.record(corpora=collected.provenance())
        assigned = assign_splits(columns)
        if not len(assigned.rows(KEPT)):
            raise InputError("nothing is left to put into a manifest: --max-hours is too low")
        list_left_out(spool, assigned, dropped)
        guesses = write_manifests(config.out, spool, assigned, collected.guess_dialects())
        summary = summarize_splits(columns, assigned, dropped, collected.num_rewritten)
        print(summary, *guesses, sep="\n", file=sys.stderr)


def _refuse_mistakes(config: BuildConfig) -> None:
    """Raise InputError, before a folder is created, if the corpora named cannot be right."""
    corpora = corpora_of(config.corpus)
    if not corpora:
        raise InputError("no corpus given: name at least one, as in --corpus common_voice=FOLDER")
    names = {_name_of(corpus, config) for corpus, _ in corpora}
    unpacked: set[Path] = set()
    for corpus, path in corpora:
        if not config.copy_audio and corpus.startswith("bibletts_"):
            refuse_unpacking(Path(path))
        if not config.copy_audio and corpus.startswith(("waxal_", "dataset")):
            refuse_hub(path)
        if corpus.startswith("bibletts_"):
            into = _unpacked_folder(config.out, corpus, path)
            if into in unpacked:
                raise InputError(
                    f"--corpus {corpus}=...: two archives named {into.name}; rename one"
                )
            unpacked.add(into)
    chosen: dict[str, Mapping[str, object]] = {
        "--max-hours": hours_of(config.max_hours),
        "--license-of": licenses_of(config.labels.license_of),
        "--keep-splits": dict.fromkeys(config.keep_splits),
    }
    if any(chosen.values()):
        paths = [Path(path) for corpus, path in corpora if corpus == "manifest"]
        names |= {utterance.corpus for path in paths for utterance in read_manifest(path)}
    for flag, named in chosen.items():
        if unknown := named.keys() - names:
            given = ", ".join(sorted(names))
            raise InputError(f"{flag}: {min(unknown)!r} is none of the corpora given: {given}")


def _split_settings(config: BuildConfig) -> SplitSettings:
    return SplitSettings(
        seed=config.seed,
        dev_fraction=config.dev_fraction,
        test_fraction=config.test_fraction,
        hold_out=config.hold_out,
        with_own_splits=(*CORPORA_WITH_OWN_SPLITS, *config.keep_splits),
        max_hours=hours_of(config.max_hours),
    )


def _name_of(corpus: str, config: BuildConfig) -> str:
    return config.dataset.dataset_name if corpus in ("dataset", "table") else corpus


def _unpacked_folder(out: Path, corpus: str, path: str) -> Path:
    archive = Path(path).name.partition(".")[0][:100] or "archive"
    return out / "audio" / corpus / archive


def _recipes(
    config: BuildConfig, dropped: DroppedRows
) -> Iterator[tuple[str, Iterable[Recording]]]:
    """Name and recordings of every corpus asked for; nothing is read yet."""
    for corpus, path in corpora_of(config.corpus):
        name = _name_of(corpus, config)
        report_dropped = dropped.reporter(name)
        kind, _, part = corpus.partition("_")
        copy_audio = config.copy_audio
        if kind == "fisd":
            yield name, fisd(Path(path), report_dropped, dialect=part, copy_audio=copy_audio)
        elif kind == "bibletts":
            into = _unpacked_folder(config.out, corpus, path)
            yield (
                name,
                bibletts(
                    Path(path),
                    report_dropped,
                    dialect=part,
                    unpack_into=into,
                    copy_audio=copy_audio,
                ),
            )
        elif kind == "waxal":
            yield name, waxal(path, report_dropped, config=part, copy_audio=copy_audio)
        elif corpus == "common_voice":
            tables = config.common_voice_tables
            yield name, common_voice(Path(path), report_dropped, tables=tables)
        elif corpus == "ugspeechdata":
            yield name, ugspeechdata(Path(path), report_dropped)
        elif corpus == "table":
            yield name, _own_table(path, config, report_dropped)
        elif corpus == "manifest":
            yield name, own_manifest(Path(path), report_dropped)
        else:
            yield name, _any_dataset(path, config, report_dropped)


def _any_dataset(
    source: str, config: BuildConfig, report_dropped: ReportDropped
) -> Iterable[Recording]:
    settings = config.dataset
    columns = columns_of(settings.dataset_columns)
    return audio_dataset(
        source,
        report_dropped,
        corpus=settings.dataset_name,
        dialect=settings.dataset_dialect,
        license=settings.dataset_license,
        config=settings.dataset_config or None,
        audio_column=columns["audio"],
        text_column=columns["text"],
        speaker_column=columns.get("speaker"),
        id_column=columns.get("id"),
        dialect_column=columns.get("dialect"),
        copy_audio=config.copy_audio,
    )


def _own_table(
    path: str, config: BuildConfig, report_dropped: ReportDropped
) -> Iterable[Recording]:
    settings = config.dataset
    return own_table(
        Path(path), report_dropped,
        corpus=settings.dataset_name, columns=columns_of(settings.dataset_columns),
        dialect=settings.dataset_dialect, license=settings.dataset_license,
    )  # fmt: skip


if __name__ == "__main__":
    run_command(main)
