"""Every damage done to a corpus in miniature, by corpus."""

import os
import random
import shutil
from functools import partial
from pathlib import Path

from tests.attacks.archive_damage import (
    ENTRIES,
    MEMBERS,
    ZIPS,
    change_trailer,
    tar_bomb,
    truncate,
    uncompressed,
    with_entry,
    with_member,
)
from tests.attacks.file_damage import Damage, append, cut, each, edit, flip_in_the_middle, write
from tests.attacks.small_corpora import CORPORA, UG_NAMES, saved
from tests.attacks.table_damage import ODD_IDS, ODD_PATHS, durations, fisd_name, table_changes


def damages() -> list[tuple[str, str, Damage, bool]]:
    """Corpus, what is done, how, and whether what is accepted must be whole."""
    damages: list[tuple[str, str, Damage, bool]] = [
        (corpus, "as it is", lambda folder, rng: None, True) for corpus in CORPORA
    ]
    tgz = [(f"flipped, {n}", each("*.tgz", flip_in_the_middle)) for n in range(8)]
    tgz += [(f"cut, {n}", each("*.tgz", cut)) for n in range(4)]
    tgz += [
        ("wrong checksum", each("*.tgz", partial(change_trailer, 0))),
        ("wrong length", each("*.tgz", partial(change_trailer, 4))),
        ("no trailer", each("*.tgz", lambda path, rng: truncate(path, 8))),
        ("garbage behind", each("*.tgz", lambda path, rng: append(path, b"garbage" * 100))),
        ("zeros behind", each("*.tgz", lambda path, rng: append(path, bytes(5000)))),
        ("not compressed, cut", each("*.tgz", partial(uncompressed, True))),
        ("not compressed", each("*.tgz", partial(uncompressed, False))),
    ]
    damages += [("bible tgz", name, damage, True) for name, damage in tgz]
    damages += [("bible tgz", f"with {name}", with_member(add), False) for name, add in MEMBERS]
    damages += [("bible tgz", "a bomb", each("*.tgz", tar_bomb), False)]
    damages += [("fisd zip", f"with {name}", with_entry(*entry), False) for name, entry in ENTRIES]
    damages += [
        ("fisd zip", f"flipped, {n}", each("*.zip", flip_in_the_middle), False) for n in range(8)
    ]
    damages += [("fisd zip", f"cut, {n}", each("*.zip", cut), False) for n in range(4)]
    damages += [("fisd zip", name, each("*.zip", change), False) for name, change in ZIPS]
    for corpus, pattern, column in (
        ("common voice", "validated.tsv", "sentence"), ("fisd folder", "data.csv", "Transcription"),
        ("ugspeechdata", "Akan.csv", "Transcription"), ("audio folder", "metadata.csv", "sentence"),
    ):  # fmt: skip
        damages += [
            (corpus, f"table {name}", each(pattern, change), False)
            for name, change in table_changes(column)
        ]
    damages += [
        ("common voice", f"duration {value[:10]!r}", durations(value), False)
        for value in ("long", "", "-5", "0", "1e3", "nan", "9" * 400, "999999999", "1.5", "²")
    ]
    damages += [
        (
            "common voice",
            f"clip {name[:20]!r}",
            each("validated.tsv", edit("cv_1.mp3", name)),
            False,
        )
        for name in ODD_PATHS
    ]
    damages += [
        ("fisd folder", f"file {name[:20]!r}", each("data.csv", fisd_name(name)), False)
        for name in ODD_PATHS
    ]
    damages += [
        ("dataset", f"id {name[:20]!r}", partial(renamed_row, name), False) for name in ODD_IDS
    ]
    damages += [
        ("audio folder", f"file {name[:20]!r}", each("metadata.csv", edit("1.flac", name)), False)
        for name in ODD_PATHS
    ]
    damages += [
        ("bible folder", "verse in Latin-1", each("*.txt", write(b"Yes\xe9")), False),
        ("bible folder", "verse in UTF-16", each("*.txt", write("Yɛ".encode("utf-16"))), False),
        ("bible folder", "a huge verse", each("*.txt", write(b"Yes " * 100_000)), False),
        ("bible folder", "a name that is not UTF-8", odd_name(b"x\xff.flac"), False),
        ("bible folder", "a long name", odd_name(b"x" * 250 + b".flac"), False),
        ("bible folder", "a line end in a name", odd_name(b"x\n.flac"), False),
        ("ugspeechdata", "a text that is a pipe", ug_pipe, False),
        ("dataset", "a row of another type", other_types, False),
    ]
    return damages


def renamed_row(name: str, folder: Path, rng: random.Random) -> None:

    shutil.rmtree(folder / "saved")
    saved(folder, (name, "b", "c", "d"))


def odd_name(name: bytes) -> Damage:
    def damage(folder: Path, rng: random.Random) -> None:
        book = os.fsencode(folder / "asante-twi" / "train" / "GEN")
        for suffix in (b".flac", b".txt"):
            source = os.path.join(book, b"GEN_001_001" + suffix)
            os.rename(source, os.path.join(book, name.removesuffix(b".flac") + suffix))

    return damage


def ug_pipe(folder: Path, rng: random.Random) -> None:
    (folder / "ug" / "Metadata" / "Akan.csv").unlink()
    os.mkfifo(folder / "ug" / "Akan" / f"{UG_NAMES[0]}.txt")


def other_types(folder: Path, rng: random.Random) -> None:
    import datasets

    rows = {"name": [1, 2], "sentence": [["a"], ["b"]], "audio": [None, None]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)}).save_to_disk(folder / "new")
    (folder / "saved").rename(folder / "old")
    (folder / "new").rename(folder / "saved")
