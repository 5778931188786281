"""The summary that `data_manifests.build` prints of the splits it made."""

from collections.abc import Mapping

import numpy as np

from data_manifests.corpora.dropped_rows import DroppedRows
from data_manifests.manifest import SPLITS
from data_manifests.same_recordings import FoundCopies
from data_manifests.split_columns import SplitColumns
from data_manifests.splits import (
    COPY,
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
    copies: FoundCopies,
    dropped: DroppedRows,
    num_rewritten: Mapping[str, int],
) -> str:
    """Hours by corpus and split, how they were made, and what was left out.

    Args:
        columns: what splitting knew of the utterances.
        assigned: their splits.
        copies: which of them are the same recording.
        dropped: every row left out, with the reason.
        num_rewritten: number of transcripts that were changed, by corpus.
    """
    lines = [_table(columns, assigned)]
    lines.append(_what_is_disjoint(columns))
    lines += [line for name in sorted(columns.corpora) if (line := _of_corpus(columns, name))]
    if copies.num_compared:
        lines.append(
            f"{copies.num_compared} recordings of one sentence were compared by their sound: "
            f"{copies.is_copy_N.sum()} are copies of others, and left out"
        )
    if copies.num_unreadable:
        lines.append(
            f"warning: {copies.num_unreadable} of them cannot be decoded, and may be copies: "
            "data_manifests.check names them"
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


def _what_is_disjoint(columns: SplitColumns) -> str:
    """What no two splits share, across all corpora."""
    held_out = {columns.settings.held_out_of(name) for name in columns.corpora}
    if held_out == {"speaker"}:
        by = "by speaker and by normalised sentence"
    elif held_out == {"sentence"}:
        by = "by normalised sentence, but not by speaker"
    elif held_out == {"recording"}:
        by = "by recording, but neither by normalised sentence nor by speaker"
    else:
        by = "as --hold-out says for each corpus"
    return f"splits made here, disjoint {by}, across all corpora"


def _of_corpus(columns: SplitColumns, name: str) -> str:
    """What deserves to be known of a corpus's splits, and what may be done about it; or ""."""
    settings = columns.settings
    num_speakers = columns.num_distinct(columns.speaker, name)
    num_sentences = columns.num_distinct(columns.sentence, name)
    if name in settings.with_own_splits:
        return f"{name}: its own splits are kept, they are disjoint by speaker"
    held_out = settings.held_out_of(name)
    if held_out == "recording":
        return f"{name}: its speakers and sentences are in all splits, by recording"
    too_few_sentences = (
        f"{num_sentences} sentence(s), too few to be in train, dev and test: record more, or, if "
        f"they are commands, hold out recordings of each: --hold-out {name}=recording"
    )
    if held_out == "sentence" and num_sentences < MIN_SENTENCES_TO_SPLIT:
        return f"{name}: {too_few_sentences}"
    if held_out == "speaker" and num_speakers < MIN_SPEAKERS_TO_SPLIT:
        if name not in settings.hold_out_of and num_sentences < MIN_SENTENCES_TO_SPLIT:
            return f"{name}: all of it is training data: {too_few_sentences}"
        if name not in settings.hold_out_of:
            others = f", {name}=speaker some of its speakers" if num_speakers > 1 else ""
            return (
                f"{name}: {num_speakers} speaker(s), fewer than {MIN_SPEAKERS_TO_SPLIT}, so all of "
                f"it is training data; --hold-out {name}=sentence holds out sentences{others}"
            )
        if num_speakers < MIN_SENTENCES_TO_SPLIT:
            return (
                f"{name}: {num_speakers} speaker(s), too few to be in train, dev and test: "
                f"--hold-out {name}=sentence holds out sentences"
            )
    return ""


def _table(columns: SplitColumns, assigned: AssignedSplits) -> str:
    """Hours by corpus and split, with the speakers and distinct sentences that were found."""
    kept = assigned.rows(KEPT)
    hours: dict[str, np.ndarray] = {
        split: _hours(columns, kept[assigned.split_N[kept] == number])
        for number, split in enumerate(SPLITS)
    }
    hours["seen prompts"] = _hours(columns, assigned.rows(SEEN_PROMPT))
    left_out = [assigned.rows(fate) for fate in (LEFT_OUT, UNTRAINED_PROMPT, SURPLUS, COPY)]
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
