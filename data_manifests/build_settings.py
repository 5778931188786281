"""Settings of `data_manifests.build`: the corpora, and lists of NAME=VALUE."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from commands.errors import InputError, nearest_name
from commands.licenses import MAX_LICENSE_CHARACTERS, UNKNOWN_LICENSE, LicenseName
from commands.setting_types import refuse_impossible_path
from data_manifests.language import DialectName, language
from data_manifests.split_columns import HELD_OUT, HeldOut

# Corpora with a recipe; "dataset" is any other dataset of Hugging Face, "table" and "manifest" are
# recordings of one's own.
CORPORA = (
    "fisd_asante", "fisd_akuapem", "fisd_fante", "bibletts_asante", "bibletts_akuapem",
    "waxal_aka_asr", "waxal_twi_tts", "waxal_fat_tts", "common_voice", "ugspeechdata", "dataset",
    "table", "manifest",
)  # fmt: skip
DESCRIBED = ("dataset", "table")
"""Corpora that must be told what their columns are, and may be told what they are called."""
COLUMNS = ("audio", "text", "speaker", "id", "dialect")
# What may be said of one dataset or table, behind its path; `dialect` is one, its column another.
OPTIONS = ("name", "config", "dialect", "license", "audio", "text", "speaker", "id",
           "dialect_column")  # fmt: skip
_OPTION = re.compile(rf",(?=(?:{'|'.join(OPTIONS)})=)")
_NAME = re.compile(r"\w[\w.-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """With --corpus dataset=... or table=...: what that Hugging Face audio dataset, or table of
    recordings, is; of several, what is not said behind each one's path."""

    dataset_columns: tuple[str, ...] = ("audio=audio", "text=text")
    """its columns: audio=..., text=..., and if it has them speaker=..., id=..., dialect=..."""
    dataset_name: str = "dataset"
    """its name in manifests"""
    dataset_config: str = ""
    """which of its configurations to use"""
    dataset_dialect: DialectName = "unknown"
    """its dialect, in Twi: asante, akuapem, fante or unknown"""
    dataset_license: LicenseName = UNKNOWN_LICENSE
    """its licence, by its SPDX name"""


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Labels of utterances that their corpus does not give, or gives otherwise."""

    license_of: tuple[str, ...] = ()
    """the licence of your copy of a corpus, where it is not the one of docs/data.md:
    waxal_twi_tts=CC-BY-NC-4.0"""
    guess_dialect_by: Literal["utterance", "speaker"] = "utterance"
    """where a corpus names no dialect: whose spelling decides an utterance's dialect_guess"""


@dataclass(frozen=True, kw_only=True)
class CorpusSource:
    """One corpus to read.

    Attributes:
        kind: one of `CORPORA`.
        path: where it lies, or its name on the Hub.
        name: in manifests; of a manifest "manifest", because its rows have their own.
        columns: of a dataset or a table: one of `COLUMNS` -> its column.
        config, dialect, license: of a dataset or a table.
    """

    kind: str
    path: str
    name: str
    columns: Mapping[str, str]
    config: str
    dialect: str
    license: str


def corpora_of(settings: Sequence[str], dataset: DatasetSettings) -> list[CorpusSource]:
    """("ugspeechdata=ug", "dataset=a/b,text=said,name=b") -> what is to be read.

    They come in the order of `CORPORA`, so that the order of the words changes no manifest.

    Args:
        settings: each one of our names, "=" and a path; behind that of a dataset or table, a comma
            and NAME=VALUE for each of `OPTIONS` that is its own.
        dataset: what is not said there.

    Raises:
        InputError: one is not like that; or two datasets of one name without a column of ids.
    """
    corpora = []
    for setting in settings:
        kind, _, place = setting.partition("=")
        if kind not in CORPORA:
            raise InputError(
                f"--corpus {setting!r}: unknown corpus {kind!r}: {nearest_name(kind, CORPORA)}"
            )
        path, *options = _OPTION.split(place) if kind in DESCRIBED else [place]
        if not path:
            raise InputError(f"--corpus {setting!r} is not like fisd_asante=PATH")
        try:
            refuse_impossible_path(Path(path))
        except ValueError as error:
            raise InputError(f"--corpus {kind}=... {error}") from None
        corpora.append(_source(kind, path, options, dataset, flag=f"--corpus {setting!r}"))
    without_ids = [c.name for c in corpora if c.kind == "dataset" and "id" not in c.columns]
    for name in without_ids:
        if sum(corpus.kind == "dataset" and corpus.name == name for corpus in corpora) > 1:
            raise InputError(
                f"--corpus dataset=... several times: give each a name of its own (dataset=PATH,"
                f"name=...), or name their column of ids too (id=...): two are called {name!r}, "
                "and rows without ids are numbered"
            )
    return sorted(corpora, key=lambda corpus: CORPORA.index(corpus.kind))


