"""Functions that are called in a conversation by voice: only the answer is spoken, and nothing is
called before a question has ended."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from calling_world import SUM, SUM_ANSWER, TOOLS
from head_world import let_gemma_write
from test_voice_hands_free import (
    SETTINGS,
    LoudIsSpeech,
    drive,
    finish,
    kinds,
    silence,
    speech,
)

from commands.errors import InputError
from gemma4.function_calls import FunctionCall
from speech_head.speech import Speech
from speech_head.stream import Sampling
from speech_head.talker import load_talker
from stage3_finetune.decoding import Decoding
from stage3_finetune.dialogue import Turn
from stage3_finetune.live_prompt import LivePrompt
from stage3_finetune.tools import NO_TOOLS, CallResult, load_tools
from voice_chat.begun_answer import BegunAnswer, compute_a_little
from voice_chat.hands_free import HandsFree
from voice_chat.own_voice import EchoCanceller
from voice_chat.studio import Visit
from voice_chat.updates import Called, Ended, Heard, Said, Wrote


@pytest.fixture(scope="module")
def calling_talker(calling_gemma, head_world):
    talker = load_talker(
        str(calling_gemma), None, str(head_world / "mimi"), str(head_world / "head"),
        device=torch.device("cpu"), dtype=torch.float32, allow_mixture=True,
    )  # fmt: skip
    talker.conversation.use_tools(load_tools(TOOLS))
    return talker


@pytest.fixture
def talker(calling_talker):
    """With a conversation of its own."""
    return replace(calling_talker, conversation=calling_talker.conversation.continuing([]))


@pytest.fixture
def heard(talker, corpus):
    return talker.conversation.spoken_turn(corpus / "audio" / "train_question_0000.wav")


def computed(answer, at_most=2000):
    """What an answer gives until it is complete."""
    updates = []
    for _ in range(at_most):
        compute_a_little([answer])
        updates += answer.take()
        if answer.is_complete:
            return updates
    raise AssertionError("no end")


@pytest.mark.parametrize("is_spoken", [False, True], ids=["typed", "spoken"])
def test_only_the_answer_is_spoken(talker, heard, is_spoken):
    question = heard if is_spoken else talker.conversation.typed_turn(SUM)
    spoken, transcripts, called = Speech(talker, Sampling()), [], []
    answer = talker.answer(question, on_transcript=transcripts.append, on_call=called.append)
    assert sum(len(samples_N) for samples_N in spoken.say(answer)) > 0
    assert spoken.text == SUM_ANSWER
    assert transcripts == [SUM] * is_spoken
    assert [result.as_line() for result in called] == ["(add(a=2, b=3): 5)"]
    turns = talker.conversation.turns
    said = [Turn("assistant", SUM)] if is_spoken else []
    assert turns[1:-2] == said and turns[-2].results == ("5",)
    assert turns[-1] == Turn("assistant", SUM_ANSWER)


def test_states_after_a_call_are_those_of_the_whole_prompt(talker):
    """Only what a function returned is computed anew; a prompt that differs is, from its start."""
    question = talker.conversation.typed_turn(SUM)
    pieces = [piece for piece in talker.answer(question) if len(piece.ids_S)]
    [_, called, _] = talker.conversation.turns
    whole = talker.conversation.continuing([]).prompt([question, called])
    again = talker.begin(whole)
    for piece in pieces:
        token = again.next()
        assert int(token.id_1) == int(piece.ids_S)
        states = [state for state in token.hidden_states if state is not None]
        torch.testing.assert_close(
            piece.states_SLD[0], torch.stack([s[0, 0] for s in states]), atol=1e-3, rtol=1e-3
        )


def test_a_decoding_goes_on_with_what_it_holds(talker):
    model, conversation = talker.conversation.model, talker.conversation
    first = conversation.prompt([Turn("user", SUM)])
    decoding = Decoding(model, first)
    written = [int(decoding.next().id_1) for _ in range(4)]
    longer = first.followed_by([*written, *first.input_ids[-3:]])
    decoding.go_on_with(longer)
    assert len(decoding._left) == 1 + 3  # the last token had not been computed
    alone = Decoding(model, longer)
    assert [int(decoding.next().id_1) for _ in range(3)] == [
        int(alone.next().id_1) for _ in range(3)
    ]
    decoding.go_on_with(first)
    assert decoding._left == first.input_ids
    assert [int(decoding.next().id_1) for _ in range(4)] == written


@pytest.mark.parametrize("speaks", [True, False])
def test_nothing_is_called_before_the_question_has_ended(talker, heard, monkeypatch, speaks):
    conversation = talker.conversation
    begun = []
    begin = type(conversation).begin_call
    monkeypatch.setattr(
        type(conversation), "begin_call", lambda self, call: begun.append(call) or begin(self, call)
    )
    live = LivePrompt(
        conversation.model, conversation.tokenizer, [], tools=conversation.tools.schemas
    )
    live.hear(heard.frames_TD)
    answer = BegunAnswer(talker, heard, live.begun(), Sampling(), is_wanted=False, is_spoken=speaks)
    for _ in range(200):
        if answer.is_waiting:
            break
        compute_a_little([answer])
    assert answer.is_waiting and not begun and not answer.is_complete
    assert answer.has_transcript and conversation.tokenizer.decode(answer.draft) == SUM
    answer.is_wanted = True
    updates = computed(answer)
    kinds = [type(update) for update in updates]
    assert kinds[:2] == [Heard, Called] and kinds[-1] is Ended
    assert (Said if speaks else Wrote) in kinds
    assert updates[0].transcript == SUM and updates[-1].text == SUM_ANSWER
    assert len(begun) == 1 and answer.turns[-1].content == SUM_ANSWER


@pytest.mark.skipif(find_spec("livekit") is None, reason="livekit is not installed")
def test_hands_free_waits_for_the_end_of_a_question_and_then_calls(talker, monkeypatch):
    """Meanwhile there is nothing to do: it does not turn in a circle."""
    monkeypatch.setattr(EchoCanceller, "take_out", lambda self, played_N, heard_N: heard_N)
    call = "<|tool_call>call:add{a:2,b:3}<tool_call|>"
    let_gemma_write(monkeypatch, (call, SUM_ANSWER))
    talker.conversation.writes_transcripts = False
    live = HandsFree(talker, SETTINGS, lambda turns: Sampling(), voice=LoudIsSpeech())
    assert kinds(drive(live, speech(1.0), silence(0.4), work=50)) == ["began", "paused"]
    assert not live.is_busy and talker.conversation.turns == []
    updates = drive(live, silence(0.6)) + finish(live)
    assert kinds(updates) == ["ended", "Called", "Ended"]
    assert updates[-1] == Ended(SUM_ANSWER)
    assert [turn.role for turn in talker.conversation.turns] == ["user", "assistant", "assistant"]


def test_an_answer_that_is_thrown_away_calls_nothing(talker, heard, monkeypatch):
    def refuse(self, call):
        raise AssertionError(call)

    monkeypatch.setattr(type(talker.conversation), "begin_call", refuse)
    prompt = talker.conversation.prompt([heard])
    answer = BegunAnswer(talker, heard, prompt, Sampling(), is_wanted=False)
    while not answer.is_waiting:
        compute_a_little([answer])
    answer.close()
    assert not any(turn.calls for turn in answer.turns)


def test_without_tools_a_call_ends_in_one_line(talker):
    question = talker.conversation.typed_turn(SUM)
    prompt = talker.conversation.prompt([question])
    talker.conversation.tools = NO_TOOLS
    answer = BegunAnswer(talker, question, prompt, Sampling(), is_wanted=True)
    [*_, ended] = computed(answer)
    assert "no functions were given" in ended.problem and answer.turns == []
    with pytest.raises(InputError, match="no functions were given"):
        list(talker.answer(question, talker.begin(prompt)))


def test_a_server_says_that_a_function_failed_and_not_what_was_asked(capsys):
    failed = CallResult(FunctionCall("add", {"a": "asɛm"}), "error: x", "failed: x")
    told = []
    Visit(None, None, told.append).tell([Called(failed), Called(replace(failed, problem=""))])
    assert capsys.readouterr().err == "add: failed: x\n" and len(told) == 1
