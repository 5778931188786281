"""The wait for an answer by voice is measured on one question, by a clock that only sleep moves."""

import json
import re
from importlib.util import find_spec

import pytest
from conftest import run

from benchmarks import hands_free
from benchmarks.hands_free import Watched
from voice_chat import sound_source

pytestmark = pytest.mark.skipif(
    None in map(find_spec, ("silero_vad", "livekit")), reason="needs silero-vad and livekit"
)


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def perf_counter(self):
        self.now_s += 1e-6
        return self.now_s

    monotonic = perf_counter

    def sleep(self, seconds):
        self.now_s += seconds


def test_the_table_is_there(corpus, tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(hands_free, "time", clock)
    monkeypatch.setattr(sound_source, "time", clock)
    rows = (corpus / "test.jsonl").read_text("utf-8").splitlines()
    [row, *_] = [json.loads(line) for line in rows]
    row["audio"] = str(corpus / row["audio"])
    manifest = tmp_path / "questions.jsonl"
    manifest.write_text(json.dumps(row) + "\n", "utf-8")
    printed = run(
        hands_free.main, "--questions", manifest, "--num-questions", 1, "--num-long", 1,
        "--long-s", 3, "--pause-s", 0.5, "--device", "cpu",
    )  # fmt: skip
    assert "500 of them are the pause" in printed
    assert re.search(r"^questions +1 .*1 of 1$", printed, re.M)
    assert re.search(r"^long questions +1 .*1 of 1$", printed, re.M)
    assert re.search(r"^audio tower, what was left +\d+ +\d+ +\d+ +\d+$", printed, re.M)
    assert re.search(r"^nothing: the pause must pass +\d+ ", printed, re.M)


def test_what_is_computed_in_the_wait_counts_as_far_as_it_lies_in_it():
    watched = [
        Watched("codec", 1.0, 0.5), Watched("codec", 1.9, 0.3), Watched("speech head", 0.0, 1.1),
        Watched("speech head", 3.0, 1.0),
    ]  # fmt: skip
    found = hands_free._computing_in(watched, 1.0, 2.0)
    assert found == pytest.approx({"codec": 0.6, "speech head": 0.1})
