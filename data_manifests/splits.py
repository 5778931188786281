"""Train, dev and test: assigned by hashing, so that a corpus added later never moves an utterance.

Data is held out in two ways: no speaker and no normalised sentence is in two splits, across all
corpora in the mixture. Utterances that cannot satisfy both are left out and counted.
"""

# N utterances, G groups of utterances that share a speaker or a sentence

from dataclasses import dataclass

import numpy as np

from data_manifests.split_columns import DEV, TEST, TRAIN, SplitColumns

# A corpus with fewer speakers is used for training only: a tenth of them would be nobody, or its
# one main voice.
MIN_SPEAKERS_TO_SPLIT = 20

# A corpus of fewer sentences cannot have one in each of train, dev and test.
MIN_SENTENCES_TO_SPLIT = 3

# What becomes of an utterance.
KEPT, SEEN_PROMPT, LEFT_OUT, UNTRAINED_PROMPT, SURPLUS = range(5)


@dataclass(frozen=True)
class AssignedSplits:
    """The split of every utterance, and which are left out to keep the splits apart.

    Attributes:
        split_N: uint8, the one split that is possible for each utterance.
        fate_N: uint8, what becomes of it:
            `KEPT`: it is in its split.
            `SEEN_PROMPT`: a recording of a test speaker whose sentence is trained on, read by
                others: for a second, easier test set, never to be merged with the first.
            `LEFT_OUT`: its speaker and its sentence belong to different splits.
            `UNTRAINED_PROMPT`: the same; it would be a seen prompt, but for `max_hours` nobody
                trains on its sentence.
            `SURPLUS`: it is beyond the training hours allowed for its corpus.
    """

    split_N: np.ndarray
    fate_N: np.ndarray

    def rows(self, fate: int) -> np.ndarray:
        """Numbers of the utterances with a fate, in order."""
        return np.flatnonzero(self.fate_N == fate)


def assign_splits(columns: SplitColumns) -> AssignedSplits:
    """Split a mixture of corpora by speaker and by sentence.

    Every utterance has one possible split, which depends only on itself, its corpus and the seed:
    the corpus's own split if that can be trusted; train if the corpus has fewer than
    `MIN_SPEAKERS_TO_SPLIT` speakers; otherwise the split that its speaker hashes to (with
    `hold_out="sentence"`, its sentence; of a corpus small enough that chance holds out none, one
    sentence is test all the same, and one dev). If utterances
    of one speaker, or of one sentence, have different possible splits, one of these wins (a
    held-out split of the corpus's own, else by the hash of the speaker or sentence), and the
    utterances with another are left out. So adding corpora later never moves an utterance to
    another split.
    """
    settings = columns.settings
    has_own_N = np.isin(columns.corpus, _positions(columns, settings.with_own_splits))
    split_N = np.where(has_own_N, columns.own_split, _drawn_splits(columns))
    pinned_N = np.where(has_own_N, split_N, TRAIN)
    of_sentence_N = _settle(columns.sentence, split_N, pinned_N, columns.drawn_by_sentence)
    fits_speaker_N = np.ones(len(columns), dtype=bool)
    if settings.hold_out == "speaker":
        of_speaker_N = _settle(columns.speaker, split_N, pinned_N, columns.drawn_by_speaker)
        fits_speaker_N = of_speaker_N == split_N
    fits_sentence_N = of_sentence_N == split_N
    fate_N = np.full(len(columns), LEFT_OUT, dtype=np.uint8)
    fate_N[fits_speaker_N & fits_sentence_N] = KEPT
    fate_N[fits_speaker_N & (split_N == TEST) & (of_sentence_N == TRAIN)] = SEEN_PROMPT
    for corpus, hours in settings.max_hours.items():
        is_trained_N = (fate_N == KEPT) & (split_N == TRAIN)
        is_capped_N = is_trained_N & np.isin(columns.corpus, _positions(columns, (corpus,)))
        fate_N[_surplus(columns, np.flatnonzero(is_capped_N), hours)] = SURPLUS
    seen = np.flatnonzero(fate_N == SEEN_PROMPT)
    trained = columns.sentence[(fate_N == KEPT) & (split_N == TRAIN)]
    fate_N[seen[~np.isin(columns.sentence[seen], trained)]] = UNTRAINED_PROMPT
    return AssignedSplits(split_N, fate_N)


