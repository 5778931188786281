"""Degraded recordings: levels as they are defined, the same clips every time, clear refusals."""

import numpy as np
import pytest
from conftest import run

from commands.errors import InputError
from data_manifests import degrade as command
from data_manifests.audio import write_wav
from data_manifests.degradations import SAMPLE_RATE_HZ, degrade, read_condition, speech_power
from data_manifests.manifest import Utterance, read_manifest, read_utterance_audio, write_manifest


def tone(hz, seconds=1.0, level=0.1):
    time_N = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (level * np.sin(2 * np.pi * hz * time_N)).astype(np.float32)


TALKERS = [tone(hz, 0.7, 0.02 * (i + 1)) for i, hz in enumerate((150, 240, 370, 510))]


def treat(samples_N, name, seed=0):
    return degrade(samples_N, read_condition(name), np.random.default_rng(seed), TALKERS)


@pytest.mark.parametrize("noise", ["babble", "street", "white"])
@pytest.mark.parametrize("db", [20, 5, 0])
def test_noise_is_so_much_weaker_than_the_speech_without_its_pauses(noise, db):
    speech_N = np.concatenate([np.zeros(SAMPLE_RATE_HZ), tone(300), np.zeros(SAMPLE_RATE_HZ)])
    noisy_N = treat(speech_N, f"{noise}-{db}")
    added = np.square(noisy_N - speech_N).mean()
    assert 10 * np.log10(speech_power(tone(300)) / added) == pytest.approx(db, abs=0.1)
    assert np.array_equal(noisy_N, treat(speech_N, f"{noise}-{db}"))
    assert not np.array_equal(noisy_N, treat(speech_N, f"{noise}-{db}", seed=1))


def test_a_room_rings_for_as_long_as_it_should():
    """The energy that is still to come has fallen by 60 dB after that time (Schroeder, 1965)."""
    click_N = np.zeros(SAMPLE_RATE_HZ // 10, np.float32)
    click_N[0] = 1.0
    heard_M = treat(click_N, "reverberation-0.5")[1:]
    left_db_M = 10 * np.log10(np.cumsum(np.square(heard_M.astype(float))[::-1])[::-1] + 1e-20)
    start, half = left_db_M[100], left_db_M[100 + SAMPLE_RATE_HZ // 4]
    assert half - start == pytest.approx(-30, abs=2)
    speech_N = tone(300)
    assert len(treat(speech_N, "reverberation-0.5")) > len(speech_N)
    assert speech_power(treat(speech_N, "reverberation-0.5")) == pytest.approx(
        speech_power(speech_N), rel=0.05
    )


def test_a_telephone_lets_through_what_telephones_do():
    def passed_db(hz):
        return 10 * np.log10(speech_power(treat(tone(hz), "telephone")) / speech_power(tone(hz)))

    assert abs(passed_db(1000)) < 0.5
    assert passed_db(60) < -15 and passed_db(3900) < -10
    assert len(treat(tone(1000, 1.2345), "telephone")) == len(tone(1000, 1.2345))


def test_clipping_cuts_off_the_peaks_and_the_clean_stays_as_it_is():
    speech_N = tone(300, level=0.5)
    assert np.array_equal(treat(speech_N, "clean"), speech_N)
    assert np.abs(treat(speech_N, "clipping-20")).max() == pytest.approx(0.05, rel=1e-3)
    loud_N = treat(tone(300, level=0.9), "white-0")
    assert np.abs(loud_N).max() == pytest.approx(1.0)


def test_what_is_joined_is_done_in_turn():
    speech_N = tone(300)
    both_N = treat(speech_N, "white-10+telephone")
    assert not np.array_equal(both_N, treat(speech_N, "telephone+white-10"))


@pytest.mark.parametrize("name", ["clean", "babble-5", "street-0", "reverberation-1", "telephone"])
def test_silence_stays_silent(name):
    assert not treat(np.zeros(8000, np.float32), name).any()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bable-10", "'bable' is none of clean, babble"),
        ("babble", "babble takes a number of decibels from -10 to 60"),
        ("babble-x", "babble takes a number of decibels"),
        ("babble-99", "babble takes a number of decibels"),
        ("reverberation-9", "reverberation takes a number of seconds from 0.05 to 5"),
        ("telephone-3", "telephone takes no number"),
        ("babble-10+", "'' is none of"),
    ],
)
def test_conditions_that_are_none(name, message):
    with pytest.raises(InputError, match=f"condition {name.replace('+', '.')}: {message}"):
        read_condition(name)


def test_the_command_writes_a_manifest_for_each_condition(tmp_path):
    rows = []
    for i in range(3):
        write_wav(tmp_path / f"{i}.wav", tone(200 + 100 * i), SAMPLE_RATE_HZ)
        rows.append(
            Utterance(
                id=f"u{i}", audio=f"{i}.wav", text="Maakye.", duration_s=1.0, speaker=f"s{i % 2}",
                dialect="asante", corpus="c", split="test", license="CC0-1.0",
            )
        )  # fmt: skip
    manifest = tmp_path / "test.jsonl"
    write_manifest(manifest, rows)

    def clips(out, *words):
        run(command.main, "--manifest", manifest, "--out", tmp_path / out, *words)
        return {
            name: [
                (u.id, u.text, read_utterance_audio(u, SAMPLE_RATE_HZ).tobytes())
                for u in read_manifest(tmp_path / out / f"{name}.jsonl")
            ]
            for name in words[1:]
        }

    few = clips("few", "--conditions", "babble-10+telephone")
    many = clips("many", "--conditions", "clean", "babble-10+telephone", "reverberation-0.3")
    assert few["babble-10+telephone"] == many["babble-10+telephone"]
    assert [clip[:2] for clip in many["clean"]] == [(u.id, u.text) for u in rows]
    assert many["clean"] != many["reverberation-0.3"]
    with pytest.raises(InputError, match="condition loud: 'loud' is none of"):
        clips("other", "--conditions", "loud")
    assert not (tmp_path / "other").exists()


def test_behind_a_speaker_others_speak_if_there_are_any():
    generator = np.random.default_rng(0)
    speaker_N = np.array([0] * 5 + [1] * 20)
    assert set(command.draw_talkers(speaker_N, 2, generator)) <= set(range(5, 25))
    assert sorted(command.draw_talkers(speaker_N, 7, generator)) == [0, 1, 2, 3, 4]
    assert sorted(command.draw_talkers(np.zeros(3), 1, generator)) == [0, 2]
    assert command.draw_talkers(np.zeros(1), 0, generator) == []
