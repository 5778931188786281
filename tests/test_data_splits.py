"""Splits of random mixtures: nothing said and nobody in two of them, and no utterance moves."""

import random
from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial

import pytest
from reference_splits import reference_splits, split_corpus

from data_manifests.manifest import Utterance
from data_manifests.normalization import normalize_for_scoring
from data_manifests.splits import MIN_SPEAKERS_TO_SPLIT

SHARES = {"dev_fraction": 0.1, "test_fraction": 0.1}


@pytest.fixture
def assign_splits(tmp_path):
    return partial(split_corpus, folder=tmp_path)


def random_corpus(name, generator, own_splits=False):
    """A corpus of one of the kinds there are: few or many speakers, few prompts or free speech;
    some speakers and sentences are those of other corpora."""
    num_speakers = generator.choice([1, 4, 30, 90])
    num_prompts = generator.choice([15, 120, 4000])
    split_of = {}
    rows = []
    for i in range(generator.choice([200, 600])):
        speaker = generator.randrange(num_speakers)
        is_shared = generator.random() < 0.1
        where = "shared" if is_shared else name
        own = split_of.setdefault(speaker, generator.choice(["train"] * 3 + ["dev", "test"]))
        rows.append(
            Utterance(
                id=f"{name}-{i}",
                audio="a.wav",
                # Case, marks and apostrophes do not make another sentence.
                text=generator.choice(["Kasa {} {}.", "KASA {} {}", "kas'a {} {}?"]).format(
                    generator.randrange(num_prompts), "bi" if is_shared else name
                ),
                duration_s=generator.uniform(1, 9),
                speaker=f"{where}/{speaker}",
                dialect="unknown",
                corpus=name,
                split=own if own_splits else "train",
                license="x",
            )
        )
    return rows


def mixture(seed):
    generator = random.Random(seed)
    names = [f"c{i}" for i in range(generator.randint(1, 4))]
    own = [name for name in names if generator.random() < 0.3]
    return [random_corpus(name, generator, name in own) for name in names], own


def everything(split):
    return [*split.utterances, *split.seen_prompts, *split.left_out, *split.surplus]


def count_splits(utterances):
    return Counter(u.split for u in utterances)


def splits_of(utterances, key):
    found = defaultdict(set)
    for u in utterances:
        found[key(u)].add(u.split)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_no_speaker_and_no_sentence_is_in_two_splits(seed, assign_splits):
    corpora, own = mixture(seed)
    rows = [u for corpus in corpora for u in corpus]
    split = assign_splits(rows, seed=seed, **SHARES, with_own_splits=tuple(own))
    for key in (lambda u: u.speaker, lambda u: normalize_for_scoring(u.text)):
        assert all(len(s) == 1 for s in splits_of(split.utterances, key).values())
    every = everything(split)
    assert sorted(u.id for u in every) == sorted(u.id for u in rows)
    trained = [u for u in split.utterances if u.split == "train"]
    trained_sentences = {normalize_for_scoring(u.text) for u in trained}
    trained_speakers = {u.speaker for u in trained}
    for u in split.seen_prompts:
        assert u.split == "test" and u.speaker not in trained_speakers
        assert normalize_for_scoring(u.text) in trained_sentences


@pytest.mark.parametrize("seed", range(12))
def test_another_corpus_moves_nothing(seed, assign_splits):
    corpora, own = mixture(seed)
    before: dict[str, str] = {}
    for count in range(1, len(corpora) + 1):
        rows = [u for corpus in corpora[:count] for u in corpus]
        random.Random(seed).shuffle(rows)
        split = assign_splits(rows, seed=seed, **SHARES, with_own_splits=tuple(own))
        every = everything(split)
        now = {u.id: u.split for u in every}
        assert all(now[name] == was for name, was in before.items())
        before = now


def utterances(num_speakers, num_sentences, **changes):
    values = {"audio": "a.wav", "duration_s": 36.0, "dialect": "asante", "license": "x"}
    return [
        Utterance(
            **values | {"id": f"{s}-{t}", "speaker": f"s{s}", "text": f"asɛm {t}"}
            | {"corpus": "c", "split": "train"} | changes
        )
        for s in range(num_speakers)
        for t in range(num_sentences)
    ]  # fmt: skip


