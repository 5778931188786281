"""The check: every defect is found under its name, nothing sound is removed, nothing is held."""

import json
import re

import numpy as np
import pytest
import soundfile
from conftest import run

from commands.errors import InputError
from data_manifests import check
from data_manifests.cleaned_manifest import REMOVED_NAME
from data_manifests.defects import MAX_CHARACTERS_PER_S, MIN_CHARACTERS_PER_S, examine
from data_manifests.inventory import loan_letters, outside_characters
from data_manifests.manifest import Utterance
from data_manifests.normalization import normalize_for_training
from data_manifests.ordered_map import CHUNK_ITEMS

RATE_HZ = 16_000


def noise(seed, seconds=2.0):
    """Steady noise: a stand-in for speech that is never silent, clipped, or equal to another's."""
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(round(seconds * RATE_HZ))).clip(-0.9, 0.9)


def row(**changes):
    values = {
        "id": "a", "audio": "a.wav", "text": "Ɛte sɛn, Kofi?", "duration_s": 2.0, "speaker": "s",
        "dialect": "asante", "corpus": "c", "split": "train", "license": "CC0-1.0",
    }  # fmt: skip
    return {**values, **changes}


def write_rows(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    return path


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_folder(tmp_path, path, *flags):
    """Run the check into `tmp_path/out`; returns stdout and the report."""
    stdout = run(check.main, "--manifest", path, "--out", tmp_path / "out", *flags)
    return stdout, json.loads((tmp_path / "out" / "report.json").read_text())


@pytest.fixture
def mixed(tmp_path):
    """A manifest with a row of every problem and of every observation, named by its kind."""
    folder = tmp_path / "data"
    folder.mkdir()
    samples = {
        **{name: noise(i) for i, name in enumerate(["sound", "other", "digits", "greek", "tweet"])},
        "silent": np.zeros(2 * RATE_HZ),
        "short": noise(11, 1.0),
        "clipped": np.clip(20 * noise(12), -1, 1),
        "paused": np.concatenate([noise(13, 0.1), np.zeros(round(1.9 * RATE_HZ))]),
        "again": noise(14),
        "fast": noise(15),
        "slow": noise(16, 20.0),
        "slices": noise(17, 6.0),
        "speechless": noise(18),
    }
    for name, values in samples.items():
        soundfile.write(folder / f"{name}.wav", values, RATE_HZ, subtype="PCM_16")
    # The same samples in another container, under another name.
    decoded, _ = soundfile.read(folder / "sound.wav", dtype="int16")
    soundfile.write(folder / "copy.flac", decoded, RATE_HZ, subtype="PCM_16")
    (folder / "garbage.wav").write_text("This is no audio.")
    slice_of = {"audio": "slices.wav", "duration_s": 2.0}
    return write_rows(
        folder / "train.jsonl",
        row(id="sound", audio="sound.wav"),
        row(id="sound", audio="other.wav", text="Medaase."),
        row(id="copy", audio="copy.flac", text="Me din de Ama."),
        row(id="absent", audio="absent.wav"),
        row(id="garbage", audio="garbage.wav"),
        row(id="silent", audio="silent.wav"),
        row(id="short", audio="short.wav"),
        row(id="rate", audio="other.wav", sample_rate_hz=8_000),
        row(id="speechless", audio="speechless.wav", text="..."),
        row(id="fast", audio="fast.wav", text="kasa " * 16),
        row(id="slow", audio="slow.wav", text="Aane.", duration_s=20.0),
        row(id="slice", text="Bra ha.", start_s=1.0, **slice_of),
        row(id="same slice", text="Kɔ hɔ.", start_s=1.0, **slice_of),
        row(id="next slice", text="Tena ase.", start_s=3.0, **slice_of),
        row(id="no slice", text="Sɔre hɔ.", start_s=5.0, **slice_of),
        row(id="clipped", audio="clipped.wav", text="Mate aseɛ."),
        row(id="paused", audio="paused.wav", text="Aane, ɛyɛ."),
        row(id="digits", audio="digits.wav", text="Afe 1957 mu"),
        row(id="greek", audio="greek.wav", text="έtε sέn"),
        row(id="tweet", audio="tweet.wav", text="Ɛyɛ ✓ Ўoo"),
        row(id="again", audio="again.wav", text="ɛte sɛn Kofi"),
    )


PROBLEMS = {
    "id used twice": 1, "duplicate audio": 2, "missing audio": 1, "unreadable audio": 1,
    "silent": 1, "wrong duration": 1, "wrong sample rate": 1, "no speakable character": 1,
    "impossible speaking rate": 2, "cut short": 1,
}  # fmt: skip
OBSERVATIONS = {
    "clipped": 1, "mostly silent": 1, "digits": 1, "characters outside Twi": 1,
    "repeated reading": 1,
}  # fmt: skip


def test_every_kind_is_found_under_its_name(mixed, tmp_path, capsys):
    with pytest.raises(InputError, match="12 problems in 21 rows") as caught:
        check.main(["--manifest", str(mixed), "--out", str(tmp_path / "out")])
    assert "\n" not in str(caught.value) and "2 duplicate audio" in str(caught.value)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["problems"] == PROBLEMS
    assert report["observations"] == OBSERVATIONS
    examples = report["examples"]
    assert f"{mixed}:10: 79 characters in 2.00 s" in examples["impossible speaking rate"][0]
    assert "1957" in examples["digits"][0] and f"{mixed}:21:" in examples["repeated reading"][0]
    (table,) = report["corpora"]
    assert (table["rows"], table["problems"], table["speakers"]) == (21, 12, 1)
    # έ is ε with an accent and becomes ɛ; Ў is no letter of Twi and decomposes.
    names = report["characters_outside_twi"]
    assert names == {
        **{f"'{digit}' U+00{ord(digit):X} {name}": 1 for digit, name in DIGIT_NAMES.items()},
        "'у' U+0443 CYRILLIC SMALL LETTER U": 1,
        "'✓' U+2713 CHECK MARK": 1,
        "'\u0306' U+0306 COMBINING BREVE": 1,
    }
    for name in ("durations.png", "speaking_rates.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "done").exists()
    assert not (tmp_path / "out" / "train.jsonl").exists()
    stdout = capsys.readouterr().out
    for kind in {**PROBLEMS, **OBSERVATIONS}:
        assert kind in stdout


DIGIT_NAMES = {"1": "DIGIT ONE", "5": "DIGIT FIVE", "7": "DIGIT SEVEN", "9": "DIGIT NINE"}


def test_fix_keeps_the_sound_rows_and_says_why_others_went(mixed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # relative paths, as users type them
    stdout, report = check_folder(tmp_path, mixed.relative_to(tmp_path), "--fix")
    assert "9 of 21 rows kept, 12 removed" in stdout
    assert stdout.splitlines()[-1] == str(tmp_path / "out" / "train.jsonl")
    before = read_rows(mixed)
    removed = read_rows(tmp_path / "out" / REMOVED_NAME)
    lines_removed = {int(r["row"].rpartition(":")[2]) for r in removed}
    kept = read_rows(tmp_path / "out" / "train.jsonl")
    expected = [r for number, r in enumerate(before, start=1) if number not in lines_removed]
    assert [{**r, "audio": ""} for r in kept] == [{**r, "audio": ""} for r in expected]
    assert [r["id"] for r in kept] == [
        "sound", "slice", "next slice", "clipped", "paused", "digits", "greek", "tweet", "again",
    ]  # fmt: skip
    counts = {kind: [r["kind"] for r in removed].count(kind) for kind in PROBLEMS}
    assert counts == PROBLEMS == report["problems"]
    assert all(r["reason"] and r["audio"].startswith(str(tmp_path)) for r in removed)
    # The cleaned manifest stands on its own: from another folder, it is sound.
    monkeypatch.chdir("/")
    run(check.main, "--manifest", tmp_path / "out" / "train.jsonl")


def test_processes_give_the_same_result(mixed, tmp_path):
    many = [{**r, "id": f"{r['id']} {i}"} for i in range(4) for r in read_rows(mixed)]
    path = write_rows(mixed.parent / "many.jsonl", *many)
    for workers in (0, 2):
        out = tmp_path / f"out{workers}"
        run(check.main, "--manifest", path, "--out", out, "--fix", "--num-workers", workers)
    assert len(many) > 2 * CHUNK_ITEMS
    for name in ("report.json", "many.jsonl", REMOVED_NAME, "durations.png"):
        alone, together = (tmp_path / f"out{workers}" / name for workers in (0, 2))
        assert alone.read_bytes() == together.read_bytes(), name


def test_a_mistake_in_the_manifest_leaves_nothing(mixed, tmp_path):
    lines = mixed.read_text().splitlines()
    mixed.write_text("\n".join([*lines[:5], "{broken", *lines[5:]]) + "\n")
    out = tmp_path / "out"
    for workers in (0, 1):
        words = ["--manifest", str(mixed), "--out", str(out), "--num-workers", str(workers)]
        with pytest.raises(InputError, match=re.escape(f"{mixed}:6: not valid JSON")):
            check.main([*words, "--fix"])
        assert not out.exists()
    empty = write_rows(tmp_path / "data" / "empty.jsonl")
    with pytest.raises(InputError, match="no utterances in it"):
        check.main(["--manifest", str(empty), "--out", str(out), "--fix"])
    assert not out.exists()


def test_where_nothing_is_left_there_is_no_manifest(tmp_path):
    path = write_rows(tmp_path / "m.jsonl", row(id="a"), row(id="b", text="!"))
    with pytest.raises(InputError, match="every one of 2 rows has a problem"):
        check_folder(tmp_path, path, "--fix")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {REMOVED_NAME, "report.json", "durations.png"} <= names
    assert not names & {"m.jsonl", "m.jsonl.tmp", "done"}
    assert len(read_rows(tmp_path / "out" / REMOVED_NAME)) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fix"], "--fix needs --out"),
        (["--num-workers", "-1"], "--num-workers must be greater than or equal to 0"),
        (["--fix", "--out", "x", "--manifest", "removed.jsonl"], "rename --manifest"),
    ],
)
def test_mistakes_at_the_command_line(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        check.main(["--manifest", "m.jsonl", *flags])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_check_written_again_gives_the_same_verdict(mixed, tmp_path):
    words = ["--manifest", str(mixed), "--out", str(tmp_path / "out")]
    for flags in ([], ["--overwrite"]):
        with pytest.raises(InputError, match="12 problems in 21 rows"):
            check.main([*words, *flags])
    with pytest.raises(InputError, match="exists already and is finished"):
        check.main(words)


def test_a_duplicate_of_a_removed_row_stays(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(0), RATE_HZ)
    path = write_rows(tmp_path / "m.jsonl", row(id="a", text="..."), row(id="a"), row(id="b"))
    _, report = check_folder(tmp_path, path, "--fix")
    assert report["problems"] == {"duplicate audio": 1, "no speakable character": 1}
    assert [r["text"] for r in read_rows(tmp_path / "out" / "m.jsonl")] == [row()["text"]]


def test_without_decoding_only_rows_are_looked_at(mixed, tmp_path):
    _, report = check_folder(tmp_path, mixed, "--no-decode", "--fix")
    assert report["problems"] == {
        "impossible speaking rate": 2, "id used twice": 1, "no speakable character": 1,
    }  # fmt: skip
    assert report["decoded"] is False and "clipped" not in report["observations"]


@pytest.mark.parametrize(
    ("characters_per_s", "is_sound"),
    [
        (MIN_CHARACTERS_PER_S - 0.1, False),
        (MIN_CHARACTERS_PER_S, True),
        (12.3, True),  # the fastest of Common Voice
        (MAX_CHARACTERS_PER_S, True),
        (40, False),
        (400, False),  # 78 words a second
    ],
)
def test_limits_of_the_speaking_rate(characters_per_s, is_sound):
    text = "ɔkasa" * 40
    utterance = Utterance(**row(text=text, duration_s=len(text) / characters_per_s))
    problem = examine(utterance, decode=False).problem
    assert (problem is None) == is_sound
    assert is_sound or problem.kind == "impossible speaking rate"


@pytest.mark.parametrize(
    ("text", "outside", "loan"),
    [
        ("N’adeɛ yɛ “fɛ” – ɛnyɛ saa?", "", ""),
        ("tẽẽ, ń, ɔ́kɔ́, Kwabena-Ɔsɛe", "", ""),
        ("Ɛtε s3n", "", ""),
        ("Victor Quaye, zoo, ŋ", "", "vcqzŋ"),
        ("GH¢ 20 → öl", "¢20→\u0308", ""),
        ("Привет", "привет", ""),
    ],
)
def test_the_inventory(text, outside, loan):
    normalized = normalize_for_training(text)
    assert outside_characters(normalized) == outside and loan_letters(normalized) == loan
