"""Write down what splitting decided: a manifest for each split, and what was left out."""

from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from data_manifests.corpora.collect import AudioFolder
from data_manifests.corpora.dropped_rows import DroppedRows
from data_manifests.corpora.recording_spool import RecordingSpool
from data_manifests.line_writer import LineWriter, lines_written_aside
from data_manifests.manifest import SPLITS, format_row
from data_manifests.splits import (
    KEPT,
    LEFT_OUT,
    SEEN_PROMPT,
    SURPLUS,
    UNTRAINED_PROMPT,
    AssignedSplits,
)


def list_left_out(spool: RecordingSpool, assigned: AssignedSplits, dropped: DroppedRows) -> None:
    """List the recordings that splitting left out, with the reason."""
    for fate in (LEFT_OUT, UNTRAINED_PROMPT, SURPLUS):
        for recording in spool.read(assigned.rows(fate), assigned.split_N):
            u = recording.utterance
            reason = "more than --max-hours"
            if fate != SURPLUS:
                reason = f"its sentence or its speaker is in another split than {u.split}"
            dropped.add(u.corpus, u.id, reason)


def write_manifests(out: Path, spool: RecordingSpool, assigned: AssignedSplits) -> None:
    """Write a manifest for each split, and the audio that is not yet a file of its own."""
    audio = AudioFolder(out)
    kept, seen = assigned.rows(KEPT), assigned.rows(SEEN_PROMPT)
    with tqdm(total=len(kept) + len(seen), desc="audio", unit=" recordings") as progress:
        with ExitStack() as stack:
            manifests: dict[str, LineWriter] = {
                split: stack.enter_context(lines_written_aside(out / f"{split}.jsonl"))
                for split in SPLITS
            }
            for recording in spool.read(kept, assigned.split_N):
                utterance = audio.write(recording)
                manifests[recording.utterance.split].write(format_row(utterance).encode())
                progress.update()
        if not len(seen):
            return
        with lines_written_aside(out / "test_seen_prompts.jsonl") as manifest:
            for recording in spool.read(seen, assigned.split_N):
                manifest.write(format_row(audio.write(recording)).encode())
                progress.update()
