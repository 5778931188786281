"""Stage 4's chat in the terminal: no slip ends it."""

import contextlib
import io
import itertools
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import run
from head_world import ANSWER, QUESTION, let_gemma_write, models

from commands.errors import InputError, Terminated, WriteError
from stage3_finetune import terminal
from stage3_finetune.conversation import Conversation
from voice_chat import chat, playback
from voice_chat.answer_files import keep_answer, next_answer_number
from voice_chat.playback import Playback, find_player

WRITTEN = "Yoo, me te."


@pytest.fixture
def talk(talker, tmp_path, monkeypatch, capsys):
    """Type lines into the chat; returns what it wrote to stdout and stderr."""
    let_gemma_write(monkeypatch, WRITTEN)
    talker.conversation.turns.clear()
    monkeypatch.setattr(chat.ChatConfig, "load", lambda config: talker)

    def talk(*lines, flags=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
        chat.main(["--head", "head", "--out", str(tmp_path / "out"), *map(str, flags)])
        talker.conversation.turns.clear()
        return capsys.readouterr()

    return talk


def put_player(folder, script, monkeypatch):
    player = folder / "bin" / "aplay"
    player.parent.mkdir()
    player.write_text(f"#!/bin/sh\n{script}\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", f"{player.parent}:/usr/bin:/bin")


def test_chat_answers_turn_after_turn(head_world, corpus, tmp_path, monkeypatch, capsys):
    recording = corpus / "audio" / "train_question_0000.wav"
    lines = [QUESTION, "/what", "/reset", str(recording), "/quit"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    chat.main([str(word) for word in (*models(head_world), "--out", tmp_path)])
    captured = capsys.readouterr()
    assert captured.out.startswith(ANSWER) and captured.out.count("answer_00") == 2
    assert captured.err.count("first sound after") == 2 and "unknown command /what" in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answer_001.wav", "answer_002.wav"]


def test_a_recording_with_text_and_one_that_is_written_down(talk, corpus, tmp_path, monkeypatch):
    recording = corpus / "audio" / "train_question_0000.wav"
    (tmp_path / "examples.txt").write_text("Wo din de sɛn?\n", "utf-8")
    asked = []
    monkeypatch.setattr(chat, "reply", lambda talker, question, *rest: asked.append(question))
    monkeypatch.setattr(Conversation, "write_down", lambda self, path: f"heard {path.name}")
    told = talk(
        f"{recording} Kyerɛ aseɛ.", f"/write {recording}", "/write",
        flags=("--examples", tmp_path / "examples.txt"),
    )  # fmt: skip
    [question] = asked
    assert question.spoken and question.prompt == "Kyerɛ aseɛ."
    assert told.out == "heard train_question_0000.wav\n"
    assert told.err.startswith("You may ask, for example:\n  Wo din de sɛn?\n")
    assert "a file is missing" in told.err


def test_slips_are_told_in_a_line_and_the_chat_goes_on(talk, tmp_path, monkeypatch):
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "question.wav")
    (tmp_path / "note.wav").write_text("no sound")
    soundfile.write(tmp_path / "hours.flac", np.zeros(8000 * 301), 8000)
    slips = {
        "ɛ" * 3000 + "?" * 2000: "the question has 5,000 characters, at most 4,000",
        "Wo <|audio|> ho?": "holds '<|audio|>', a mark",
        "<bos>": "holds '<bos>', a mark",
        "caf\udce9": "not text in UTF-8",
        "\0": "nothing was asked",
        str(tmp_path / "pipe"): "not a file, so no recording",
        str(tmp_path / "pipe" / "question.wav"): "not a file, so no recording",
        str(tmp_path / "note.wav"): "note.wav: not readable as audio",
        str(tmp_path / "hours.flac"): "hours.flac: lasts 301 s, at most 300 s",
        "/" + "x" * 5000: "unknown command /xxx",
        "/what\0": "unknown command /what",
    }
    written = talk(*slips, "a" * 300, "/quit", QUESTION)
    errors = [line for line in written.err.splitlines() if line.startswith("error: ")]
    for error, expected in zip(errors, slips.values(), strict=True):
        assert expected in error
    assert (
        written.out.count(WRITTEN) == 1
    )  # of the 300 letters, which are longer than a file's name
    assert "Traceback" not in written.err


@pytest.mark.parametrize(
    ("script", "told"), [("exit 3", "aplay ended with code 3"), ("exec <&-; sleep 60", "aplay")]
)
def test_a_player_that_dies_costs_the_sound_only(talk, tmp_path, monkeypatch, script, told):
    put_player(tmp_path, script, monkeypatch)
    monkeypatch.setattr(playback, "to_pcm16", lambda samples_N: bytes(2**20))  # more than a pipe
    written = talk(QUESTION, QUESTION, flags=["--play"])
    assert written.err.count(told) == 2 and "the answer is written, but not played" in written.err
    assert written.out.count(WRITTEN) == 2
    assert soundfile.info(tmp_path / "out" / "answer_002.wav").frames > 0


def test_a_player_that_cannot_be_started_is_told(tmp_path, capsys):
    with Playback([str(tmp_path / "aplay")]) as silent:
        silent.add(np.zeros(1920, np.float32))
    assert "aplay cannot be started (No such file or directory)" in capsys.readouterr().err


def test_chat_plays_while_it_speaks(talk, tmp_path, monkeypatch):
    put_player(tmp_path, f"cat > {tmp_path}/played", monkeypatch)
    talk(flags=["--prompt", QUESTION, "--play"])
    samples = soundfile.info(tmp_path / "out" / "answer_001.wav").frames
    assert (tmp_path / "played").stat().st_size == 2 * samples
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="aplay, paplay, play, ffplay"):
        find_player()


