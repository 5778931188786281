"""Recorded speech as training data: on the spoken turns of dialogues, and to write down.

    recorded = record_dialogues(Path("dialogues.jsonl"), Path("train.jsonl"))
    written_down, sources = read_transcribed_recordings(Path("train.jsonl"))

A recording belongs to a turn if it says the same words (both normalised for scoring). Where several
recordings say them, the dialogue is there once for each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from commands.errors import InputError
from commands.parquet_files import CodeFormat
from commands.sources import Sources, count_sources, merge
from data_manifests.manifest import Utterance, read_manifest
from data_manifests.normalization import normalize_for_scoring
from stage1_rvq.codes import (
    find_code_files,
    read_code_format,
    read_codes,
    read_codes_sources,
    refuse_other_format,
)
from stage3_finetune.dialogue import Dialogue, Turn
from stage3_finetune.dialogue_rows import read_dialogues

TRANSCRIBED = "--transcribed"
LONGEST_RECORDING_S = 30.0  # Gemma 4 was trained on no longer ones (its model card)


@dataclass(frozen=True)
class RecordedDialogues:
    """Dialogues with a recording on every spoken turn.

    Attributes:
        dialogues: in the file's order.
        num_without: dialogues left out because nobody recorded a turn that is to be spoken.
        num_too_long: recordings left out because they last longer than 30 s.
        sources: the corpora of the dialogues and of the recordings.
    """

    dialogues: tuple[Dialogue, ...]
    num_without: int
    num_too_long: int
    sources: Sources

    def describe(self) -> str:
        """What was found, in a line."""
        return (
            f"{len(self.dialogues)} dialogues with recordings; left out: {self.num_without} "
            f"without, {self.num_too_long} recordings over {LONGEST_RECORDING_S:.0f} s"
        )


def record_dialogues(dialogues: Path, recordings: Path) -> RecordedDialogues:
    """Put recordings on the spoken turns of dialogues.

    Args:
        dialogues: `messages` JSONL with user turns marked "spoken": true.
        recordings: manifest.

    Raises:
        InputError: either cannot be read, no turn is marked, or no dialogue is left.
    """
    by_words: dict[str, list[Utterance]] = {}
    num_too_long = 0
    for utterance in read_manifest(recordings):
        if utterance.duration_s > LONGEST_RECORDING_S:
            num_too_long += 1
        else:
            by_words.setdefault(normalize_for_scoring(utterance.text), []).append(utterance)
    found: list[Dialogue] = []
    num_spoken = num_without = 0
    for dialogue in read_dialogues(dialogues):
        num_spoken += any(turn.spoken for turn in dialogue.turns)
        versions = _versions(dialogue, by_words)
        num_without += not versions
        found += versions
    if not num_spoken:
        raise InputError(f'--dialogues {dialogues}: no user turn is marked "spoken": true')
    if num_without == num_spoken:
        raise InputError(f"--recordings {recordings}: no recording of a spoken turn of {dialogues}")
    heard = {turn.recording.id: turn.recording for d in found for turn in d.turns if turn.recording}
    sources = merge(
        count_sources((d.corpus, d.license, 0) for d in found),
        count_sources((u.corpus, u.license, u.duration_s) for u in heard.values()),
    )
    return RecordedDialogues(tuple(found), num_without, num_too_long, sources)


def _versions(dialogue: Dialogue, by_words: Mapping[str, Sequence[Utterance]]) -> list[Dialogue]:
    """The dialogue once for each recording of the turn that has most; none if a turn has none."""
    of_turns = [
        by_words.get(normalize_for_scoring(turn.content), ()) if turn.spoken else ()
        for turn in dialogue.turns
    ]
    if any(turn.spoken and not of for turn, of in zip(dialogue.turns, of_turns, strict=True)):
        return []
    number = max(1, *map(len, of_turns))
    return [
        replace(
            dialogue,
            id=f"{dialogue.id}@{version}" if number > 1 else dialogue.id,
            turns=tuple(
                _heard(turn, of, version) for turn, of in zip(dialogue.turns, of_turns, strict=True)
            ),
        )
        for version in range(number)
    ]


def _heard(turn: Turn, recordings: Sequence[Utterance], version: int) -> Turn:
    return replace(turn, recording=recordings[version % len(recordings)]) if recordings else turn


def is_manifest(path: Path) -> bool:
    """Whether a path of `--transcribed` is a manifest of recordings, and not codes."""
    return path.suffix == ".jsonl"


def read_transcribed_recordings(recordings: Path) -> tuple[list[Dialogue], Sources]:
    """Transcribed recordings to write down: a spoken turn each, without an answer.

    Args:
        recordings: manifest; what lasts longer than 30 s is left out.

    Returns:
        The turns, and what the recordings are from.

    Raises:
        InputError: it cannot be read, or all of it is too long.
    """
    utterances = [u for u in read_manifest(recordings) if u.duration_s <= LONGEST_RECORDING_S]
    if not utterances:
        raise InputError(
            f"{TRANSCRIBED} {recordings}: all of them last longer than {LONGEST_RECORDING_S:.0f} s"
        )
    turns = [Turn("user", u.text, spoken=True, recording=u) for u in utterances]
    return (
        [Dialogue(u.id, (turn,)) for u, turn in zip(utterances, turns, strict=True)],
        count_sources((u.corpus, u.license, u.duration_s) for u in utterances),
    )


def read_transcribed_codes(path: Path, expected: CodeFormat) -> tuple[list[Dialogue], Sources]:
    """The same as codes.

    Args:
        path: a folder of `stage1_rvq.tokenize_corpus`, or one file of it.
        expected: format of the quantiser that will decode them.

    Returns:
        The turns, and what their codes were made from.

    Raises:
        InputError: the folder is unfinished, changed or empty, its codes have another format, or
            none of its utterances has a transcript.
    """
    flag = TRANSCRIBED
    found = read_code_format(path, flag=flag)
    refuse_other_format(found, expected, flag=f"{flag} {path}", expected_by="--rvq")
    recordings = [
        Dialogue(f"{path.name}/{u.id}", (Turn("user", u.text, spoken=True, codes_TK=u.codes_TK),))
        for u in read_codes(path, flag=flag)
        if u.text and len(u.codes_TK)
    ]
    if not recordings:
        raise InputError(f"{flag} {path}: no utterance in it has a transcript")
    return recordings, read_codes_sources(path, find_code_files(path, flag=flag), flag=flag)