def test_read_prompts_make_two_test_sets(assign_splits):
    split = assign_splits(utterances(60, 50), seed=0, **SHARES)
    counts = count_splits(split.utterances)
    assert set(counts) == {"train", "dev", "test"}
    assert len(split.seen_prompts) > 2 * counts["test"]
    assert {u.speaker for u in split.seen_prompts} == {
        u.speaker for u in split.utterances if u.split == "test"
    }


def test_free_speech_loses_nothing(assign_splits):
    rows = [replace(u, text=f"asɛm {u.id}") for u in utterances(40, 10)]
    split = assign_splits(rows, seed=0, **SHARES)
    assert len(split.utterances) == len(rows)


def test_few_speakers_are_all_trained_on_unless_sentences_are_held_out(assign_splits):
    rows = utterances(MIN_SPEAKERS_TO_SPLIT - 1, 60)
    assert set(count_splits(assign_splits(rows, seed=0, **SHARES).utterances)) == {"train"}
    split = assign_splits(rows, seed=0, **SHARES, hold_out="sentence")
    assert set(count_splits(split.utterances)) == {"train", "dev", "test"}
    assert not split.left_out and not split.seen_prompts
    found = splits_of(split.utterances, lambda u: u.text)
    assert all(len(splits) == 1 for splits in found.values())


def test_a_corpus_own_test_set_stays_whole(assign_splits):
    ours = utterances(40, 30)
    theirs = utterances(25, 30, corpus="waxal", split="test")
    theirs = [replace(u, id=f"w{u.id}", speaker=f"w{u.speaker}") for u in theirs]
    split = assign_splits([*ours, *theirs], seed=0, **SHARES, with_own_splits=("waxal",))
    kept = [u for u in split.utterances if u.corpus == "waxal"]
    assert len(kept) == len(theirs) and {u.split for u in kept} == {"test"}
    assert not [u for u in split.utterances if u.split == "train"]  # they read the same sentences


@pytest.mark.parametrize("num_prompts", [0, 30])
def test_capped_hours(num_prompts, assign_splits):
    rows = utterances(40, 30)
    if not num_prompts:
        rows = [replace(u, text=f"asɛm {u.id}") for u in rows]
    whole = assign_splits(rows, seed=0, **SHARES)
    kept_before = set()
    for hours in (0.5, 1.0, 2.0):
        split = assign_splits(rows, seed=0, **SHARES, max_hours={"c": hours})
        trained = {u.id for u in split.utterances if u.split == "train"}
        assert len(trained) == hours * 100  # of 36 s each
        assert kept_before < trained
        kept_before = trained
        for name in ("dev", "test"):
            of_both = [[u for u in s.utterances if u.split == name] for s in (whole, split)]
            assert of_both[0] == of_both[1]
        assert len(whole.utterances) == len(split.utterances) + len(split.surplus)
        sentences = {u.text for u in split.utterances if u.split == "train"}
        assert all(u.text in sentences for u in split.seen_prompts)
    other = assign_splits(rows, seed=0, **SHARES, max_hours={"other": 1.0})
    assert other == whole


def held_out_otherwise(corpora, generator):
    """What is held out of all corpora and of some, and speakers who are held out by name."""
    kinds = ("speaker", "sentence", "recording")
    names = [corpus[0].corpus for corpus in corpora]
    settings = {
        "hold_out": generator.choice(kinds),
        "hold_out_of": {
            name: generator.choice(kinds) for name in names if generator.random() < 0.5
        },
    }
    speakers = sorted({u.speaker for corpus in corpora for u in corpus})
    named = generator.sample(speakers, min(len(speakers), generator.randrange(4)))
    return settings | {"test_speakers": frozenset(named[:2]), "dev_speakers": frozenset(named[2:])}