def _source(
    kind: str, path: str, options: Sequence[str], dataset: DatasetSettings, *, flag: str
) -> CorpusSource:
    if kind not in DESCRIBED:
        return CorpusSource(
            kind=kind, path=path, name=kind, columns={}, config="", dialect="", license=""
        )
    if misspelt := re.search(r",(\w+)=", path):
        hint = nearest_name(misspelt[1], OPTIONS)
        raise InputError(f"{flag}: unknown option {misspelt[1]!r}: {hint}")
    own: dict[str, str] = {}
    for option in options:
        key, _, value = option.partition("=")
        if not value or key in own:
            raise InputError(f"{flag}: {key}= is {'given twice' if value else 'empty'}")
        own[key] = value
    columns = columns_of(dataset.dataset_columns)
    columns |= {key: own[key] for key in ("audio", "text", "speaker", "id") if key in own}
    if "dialect_column" in own:
        columns["dialect"] = own["dialect_column"]
    source = CorpusSource(
        kind=kind,
        path=path,
        name=own.get("name", dataset.dataset_name),
        columns=columns,
        config=own.get("config", dataset.dataset_config),
        dialect=own.get("dialect", dataset.dataset_dialect),
        license=own.get("license", dataset.dataset_license),
    )
    if not _NAME.fullmatch(source.name):
        named = f"{flag}: name=" if "name" in own else "--dataset-name"
        raise InputError(
            f"{named} must be letters, digits, '_', '-' and '.', at most 100: it names a folder; "
            f"got {source.name!r}"
        )
    if source.dialect not in language().all_dialects:
        raise InputError(
            f"{flag}: dialect= must be one of {', '.join(language().all_dialects)}; a column that "
            "tells it is dialect_column="
        )
    if not source.license.strip() or len(source.license) > MAX_LICENSE_CHARACTERS:
        raise InputError(f"{flag}: license= is not like CC-BY-4.0")
    return source


def held_out_of(settings: Sequence[str]) -> tuple[HeldOut, dict[str, HeldOut]]:
    """("sentence", "common_voice=speaker") -> "sentence" and {"common_voice": "speaker"}.

    Raises:
        InputError: not speaker, sentence or recording, alone or after a name and "="; or one of
            these is repeated.
    """
    default: HeldOut | None = None
    of_corpora: dict[str, HeldOut] = {}
    for setting in settings:
        name, equals, _ = setting.rpartition("=")
        found = [what for what in HELD_OUT if setting == f"{name}{equals}{what}"]
        if not found or (equals and not name):
            raise InputError(
                f"--hold-out: {setting!r} is not like sentence or common_voice=speaker: one of "
                f"{', '.join(HELD_OUT)}, alone or of a corpus"
            )
        if name in of_corpora or (not name and default):
            raise InputError(f"--hold-out: {setting!r}: there is another one of {name or 'all'}")
        if name:
            of_corpora[name] = found[0]
        else:
            default = found[0]
    return default or "speaker", of_corpora


def hours_of(settings: Sequence[str]) -> dict[str, float]:
    """ "fisd_asante=30" -> {"fisd_asante": 30.0}.

    Raises:
        InputError: not a name, "=" and a positive number, or a repeated name.
    """
    hours = {}
    for setting in settings:
        name, _, number = setting.partition("=")
        if name in hours:
            raise InputError(f"--max-hours: {name!r} is repeated")
        try:
            hours[name] = float(number)
        except ValueError:
            raise InputError(f"--max-hours: {setting!r} is not like fisd_asante=30") from None
        if not 0 < hours[name] < math.inf:
            raise InputError(
                f"--max-hours: {setting!r}: hours must be above 0, and not without end"
            )
    return hours


def licenses_of(settings: Sequence[str]) -> dict[str, str]:
    """ "waxal_twi_tts=CC-BY-NC-4.0" -> {"waxal_twi_tts": "CC-BY-NC-4.0"}.

    Raises:
        InputError: not a name, "=" and a licence, or a repeated name.
    """
    licenses: dict[str, str] = {}
    for setting in settings:
        name, _, license = setting.partition("=")
        if name in licenses:
            raise InputError(f"--license-of: {name!r} is repeated")
        if not license.strip() or len(license) > MAX_LICENSE_CHARACTERS:
            raise InputError(f"--license-of: {setting!r} is not like waxal_twi_tts=CC-BY-4.0")
        licenses[name] = license
    return licenses


def columns_of(settings: Sequence[str]) -> dict[str, str]:
    """("audio=speech", "text=words") -> {"audio": "speech", "text": "words"}.

    Raises:
        InputError: not one of our names, "=" and a column, or a required name is missing.
    """
    columns = dict(setting.partition("=")[::2] for setting in settings)
    for name, column in columns.items():
        if name not in COLUMNS or not column:
            raise InputError(
                f"--dataset-columns: {name}={column}: expected NAME=COLUMN with a name of "
                f"{', '.join(COLUMNS)}"
            )
    if "audio" not in columns or "text" not in columns:
        raise InputError("--dataset-columns: audio=... and text=... are both needed")
    return columns
