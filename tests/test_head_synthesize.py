"""Texts read aloud, as recordings with a manifest."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import run
from head_world import models
from parts import join, refuse_difference, write_parts

from commands.atomic_write import write_json_lines
from commands.errors import InputError
from commands.finished_folder import read_provenance
from commands.json_files import read_json_lines
from data_manifests.manifest import read_manifest, read_utterance_audio
from speech_head import reading_aloud, synthesize
from speech_head.stream import SpokenFrames, speak_answers
from stage3_finetune.recorded_dialogues import record_dialogues

TEXTS = [
    {"id": "a/1", "text": "Maakye, 3.", "license": "CC0-1.0", "corpus": "mine"},
    {"id": "b", "text": "Me din de Ama.", "dialect": "asante"},
    {"id": "c", "text": "?!"},
    {"id": "d", "text": "Wo ho te sɛn?"},
    {"id": "e", "text": "Mewɔ nnipa 3.", "dialect": "asante"},
]


@pytest.fixture(autouse=True)
def ends(monkeypatch):
    """The tiny head is hardly trained: where it ends by itself hangs on how a processor rounds.
    Here every text has six frames."""

    def speak(*arguments, **settings):
        spoken = speak_answers(*arguments, **settings)
        return [SpokenFrames(_six_frames(s.codes_FK), "ended", s.num_pushed) for s in spoken]

    monkeypatch.setattr(reading_aloud, "speak_answers", speak)
    monkeypatch.setattr(synthesize, "TEXTS_PER_SHARD", 2)


def _six_frames(codes_FK):
    return torch.nn.functional.pad(codes_FK[:6], (0, 0, 0, max(0, 6 - len(codes_FK))))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    write_json_lines(path, TEXTS)
    return path


def test_texts_become_recordings_with_a_manifest(head_world, texts, tmp_path):
    out = tmp_path / "read"
    assert run(synthesize.main, *models(head_world), "--text", texts, "--out", out) == f"{out}\n"
    rows = list(read_manifest(out / "train.jsonl"))
    assert [(row.id, row.text) for row in rows] == [
        (t["id"], t["text"]) for t in TEXTS if t["id"] != "c"
    ]  # fmt: skip
    assert [(row.corpus, row.license) for row in rows[:2]] == [
        ("mine", "CC0-1.0"), ("synthesized", "unknown"),
    ]  # fmt: skip
    assert {row.speaker for row in rows} == {"synthetic"} and rows[1].dialect == "asante"
    for row in rows:
        samples_N = read_utterance_audio(row, 24_000)
        assert len(samples_N) == 6 * 1920 and np.isfinite(samples_N).all()
    [dropped] = read_json_lines(out / "dropped.jsonl")
    assert dropped["id"] == "c" and "no letter to pronounce" in dropped["reason"]
    assert {row["take"] for row in read_json_lines(out / "kept.jsonl")} == {0}
    provenance = read_provenance(out)
    assert {s.corpus for s in provenance.made_from()} >= {"mine", "synthesized"}


def test_joined_parts_are_the_whole(head_world, texts, tmp_path):
    words = (*models(head_world), "--text", texts)
    run(synthesize.main, *words, "--out", tmp_path / "whole")
    write_parts(synthesize, words, tmp_path / "parts", 2)
    join(tmp_path / "parts")
    refuse_difference(tmp_path / "whole", tmp_path / "parts")


def test_numbers_are_spoken_as_words_and_written_as_they_were(head_world, texts, tmp_path):
    spelt = [{**t, "text": t["text"].replace("3", "mmiɛnsa")} for t in TEXTS if t["id"] == "e"]
    write_json_lines(tmp_path / "spelt.jsonl", spelt)
    sounds = []
    for file in (texts, tmp_path / "spelt.jsonl"):
        out = tmp_path / file.stem
        run(synthesize.main, *models(head_world), "--text", file, "--out", out)
        [row] = [row for row in read_manifest(out / "train.jsonl") if row.id == "e"]
        sounds.append(read_utterance_audio(row, 24_000))
    assert np.abs(sounds[0] - sounds[1]).max() < 1e-3


def test_interrupted_it_is_continued(head_world, texts, tmp_path):
    words = (*models(head_world), "--text", texts)
    run(synthesize.main, *words, "--out", tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("done", "rows_00002.jsonl", "train.jsonl", "kept.jsonl", "audio/00002/e.wav"):
        (tmp_path / "cut" / name).unlink()
    rows = read_json_lines(tmp_path / "whole" / "kept.jsonl")
    write_json_lines(tmp_path / "cut" / "kept.jsonl", [row for row in rows if row["shard"] < 2])
    run(synthesize.main, *words, "--out", tmp_path / "cut", "--resume")
    for name in ("train.jsonl", "kept.jsonl", "dropped.jsonl", "audio/00002/e.wav"):
        found, expected = ((tmp_path / f / name).read_bytes() for f in ("cut", "whole"))
        assert found == expected, name


def test_the_spoken_turns_of_dialogues_each_once(head_world, tmp_path):
    def asked(content, spoken=True):
        return {"role": "user", "content": content, "spoken": spoken}

    def said(content):
        return {"role": "assistant", "content": content}

    dialogues = [
        {"id": "one", "messages": [asked("Wo din de sɛn?"), said("Ama."), asked("Ɛhe?"),
                                   said("Ɛha.")], "license": "CC-BY-4.0", "corpus": "asked"},
        {"id": "two", "messages": [asked("wo din de sɛn"), said("Kofi.")]},
        {"id": "typed", "messages": [asked("Baako?", spoken=False), said("Mmienu.")]},
    ]  # fmt: skip
    write_json_lines(tmp_path / "dialogues.jsonl", dialogues)
    words = (*models(head_world), "--dialogues", tmp_path / "dialogues.jsonl")
    run(synthesize.main, *words, "--out", tmp_path / "read")
    rows = list(read_manifest(tmp_path / "read" / "train.jsonl"))
    assert [row.id for row in rows] == ["one", "one#1"]
    assert {row.license for row in rows} == {"CC-BY-4.0"}
    recorded = record_dialogues(tmp_path / "dialogues.jsonl", tmp_path / "read" / "train.jsonl")
    assert [d.id for d in recorded.dialogues] == ["one", "two", "typed"]
    assert recorded.num_without == 0


def test_the_take_that_is_heard_best_is_kept(head_world, texts, tmp_path, monkeypatch):
    """The second of three; the text that is heard without an error is not spoken again."""
    heard = iter([["Maakye, 3", "x"], ["me din da ama"], ["y"], ["z"], ["wo ho te sɛn"]] * 9)

    class Judge:
        def transcribe(self, waveforms, rate_hz):
            texts = next(heard)
            assert len(texts) == len(waveforms) and rate_hz == 24_000
            return texts

    monkeypatch.setattr(synthesize, "load_judge_beside", lambda *_, **__: Judge())
    write_json_lines(tmp_path / "texts.jsonl", TEXTS[:2] + TEXTS[3:4])
    words = (*models(head_world), "--text", tmp_path / "texts.jsonl", "--takes", 3, "--max-cer", 1)
    words += ("--recognizer", head_world / "recognizer")
    run(synthesize.main, *words, "--out", tmp_path / "read")
    kept = {row["id"]: row for row in read_json_lines(tmp_path / "read" / "kept.jsonl")}
    assert kept["a/1"]["take"] == 0 and kept["a/1"]["cer"] == 0
    assert kept["b"]["take"] == 1 and 0 < kept["b"]["cer"] < 0.2
    assert kept["d"] == {"shard": 1, "id": "d", "take": 1, "cer": 0}


def test_what_is_not_understood_is_dropped(head_world, texts, tmp_path):
    words = (*models(head_world), "--text", texts, "--recognizer", head_world / "recognizer")
    run(synthesize.main, *words, "--max-cer", 100, "--out", tmp_path / "read")
    assert all(row["cer"] > 0 for row in read_json_lines(tmp_path / "read" / "kept.jsonl"))
    with pytest.raises(InputError, match="all 5 texts were dropped"):
        run(synthesize.main, *words, "--max-cer", 0, "--out", tmp_path / "none")
    reasons = [row["reason"] for row in read_json_lines(tmp_path / "none" / "dropped.jsonl")]
    assert sum("at best (1 take), over 0" in reason for reason in reasons) == 4


def test_what_never_ends_is_dropped(head_world, texts, tmp_path, monkeypatch):
    ended = reading_aloud.speak_answers
    monkeypatch.setattr(
        reading_aloud, "speak_answers",
        lambda *a, **s: [replace(one, end="runaway") for one in ended(*a, **s)],
    )  # fmt: skip
    with pytest.raises(InputError, match="all 5 texts were dropped"):
        run(synthesize.main, *models(head_world), "--text", texts, "--out", tmp_path / "none")


@pytest.mark.parametrize("words", [(), ("--text", "a.txt", "--dialogues", "b.jsonl")])
def test_texts_or_dialogues(words, tmp_path):
    with pytest.raises(ValueError, match="give --text or --dialogues"):
        run(synthesize.main, "--head", "h", "--out", tmp_path / "x", *words)


def test_a_file_is_checked_before_models_are_loaded(tmp_path):
    turns = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}]
    write_json_lines(tmp_path / "d.jsonl", [{"messages": turns}])
    with pytest.raises(InputError, match='no user turn is marked "spoken"'):
        run(
            synthesize.main, "--head", "absent", "--dialogues", tmp_path / "d.jsonl", "--out",
            tmp_path / "x",
        )  # fmt: skip
