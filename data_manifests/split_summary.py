"""The summary that `data_manifests.build` prints of the splits it made."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from data_manifests.manifest import SPLITS, Utterance
from data_manifests.splits import MIN_SPEAKERS_TO_SPLIT, HeldOut, SplitCorpus
from data_manifests.twi_text import normalize_for_scoring


def summarize_splits(
    utterances: Sequence[Utterance],
    corpus: SplitCorpus,
    dropped: Sequence[Mapping[str, str]],
    rewritten: Sequence[Mapping[str, str]],
    *,
    hold_out: HeldOut,
    with_own_splits: Collection[str],
) -> str:
    """Hours by corpus and split, how they were made, and what was left out.

    Args:
        dropped: corpus, id and reason for every row left out.
        rewritten: likewise, for every transcript that was changed.
    """
    lines = [_table(utterances, corpus)]
    held_out = "speaker and by normalised sentence"
    if hold_out == "sentence":
        held_out = "normalised sentence, but not by speaker"
    lines.append(f"splits made here, disjoint by {held_out}, across all corpora")
    for name in sorted({u.corpus for u in utterances}):
        num_speakers = len({u.speaker for u in utterances if u.corpus == name})
        if name in with_own_splits:
            lines.append(f"{name}: its own splits are kept, they are disjoint by speaker")
        elif hold_out == "speaker" and num_speakers < MIN_SPEAKERS_TO_SPLIT:
            lines.append(
                f"{name}: {num_speakers} speaker(s), fewer than {MIN_SPEAKERS_TO_SPLIT}, so all "
                "of it is training data; --hold-out sentence holds out sentences instead"
            )
    if corpus.seen_prompts:
        lines.append(
            f"test_seen_prompts.jsonl: {len(corpus.seen_prompts)} recordings of test speakers "
            "whose sentence is trained on; report it beside test.jsonl, never mixed with it"
        )
    for name, n in sorted(Counter(row["corpus"] for row in rewritten).items()):
        lines.append(f"{name}: {n} transcripts rewritten, listed in rewritten.jsonl")
    reasons = Counter((row["corpus"], row["reason"]) for row in dropped)
    lines.append(f"{len(dropped)} left out, listed in dropped.jsonl" + (":" if reasons else ""))
    lines += [f"  {n:>7} {name}: {reason}" for (name, reason), n in reasons.most_common(8)]
    present = {u.split for u in corpus.utterances}
    lines += [f"warning: {split}.jsonl is empty" for split in SPLITS if split not in present]
    return "\n".join(lines)


def _table(utterances: Sequence[Utterance], corpus: SplitCorpus) -> str:
    """Hours by corpus and split, with the speakers and distinct sentences that were found."""
    columns = (*SPLITS, "seen prompts", "left out")
    hours: defaultdict[tuple[str, str], float] = defaultdict(float)
    for u in corpus.utterances:
        hours[u.corpus, u.split] += u.duration_s / 3600
    for column, rows in (
        ("seen prompts", corpus.seen_prompts),
        ("left out", [*corpus.left_out, *corpus.surplus]),
    ):
        for u in rows:
            hours[u.corpus, column] += u.duration_s / 3600
    header = "".join(f"{column + ' h':>15}" for column in columns)
    lines = [f"{'corpus':<20}{'speakers':>9}{'sentences':>10}{header}"]
    for name in sorted({u.corpus for u in utterances}):
        of_corpus = [u for u in utterances if u.corpus == name]
        num_sentences = len({normalize_for_scoring(u.text) for u in of_corpus})
        num_speakers = len({u.speaker for u in of_corpus})
        cells = "".join(f"{hours[name, column]:>15.2f}" for column in columns)
        lines.append(f"{name:<20}{num_speakers:>9}{num_sentences:>10}{cells}")
    return "\n".join(lines)
