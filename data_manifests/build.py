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
The splits are always the same for the same seed: see `data_manifests/splits.py`. A recording that
is in two corpora is used once, whatever its name and format: see
`data_manifests/same_recordings.py`.
"""

import sys
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
    CorpusSource,
    DatasetSettings,
    LabelSettings,
    corpora_of,
    held_out_of,
    hours_of,
    licenses_of,
)
from data_manifests.corpora.collect import CollectedRecordings, collect_recordings
from data_manifests.corpora.common_voice import COMMON_VOICE_TABLES
from data_manifests.corpora.converted_audio import converted_audio
from data_manifests.corpora.dropped_rows import DroppedRows
from data_manifests.corpora.recording_spool import RecordingSpool
from data_manifests.line_writer import lines_written_aside, spooled_lines
from data_manifests.requested_corpora import (
    CORPORA_WITH_OWN_SPLITS,
    open_corpora,
    refuse_impossible,
    refuse_unknown_names,
)
from data_manifests.same_recordings import ComparedColumns, find_copies
from data_manifests.speaker_dialects import SpeakerDialects
from data_manifests.split_columns import SplitColumns, SplitSettings
from data_manifests.split_manifests import list_copies, list_left_out, write_manifests
from data_manifests.split_summary import summarize_splits
from data_manifests.splits import KEPT, assign_splits


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
    manifest: train.jsonl of another build, or one of your own
    Of several datasets or tables each says what it is behind its path:
    dataset=NAME,name=a,text=sentence,speaker=client_id,config=tw,license=CC0-1.0,dialect=asante"""
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
    hold_out: tuple[str, ...] = ("speaker",)
    """of all corpora, or as NAME=... of one:
    speaker: no speaker and no sentence in two splits; of a corpus with fewer than 20 speakers only
    if it is named
    sentence: no sentence in two splits, for corpora with one voice; at least one sentence is dev
    and one test
    recording: no recording in two splits, for a few commands said many times"""
    test_speakers: tuple[str, ...] = ()
    """speakers, as manifests call them, who are in test only; nobody else of their corpora is"""
    dev_speakers: tuple[str, ...] = ()
    """likewise in dev"""
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
        hours_of(self.max_hours)
        licenses_of(self.labels.license_of)
        held_out_of(self.hold_out)
        corpora_of(self.corpus, self.dataset)
        if both := {*self.test_speakers} & {*self.dev_speakers}:
            raise ValueError(f"--test-speakers and --dev-speakers both name {min(both)!r}")


def main(argv: list[str] | None = None) -> None:
    """Build manifests; prints a summary to stderr and the folder to stdout."""
    config = parse_config(BuildConfig, argv)
    corpora = corpora_of(config.corpus, config.dataset)
    _refuse_mistakes(config, corpora)
    command = "data_manifests.build"
    with (
        run_folder(config.out, config, command, inputs=("corpus",)) as output,
        ExitStack() as stack,
    ):
        if output.is_done:
            return

        def aside(name: str) -> Path:
            return config.out / f"{name}{ASIDE_SUFFIX}"

        spool = RecordingSpool(stack.enter_context(spooled_lines(aside("recordings"))))
        dropped_lines = stack.enter_context(lines_written_aside(config.out / "dropped.jsonl"))
        rewritten = stack.enter_context(lines_written_aside(config.out / "rewritten.jsonl"))
        dropped = DroppedRows(dropped_lines)
        columns, compared = SplitColumns(_split_settings(config)), ComparedColumns()
        by_speaker = config.labels.guess_dialect_by == "speaker"
        collected = CollectedRecordings(
            spool, columns, compared, rewritten,
            licenses=licenses_of(config.labels.license_of), allow_licenses=config.allow_licenses,
            speaker_dialects=SpeakerDialects() if by_speaker else None,
        )  # fmt: skip
        recordings = open_corpora(
            corpora, dropped, out=config.out, common_voice_tables=config.common_voice_tables,
            copy_audio=config.copy_audio,
            converted=stack.enter_context(converted_audio(aside("converted"))),
        )  # fmt: skip
        collect_recordings(list(recordings), dropped, collected)
        columns.refuse_unknown_speakers()
        output.record(corpora=collected.provenance())
        fingerprints = stack.enter_context(spooled_lines(aside("fingerprints")))
        copies = find_copies(columns, compared, spool, fingerprints)
        list_copies(spool, copies, dropped)
        assigned = assign_splits(columns, copies.is_copy_N)
        if not len(assigned.rows(KEPT)):
            raise InputError("nothing is left to put into a manifest: --max-hours is too low")
        list_left_out(spool, assigned, dropped)
        guesses = write_manifests(config.out, spool, assigned, collected.guess_dialects())
        summary = summarize_splits(columns, assigned, copies, dropped, collected.num_rewritten)
        print(summary, *guesses, sep="\n", file=sys.stderr)


def _refuse_mistakes(config: BuildConfig, corpora: list[CorpusSource]) -> None:
    """Raise InputError, before a folder is created, if the corpora named cannot be right."""
    refuse_impossible(corpora, config.out, copy_audio=config.copy_audio)
    refuse_unknown_names(
        corpora,
        {
            "--max-hours": hours_of(config.max_hours),
            "--license-of": licenses_of(config.labels.license_of),
            "--keep-splits": config.keep_splits,
            "--hold-out": held_out_of(config.hold_out)[1],
        },
    )


def _split_settings(config: BuildConfig) -> SplitSettings:
    hold_out, hold_out_of = held_out_of(config.hold_out)
    return SplitSettings(
        seed=config.seed,
        dev_fraction=config.dev_fraction,
        test_fraction=config.test_fraction,
        hold_out=hold_out,
        hold_out_of=hold_out_of,
        with_own_splits=(*CORPORA_WITH_OWN_SPLITS, *config.keep_splits),
        test_speakers=frozenset(config.test_speakers),
        dev_speakers=frozenset(config.dev_speakers),
        max_hours=hours_of(config.max_hours),
    )


if __name__ == "__main__":
    run_command(main)
