"""Corpora -> train, dev and test manifests with splits that do not overlap.

    python -m data_manifests.build --corpus common_voice=cv-corpus/tw --hold-out sentence \
        --out data/cv
    python -m data_manifests.build --corpus fisd_asante=fisd-asanti-twi-90p.zip \
        bibletts_asante=asante-twi.tgz --max-hours fisd_asante=30 --out data/mixed

Writes `train.jsonl`, `dev.jsonl`, `test.jsonl`, where applicable `test_seen_prompts.jsonl` (test
speakers reading sentences that are trained on), `dropped.jsonl` (every row left out, and why),
`rewritten.jsonl` (transcripts in which more than the spelling was changed) and `audio/` (recordings
copied from an archive or a table). The splits are always the same for the same
seed: see `data_manifests/splits.py`.
"""

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from commands.atomic_write import write_json_lines
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.run_folder import OutputFolder, run_folder
from commands.setting_types import DialectName, Probability, Seed
from data_manifests.build_settings import columns_of, corpora_of, hours_of
from data_manifests.corpora.audio_dataset import audio_dataset
from data_manifests.corpora.bibletts import bibletts
from data_manifests.corpora.collect import collect_recordings, write_audio
from data_manifests.corpora.common_voice import COMMON_VOICE_TABLES, common_voice
from data_manifests.corpora.fisd import fisd
from data_manifests.corpora.recording import Recording, ReportDropped, report_into
from data_manifests.corpora.ugspeechdata import ugspeechdata
from data_manifests.corpora.waxal import waxal
from data_manifests.manifest import SPLITS, Utterance, write_manifest
from data_manifests.split_summary import summarize_splits
from data_manifests.splits import (
    HeldOut,
    SplitCorpus,
    assign_splits,
)