def test_ctrl_c_stops_the_answer_and_not_the_chat(talk, talker, tmp_path, monkeypatch):
    """What was spoken is written, and what was written of the answer is remembered."""
    # However fast the head moves on, the third frame comes before the last word is written.
    long = " ".join([WRITTEN] * 5)
    let_gemma_write(monkeypatch, long)
    add, remembered, nums_added = Playback.add, [], itertools.count()

    def add_until_interrupted(self, samples_N):
        add(self, samples_N)
        if next(nums_added) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Playback, "add", add_until_interrupted)
    monkeypatch.setattr(
        talker.conversation, "remember", lambda question, text, called: remembered.append(text)
    )
    written = talk(QUESTION, QUESTION)
    assert "stopped; Ctrl-C at the prompt, or /quit, ends" in written.err
    stopped, whole = remembered
    assert whole == long and long.startswith(stopped) and 0 < len(stopped) < len(long)
    frames = [soundfile.info(tmp_path / "out" / f"answer_00{i}.wav").frames for i in (1, 2)]
    assert frames[0] == 3 * 1920 < frames[1]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Terminated])
def test_ctrl_c_at_the_prompt_and_sigterm_end_the_chat(monkeypatch, kind):
    def interrupted(prompt):
        raise kind

    monkeypatch.setattr("builtins.input", interrupted)
    with pytest.raises(kind):
        terminal.converse(print, commands="")

    def terminated(line):
        raise Terminated

    monkeypatch.setattr("builtins.input", lambda prompt: "line")
    with pytest.raises(Terminated):
        terminal.converse(terminated, commands="")


def test_a_long_conversation_says_what_is_forgotten(talk, monkeypatch):
    monkeypatch.setattr("stage3_finetune.prompt_limits.MAX_PROMPT_TOKENS", 60)
    written = talk(*[QUESTION] * 4)
    assert written.out.count(WRITTEN) == 4
    assert "its 2 oldest turns are forgotten; /reset starts anew" in written.err


@pytest.mark.parametrize("out", ["file", "file/out", "/proc/out", "x" * 300])
def test_an_impossible_out_is_refused_before_models_are_loaded(tmp_path, out):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--out"):
        run(chat.main, "--head", "nowhere", "--out", tmp_path / out)


def test_no_answer_is_written_over(tmp_path):
    for name in ("answer_002.wav", "answer_010.wav", "answer_011 (copy).wav", "answer_².wav"):
        (tmp_path / name).touch()
    assert next_answer_number(tmp_path) == 11 and next_answer_number(tmp_path / "new") == 1
    samples_N = np.ones(10, np.float32)
    assert keep_answer(tmp_path, samples_N, 24_000).name == "answer_011.wav"
    assert keep_answer(tmp_path, samples_N, 24_000).name == "answer_012.wav"


@contextlib.contextmanager
def files_of_at_most(num_bytes):
    """A disk that is full, as far as this process can see."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_no_half_answer(tmp_path):
    keep_answer(tmp_path, np.ones(10, np.float32), 24_000)
    with files_of_at_most(1000), pytest.raises(WriteError, match=r"answer_002\.wav"):
        keep_answer(tmp_path, np.ones(24_000, np.float32), 24_000)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["answer_001.wav"]
