"""Corpora as they are downloaded, damaged: archives, folders, tables, datasets; given to `build`.

What is accepted must be whole: readable manifests, every recording where its row says, below the
folder that was named, and every transcript that of its id.
"""

import random
from functools import partial
from pathlib import Path

from data_manifests.contained_audio import find_reference, read_contained
from tests.attacks.corpus_damage import damages
from tests.attacks.file_damage import Damage, break_a_file, damage_any_file
from tests.attacks.harness import Case
from tests.attacks.mutations import draw, rows_there
from tests.attacks.small_corpora import CORPORA, TEXTS, Corpus

KIND = "corpora"


def cases(world: Path, seed: int, count: int) -> list[Case]:
    """Damaged corpora; the world has no part in them."""
    fixed = [
        _case(CORPORA[corpus], name, damage, whole=whole)
        for corpus, name, damage, whole in damages()
    ]
    fixed += [_settings_case(words) for words in SETTINGS]

    def make_random(rng: random.Random, number: int) -> Case:
        corpus = CORPORA[rng.choice(sorted(CORPORA))]
        damage = rng.choice((damage_any_file, damage_any_file, damage_any_file, break_a_file))
        return _case(corpus, f"damaged, {number}", damage, whole="tgz" in corpus.name)

    return draw(fixed, make_random, seed, count)


def _case(corpus: Corpus, name: str, damage: Damage, *, whole: bool = False) -> Case:
    def make(folder: Path, rng: random.Random) -> None:
        corpus.make(folder)
        damage(folder, rng)

    return Case(
        KIND, f"{corpus.name}: {name}", "data_manifests.build",
        (*corpus.flags, "--hold-out", "sentence", "--out", "out"), make,
        partial(_check, corpus, whole=whole),
    )  # fmt: skip


def _check(corpus: Corpus, folder: Path, *, whole: bool) -> str:
    """What is wrong with what was built; `whole`: whatever was accepted must be all of it."""
    out = folder / "out"
    rows = [row for path in sorted(out.glob("t*.jsonl")) for row in rows_there(path)]
    rows += rows_there(out / "dev.jsonl")
    if not rows or len(rows) > 2 * corpus.num_recordings:
        return f"{len(rows)} rows of {corpus.num_recordings} recordings"
    if whole and len(rows) < corpus.num_recordings:
        return f"{len(rows)} rows of {corpus.num_recordings} recordings, and nothing was said"
    ids = [row["id"] for row in rows]
    if len(set(ids)) < len(ids):
        return "an id twice"
    for row in rows:
        audio = out / row["audio"]
        reference = find_reference(audio)
        if reference is not None and not read_contained(reference):
            return f"no recording {row['audio']!r}"
        audio = audio if reference is None else reference.container
        if not audio.is_file() or audio.stat().st_size == 0:
            return f"no recording {row['audio']!r}"
        if not audio.resolve().is_relative_to(folder):
            return f"a recording outside: {audio.resolve()}"
        if whole and row["text"] not in TEXTS:
            return f"{row['id']} says {row['text']!r}"
    return ""


SETTINGS = tuple(
    ("--corpus", "common_voice=tw", *words)
    for words in (
        *(("--max-hours", f"common_voice={value}") for value in
          ("nan", "inf", "-inf", "0", "-1", "", "1e999", "1e-300", "9" * 400, "x")),
        ("--max-hours", "common_voice=1", "common_voice=2"), ("--max-hours", "=1"),
        ("--dataset-name", "../x"), ("--dataset-name", ""), ("--dataset-name", "x" * 300),
        ("--corpus", "dataset=a\0b"), ("--corpus", "dataset=" + "x" * 5000),
        ("--dataset-dialect", "twi"), ("--corpus", "common_voise=tw"), ("--corpus", "=tw"),
        ("--corpus", "dataset="), ("--corpus", "tw"), ("--corpus", "dataset=a", "dataset=b"),
        ("--dataset-columns", "audio"), ("--dev-fraction", "nan"), ("--test-fraction", "1"),
        ("--dev-fraction", "0.6", "--test-fraction", "0.6"), ("--seed", "-1"),
        ("--corpus", "fisd_asante=no"), ("--corpus", "bibletts_asante=tw", "bibletts_asante=tw"),
        ("--corpus", "ugspeechdata=tw"), ("--common-voice-tables", "train"),
        ("--corpus", "bibletts_asante=x/a.tgz", "bibletts_asante=y/a.tgz"),
        ("--corpus", "waxal_aka_asr=/dev/zero"), ("--corpus", "dataset=/dev/zero"),
        ("--corpus", "dataset=tw"),
    )
)  # fmt: skip


def _settings_case(words: tuple[str, ...]) -> Case:
    corpus = CORPORA["common voice"]
    shown = " ".join(word[:20] for word in words[2:])
    return Case(
        KIND, f"settings {shown!r}, {sum(map(len, words))} long", "data_manifests.build",
        (*words, "--hold-out", "sentence", "--out", "out"),
        lambda folder, rng: corpus.make(folder), partial(_check, corpus, whole=False),
    )  # fmt: skip