@pytest.mark.parametrize("seed", range(30))
def test_what_is_held_out_of_each_corpus(seed, assign_splits):
    corpora, own = mixture(seed)
    generator = random.Random(seed)
    settings = held_out_otherwise(corpora, generator)
    rows = [u for corpus in corpora for u in corpus]
    split = assign_splits(rows, seed=seed, **SHARES, with_own_splits=tuple(own), **settings)
    assert sorted(u.id for u in everything(split)) == sorted(u.id for u in rows)

    def held_out_of(u):
        return settings["hold_out_of"].get(u.corpus, settings["hold_out"])

    places = [(u, u.split) for u in split.utterances] + [(u, "test") for u in split.seen_prompts]
    for held_out, key in (
        ("speaker", lambda u: u.speaker), ("sentence", lambda u: normalize_for_scoring(u.text)),
    ):  # fmt: skip
        found, counts = defaultdict(set), set()
        for u, where in places if held_out == "speaker" else places[: len(split.utterances)]:
            found[key(u)].add(where)
            if held_out_of(u) in ("speaker", held_out):
                counts.add(key(u))
        assert all(len(found[name]) == 1 for name in counts)
    trained = {u.speaker for u in split.utterances if u.split == "train"}
    assert not trained & {u.speaker for u in split.seen_prompts}
    for name in ("test", "dev"):
        here = {where for u, where in places if u.speaker in settings[f"{name}_speakers"]}
        assert here <= {name}
    if len(corpora) > 1 and not settings["test_speakers"] | settings["dev_speakers"]:
        before = assign_splits(
            corpora[0], seed=seed, **SHARES, with_own_splits=tuple(own), **settings
        )
        now = {u.id: u.split for u in everything(split)}
        assert all(now[u.id] == u.split for u in everything(before))


@pytest.mark.parametrize("seed", range(20))
def test_of_a_corpus_with_one_main_voice_others_are_held_out(seed, assign_splits):
    """As in Common Voice: eleven speakers, of whom one recorded four fifths."""
    sizes = [221, 15, 9, 7, 6, 4, 3, 3, 2, 1, 1]
    rows = [
        replace(u, id=f"{s}-{i}", text=f"asɛm {s} {i}")
        for s, size in enumerate(sizes)
        for i, u in enumerate(utterances(len(sizes), 1)[s : s + 1] * size)
    ]
    trained = assign_splits(rows, seed=seed, **SHARES)
    assert count_splits(trained.utterances) == {"train": len(rows)}
    split = assign_splits(rows, seed=seed, **SHARES, hold_out_of={"c": "speaker"})
    found = splits_of(split.utterances, lambda u: u.speaker)
    assert found["s0"] == {"train"} and all(len(splits) == 1 for splits in found.values())
    counts = count_splits(split.utterances)
    assert 1 <= counts["dev"] <= 27 and 1 <= counts["test"] <= 27 and len(split.utterances) == 272
    named = assign_splits(
        rows, seed=seed, **SHARES, hold_out_of={"c": "speaker"}, test_speakers=frozenset({"s3"})
    )
    assert {u.speaker for u in named.utterances if u.split == "test"} == {"s3"}


def test_three_speakers_are_one_each(assign_splits):
    for number, splits in ((3, {"train", "dev", "test"}), (2, {"train", "dev"}), (1, {"train"})):
        rows = [replace(u, text=f"asɛm {u.id}") for u in utterances(number, 4)]
        found = assign_splits(rows, seed=0, **SHARES, hold_out_of={"c": "speaker"})
        assert set(count_splits(found.utterances)) == splits


@pytest.mark.parametrize("seed", range(40))
def test_the_splits_are_those_of_the_plainest_way(seed, assign_splits):
    """A set of splits is a contract: a seed gives the same ones for ever."""
    generator = random.Random(seed)
    corpora, own = mixture(seed)
    rows = [u for corpus in corpora for u in corpus]
    generator.shuffle(rows)
    settings = {
        "seed": generator.randrange(3),
        "dev_fraction": generator.choice([0.0, 0.1, 0.4]),
        "test_fraction": generator.choice([0.0, 0.1, 0.5]),
        "hold_out": generator.choice(["speaker", "speaker", "sentence"]),
        "with_own_splits": tuple(own),
        "max_hours": {
            f"c{i}": generator.choice([1e-4, 0.1, 0.5, 9.0]) for i in range(generator.randrange(3))
        },
    }
    assert assign_splits(rows, **settings) == reference_splits(rows, **settings)
