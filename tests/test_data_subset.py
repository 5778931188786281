"""Some hours of a manifest: nested, the same every time, and of which speakers."""

import numpy as np
import pytest
from conftest import run

from commands.errors import InputError
from commands.json_files import read_json
from data_manifests import subset as command
from data_manifests.manifest import Utterance, read_manifest, write_manifest

NUM_ROWS, SECONDS = 200, 3.6  # a thousandth of an hour each


@pytest.fixture
def manifest(tmp_path):
    rows = [
        Utterance(
            id=f"u{i}", audio=f"clips/{i}.wav", text="Maakye.", duration_s=SECONDS,
            speaker=f"spk{i % 5}", dialect="asante", corpus="c", split="train", license="CC0-1.0",
        )
        for i in range(NUM_ROWS)
    ]  # fmt: skip
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, rows)
    return path


def take(manifest, name, *flags):
    out = manifest.parent / name
    run(command.main, "--manifest", manifest, "--out", out, *flags)
    return list(read_manifest(out / "train.jsonl")), read_json(out / "subset.json")


def test_few_hours_are_part_of_many(manifest):
    taken = {
        hours: [u.id for u in take(manifest, str(hours), "--hours", hours)[0]]
        for hours in (0.0105, 0.0205, 0.1005, 9)
    }
    assert [len(ids) for ids in taken.values()] == [10, 20, 100, NUM_ROWS]
    few, more, many, everything = taken.values()
    assert set(few) < set(more) < set(many) < set(everything)
    assert everything == [f"u{i}" for i in range(NUM_ROWS)]  # in the manifest's order
    assert many == [id_ for id_ in everything if id_ in set(many)]
    assert many != everything[:100]
    assert few != [u.id for u in take(manifest, "s", "--hours", 0.0105, "--seed", 1)[0]]


def test_rows_name_the_same_recordings_and_the_summary_says_how_much(manifest):
    rows, summary = take(manifest, "out", "--hours", 0.1005)
    assert rows[0].audio == str(manifest.parent / "clips" / f"{rows[0].id[1:]}.wav")
    assert summary == {
        "hours": 0.1, "utterances": 100, "speakers": 5,
        "of": {"hours": 0.2, "utterances": NUM_ROWS, "speakers": 5},
    }  # fmt: skip


def test_a_corpus_that_grows_keeps_its_order(manifest):
    few = {u.id for u in take(manifest, "few", "--hours", 0.0205)[0]}
    rows = list(read_manifest(manifest))
    first = {
        row.id for row, taken in zip(rows, _choose(manifest, 0.0205), strict=True) if taken
    }  # fmt: skip
    assert first == few
    write_manifest(manifest, rows[:100])
    shrunk = {u.id for u in take(manifest, "shrunk", "--hours", 0.0205)[0]}
    assert few & {row.id for row in rows[:100]} <= shrunk


def _choose(manifest, hours):
    return command.choose(command.read_columns(manifest, 0), hours, ())


def test_one_speaker_of_a_subset_is_the_subset_of_one_speaker(manifest):
    take(manifest, "half", "--hours", 0.1005)
    inside = take(manifest.parent / "half" / "train.jsonl", "voice", "--speakers", "spk2")[0]
    alone = take(manifest, "alone", "--speakers", "spk2", "spk3", "--hours", 0.0105)[0]
    assert {u.speaker for u in inside} == {"spk2"}
    assert {u.speaker for u in alone} == {"spk2", "spk3"} and len(alone) == 10
    assert all(np.array(_choose(manifest, 0.1005))[int(u.id[1:])] for u in inside)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--speakers", "spk2", "kofi"), "--speakers kofi: nobody of that name speaks"),
        (("--hours", "0.0001"), "--hours 0.0001: not one utterance is as short"),
        (("--hours", "-1"), "--hours"),
    ],
)
def test_what_cannot_be_taken_leaves_no_folder(manifest, flags, message):
    out = manifest.parent / "out"
    with pytest.raises(InputError, match=message):
        run(command.main, "--manifest", manifest, "--out", out, *flags)
    assert not out.exists()
