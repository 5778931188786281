"""Train, dev and test: assigned by hashing, so that a corpus added later never moves an utterance.

No normalised sentence is in two splits, across all corpora in the mixture, and no speaker, unless
only sentences, or only recordings, are held out of a corpus. Utterances that cannot satisfy this
are left out and counted.
"""

# N utterances, G groups of utterances that share a speaker or a sentence

from dataclasses import dataclass

import numpy as np

from data_manifests.split_columns import DEV, TEST, TRAIN, HeldOut, SplitColumns

# A corpus with fewer speakers is used for training only: a tenth of them would be nobody, or its
# one main voice.
MIN_SPEAKERS_TO_SPLIT = 20

# A corpus of fewer sentences cannot have one in each of train, dev and test.
MIN_SENTENCES_TO_SPLIT = 3

# What becomes of an utterance.
KEPT, SEEN_PROMPT, LEFT_OUT, UNTRAINED_PROMPT, SURPLUS, COPY = range(6)


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
            `COPY`: it is the same recording as another one (`same_recordings.py`).
    """

    split_N: np.ndarray
    fate_N: np.ndarray

    def rows(self, fate: int) -> np.ndarray:
        """Numbers of the utterances with a fate, in order."""
        return np.flatnonzero(self.fate_N == fate)


def assign_splits(columns: SplitColumns, is_copy_N: np.ndarray | None = None) -> AssignedSplits:
    """Split a mixture of corpora by speaker and by sentence.

    Every utterance has one possible split, which depends only on itself, its corpus and the
    settings (`_possible_splits`). If utterances of one speaker, or of one sentence, have different
    possible splits, one of these wins (a held-out split of the corpus's own, else by the hash of
    the speaker or sentence), and the utterances with another are left out. So adding corpora later
    never moves an utterance to another split.

    Of a corpus of which sentences are held out, speakers do not decide; of one of which recordings
    are, neither speakers nor sentences do. But what they decide elsewhere holds for it too: it is
    left out where it would bring a test speaker or a test sentence of another corpus into train.

    Args:
        columns: the utterances.
        is_copy_N: bool, those that are copies of others; None if there are none. They decide
            nothing but what is possible in their own corpus.
    """
    settings = columns.settings
    split_N, pinned_N = _possible_splits(columns)
    fate_N = np.full(len(columns), LEFT_OUT, dtype=np.uint8)
    takes_part_N = np.ones(len(columns), dtype=bool) if is_copy_N is None else ~is_copy_N
    fate_N[~takes_part_N] = COPY
    by_recording_N = _is_held_out_by(columns, "recording")
    of_sentence_N = _settle(
        columns.sentence, split_N, pinned_N, columns.drawn_by_sentence,
        decides_N=takes_part_N & ~by_recording_N,
    )  # fmt: skip
    by_speaker_N = _is_held_out_by(columns, "speaker")
    of_speaker_N = _settle(
        columns.speaker, split_N, pinned_N, columns.drawn_by_speaker,
        decides_N=takes_part_N & by_speaker_N,
    )  # fmt: skip
    fits_speaker_N = takes_part_N & (of_speaker_N == split_N)
    fate_N[fits_speaker_N & (of_sentence_N == split_N)] = KEPT
    if settings.names_speakers:
        by_speaker_N |= columns.named_split != TRAIN
    is_tested_N = fits_speaker_N & by_speaker_N & ~by_recording_N & (split_N == TEST)
    fate_N[is_tested_N & (of_sentence_N == TRAIN)] = SEEN_PROMPT
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


def _is_held_out_by(columns: SplitColumns, what: HeldOut) -> np.ndarray:
    """The utterances of corpora of which speakers, sentences or recordings are held out, bool."""
    names = tuple(c for c in columns.corpora if columns.settings.held_out_of(c) == what)
    return np.isin(columns.corpus, _positions(columns, names))


def _possible_splits(columns: SplitColumns) -> tuple[np.ndarray, np.ndarray]:
    """The split that is possible for each utterance, uint8 `[N]`, and the same where it is its
    corpus's own, `TRAIN` elsewhere.

    It is that of its speaker, if that is held out by name; the corpus's own, if that can be
    trusted; otherwise the one that its speaker, its sentence or its id hashes to, whichever is held
    out of its corpus. Speakers of a corpus with fewer than `MIN_SPEAKERS_TO_SPLIT` are in train,
    unless `hold_out_of` names the corpus: then some with few recordings are held out. Of a corpus
    with so few sentences that chance holds out none, one is test all the same, and one dev.
    """
    settings = columns.settings
    split_N = _drawn_by_speaker(columns)
    by_sentence_N = _is_held_out_by(columns, "sentence")
    if by_sentence_N.any():
        split_N = np.where(by_sentence_N, _drawn_by_sentence(columns), split_N)
    if settings.holds_out_recordings:
        by_recording_N = _is_held_out_by(columns, "recording")
        split_N = np.where(by_recording_N, columns.drawn_by_id, split_N)
    has_own_N = np.isin(columns.corpus, _positions(columns, settings.with_own_splits))
    split_N = np.where(has_own_N, columns.own_split, split_N)
    if settings.names_speakers:
        named_N = columns.named_split
        has_own_N &= named_N == TRAIN
        for split in (DEV, TEST):  # of such a corpus, nobody else
            of_corpora_N = np.isin(columns.corpus, columns.corpus[named_N == split])
            split_N[of_corpora_N & ~has_own_N & (split_N == split)] = TRAIN
        split_N = np.where(named_N != TRAIN, named_N, split_N)
    return split_N, np.where(has_own_N, split_N, TRAIN)


def _drawn_by_speaker(columns: SplitColumns) -> np.ndarray:
    """The splits that speakers hash to, uint8 `[N]`; of corpora with few, train or those chosen."""
    drawn_N = columns.drawn_by_speaker.copy()
    for number, corpus in enumerate(columns.corpora):
        if columns.num_distinct(columns.speaker, corpus) >= MIN_SPEAKERS_TO_SPLIT:
            continue
        rows = np.flatnonzero(columns.corpus == number)
        drawn_N[rows] = TRAIN
        if columns.settings.hold_out_of.get(corpus) == "speaker":
            drawn_N[rows] = _hold_out_speakers(columns, rows)
    return drawn_N


def _hold_out_speakers(columns: SplitColumns, rows: np.ndarray) -> np.ndarray:
    """Splits of the utterances of a corpus with few speakers, uint8.

    In a random order, a speaker is held out if the share that is wanted for dev or test has room
    for all of their recordings; that with more room takes them. So the one who recorded most is in
    train. Where nobody fits, the one with the least is held out, if two others are left.
    """
    settings = columns.settings
    speakers, firsts, of_rows = np.unique(
        columns.speaker[rows], return_index=True, return_inverse=True
    )
    seconds = np.bincount(of_rows, weights=columns.duration_s[rows])
    order = np.argsort(columns.speaker_turn()[rows[firsts]])
    splits = np.full(len(speakers), TRAIN, dtype=np.uint8)
    shares = {TEST: settings.test_fraction, DEV: settings.dev_fraction}
    room_s = {split: share * seconds.sum() for split, share in shares.items()}
    for speaker in order:
        split = max(room_s, key=lambda split: room_s[split])
        if seconds[speaker] <= room_s[split]:
            splits[speaker] = split
            room_s[split] -= seconds[speaker]
    for split, least_others in ((TEST, 2), (DEV, 1)):
        trained = order[splits[order] == TRAIN]
        if shares[split] and not (splits == split).any() and len(trained) > least_others:
            splits[trained[np.argmin(seconds[trained])]] = split
    return splits[of_rows]


def _drawn_by_sentence(columns: SplitColumns) -> np.ndarray:
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
    keys_N: np.ndarray,
    split_N: np.ndarray,
    pinned_N: np.ndarray,
    drawn_N: np.ndarray,
    *,
    decides_N: np.ndarray,
) -> np.ndarray:
    """Choose one split for each speaker, or sentence, among those possible for its utterances.

    Args:
        keys_N: uint64, the speaker or sentence of each utterance.
        split_N: uint8, the split that is possible for it.
        pinned_N: uint8, its own split, in a corpus whose own are kept; else `TRAIN`.
        drawn_N: uint8, the split that its key hashes to.
        decides_N: bool, the utterances that decide; the others only follow.

    Returns:
        uint8 `[N]`, the split chosen for its key; where no utterance decides, what is possible.
    """
    order_N = np.argsort(keys_N, kind="stable")
    sorted_N = keys_N[order_N]
    starts_G = np.flatnonzero(np.concatenate(([True], sorted_N[1:] != sorted_N[:-1])))
    # Sets of splits, as bits.
    possible_N = np.where(decides_N, np.left_shift(1, split_N), 0)
    candidates_G = np.bitwise_or.reduceat(possible_N[order_N], starts_G)
    held_out_N = np.where(decides_N & (pinned_N != TRAIN), np.left_shift(1, pinned_N), 0)
    held_out_G = np.bitwise_or.reduceat(held_out_N[order_N], starts_G)
    drawn_G = drawn_N[order_N[starts_G]]
    is_candidate_G = (candidates_G >> drawn_G) & 1 == 1
    settled_G = np.where(is_candidate_G, drawn_G, TRAIN)
    for split in (DEV, TEST):  # of two held-out splits, test
        settled_G[held_out_G >> split & 1 == 1] = split
    for split in (TRAIN, DEV, TEST):
        settled_G[candidates_G == 1 << split] = split
    settled_N = np.empty(len(keys_N), dtype=np.uint8)
    num_rows_G = np.diff(starts_G, append=len(keys_N))
    settled_N[order_N] = np.repeat(settled_G, num_rows_G)
    is_undecided_N = np.empty(len(keys_N), dtype=bool)
    is_undecided_N[order_N] = np.repeat(candidates_G == 0, num_rows_G)
    return np.where(is_undecided_N, split_N, settled_N)


def _surplus(columns: SplitColumns, rows: np.ndarray, max_hours: float) -> np.ndarray:
    """Those of a corpus's training utterances that are too many: chosen by hash, so that a larger
    cap keeps the same ones and more."""
    order = rows[np.argsort(columns.turn[rows], kind="stable")]
    # Stop at the first that does not fit, so that a larger cap only adds utterances.
    seconds = np.cumsum(columns.duration_s[order])
    num_kept = int(np.searchsorted(seconds, 3600 * max_hours, side="right"))
    return order[num_kept:]
