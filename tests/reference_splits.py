"""The splits as plainly as they can be written, a list of utterances at a time: what `build` must
give, however it computes it."""

import hashlib
from dataclasses import dataclass, replace

from data_manifests.corpora.recording import Recording
from data_manifests.corpora.recording_spool import RecordingSpool
from data_manifests.hash_set import hash_text
from data_manifests.line_writer import spooled_lines
from data_manifests.manifest import Utterance
from data_manifests.normalization import normalize_for_scoring
from data_manifests.split_columns import SplitColumns, SplitSettings
from data_manifests.splits import (
    KEPT,
    LEFT_OUT,
    MIN_SPEAKERS_TO_SPLIT,
    SEEN_PROMPT,
    SURPLUS,
    UNTRAINED_PROMPT,
    assign_splits,
)


@dataclass
class SplitCorpus:
    """Utterances with their split, by what becomes of them."""

    utterances: list[Utterance]
    seen_prompts: list[Utterance]
    left_out: list[Utterance]
    surplus: list[Utterance]


def split_corpus(utterances, folder, **settings):
    """The splits that `build` assigns, through its files and columns."""
    columns = SplitColumns(SplitSettings(**settings))
    with spooled_lines(folder / "recordings.tmp") as lines:
        spool = RecordingSpool(lines)
        for utterance in utterances:
            spool.add(Recording(utterance))
            columns.add(utterance)
        assigned = assign_splits(columns)

        def with_fate(*fates):
            found = (spool.read(assigned.rows(fate), assigned.split_N) for fate in fates)
            return [recording.utterance for recordings in found for recording in recordings]

        return SplitCorpus(
            with_fate(KEPT), with_fate(SEEN_PROMPT), with_fate(LEFT_OUT, UNTRAINED_PROMPT),
            with_fate(SURPLUS),
        )  # fmt: skip


def reference_splits(
    utterances, *, seed, dev_fraction, test_fraction, hold_out="speaker", with_own_splits=(),
    max_hours=None,
):  # fmt: skip
    """The same, by sets and dictionaries."""

    def fraction(key):
        digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def drawn(key):
        if fraction(key) < test_fraction:
            return "test"
        return "dev" if fraction(key) < test_fraction + dev_fraction else "train"

    def sentence_of(u):
        return normalize_for_scoring(u.text)

    def possible(u):
        if u.corpus in with_own_splits:
            return u.split
        if hold_out == "sentence":
            return spared[u.corpus].get(sentence_of(u)) or drawn(sentence_of(u))
        few = len({v.speaker for v in utterances if v.corpus == u.corpus}) < MIN_SPEAKERS_TO_SPLIT
        return "train" if few else drawn(u.speaker)

    def spare(corpus):
        """Training sentences that are held out because chance has held out none."""
        sentences = {sentence_of(u) for u in utterances if u.corpus == corpus}
        key = int.from_bytes(hashlib.sha256(f"{seed}\0spare".encode()).digest()[:8], "big")
        found = {}
        for split, share in (("test", test_fraction), ("dev", dev_fraction)):
            trained = [s for s in sentences if drawn(s) == "train" and s not in found]
            is_empty = all(drawn(s) != split for s in sentences)
            if len(sentences) > 2 and share and is_empty and len(trained) > 1:
                found[min(trained, key=lambda s: hash_text(s) ^ key)] = split
        return found

    spared = {}
    if hold_out == "sentence":
        spared = {corpus: spare(corpus) for corpus in {u.corpus for u in utterances}}

    def settle(key_of):
        groups = {}
        for u in placed:
            groups.setdefault(key_of(u), []).append(u)
        settled = {}
        for key, group in groups.items():
            splits = {u.split for u in group}
            held_out = {u.split for u in group if u.corpus in with_own_splits} - {"train"}
            if len(splits) == 1:
                (settled[key],) = splits
            elif held_out:
                settled[key] = "test" if "test" in held_out else "dev"
            else:
                settled[key] = drawn(key) if drawn(key) in splits else "train"
        return settled

    possible_of = {}
    for u in utterances:
        key = (u.corpus, u.split, u.speaker, sentence_of(u))
        if key not in possible_of:
            possible_of[key] = possible(u)
    placed = [
        replace(u, split=possible_of[u.corpus, u.split, u.speaker, sentence_of(u)])
        for u in utterances
    ]
    of_sentence = settle(sentence_of)
    of_speaker = settle(lambda u: u.speaker) if hold_out == "speaker" else {}
    found = SplitCorpus([], [], [], [])
    for u in placed:
        if of_speaker.get(u.speaker, u.split) != u.split:
            found.left_out.append(u)
        elif of_sentence[sentence_of(u)] == u.split:
            found.utterances.append(u)
        elif u.split == "test" and hold_out == "speaker" and of_sentence[sentence_of(u)] == "train":
            found.seen_prompts.append(u)
        else:
            found.left_out.append(u)
    surplus = set()
    for corpus, hours in (max_hours or {}).items():
        trained = [u for u in found.utterances if u.split == "train" and u.corpus == corpus]
        trained.sort(key=lambda u: (fraction(f"cap\0{u.corpus}\0{u.id}"), u.id))
        seconds = 0.0
        while trained and seconds + trained[0].duration_s <= 3600 * hours:
            seconds += trained.pop(0).duration_s
        surplus |= {u.id for u in trained}
    found.surplus = [u for u in found.utterances if u.id in surplus]
    found.utterances = [u for u in found.utterances if u.id not in surplus]
    sentences = {sentence_of(u) for u in found.utterances if u.split == "train"}
    found.left_out += [u for u in found.seen_prompts if sentence_of(u) not in sentences]
    found.seen_prompts = [u for u in found.seen_prompts if sentence_of(u) in sentences]
    return found
