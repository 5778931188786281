"""Turns cut together from recordings, and how often a pause ends them too early."""

import json
import re
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import run

from benchmarks.turn_taking import (
    LEAD_S,
    MAX_READ,
    TRAIL_S,
    BenchmarkConfig,
    Turn,
    bounds_of_speech,
    choose_rows,
    draw_pause_s,
    format_outcomes,
    hear_recording,
    join_recordings,
    judge_turn,
    main,
)
from commands.errors import InputError
from data_manifests.audio import read_audio
from data_manifests.manifest import Utterance
from voice_chat.turn_taking import WINDOW_S, TurnSettings

RATE_HZ = 16_000
# Of each speaker four recordings of another length, as loud as the speaker's number.
SPOKEN = {
    name: [np.full(1600 * (i + 1), level, np.float32) for i in range(4)]
    for name, level in (("a", 0.1), ("b", 0.2), ("c", 0.3))
}
NEEDS_SILERO = pytest.mark.skipif(
    find_spec("silero_vad") is None, reason="silero-vad is not installed"
)


def joined(seed, num_turns=20, spoken=SPOKEN):
    return list(join_recordings(spoken, num_turns, np.random.default_rng(seed)))


def heard(*parts):
    """(probability, seconds) after another -> probabilities."""
    return [probability for probability, s in parts for _ in range(round(s / WINDOW_S))]


def judged(pause_s, last_word_s, *parts):
    return judge_turn(Turn(heard(*parts), last_word_s), TurnSettings(pause_s=pause_s))


def test_a_turn_is_of_one_speaker_and_its_pauses_are_those_that_were_drawn():
    counts = set()
    for turn in joined(seed=0):
        loud = np.flatnonzero(abs(turn.sound_N) > 0.05)
        levels = set(np.round(turn.sound_N[loud], 1).tolist())
        assert len(levels) == 1
        silent = np.diff(loud)[np.diff(loud) > 1] - 1
        assert silent.tolist() == [round(pause_s * RATE_HZ) for pause_s in turn.pauses_s]
        assert loud[0] == LEAD_S * RATE_HZ and loud[-1] + 1 == round(turn.last_word_s * RATE_HZ)
        assert len(turn.sound_N) - loud[-1] - 1 == TRAIL_S * RATE_HZ
        assert 0 < abs(turn.sound_N[-100:]).max() < 0.01
        counts.add(len(turn.pauses_s) + 1)
    assert counts == {2, 3, 4}


def test_the_seed_decides_what_is_joined():
    first, again, other = (joined(seed) for seed in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.sound_N, two.sound_N) and one.pauses_s == two.pauses_s
    assert [turn.pauses_s for turn in other] != [turn.pauses_s for turn in first]


def test_no_recording_is_heard_twice_in_a_turn():
    spoken = {"a": SPOKEN["a"][:2], "alone": SPOKEN["b"][:1]}
    for turn in joined(seed=0, spoken=spoken):
        assert len(turn.pauses_s) == 1 and (abs(turn.sound_N) > 0.05).sum() == 1600 * 3
    with pytest.raises(InputError, match="no speaker has 2 recordings"):
        joined(seed=0, spoken={"alone": SPOKEN["b"][:1]})


def test_pauses_are_as_long_as_the_source_says():
    generator = np.random.default_rng(0)
    pauses_s = np.array([draw_pause_s(generator) for _ in range(5000)])
    assert pauses_s.min() >= 0.18
    assert np.mean(pauses_s > 1) == pytest.approx(0.29, abs=0.02)


def test_a_pause_longer_than_that_which_ends_a_turn_cuts_it_off():
    parts = (0, 0.5), (1, 1), (0, 0.6), (1, 1), (0, 3)
    cut = judged(0.5, 3.1, *parts)
    assert (cut.num_cuts, cut.num_in_vain) == (1, 0)
    whole = judged(0.7, 3.1, *parts)
    assert (whole.num_cuts, whole.num_in_vain) == (0, 1)
    for outcome, pause_s in ((cut, 0.5), (whole, 0.7)):
        assert outcome.wait_s == pytest.approx(pause_s, abs=2 * WINDOW_S)


