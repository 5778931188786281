"""WAXAL, the Akan part: people describing pictures, and studio voices."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from commands.errors import InputError
from commands.licenses import UNKNOWN_LICENSE
from data_manifests.corpora.audio_dataset import read_rows
from data_manifests.corpora.dataset_rows import Columns, open_rows
from data_manifests.corpora.recording import Recording, ReportDropped

TEXT_COLUMNS = ("transcription", "text")
_SPLITS = ("train", "validation", "test")
# "[10] Du": digits in brackets before the same number in words. Brackets with letters are kept.
_BRACKETED_NUMBER = re.compile(r"\[[^\[\]\w]*\d(?:\d|[^\[\]\w])*\]")


@dataclass(frozen=True)
class _Config:
    folder: str  # in the repository
    language: str
    dialect: str
    license: str
    official_splits: dict[str, str]


WAXAL_CONFIGS = {
    "aka_asr": _Config(
        "data/ASR/aka",
        "aka",
        "unknown",
        "CC-BY-4.0",
        {"train": "train", "validation": "dev", "test": "test"},
    ),
    "twi_tts": _Config("data/TTS/twi", "twi", "unknown", UNKNOWN_LICENSE, {}),
    "fat_tts": _Config("data/TTS/fat", "fat", "fante", UNKNOWN_LICENSE, {}),
}


def waxal(
    source: str, report_dropped: ReportDropped, *, config: str, copy_audio: bool = True
) -> Iterator[Recording]:
    """WAXAL (google/WaxalNLP), one of its three configurations of Akan.

    WAXAL, arXiv:2602.02734, 2026. Its card names several licences, each for other recordings: CC BY
    4.0 and CC BY-SA 4.0, and in some versions CC BY-NC 4.0 too. aka_asr is from the University of
    Ghana: CC BY 4.0. Which one holds for the studio recordings was not seen, so theirs is unknown:
    look at the card of your copy, and name it (`data_manifests.build --license-of`).

    Layout: Parquet, audio inside, under `data/ASR/aka/`, `data/TTS/twi/`, `data/TTS/fat/`, named
    `<language>-<split>-*.parquet`. Columns id, speaker_id, audio, transcription or text.

    aka_asr: about 70 h of spontaneous speech, 15 to 30 s a recording. The official splits are kept
    (validation is our dev): no test speaker is in train, and published error rates refer to that
    test split. `unlabeled` is not read. twi_tts, fat_tts: studio speech; the same four speakers are
    in all of its splits, so every row is "train".

    Known problems: aka_asr mixes Asante, Akuapem and Fante, and no column says which, hence
    "unknown"; twi_tts is also "unknown", because it is only said to be Twi. Texts contain English
    words. A few recordings occur twice. aka_asr was made from UGSpeechData: never test on one and
    train on the other. Four in ten twi_tts texts contain numbers twice, "[10] Du": the bracket is
    removed, and the row has a `note`. TTS recordings last up to 380 s.

    Args:
        source: google/WaxalNLP, or a local copy of that repository or of one of its folders.
        report_dropped: called for every row that is left out.
        config: aka_asr, twi_tts or fat_tts.
        copy_audio: off, recordings are named where they lie, which must be a local copy.

    Raises:
        InputError: no such configuration, no Parquet files for it, not reachable, a missing column,
            or not a local copy where it must be one.
    """
    if config not in WAXAL_CONFIGS:
        raise InputError(f"WAXAL {config!r}: expected one of {', '.join(WAXAL_CONFIGS)}")
    part = WAXAL_CONFIGS[config]
    splits = open_rows(source, parquet_files=_find_parquet(source, part), copy_audio=copy_audio)
    columns = Columns(
        audio="audio",
        text=_text_column(source, next(iter(splits.values())).column_names),
        speaker="speaker_id",
        id="id",
    )
    rows = read_rows(
        splits, columns, report_dropped, corpus=f"waxal_{config}", dialect=part.dialect,
        license=part.license, official_splits=part.official_splits,
    )  # fmt: skip
    for recording in rows:
        yield _with_words_only(recording, config)


def _find_parquet(source: str, part: _Config) -> dict[str, str]:
    """Split name -> pattern. The files are listed explicitly because the repository's own
    configurations would download `unlabeled` as well."""
    if not Path(source).exists():
        folder = f"hf://datasets/{source}/{part.folder}"
        return {split: f"{folder}/{part.language}-{split}-*.parquet" for split in _SPLITS}
    for folder in (part.folder, part.folder.removeprefix("data/"), part.language, "."):
        patterns = {split: f"{folder}/{part.language}-{split}-*.parquet" for split in _SPLITS}
        found = {
            split: str(Path(source) / pattern)
            for split, pattern in patterns.items()
            if any(Path(source).glob(pattern))
        }
        if found:
            return found
    raise InputError(f"{source}: no {part.folder}/{part.language}-<split>-*.parquet in it")


def _text_column(source: str, column_names: Sequence[str]) -> str:
    for column in TEXT_COLUMNS:
        if column in column_names:
            return column
    raise InputError(
        f"{source}: no column {' or '.join(TEXT_COLUMNS)}; its columns: {', '.join(column_names)}"
    )


def _with_words_only(recording: Recording, config: str) -> Recording:
    """Remove bracketed numbers; speakers are numbered across all configurations."""
    utterance = recording.utterance
    text = " ".join(_BRACKETED_NUMBER.sub(" ", utterance.text).split())
    speaker = utterance.speaker.removeprefix(f"waxal_{config}/")
    is_rewritten = text != utterance.text
    return replace(
        recording,
        utterance=replace(utterance, text=text, speaker=f"waxal/{speaker}"),
        note=f"prompt rewritten: {utterance.text}" if is_rewritten else "",
    )
