"""Stage 3's chat: what is typed and heard, what is refused, and how it ends."""

import json
import os

import numpy as np
import pytest
import soundfile
import torch
from conftest import run

from commands.errors import InputError
from data_manifests.language import language
from stage3_finetune import chat, conversation
from stage3_finetune.conversation import load_conversation
from stage3_finetune.generate import generate_answers


def test_a_recording_beyond_thirty_seconds_is_heard_to_its_end(tiny_models, tmp_path):
    """Gemma's own front end cuts at 30 s and says nothing."""
    seconds = 40
    waveform_N = 0.1 * np.random.default_rng(0).standard_normal(16_000 * seconds)
    soundfile.write(tmp_path / "long.flac", waveform_N, 16_000)
    gemma = str(tiny_models / "gemma")
    settings = {"device": torch.device("cpu"), "dtype": torch.float32, "max_new_tokens": 2}
    conversation = load_conversation(gemma, None, **settings)
    whole = conversation.spoken_turn(tmp_path / "long.flac")
    assert len(whole.frames_TD) == 25 * seconds
    waveform_N[-8_000:] = 0
    soundfile.write(tmp_path / "other_end.flac", waveform_N, 16_000)
    other = conversation.spoken_turn(tmp_path / "other_end.flac")
    assert not torch.allclose(whole.frames_TD[-5:], other.frames_TD[-5:], atol=1e-3)
    words = ("--gemma", gemma, "--audio", tmp_path / "long.flac", "--max-new-tokens", 2)
    assert "answer" in json.loads(run(chat.main, *words, "--json", "--device", "cpu"))


def test_a_text_file_named_wav_is_refused_in_one_line(tiny_models, tmp_path):
    (tmp_path / "note.wav").write_text("not audio")
    words = ("--gemma", tiny_models / "gemma", "--device", "cpu")
    with pytest.raises(InputError, match=r"note.wav: not readable as audio"):
        run(chat.main, *words, "--audio", tmp_path / "note.wav")


def converse(lines, tiny_models, monkeypatch, capsys):
    """Type lines into the chat; an exception among them is raised there. Returns stderr."""
    typed = iter(lines)

    def next_line(prompt):
        line = next(typed)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", next_line)
    chat.main(["--gemma", str(tiny_models / "gemma"), "--max-new-tokens", "5", "--device", "cpu"])
    return capsys.readouterr().err


def test_a_conversation(tiny_models, corpus, tmp_path, monkeypatch, capsys):
    lines = [
        "Ɛte sɛn?", f"/audio {corpus / 'audio' / 'train_question_0001.wav'}", "/audio",
        "/nonsense", f"/save {tmp_path / 'talk.jsonl'}", "/reset", EOFError(),
    ]  # fmt: skip
    errors = converse(lines, tiny_models, monkeypatch, capsys)
    saved = json.loads((tmp_path / "talk.jsonl").read_text(encoding="utf-8"))
    assert [m["role"] for m in saved["messages"]] == ["user", "assistant"] * 2
    assert "a file is missing" in errors and "unknown command /nonsense" in errors


def test_text_beside_a_recording_and_writing_it_down(tiny_models, corpus):
    settings = {"device": torch.device("cpu"), "dtype": torch.float32, "max_new_tokens": 12}
    talk = load_conversation(str(tiny_models / "gemma"), None, **settings)
    recording = corpus / "audio" / "train_question_0001.wav"
    question = talk.spoken_turn(recording, "Kyerɛ aseɛ.")
    assert question.prompt == "Kyerɛ aseɛ." and question.spoken
    [expected] = generate_answers(
        talk.model, talk.tokenizer, [[talk.spoken_turn(recording, language().write)]],
        max_new_tokens=12,
    )  # fmt: skip
    assert talk.write_down(recording) == expected.partition("\n")[0].strip()
    assert talk.turns == []


def test_no_slip_ends_a_conversation(tiny_models, corpus, tmp_path, monkeypatch, capsys):
    soundfile.write(tmp_path / "hours.flac", np.full(8000 * 301, 0.1), 8000)
    os.mkfifo(tmp_path / "pipe")
    slips = {
        "a" * 5000: "the question has 5,000 characters, at most 4,000",
        "Wo <|audio|> ho?": "holds '<|audio|>', a mark",
        "caf\udce9": "not text in UTF-8",
        "\0": "nothing was asked",
        f"/audio {tmp_path / 'hours.flac'}": "lasts 301 s, at most 300 s are heard",
        f"/audio {tmp_path / 'pipe'}": "pipe: not a file, so no recording",
        f"/audio {tmp_path}": "not a file, so no recording",
        f"/audio {'x' * 300}": "is too long (300 bytes)",
        "/audio a\0b": "holds a NUL",
        f"/save {tmp_path}": "Is a directory",
        f"/save {tmp_path / 'pipe' / 'talk.jsonl'}": "File exists",
        f"/save {'x' * 300}": "is too long (300 bytes)",
    }
    lines = [*slips, f"/save {tmp_path / 'talk.jsonl'}", "Ɛte sɛn?", "/quit"]
    errors = converse(lines, tiny_models, monkeypatch, capsys)
    told = [line for line in errors.splitlines() if line.startswith("error: ")]
    for error, expected in zip(told, slips.values(), strict=True):
        assert expected in error
    assert json.loads((tmp_path / "talk.jsonl").read_text()) == {"messages": []}


def test_ctrl_c_stops_an_answer_and_at_the_prompt_the_chat(
    tiny_models, tmp_path, monkeypatch, capsys
):
    show, nums_shown = chat._show, iter(range(100))

    def show_until_interrupted(piece):
        show(piece)
        if next(nums_shown) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(chat, "_show", show_until_interrupted)
    pieces = iter(["Yoo", ", me", "."])
    monkeypatch.setattr(conversation, "text_pieces", lambda tokens, tokenizer: pieces)
    lines = ["Ɛte sɛn?", f"/save {tmp_path / 'talk.jsonl'}", KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        converse(lines, tiny_models, monkeypatch, capsys)
    assert "stopped; Ctrl-C at the prompt, or /quit, ends" in capsys.readouterr().err
    saved = json.loads((tmp_path / "talk.jsonl").read_text(encoding="utf-8"))
    assert saved["messages"][1]["content"] == "Yoo, me"