def test_a_last_word_that_is_no_turn_after_a_cut_is_never_answered():
    outcome = judged(0.5, 2.2, (0, 0.5), (1, 1), (0, 0.6), (1, 0.1), (0, 3))
    assert (outcome.num_cuts, outcome.wait_s) == (1, None)
    assert judged(0.5, 1.0, (0, 4)).wait_s is None


def test_an_end_within_the_tolerance_is_the_end():
    outcome = judged(0.3, 1.85, (0, 0.5), (1, 1), (0, 3))
    assert outcome.num_cuts == 0 and -0.1 < outcome.wait_s < 0


def test_the_table_counts_turns():
    long = Turn(heard((0, 0.5), (1, 1), (0, 0.6), (1, 1), (0, 3)), 3.1, (0.6,))
    short = Turn(heard((0, 0.5), (1, 1), (0, 0.3), (1, 1), (0, 3)), 2.8, (0.3,))
    text = format_outcomes({"joined": [long, short], "single": [Turn([0.0] * 99, 1)]}, (0.5, 0.7))
    rows = {tuple(row.split()[1:3]): row.split()[3:] for row in text.splitlines()[1:5]}
    assert rows["joined", "0.5s"][:6] == ["50.0", "%", "50.0", "%", "0.50", "0.0"]
    assert rows["joined", "0.5s"][-1] == "0.50" and rows["joined", "0.7s"][-1] == "1.00"
    assert rows["joined", "0.7s"][:5] == ["0.0", "%", "0.0", "%", "0.00"]
    assert rows["single", "0.5s"][:6] == ["0.0", "%", "-", "0.00", "100.0", "%"]


def test_speech_lasts_from_the_first_window_to_the_last():
    assert bounds_of_speech([0, 0.4, 0.6, 0, 0.9, 0.4, 0.3, 0.4]) == (2, 6)
    assert bounds_of_speech([0.4] * 9) == (0, 0)


def test_as_many_of_one_speaker_as_of_another_are_read():
    rows = [
        Utterance(
            id=f"{speaker}{i}", audio="x.wav", text="x", duration_s=1, speaker=speaker,
            dialect="asante", corpus="x", split="test", license="x",
        )
        for speaker, count in (("a", MAX_READ), ("b", 9))
        for i in range(count)
    ]  # fmt: skip
    chosen = choose_rows(rows)
    assert len(chosen) == MAX_READ and sum(row.speaker == "b" for row in chosen) == 9
    assert [row.id for row in chosen[:8]] == ["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3"]


def test_a_pause_that_the_silence_after_a_turn_cannot_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--pauses: 2\.6 is longer than 2\.5 s"):
        BenchmarkConfig(recordings=tmp_path, pauses=(0.5, 2.6))


@NEEDS_SILERO
def test_silence_around_speech_is_cut_away(corpus):
    speech = read_audio(corpus / "audio" / "train_question_0000.wav", RATE_HZ)
    silence = np.zeros(RATE_HZ, np.float32)
    generator = np.random.default_rng(0)
    found_N, turn = hear_recording(np.concatenate([silence, speech, silence]), generator)
    assert len(speech) - 0.5 * RATE_HZ < len(found_N) <= len(speech) + 0.1 * RATE_HZ
    assert turn.last_word_s == pytest.approx(LEAD_S + 1 + len(speech) / RATE_HZ, abs=0.3)
    found_N, turn = hear_recording(silence, generator)
    assert len(found_N) == 0 and turn.last_word_s == LEAD_S + 1


@NEEDS_SILERO
def test_the_table_is_there(corpus, tmp_path):
    rows = [json.loads(line) for line in (corpus / "train.jsonl").read_text("utf-8").splitlines()]
    speaker = rows[0]["speaker"]
    mine = [row for row in rows if row["speaker"] == speaker][:3]
    for row in mine:
        row["audio"] = str(corpus / row["audio"])
    manifest = tmp_path / "recordings.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in mine), "utf-8")
    printed = run(main, "--recordings", manifest, "--num-turns", 2, "--pauses", 0.3, 1.5)
    assert f"recordings: {len(mine)}; speakers: 1;" in printed
    for group in ("2 joined recordings", "2 single recordings"):
        assert re.search(rf"^{group} +0\.3s .+\n{group} +1\.5s ", printed, re.M)
