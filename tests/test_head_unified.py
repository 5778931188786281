"""A voice for the Gemma without encoders (12B): states, a head, speech, and talk."""

import io
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import run
from head_world import ANSWER, CPU, QUESTION, SMALL, teach_gemma
from test_voice_hands_free import LoudIsSpeech, drive, finish, silence, speech

from commands.command_line import run_command
from commands.errors import InputError
from commands.finished_folder import read_provenance
from commands.json_files import read_json
from data_manifests.audio import read_audio
from gemma4.patches import NO_TOWER
from pipeline import publish
from speech_head import evaluate, speak, states, train
from speech_head.answer import WrittenAnswer, answer_states, stream_answer
from speech_head.data import StatesFolder
from speech_head.live_states import load_live_states
from speech_head.stream import Sampling
from speech_head.talker import load_talker
from stage3_finetune.dialogue import encode_prompt
from stage3_finetune.generate import stop_ids
from voice_chat import chat
from voice_chat.hands_free import HandsFree
from voice_chat.own_voice import EchoCanceller
from voice_chat.turn_taking import TurnSettings
from voice_chat.updates import Ended


@pytest.fixture(scope="module")
def recording(corpus):
    return corpus / "audio" / "train_question_0000.wav"


@pytest.fixture(scope="module")
def world(made_once, head_world, tiny_models, recording):
    """A taught Gemma, states of it aligned by the recogniser of another one's tower, and a head."""

    def build(folder):
        folder.mkdir()
        teach_gemma(tiny_models / "gemma-unified", folder / "gemma", recording)
        run(states.main, *to_states(head_world, folder), "--out", folder / "states")
        run(
            train.main, "--states", folder / "states", *SMALL, "--steps", 20, "--warmup-steps", 2,
            "--learning-rate", 0.01, "--out", folder / "head",
        )  # fmt: skip

    return made_once("unified_world", build)


def to_states(head_world, folder, *words):
    return (
        "--manifest", head_world / "train.jsonl", "--gemma", folder / "gemma", "--mimi",
        head_world / "mimi", "--recognizer", head_world / "recognizer", "--recognizer-gemma",
        head_world / "gemma", *CPU, *words,
    )  # fmt: skip


def models(head_world, world):
    return (
        "--head", world / "head", "--gemma", world / "gemma", "--mimi", head_world / "mimi", *CPU,
    )  # fmt: skip


@pytest.fixture()
def talker(head_world, world):
    return load_talker(
        str(world / "gemma"), None, str(head_world / "mimi"), str(world / "head"),
        device=torch.device("cpu"), dtype=torch.float32, max_new_tokens=24, cut_long_answers=True,
    )  # fmt: skip


def test_states_while_writing_are_those_of_the_whole_answer(talker, recording):
    """Behind a spoken question: what the head is trained on is what it will read."""
    conversation = talker.conversation
    heard = conversation.spoken_turn(recording)
    written = list(
        stream_answer(conversation.model, conversation.tokenizer, [heard], max_tokens=30)
    )
    text = WrittenAnswer(
        text="", prompt=encode_prompt([heard], conversation.tokenizer),
        ids_S=torch.cat([tokens.ids_S for tokens in written]),
    )  # fmt: skip
    assert QUESTION in conversation.tokenizer.decode(text.ids_S)
    [known, _] = answer_states(conversation.model, [text, replace(text, ids_S=text.ids_S[:2])])
    streamed_SLD = torch.cat([tokens.states_SLD for tokens in written])
    torch.testing.assert_close(streamed_SLD, known.states_SLD, atol=1e-3, rtol=0)


def test_states_belong_to_no_tower_and_those_made_in_training_are_the_same(
    head_world, world, tmp_path
):
    folder = StatesFolder(world / "states")
    assert read_provenance(world / "states").origin.tower == NO_TOWER.tower
    assert folder.format.state_width == 64 and len(folder.utterances) == 6
    out = tmp_path / "tokens"
    run(states.main, *to_states(head_world, world), "--no-states", "--out", out)
    live, _ = load_live_states(
        out, None, device=torch.device("cpu"), dtype=torch.float32, allow_mixture=False
    )
    for cached, made in zip(
        folder.read_all(folder.utterances), live.read_all(live.utterances), strict=True
    ):
        assert torch.equal(cached.codes_FK, made.codes_FK)
        torch.testing.assert_close(cached.states_SLD, made.states_SLD, atol=2e-2, rtol=0)


