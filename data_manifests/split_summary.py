"""The summary that `data_manifests.build` prints of the splits it made."""

from collections.abc import Mapping

import numpy as np

from data_manifests.corpora.dropped_rows import DroppedRows
from data_manifests.manifest import SPLITS
from data_manifests.split_columns import SplitColumns
from data_manifests.splits import (
    KEPT,
    LEFT_OUT,
    MIN_SENTENCES_TO_SPLIT,
    MIN_SPEAKERS_TO_SPLIT,
    SEEN_PROMPT,
    SURPLUS,
    UNTRAINED_PROMPT,
    AssignedSplits,
)

NUM_REASONS = 8


def summarize_splits(
    columns: SplitColumns,
    assigned: AssignedSplits,
    dropped: DroppedRows,
    num_rewritten: Mapping[str, int],
) -> str:
    """Hours by corpus and split, how they were made, and what was left out.

    Args:
        columns: what splitting knew of the utterances.
        assigned: their splits.
        dropped: every row left out, with the reason.
        num_rewritten: number of transcripts that were changed, by corpus.
    """
    hold_out, with_own_splits = columns.settings.hold_out, columns.settings.with_own_splits
    lines = [_table(columns, assigned)]
    held_out = "speaker and by normalised sentence"
    if hold_out == "sentence":
        held_out = "normalised sentence, but not by speaker"
    lines.append(f"splits made here, disjoint by {held_out}, across all corpora")
    for name in sorted(columns.corpora):
        num_speakers = columns.num_distinct(columns.speaker, name)
        if name in with_own_splits:
            lines.append(f"{name}: its own splits are kept, they are disjoint by speaker")
        elif hold_out == "speaker" and num_speakers < MIN_SPEAKERS_TO_SPLIT:
            lines.append(
                f"{name}: {num_speakers} speaker(s), fewer than {MIN_SPEAKERS_TO_SPLIT}, so all "
                "of it is training data; --hold-out sentence holds out sentences instead"
            )
        elif hold_out == "sentence":
            num_sentences = columns.num_distinct(columns.sentence, name)
            if num_sentences < MIN_SENTENCES_TO_SPLIT:
                lines.append(
                    f"{name}: {num_sentences} sentence(s), too few to be in train, dev and test: "
                    "record more"
                )
    num_seen = len(assigned.rows(SEEN_PROMPT))
    if num_seen:
        lines.append(
            f"test_seen_prompts.jsonl: {num_seen} recordings of test speakers "
            "whose sentence is trained on; report it beside test.jsonl, never mixed with it"
        )
    for name, n in sorted(num_rewritten.items()):
        lines.append(f"{name}: {n} transcripts rewritten, listed in rewritten.jsonl")
    lines.append(f"{len(dropped)} left out, listed in dropped.jsonl" + (":" if dropped else ""))
    lines += [
        f"  {found.num_rows:>7} {found.corpus}: {found.reason}"
        for found in dropped.most_common(NUM_REASONS)
    ]
    present = set(np.unique(assigned.split_N[assigned.rows(KEPT)]).tolist())
    lines += [
        f"warning: {split}.jsonl is empty"
        for number, split in enumerate(SPLITS)
        if number not in present
    ]
    return "\n".join(lines)


def _table(columns: SplitColumns, assigned: AssignedSplits) -> str:
    """Hours by corpus and split, with the speakers and distinct sentences that were found."""
    kept = assigned.rows(KEPT)
    hours: dict[str, np.ndarray] = {
        split: _hours(columns, kept[assigned.split_N[kept] == number])
        for number, split in enumerate(SPLITS)
    }
    hours["seen prompts"] = _hours(columns, assigned.rows(SEEN_PROMPT))
    left_out = [assigned.rows(fate) for fate in (LEFT_OUT, UNTRAINED_PROMPT, SURPLUS)]
    hours["left out"] = _hours(columns, np.concatenate(left_out))
    header = "".join(f"{column + ' h':>15}" for column in hours)
    lines = [f"{'corpus':<20}{'speakers':>9}{'sentences':>10}{header}"]
    for name in sorted(columns.corpora):
        num_sentences = columns.num_distinct(columns.sentence, name)
        num_speakers = columns.num_distinct(columns.speaker, name)
        cells = "".join(f"{of[columns.corpora.index(name)]:>15.2f}" for of in hours.values())
        lines.append(f"{name:<20}{num_speakers:>9}{num_sentences:>10}{cells}")
    return "\n".join(lines)


def _hours(columns: SplitColumns, rows: np.ndarray) -> np.ndarray:
    """Hours of some utterances, by corpus."""
    return np.bincount(
        columns.corpus[rows], weights=columns.duration_s[rows] / 3600,
        minlength=len(columns.corpora),
    )  # fmt: skip
