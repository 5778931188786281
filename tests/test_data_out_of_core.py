"""What lets `build` and `check` take millions of rows: files in place of lists, and short cuts that
change nothing."""

import errno
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, run

from benchmarks import large_manifest
from commands.errors import InputError, WriteError
from commands.schema import check_json
from data_manifests import line_writer, normalization
from data_manifests.corpora.delimited_table import read_delimited_table, stream_table
from data_manifests.corpora.dropped_rows import DroppedRows
from data_manifests.hash_set import HashSet
from data_manifests.language import language
from data_manifests.line_writer import lines_written_aside, spooled_lines
from data_manifests.manifest import Utterance, _read_row, format_row
from tests.attacks.manifests import good_rows
from tests.attacks.mutations import NASTY_JSON, mutate, row_text


def result_of(function, *arguments, **settings):
    """What a function returns, or the message of its InputError."""
    try:
        return function(*arguments, **settings)
    except InputError as error:
        return str(error)


# ---- rows of manifests


def lines_like_a_row(rng):
    """Rows with other values, keys that are there twice, escapes, and damage."""
    row = {**good_rows()[0], "start_s": 0.5, "sample_rate_hz": 16_000, "dialect_guess": "fante"}
    for name in rng.sample(["start_s", "sample_rate_hz", "dialect_guess"], rng.randrange(4)):
        del row[name]
    name = rng.choice(list(row))
    line = row_text(row)
    if rng.random() < 0.4:
        line = row_text(row, **{name: rng.choice(NASTY_JSON)})
    if rng.random() < 0.3:
        twice = rng.choice([name, "text", "id", "te\\u0078t", "origin", "start_s"])
        line = line[:-1] + f', "{twice}": {rng.choice(NASTY_JSON)}}}'
    content = line.encode() + b"\n"
    return mutate(content, rng) if rng.random() < 0.3 else content


def test_a_row_read_fast_is_the_row_read_twice():
    rng, num_rows = random.Random(0), 0
    for _ in range(4_000):
        line = lines_like_a_row(rng)
        found = result_of(_read_row, line, "m.jsonl:1")
        assert found == result_of(check_json, line, Utterance, where="m.jsonl:1"), line
        num_rows += isinstance(found, Utterance)
    assert num_rows > 500


@pytest.mark.parametrize(
    ("manifest", "audio"),
    [
        ("m.jsonl", "a.wav"), ("m.jsonl", "./a.wav"), ("data/m.jsonl", "../a.wav"),
        ("/m.jsonl", "a.wav"), ("data/m.jsonl", "/a.wav"), ("/d/m.jsonl", "b//c/./a.wav"),
        ("/d/m.jsonl", "b/"), ("/d/m.jsonl", "b/."), ("d/m.jsonl", "."), ("//d/m.jsonl", "a.wav"),
        ("d/m.jsonl", "//a.wav"), ("d/m.jsonl", "a..wav"), ("d/m.jsonl", "a./wav"),
    ],
)  # fmt: skip
def test_paths_are_joined_as_pathlib_joins_them(manifest, audio, monkeypatch):
    from data_manifests import manifest as module

    line = row_text(good_rows()[0], audio=json.dumps(audio)).encode()
    monkeypatch.setattr(module, "read_lines", lambda path: [("m:1", line)])
    monkeypatch.setattr(module, "is_output_folder", lambda folder: False)
    (utterance,) = module.read_manifest(Path(manifest))
    assert utterance.audio == str(Path(manifest).parent / audio) and utterance.origin == "m:1"


def test_a_row_takes_little_memory():
    """A list of five million of them is what `embed` and `states` begin with."""
    utterance = check_json(row_text(good_rows()[0]), Utterance, where="m:1")
    assert not hasattr(utterance, "__dict__") and sys.getsizeof(utterance) < 160
    assert check_json(format_row(utterance), Utterance, where="m:1") == utterance


# ---- tables

TABLE = '\ufeffa\tb\tc\nx\ty\tz\n\t\t\n \tɛ "\t\r\n1\t2\n'.encode()


@pytest.mark.parametrize("seed", range(40))
def test_a_streamed_table_is_the_table_read_at_once(seed, tmp_path):
    rng = random.Random(seed)
    for _ in range(25):
        cells = bytes(rng.choices(b'\t\n\r ab\xc9\x9b\0"\xff\x0b\x1c\x85', k=rng.randrange(12)))
        compare_tables(tmp_path / "x.tsv", rng.choice([mutate(TABLE, rng), b"a\tb\n" + cells]))


def compare_tables(path, content):
    path.write_bytes(content)

    def read_at_once():
        table = read_delimited_table(content, str(path), row_per_line=True, quoted=False)
        table.require(("a",))
        return list(table.rows)

    found, expected = result_of(lambda: list(stream_table(path, ("a",)))), result_of(read_at_once)
    if "not UTF-8" in expected:  # of two faults it names the first one it comes to
        assert isinstance(found, str)
    else:
        assert found == expected


# ---- sentences