CORPORA_WITH_OWN_SPLITS = ("waxal_aka_asr",)


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """With --corpus dataset=...: what that Hugging Face audio dataset is."""

    dataset_columns: tuple[str, ...] = ("audio=audio", "text=text")
    """its columns: audio=..., text=..., and if it has them speaker=..., id=..., dialect=..."""
    dataset_name: str = "dataset"
    """its name in manifests"""
    dataset_config: str = ""
    """which of its configurations to use"""
    dataset_dialect: DialectName = "unknown"
    """its dialect: asante, akuapem, fante or unknown"""
    dataset_license: str = "unknown"
    """its licence"""


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
    dataset: any other Hugging Face audio dataset, by name or local path"""
    common_voice_tables: tuple[str, ...] = ("validated",)
    """which tables of common_voice to use: validated, other (no votes yet), invalidated (voted
    down)"""
    dataset: DatasetSettings = DatasetSettings()
    max_hours: tuple[str, ...] = ()
    """the most hours of a corpus to train on: fisd_asante=30 bibletts_asante=8"""
    hold_out: HeldOut = "speaker"
    """speaker: no speaker and no sentence in two splits; sentence: no sentence in two splits, for
    corpora with one voice"""
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
        names = [name for name, _ in corpora_of(self.corpus)]
        if {"ugspeechdata", "waxal_aka_asr"} <= {*names}:
            raise ValueError(
                "--corpus ugspeechdata=... and waxal_aka_asr=...: WAXAL's spontaneous Akan was "
                "made from UGSpeechData, so WAXAL's test recordings would be trained on; leave one "
                "out"
            )
        if names.count("dataset") > 1 and "id" not in columns_of(self.dataset.dataset_columns):
            raise ValueError(
                "--corpus dataset=... several times: name their column of ids too "
                "(--dataset-columns id=...), because rows without ids are numbered"
            )


def main(argv: list[str] | None = None) -> None:
    """Build manifests; prints a summary to stderr and the folder to stdout."""
    config = parse_config(BuildConfig, argv)
    dropped: list[dict[str, str]] = []
    recipes = list(_recipes(config, dropped))
    if not recipes:
        raise InputError("no corpus given: name at least one, as in --corpus common_voice=FOLDER")
    unknown = hours_of(config.max_hours).keys() - {name for name, _ in recipes}
    if unknown:
        given = ", ".join(sorted({name for name, _ in recipes}))
        raise InputError(f"--max-hours: {min(unknown)!r} is none of the corpora given: {given}")
    with run_folder(config.out, config, "data_manifests.build") as output:
        if output.is_done:
            return
        recordings = collect_recordings(recipes, dropped)
        utterances = [recording.utterance for recording in recordings.values()]
        _record_what_was_read(output, utterances)
        corpus = assign_splits(
            utterances,
            seed=config.seed,
            dev_fraction=config.dev_fraction,
            test_fraction=config.test_fraction,
            hold_out=config.hold_out,
            with_own_splits=CORPORA_WITH_OWN_SPLITS,
            max_hours=hours_of(config.max_hours),
        )
        if not corpus.utterances:
            raise InputError("nothing is left to put into a manifest: --max-hours is too low")
        dropped += _rows_left_out(corpus)
        chosen = [*corpus.utterances, *corpus.seen_prompts]
        written = {u.id: u for u in write_audio(config.out, chosen, recordings)}
        for split in SPLITS:
            rows = (written[u.id] for u in corpus.utterances if u.split == split)
            write_manifest(config.out / f"{split}.jsonl", rows)
        if corpus.seen_prompts:
            seen = (written[u.id] for u in corpus.seen_prompts)
            write_manifest(config.out / "test_seen_prompts.jsonl", seen)
        rewritten = [
            {"corpus": r.utterance.corpus, "id": id_, "text": r.utterance.text, "note": r.note}
            for id_, r in recordings.items()
            if r.note
        ]
        write_json_lines(config.out / "dropped.jsonl", dropped)
        write_json_lines(config.out / "rewritten.jsonl", rewritten)
        summary = summarize_splits(
            utterances, corpus, dropped, rewritten,
            hold_out=config.hold_out, with_own_splits=CORPORA_WITH_OWN_SPLITS,
        )  # fmt: skip
        print(summary, file=sys.stderr)


def _recipes(
    config: BuildConfig, dropped: list[dict[str, str]]
) -> Iterator[tuple[str, Iterable[Recording]]]:
    """Name and recordings of every corpus asked for; nothing is read yet."""
    unpacked: set[Path] = set()
    for corpus, path in corpora_of(config.corpus):
        name = config.dataset.dataset_name if corpus == "dataset" else corpus
        report_dropped = report_into(dropped, name)
        kind, _, part = corpus.partition("_")
        if kind == "fisd":
            yield name, fisd(Path(path), report_dropped, dialect=part)
        elif kind == "bibletts":
            archive = Path(path).name.partition(".")[0][:100] or "archive"
            into = config.out / "audio" / name / archive
            if into in unpacked:
                raise InputError(f"--corpus {name}=...: two archives named {archive}; rename one")
            unpacked.add(into)
            yield name, bibletts(Path(path), report_dropped, dialect=part, unpack_into=into)
        elif kind == "waxal":
            yield name, waxal(path, report_dropped, config=part)
        elif corpus == "common_voice":
            tables = config.common_voice_tables
            yield name, common_voice(Path(path), report_dropped, tables=tables)
        elif corpus == "ugspeechdata":
            yield name, ugspeechdata(Path(path), report_dropped)
        else:
            yield name, _any_dataset(path, config.dataset, report_dropped)


def _any_dataset(
    source: str, settings: DatasetSettings, report_dropped: ReportDropped
) -> Iterable[Recording]:
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
    )


def _record_what_was_read(output: OutputFolder, utterances: Sequence[Utterance]) -> None:
    """Record each corpus's number of rows, and a hash of their ids and texts, as provenance;
    hashing the audio would take longer than preparing it."""
    digests = {u.corpus: hashlib.sha256() for u in utterances}
    for u in utterances:
        digests[u.corpus].update(f"{u.id}\0{u.text}\0{u.speaker}\n".encode())
    rows = Counter(u.corpus for u in utterances)
    output.record(
        corpora={c: {"rows": rows[c], "sha256": d.hexdigest()} for c, d in digests.items()}
    )


def _rows_left_out(corpus: SplitCorpus) -> Iterator[dict[str, str]]:
    for u in corpus.left_out:
        reason = f"its sentence or its speaker is in another split than {u.split}"
        yield {"corpus": u.corpus, "id": u.id, "reason": reason}
    for u in corpus.surplus:
        yield {"corpus": u.corpus, "id": u.id, "reason": "more than --max-hours"}


if __name__ == "__main__":
    run_command(main)
