"""Write down what splitting decided: a manifest for each split, and what was left out."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_manifests.corpora.collect import AudioFolder
from data_manifests.corpora.dropped_rows import DroppedRows
from data_manifests.corpora.recording_spool import RecordingSpool
from data_manifests.language import UNKNOWN_DIALECT, language
from data_manifests.line_writer import LineWriter, lines_written_aside
from data_manifests.manifest import SPLITS, Utterance, format_row
from data_manifests.same_recordings import FoundCopies
from data_manifests.speaker_dialects import NO_GUESS
from data_manifests.splits import (
    KEPT,
    LEFT_OUT,
    SEEN_PROMPT,
    SURPLUS,
    UNTRAINED_PROMPT,
    AssignedSplits,
)
from data_manifests.twi_dialects import DIALECTS


def list_left_out(spool: RecordingSpool, assigned: AssignedSplits, dropped: DroppedRows) -> None:
    """List the recordings that splitting left out, with the reason."""
    for fate in (LEFT_OUT, UNTRAINED_PROMPT, SURPLUS):
        for recording in spool.read(assigned.rows(fate), assigned.split_N):
            u = recording.utterance
            reason = "more than --max-hours"
            if fate != SURPLUS:
                reason = f"its sentence or its speaker is in another split than {u.split}"
            dropped.add(u.corpus, u.id, reason)


def list_copies(spool: RecordingSpool, copies: FoundCopies, dropped: DroppedRows) -> None:
    """List the recordings that are the same as others, with the id of each one's original."""
    rows = np.flatnonzero(copies.is_copy_N)
    no_splits = np.zeros(len(copies.original_N), dtype=np.uint8)
    originals = spool.read(copies.original_N[rows], no_splits)
    for copy, original in zip(spool.read(rows, no_splits), originals, strict=True):
        u, same = copy.utterance, original.utterance
        reason = f"the same recording as one of {same.corpus}"
        dropped.add(u.corpus, u.id, reason, same_as=same.id)


def write_manifests(
    out: Path, spool: RecordingSpool, assigned: AssignedSplits, guess_N: np.ndarray | None = None
) -> list[str]:
    """Write a manifest for each split, and the audio that is not yet a file of its own.

    Args:
        out: where to.
        spool: all recordings.
        assigned: their splits.
        guess_N: dialects guessed by speaker, as `SpeakerDialects.guess` has them; they replace what
            is guessed of one utterance. None if that stays.

    Returns:
        A line that says of how many utterances the dialect is known, and guessed; none in a
        language without dialects.
    """
    audio, known = AudioFolder(out), Counter[str]()
    kept, seen = assigned.rows(KEPT), assigned.rows(SEEN_PROMPT)
    with tqdm(total=len(kept) + len(seen), desc="audio", unit=" recordings") as progress:
        with ExitStack() as stack:
            manifests: dict[str, LineWriter] = {
                split: stack.enter_context(lines_written_aside(out / f"{split}.jsonl"))
                for split in SPLITS
            }
            for number, recording in zip(kept, spool.read(kept, assigned.split_N), strict=True):
                utterance = _with_guess(audio.write(recording), guess_N, number, known)
                manifests[utterance.split].write(format_row(utterance).encode())
                progress.update()
        if len(seen):
            with lines_written_aside(out / "test_seen_prompts.jsonl") as manifest:
                for number, recording in zip(seen, spool.read(seen, assigned.split_N), strict=True):
                    utterance = _with_guess(audio.write(recording), guess_N, number, known)
                    manifest.write(format_row(utterance).encode())
                    progress.update()
    line = _dialect_line(known, by_speaker=guess_N is not None)
    return [line] if language().dialects else []


def _with_guess(
    utterance: Utterance, guess_N: np.ndarray | None, number: int, known: Counter[str]
) -> Utterance:
    """An utterance with the dialect that is guessed of its speaker, if any; counted."""
    if utterance.dialect != UNKNOWN_DIALECT:
        known["named"] += 1
        return utterance
    known["alone"] += utterance.dialect_guess is not None
    if guess_N is not None and guess_N[number] != NO_GUESS:
        utterance = replace(utterance, dialect_guess=DIALECTS[guess_N[number]])
    known["guessed" if utterance.dialect_guess else "unknown"] += 1
    return utterance


def _dialect_line(known: Counter[str], *, by_speaker: bool) -> str:
    num_open = known["guessed"] + known["unknown"]
    line = f"dialect: named of {known['named']} utterances"
    if num_open:
        line += f", guessed from the spelling of {known['guessed']} of {num_open} others"
        if by_speaker:
            line += f" (without their speakers' other utterances: {known['alone']})"
    return line