def test_plain_sentences_take_a_short_cut_to_the_same(monkeypatch):
    rng = random.Random(0)
    characters = "abdeɛkmnɔwyABƐƆŋ0123 .,;:!?'\"()“”–…-_’`\u0301\u0303é3)"
    texts = ["".join(rng.choices(characters, k=rng.randrange(24))) for _ in range(4_000)]
    texts += [re.sub(r"[^a-zɛɔ ,.]", "a", text) for text in texts]

    rules = normalization._rules(language())

    def normalized():
        rules.for_scoring.cache_clear()
        train, score = normalization.normalize_for_training, normalization.normalize_for_scoring
        return [(train(text), score(text)) for text in texts]

    quick = normalized()
    assert sum(rules.plain.fullmatch(text) is not None for text in texts) > 1_000
    monkeypatch.setattr(rules, "plain", re.compile("(?!)"))
    assert normalized() == quick
    rules.for_scoring.cache_clear()


# ---- sets and files


def test_a_hash_set_whose_hashes_crowd_at_its_end():
    rng, ours, theirs = random.Random(0), HashSet(), set()
    for _ in range(30_000):
        value = rng.choice([rng.randrange(2**64), 2**64 - 1 - rng.randrange(5_000)])
        assert ours.add(value) == (value not in theirs)
        theirs.add(value)
    assert len(ours) == len(theirs) and all(value in ours for value in theirs)


def test_lines_are_there_when_all_are(tmp_path, monkeypatch):
    monkeypatch.setattr(line_writer, "BUFFER_BYTES", 8)
    path = tmp_path / "new" / "x.jsonl"
    with lines_written_aside(path) as lines:
        begins = [lines.write(line) for line in (b"one\n", b"two\n", b"three\n")]
        assert list(lines.read(begins[::-1])) == [b"three\n", b"two\n", b"one\n"]
        lines.write(b"four\n")
        assert not path.exists() and lines.num_bytes == 19
    assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"
    with pytest.raises(ValueError, match="broken"), lines_written_aside(path) as lines:
        lines.write(b"five\n")
        raise ValueError("broken")
    with spooled_lines(tmp_path / "new" / "spool.tmp") as lines:
        lines.write(b"six\n")
    assert [file.name for file in path.parent.iterdir()] == ["x.jsonl"]
    assert path.read_bytes().endswith(b"four\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line():
    lines = line_writer.LineWriter(Path("/dev/full"))
    lines.write(b"one\n")
    with pytest.raises(WriteError, match=r"cannot write .*No space left on device") as caught:
        lines.flush()
    assert caught.value.__cause__.errno == errno.ENOSPC
    lines.close()


def test_reasons_are_counted_as_a_counter_counts_them(tmp_path):
    rng, counter = random.Random(0), Counter()
    with lines_written_aside(tmp_path / "dropped.jsonl") as lines:
        dropped = DroppedRows(lines)
        assert dropped.most_common(3) == []
        for number in range(400):
            row = (rng.choice("ab"), f"reason {rng.randrange(12)} \udc80")
            dropped.add(row[0], str(number), row[1])
            counter[row] += 1
        for corpus in (None, "a", "none"):
            found = [
                (r.corpus, r.reason, r.num_rows) for r in dropped.most_common(8, corpus=corpus)
            ]
            expected = [
                (name, reason.replace("\udc80", "\\udc80"), count)
                for (name, reason), count in counter.most_common()
                if corpus in (None, name)
            ]
            assert found == expected[:8]
    assert len((tmp_path / "dropped.jsonl").read_bytes().splitlines()) == len(dropped) == 400


# ---- the whole

# As in test_data_check_scale: first with few rows (libraries, code), then with many.
MEASURE = """
import re, sys
from pathlib import Path
from data_manifests import build
peaks_kib = []
for source in sys.argv[1:]:
    build.main(["--corpus", f"common_voice={source}", "--out", source + "_out"])
    peaks_kib += re.findall(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())
print(int(peaks_kib[1]) - int(peaks_kib[0]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_twenty_thousand_recordings_take_a_few_numbers_each(tmp_path):
    for name, num_rows in (("few", 4_000), ("many", 24_000)):
        clips = tmp_path / f"{name}_clips"
        clips.mkdir()
        large_manifest.write_corpus(tmp_path / name, clips, num_rows, seed=0)
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "few"), str(tmp_path / "many")],
        cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ.copy(),
    )  # fmt: skip
    growth_kib = int(process.stdout.splitlines()[-1])
    # 38 bytes of columns, 12 to 24 of ids, 12 of durations, 8 of where it lies on disk; several
    # times as much while they are sorted, which may fit into what was free already. The recordings
    # themselves would take 60 MB.
    assert 0 <= growth_kib < 6_000, growth_kib


def test_the_benchmark_measures_both_commands(tmp_path):
    stdout = run(large_manifest.main, "--rows", 300, "--folder", tmp_path, "--clips", tmp_path)
    header, built, checked = stdout.splitlines()
    assert header.split()[:2] == ["command", "rows"]
    assert built.split()[:2] == ["build", "300"] and checked.split()[0] == "check"
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="--clips absent: no such folder"):
        run(large_manifest.main, "--clips", "absent")
