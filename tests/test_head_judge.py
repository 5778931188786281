"""Spoken answers heard again by other recognisers, beside the recordings."""

import json

import numpy as np
import pytest
import soundfile
from conftest import run
from head_world import ANSWER, CPU, QUESTION, models
from tiny_recognizers import save_w2v_bert, save_whisper

from commands.errors import InputError
from data_manifests.error_rates import compute_error_rates
from data_manifests.hypotheses import read_hypotheses
from speech_head import evaluate, judge
from speech_head.spoken_answers import name_wav_files


@pytest.fixture(scope="module")
def speech(head_world, tmp_path_factory):
    """Spoken, and not transcribed."""
    out = tmp_path_factory.mktemp("speech") / "head-test"
    words = (*models(head_world), "--manifest", head_world / "train.jsonl", "--num-utterances", 3)
    run(evaluate.main, *words, "--out", out)
    return out


def rows_of(folder):
    return [json.loads(line) for line in (folder / "utterances.jsonl").open("rb")]


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def wav_files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.glob("*/*.wav"))


def test_speech_that_nothing_has_transcribed_says_what_to_do(head_world, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text(f"{ANSWER}\n{QUESTION}\n", encoding="utf-8")
    words = (*models(head_world), "--texts", tmp_path / "texts.txt")
    evaluate.main([str(word) for word in (*words, "--out", tmp_path / "out")])
    said = capsys.readouterr()
    assert "not transcribed yet" in said.out
    assert f"2 WAV files in {tmp_path / 'out'} are not transcribed yet" in said.err
    assert '{"id": "wav/line_00001.wav", "heard": "..."}' in said.err
    assert f"python -m speech_head.judge --speech {tmp_path / 'out'} --asr" in said.err
    metrics = metrics_of(tmp_path / "out")
    assert metrics["judge"] is None and metrics["wer_spoken"] is None
    assert metrics["error_rates"] == dict.fromkeys(("recording", "mimi", "spoken", "parallel"))


def test_a_file_of_hypotheses_judges_every_version(speech, tmp_path):
    """Keyed by WAV file; the judge's own error on the recordings stands beside its verdict."""
    rows = rows_of(speech)
    assert len(wav_files(speech)) == 9 and rows[0]["heard"] is None
    heard = {}
    for row in rows:
        heard[row["audio_recording"]] = row["text"]
        heard[row["audio_through_mimi"]] = row["text"].upper() + "!"
        heard[row["audio"]] = f"{row['text']} ne"
    path = tmp_path / "heard.jsonl"
    path.write_text("".join(
        json.dumps({"id": id_, "heard": text, "score": -1.5}) + "\n" for id_, text in heard.items()
    ))  # fmt: skip
    table = run(judge.main, "--speech", speech, "--hypotheses", path, "--out", tmp_path / "out")
    metrics = metrics_of(tmp_path / "out")
    texts = [row["text"] for row in rows]
    expected = compute_error_rates(texts, [f"{text} ne" for text in texts])
    assert metrics["wer_teacher"] == metrics["wer_mimi"] == 0
    assert metrics["error_rates"]["spoken"]["cer"] == metrics["cer_spoken"] == expected.cer > 0
    assert metrics["error_rates"]["spoken"]["wer_high"] == expected.wer_high
    assert metrics["judge"] == str(path) and f"heard by {path}" in table
    assert table.index("CER %") < table.index("WER %") and table.index("recordings") < table.index(
        "spoken"
    )
    for key in ("runaway", "cut_short", "pushed_on", "num_held_out", "num_recorded", "left_out"):
        assert metrics[key] == metrics_of(speech)[key]
    [row, *_] = rows_of(tmp_path / "out")
    assert row["heard"].endswith(" ne") and row["heard_parallel"] is None


def test_what_the_file_lacks_or_has_too_much_is_one_line(speech, tmp_path):
    files = wav_files(speech)
    path = tmp_path / "heard.jsonl"

    def judged(ids):
        path.write_text("".join(json.dumps({"id": i, "heard": ""}) + "\n" for i in ids))
        run(judge.main, "--speech", speech, "--hypotheses", path, "--out", tmp_path / "x")

    with pytest.raises(InputError, match=r"lacks 2 of the 9 WAV files in .*, e.g. id 'wav-rec"):
        judged(files[:3] + files[5:])
    with pytest.raises(InputError, match=r"lacks 1 of .*; holds 1 ids that are none of them, e.g."):
        judged([*files[1:], "wav/other.wav"])
    with pytest.raises(InputError, match=r"heard.jsonl:10: id 'wav.*' is there twice"):
        judged([*files, files[0]])
    path.write_text('{"id": "wav/a.wav", "text": "a"}\n')
    with pytest.raises(InputError, match=r"heard.jsonl:1: has no 'heard'"):
        run(judge.main, "--speech", speech, "--hypotheses", path, "--out", tmp_path / "x")
    with pytest.raises(InputError, match=r"--hypotheses .*nothing"):
        nothing = ("--hypotheses", tmp_path / "nothing")
        run(judge.main, "--speech", speech, *nothing, "--out", tmp_path / "x")
    with pytest.raises(InputError, match=r"give one of --recognizer, --asr, --hypotheses"):
        run(judge.main, "--speech", speech, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("save, language", [(save_w2v_bert, ()), (save_whisper, ("jw",))])
def test_recognisers_of_transformers_hear_the_files(speech, tmp_path, save, language):
    asr = save(tmp_path / "asr")
    words = ("--speech", speech, "--asr", asr, *CPU, "--out", tmp_path / "out")
    run(judge.main, *words, *(word for code in language for word in ("--asr-language", code)))
    metrics = metrics_of(tmp_path / "out")
    assert metrics["judge"] == f"{asr} (jw)" if language else str(asr)
    assert all(metrics["error_rates"][name]["num_texts"] == 3 for name in ("recording", "spoken"))
    assert {row["heard"] for row in rows_of(tmp_path / "out")} != {""}


def test_our_recogniser_hears_the_files_as_it_heard_the_speech(head_world, speech, tmp_path):
    recognizer = ("--recognizer", head_world / "recognizer")
    words = (*models(head_world), "--manifest", head_world / "train.jsonl", "--num-utterances", 3)
    run(evaluate.main, *words, *recognizer, "--out", tmp_path / "at-once")
    gemma = ("--gemma", head_world / "gemma")
    run(judge.main, "--speech", speech, *recognizer, *gemma, *CPU, "--out", tmp_path / "later")
    at_once, later = (rows_of(tmp_path / name) for name in ("at-once", "later"))
    # 16-bit files: the same to the ear, though not bit by bit.
    assert [row["heard_in_recording"] for row in later] == [
        row["heard_in_recording"] for row in at_once
    ]


def test_silence_is_heard_as_nothing(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(4000, np.float32), 16_000)

    class Deaf:
        def transcribe(self, waveforms, sample_rate_hz):
            raise AssertionError("nothing to transcribe")

    assert judge.transcribe_file(tmp_path / "silent.wav", Deaf()) == ""


def test_no_wav_file_is_written_over():
    assert name_wav_files(["a/1", "a_1", "a 1", "ɛ"]) == [
        "a_1.wav", "a_1-2.wav", "a_1-3.wav", "ɛ.wav"
    ]  # fmt: skip


def test_a_file_may_hold_more_where_more_is_known(tmp_path):
    path = tmp_path / "heard.jsonl"
    path.write_text('{"id": "b", "heard": "two"}\n\n{"id": "a", "heard": "one"}\n')
    assert read_hypotheses(path, ["a"], of="recordings", known=["b"]) == ["one"]
    with pytest.raises(InputError, match=r"holds 1 ids that are none of them, e.g. 'b'"):
        read_hypotheses(path, ["a"], of="recordings")