@pytest.mark.parametrize("how", ["typed", "heard"])
def test_it_speaks_what_it_answers(head_world, world, recording, tmp_path, how):
    words = ("--prompt", QUESTION) if how == "typed" else ("--audio", recording)
    out = tmp_path / "answer.wav"
    written = run(speak.main, *models(head_world, world), *words, "--out", out)
    assert ANSWER in written and len(read_audio(out, 24_000)) >= 1920


def test_it_chats_in_the_terminal(head_world, world, recording, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n/reset\n{recording}\n/quit"))
    chat.main([str(word) for word in (*models(head_world, world), "--out", tmp_path)])
    captured = capsys.readouterr()
    assert captured.out.startswith(ANSWER) and captured.out.count(ANSWER) == 2
    assert captured.err.count("first sound after") == 2 and "error" not in captured.err


@pytest.mark.skipif(find_spec("livekit") is None, reason="livekit is not installed")
@pytest.mark.parametrize("work", [0, 7])
def test_it_hears_and_answers_hands_free(talker, monkeypatch, work):
    """As the server and the terminal let it: the turn is the sound's patches, and the answer is
    that of the same turn asked at once. Gemma never ends by itself: to noise, one that was taught
    little may write nothing at all."""
    conversation = talker.conversation
    written = conversation.model.generation_config
    never = [*written.suppress_tokens, *stop_ids(conversation.tokenizer, conversation.model)]
    monkeypatch.setattr(written, "suppress_tokens", never)
    monkeypatch.setattr(EchoCanceller, "take_out", lambda self, played_N, heard_N: heard_N)
    settings = TurnSettings(pause_s=0.7, early_pause_s=0.2, max_turn_s=10.0)
    live = HandsFree(talker, settings, lambda turns: Sampling(), voice=LoudIsSpeech())
    sound = np.concatenate([silence(0.48), speech(1.5, seed=3), silence(1.5)])
    updates = drive(live, sound, work=work) + finish(live)
    [ended] = [update for update in updates if isinstance(update, Ended)]
    assert not ended.problem
    [question, _] = talker.conversation.turns
    heard_N = question.frames_TD.flatten().numpy()
    start = np.flatnonzero(sound)[0] - np.flatnonzero(heard_N)[0]
    assert np.array_equal(heard_N, sound[start : start + len(heard_N)])
    asked = talker.conversation.continuing([])
    again = asked.ask(question, on_text=lambda piece: None)
    # The last token that there is room for is written, but closes the turn where it is spoken.
    assert len(ended.text) > 8 and again.answer.startswith(ended.text.strip())


def test_what_does_not_fit_is_told_in_one_line(head_world, world, tmp_path, capsys):
    words = [str(word) for word in to_states(head_world, world)]
    without = [w for w in words if w not in ("--recognizer-gemma", str(head_world / "gemma"))]
    judged = [*map(str, models(head_world, world)), "--recognizer", str(head_world / "recognizer")]
    judged += ["--manifest", str(head_world / "train.jsonl")]
    codes = tmp_path / "codes"
    codes.mkdir()
    for main, given, message in (
        (states.main, without, "without an audio tower.*: name the one that --recognizer was"),
        (states.main, [*words, "--dialogues", str(codes)], "it takes no codes"),
        (evaluate.main, judged, "in place of --recognizer give --asr"),
        (speak.main, [*map(str, models(head_world, head_world)), "--gemma",
                      str(world / "gemma"), "--text", "Maakye."], "another audio tower"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message) as caught:
            main([*given, "--out", str(tmp_path / "out")])
        assert "\n" not in str(caught.value)
        with pytest.raises(SystemExit) as ended:
            run_command(lambda main=main, given=given: main([*given, "--out", str(tmp_path / "x")]))
        assert ended.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()[-1]) < 400


def test_it_is_published_and_talks_from_there(head_world, world, tmp_path):
    run(publish.main, *models(head_world, world), "--out", tmp_path / "hub")
    facts = read_json(tmp_path / "hub" / "pipeline.json")
    assert facts["tower"] == NO_TOWER.tower and facts["folders"]["gemma"] == "gemma"
    words = ("--pipeline", tmp_path / "hub", "--prompt", "Ɛte sɛn?", "--out", tmp_path / "said")
    words += ("--max-new-tokens", 8, "--cut-long-answers", *CPU)
    assert run(chat.main, *words).splitlines()[-1].endswith("answer_001.wav")
