"""Settings of `data_manifests.build`: those of any dataset or table, and lists of NAME=VALUE."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from commands.errors import InputError, nearest_name
from commands.licenses import MAX_LICENSE_CHARACTERS, UNKNOWN_LICENSE, LicenseName
from commands.setting_types import refuse_impossible_path
from data_manifests.language import DialectName

# Corpora with a recipe; "dataset" is any other dataset of Hugging Face, "table" and "manifest" are
# recordings of one's own.
CORPORA = (
    "fisd_asante", "fisd_akuapem", "fisd_fante", "bibletts_asante", "bibletts_akuapem",
    "waxal_aka_asr", "waxal_twi_tts", "waxal_fat_tts", "common_voice", "ugspeechdata", "dataset",
    "table", "manifest",
)  # fmt: skip
COLUMNS = ("audio", "text", "speaker", "id", "dialect")


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """With --corpus dataset=... or table=...: what that Hugging Face audio dataset, or table of
    recordings, is."""

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


def corpora_of(settings: Sequence[str]) -> list[tuple[str, str]]:
    """("ugspeechdata=ug", "fisd_fante=a") -> [("fisd_fante", "a"), ("ugspeechdata", "ug")].

    They come in the order of `CORPORA`, so that the order of the words changes no manifest.

    Raises:
        InputError: not one of our names, "=" and a path.
    """
    corpora = []
    for setting in settings:
        name, _, path = setting.partition("=")
        if name not in CORPORA:
            raise InputError(
                f"--corpus {setting!r}: unknown corpus {name!r}: {nearest_name(name, CORPORA)}"
            )
        if not path:
            raise InputError(f"--corpus {setting!r} is not like fisd_asante=PATH")
        try:
            refuse_impossible_path(Path(path))
        except ValueError as error:
            raise InputError(f"--corpus {name}=... {error}") from None
        corpora.append((name, path))
    return sorted(corpora, key=lambda corpus: CORPORA.index(corpus[0]))


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