def _positions(columns: SplitColumns, names: tuple[str, ...]) -> list[int]:
    return [i for i, corpus in enumerate(columns.corpora) if corpus in names]


def _drawn_splits(columns: SplitColumns) -> np.ndarray:
    """The split that is possible for each utterance of a corpus without its own, uint8 `[N]`."""
    if columns.settings.hold_out == "sentence":
        return _hold_out_some(columns)
    few = [
        corpus
        for corpus in columns.corpora
        if columns.num_distinct(columns.speaker, corpus) < MIN_SPEAKERS_TO_SPLIT
    ]
    is_in_few_N = np.isin(columns.corpus, _positions(columns, tuple(few)))
    return np.where(is_in_few_N, np.uint8(TRAIN), columns.drawn_by_speaker)


def _hold_out_some(columns: SplitColumns) -> np.ndarray:
    """The splits that sentences hash to, uint8 `[N]`; where a share of a corpus is wanted and
    chance has drawn none of it, one of its training sentences."""
    settings = columns.settings
    drawn_N = columns.drawn_by_sentence.copy()
    turn_N = columns.spare_turn()
    for number, corpus in enumerate(columns.corpora):
        if columns.num_distinct(columns.sentence, corpus) < MIN_SENTENCES_TO_SPLIT:
            continue
        rows = np.flatnonzero(columns.corpus == number)
        for split, share in ((TEST, settings.test_fraction), (DEV, settings.dev_fraction)):
            trained = rows[drawn_N[rows] == TRAIN]
            has_enough = len(np.unique(columns.sentence[trained])) > 1
            if share and has_enough and not (drawn_N[rows] == split).any():
                chosen = columns.sentence[trained[np.argmin(turn_N[trained])]]
                drawn_N[rows[columns.sentence[rows] == chosen]] = split
    return drawn_N


def _settle(
    keys_N: np.ndarray, split_N: np.ndarray, pinned_N: np.ndarray, drawn_N: np.ndarray
) -> np.ndarray:
    """Choose one split for each speaker, or sentence, among those possible for its utterances.

    Args:
        keys_N: uint64, the speaker or sentence of each utterance.
        split_N: uint8, the split that is possible for it.
        pinned_N: uint8, its own split, in a corpus whose own are kept; else `TRAIN`.
        drawn_N: uint8, the split that its key hashes to.

    Returns:
        uint8 `[N]`, the split chosen for its key.
    """
    order_N = np.argsort(keys_N, kind="stable")
    sorted_N = keys_N[order_N]
    starts_G = np.flatnonzero(np.concatenate(([True], sorted_N[1:] != sorted_N[:-1])))
    # Sets of splits, as bits.
    candidates_G = np.bitwise_or.reduceat(np.left_shift(1, split_N[order_N]), starts_G)
    held_out_N = np.where(pinned_N == TRAIN, 0, np.left_shift(1, pinned_N))
    held_out_G = np.bitwise_or.reduceat(held_out_N[order_N], starts_G)
    drawn_G = drawn_N[order_N[starts_G]]
    is_candidate_G = (candidates_G >> drawn_G) & 1 == 1
    settled_G = np.where(is_candidate_G, drawn_G, TRAIN)
    for split in (DEV, TEST):  # of two held-out splits, test
        settled_G[held_out_G >> split & 1 == 1] = split
    for split in (TRAIN, DEV, TEST):
        settled_G[candidates_G == 1 << split] = split
    settled_N = np.empty(len(keys_N), dtype=np.uint8)
    settled_N[order_N] = np.repeat(settled_G, np.diff(starts_G, append=len(keys_N)))
    return settled_N


def _surplus(columns: SplitColumns, rows: np.ndarray, max_hours: float) -> np.ndarray:
    """Those of a corpus's training utterances that are too many: chosen by hash, so that a larger
    cap keeps the same ones and more."""
    order = rows[np.argsort(columns.turn[rows], kind="stable")]
    # Stop at the first that does not fit, so that a larger cap only adds utterances.
    seconds = np.cumsum(columns.duration_s[order])
    num_kept = int(np.searchsorted(seconds, 3600 * max_hours, side="right"))
    return order[num_kept:]
