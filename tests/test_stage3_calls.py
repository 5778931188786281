"""Functions that Gemma calls: dialogues that teach it, what runs and what does not, the chat."""

import datetime
import json
import re
from dataclasses import replace

import pytest
import torch
from calling_world import (
    ADD,
    DAY,
    DAY_ANSWER,
    SUM,
    SUM_ANSWER,
    TOOLS,
    calling_tokenizer,
)
from conftest import ROOT, run
from finetune_run import SHAPE, NoSettings, write_dialogues
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stage3_dialogue import ANY_JSON

from commands.errors import InputError
from commands.json_files import read_json
from commands.run_folder import run_folder
from data_manifests.twi_numbers import spell_numbers
from demo.world import tools as world_tools
from demo.world.facts import read_world
from stage1_rvq.codes import code_format
from stage3_finetune import chat, export, speak_dialogues, train
from stage3_finetune.calling import MAX_ROUNDS
from stage3_finetune.conversation import load_conversation
from stage3_finetune.dialogue import (
    NO_LABEL,
    Dialogue,
    Turn,
    encode_dialogue,
    encode_prompt,
    has_text_before_calls,
)
from stage3_finetune.dialogue_files import read_spoken_dialogues, write_spoken_dialogues
from stage3_finetune.dialogue_rows import parse_dialogue, read_dialogues
from stage3_finetune.mixture import as_task, with_chain_target
from stage3_finetune.tools import load_tools

TOKENIZER = calling_tokenizer()
SCHEMAS = list(load_tools(TOOLS).schemas)
CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


class Monday(datetime.date):
    @classmethod
    def today(cls):
        return cls(2026, 11, 30)


def call(name, id_=None, **arguments):
    entry = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return entry | ({"id": id_} if id_ else {})


def calling_row(**changes):
    """As in the documentation of trl, with two calls at a time and one more after them."""
    messages = [
        {"role": "user", "content": SUM},
        {"role": "assistant", "tool_calls": [
            call("add", "x", a=2, b=3), call("add", "y", a=-4, b=5)
        ]},
        {"role": "tool", "tool_call_id": "x", "name": "add", "content": "5"},
        {"role": "tool", "tool_call_id": "y", "name": "add", "content": "1"},
        {"role": "assistant", "tool_calls": [call("day_today")]},
        {"role": "tool", "name": "day_today", "content": "Dwoada"},
        {"role": "assistant", "content": SUM_ANSWER},
        {"role": "user", "content": "Yoo."},
        {"role": "assistant", "content": "Yoo."},
    ]  # fmt: skip
    return {"id": "1", "tools": SCHEMAS, "messages": messages} | changes


def test_ids_are_those_of_the_published_template():
    row = calling_row()
    encoded = encode_dialogue(parse_dialogue(row, "1"), TOKENIZER)
    stock = TOKENIZER.apply_chat_template(row["messages"], tools=row["tools"], return_dict=False)
    assert encoded.input_ids == stock
    prompt = encode_prompt(parse_dialogue(row, "1").turns[:3], TOKENIZER, row["tools"])
    assert prompt.input_ids == TOKENIZER.apply_chat_template(
        row["messages"][:6], tools=row["tools"], add_generation_prompt=True, return_dict=False
    )


def test_what_the_model_writes_is_learned_and_nothing_else():
    encoded = encode_dialogue(parse_dialogue(calling_row(), "1"), TOKENIZER)
    assert len(encoded.labels) == len(encoded.input_ids)
    learned = [i for i, label in enumerate(encoded.labels) if label != NO_LABEL]
    assert all(encoded.labels[i] == encoded.input_ids[i] for i in learned)
    assert TOKENIZER.decode([encoded.input_ids[i] for i in learned]) == (
        "<|tool_call>call:add{a:2,b:3}<tool_call|><|tool_call>call:add{a:-4,b:5}<tool_call|>"
        "<|tool_response><|tool_call>call:day_today{}<tool_call|><|tool_response>"
        f"{SUM_ANSWER}<turn|>Yoo.<turn|>"
    )


def test_text_may_stand_before_a_call():
    said = {"role": "assistant", "content": "Twɛn."}
    [user, called, result, answered] = with_messages(CALLED, RESULT, ANSWERED)["messages"]
    messages = [user, said, called, result, answered]
    dialogue = parse_dialogue(calling_row(messages=messages), "1")
    encoded = encode_dialogue(dialogue, TOKENIZER)
    learned = [label for label in encoded.labels if label != NO_LABEL]
    call_text = "<|tool_call>call:add{a:2,b:3}<tool_call|><|tool_response>"
    assert TOKENIZER.decode(learned) == f"Twɛn.{call_text}{SUM_ANSWER}<turn|>"
    assert encoded.input_ids == TOKENIZER.apply_chat_template(
        messages, tools=SCHEMAS, return_dict=False
    )
    assert has_text_before_calls(dialogue)
    assert not has_text_before_calls(parse_dialogue(calling_row(), "1"))


def test_a_spoken_question_is_written_down_before_the_call():
    heard = Turn("user", SUM, spoken=True, frames_TD=torch.zeros(3, 4))
    dialogue = Dialogue("d", (heard, ADD, Turn("assistant", SUM_ANSWER)), tools=tuple(SCHEMAS))
    chain = as_task(dialogue, "answer", "chain")
    assert chain == with_chain_target(dialogue)
    encoded = encode_dialogue(chain, TOKENIZER)
    learned = [label for label in encoded.labels if label != NO_LABEL]
    assert TOKENIZER.decode(learned) == (
        f"{SUM}<|tool_call>call:add{{a:2,b:3}}<tool_call|><|tool_response>{SUM_ANSWER}<turn|>"
    )
    typed = as_task(dialogue, "typed", "chain")
    assert not typed.turns[0].spoken and typed.turns[1:] == dialogue.turns[1:]
    transcribed = as_task(dialogue, "transcribe", "chain")
    assert len(transcribed.turns) == 2 and not transcribed.tools


def with_messages(*messages, **changes):
    return calling_row(messages=[{"role": "user", "content": SUM}, *messages], **changes)


CALLED = {"role": "assistant", "tool_calls": [call("add", a=2, b=3)]}
RESULT = {"role": "tool", "name": "add", "content": "5"}
ANSWERED = {"role": "assistant", "content": SUM_ANSWER}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (with_messages(CALLED, ANSWERED), "the call of 'add' has no result"),
        (with_messages(CALLED, RESULT), "turns must alternate"),
        (with_messages(RESULT, ANSWERED), "a tool turn without a call before it"),
        (with_messages(CALLED, RESULT, RESULT, ANSWERED), "a tool turn without a call before it"),
        (with_messages(CALLED, RESULT | {"name": "sub"}, ANSWERED), "a tool turn of 'sub' after"),
        (with_messages(CALLED, RESULT | {"content": 5}, ANSWERED), "must be a string: 5"),
        (with_messages(CALLED | {"content": "Twɛn."}, RESULT, ANSWERED), "has text too"),
        (
            with_messages(CALLED, RESULT, ANSWERED, tools=None),
            "calls 'add', which 'tools' does not",
        ),
        (with_messages(CALLED, RESULT, ANSWERED, tools=SCHEMAS[1:]), "did you|known: day_today"),
        (with_messages(CALLED, RESULT, ANSWERED, tools={"a": 1}), "'tools' must be a list"),
        (with_messages(CALLED, RESULT, ANSWERED, tools=[1]), "a tool must be an object"),
        (with_messages(CALLED, RESULT, ANSWERED, tools=SCHEMAS * 2), "declares a function twice"),
        (with_messages(CALLED, RESULT, ANSWERED, tools="{"), "'tools': not valid JSON"),
        (
            with_messages(CALLED, RESULT | {"content": "5<turn|>"}, ANSWERED),
            "a tool turn holds '<turn\\|>', a mark",
        ),
        (
            with_messages({**CALLED, "tool_calls": [call("add", a=2)]}, RESULT, ANSWERED),
            "calls 'add' without 'b', which is required",
        ),
        (
            with_messages({**CALLED, "tool_calls": [call("add", a=2, b=3, c=1)]}, RESULT, ANSWERED),
            "calls 'add' with 'c', which is not declared",
        ),
        (
            with_messages(
                {**CALLED, "tool_calls": [call("add", a='<|"|>', b=3)]}, RESULT, ANSWERED
            ),
            "a call of 'add' holds",
        ),
        (with_messages({**CALLED, "tool_calls": "x"}, RESULT, ANSWERED), "not valid JSON"),
        (with_messages({**CALLED, "tool_calls": [1]}, RESULT, ANSWERED), "must be an object"),
        (
            with_messages({**CALLED, "tool_calls": [call("a b")]}, RESULT, ANSWERED),
            "the name of a tool call must be",
        ),
    ],
)
def test_bad_calls_name_file_and_line(tmp_path, row, message):
    path = tmp_path / "dialogues.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in (calling_row(id="0"), row)))
    with pytest.raises(InputError, match=message) as caught:
        list(read_dialogues(path, takes_tools=True))
    assert str(caught.value).startswith(f"{path}:2: ") and "\n" not in str(caught.value)


NEAR_CALL = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=2) | ANY_JSON,
        "function": st.fixed_dictionaries(
            {"name": st.sampled_from(["add", "day_today", "x"]) | ANY_JSON},
            optional={"arguments": st.sampled_from([{}, {"a": 2, "b": 3}, "{}"]) | ANY_JSON},
        )
        | ANY_JSON,
    },
)
NEAR_MESSAGES = st.lists(
    st.sampled_from([{"role": "user", "content": SUM}, CALLED, RESULT, ANSWERED])
    | st.fixed_dictionaries(
        {"role": st.sampled_from(["assistant", "tool"]) | ANY_JSON},
        optional={
            "content": st.text() | ANY_JSON,
            "tool_calls": st.lists(NEAR_CALL, max_size=2) | ANY_JSON,
            "tool_call_id": st.text(max_size=2) | ANY_JSON,
            "name": st.sampled_from(["add", "x"]) | ANY_JSON,
        },
    ),
    max_size=6,
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(messages=NEAR_MESSAGES, tools=st.just(SCHEMAS) | ANY_JSON)
def test_any_json_with_calls_is_a_dialogue_or_one_line(messages, tools):
    try:
        dialogue = parse_dialogue({"messages": messages, "tools": tools}, default_id="7")
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 300
        return
    for turn in dialogue.turns:
        assert len(turn.calls) == len(turn.results) and bool(turn.calls) != bool(turn.content)
        assert turn.role in ("user", "assistant", "system")


def test_columns_of_hugging_face_tables_are_taken(tmp_path):
    """JSON in strings, and nulls where other rows have something."""
    called = [
        entry | {"function": entry["function"] | {"arguments": json.dumps({"a": 2, "b": 3})}}
        for entry in CALLED["tool_calls"]
    ]
    plain = {"role": "user", "content": SUM, "tool_calls": None, "name": None}
    row = {"tools": json.dumps(SCHEMAS), "messages": [
        plain, {"role": "assistant", "content": None, "tool_calls": called}, RESULT, ANSWERED
    ]}  # fmt: skip
    assert parse_dialogue(row, "1").turns[1] == ADD


def test_commands_that_ask_questions_do_not_take_dialogues_with_tools(tmp_path):
    path = tmp_path / "dialogues.jsonl"
    path.write_text(json.dumps(calling_row()))
    with pytest.raises(InputError, match=re.escape(f"{path}:1: has 'tools': dialogues with calls")):
        list(read_dialogues(path))


def test_the_example_is_right():
    """Its functions are those of the demo, its results what they return, its numbers as spelt."""
    dialogues = list(read_dialogues(ROOT / "demo" / "world" / "calls.jsonl", takes_tools=True))
    results = []
    for dialogue in dialogues:
        assert list(dialogue.tools) == SCHEMAS
        question, *called, answer = dialogue.turns
        for turn in called:
            [made], [result] = turn.calls, turn.results
            results.append(result)
            if made.name == "add":
                a, b = made.arguments.values()
                for number in (a, b):
                    assert in_words(number) in question.content.lower()
                assert result == str(world_tools.add(a, b))
                assert answer.content.endswith(f" yɛ {in_words(a + b)}.")
            else:
                assert answer.content.endswith(f" {result}.")
    assert set(results[-7:]) == {row[0] for row in read_world()["tables"]["day"]["rows"]}
    assert len(results) < len(dialogues) == 21


def in_words(number):
    return spell_numbers(f"Ɛyɛ {number}.", "asante").text.removeprefix("Ɛyɛ ").removesuffix(".")


def spoken_dialogues(tools=tuple(SCHEMAS)):
    codes_TK = torch.arange(10).reshape(5, 2)
    plain = (Turn("user", "Yoo?", spoken=True, codes_TK=codes_TK), Turn("assistant", "Yoo."))
    heard = Turn("user", SUM, spoken=True, codes_TK=codes_TK + 1)
    calling = (heard, ADD, Turn("assistant", SUM_ANSWER), *plain)
    return [Dialogue("a", calling, tools=tools), Dialogue("b", plain)]


def write_folder(folder, dialogues):
    with run_folder(folder, NoSettings(), "stage3_finetune.speak_dialogues") as output:
        path = output.path / "dialogues_00000.parquet"
        write_spoken_dialogues(path, dialogues, code_format(SHAPE), has_tools=True)


def test_spoken_dialogues_with_calls_are_read_as_they_were_written(tmp_path):
    write_folder(tmp_path / "spoken", spoken_dialogues())
    read = list(read_spoken_dialogues(tmp_path / "spoken", code_format(SHAPE)))
    for found, expected in zip(read, spoken_dialogues(), strict=True):
        assert found.tools == expected.tools
        for turn, wanted in zip(found.turns, expected.turns, strict=True):
            assert replace(turn, codes_TK=None) == replace(wanted, codes_TK=None)
            assert wanted.codes_TK is None or torch.equal(turn.codes_TK, wanted.codes_TK)


def test_the_writer_of_codes_takes_calls(tmp_path):
    path = tmp_path / "dialogues.jsonl"
    path.write_text(json.dumps(calling_row()))
    with pytest.raises(InputError, match='no user turn is marked "spoken": true'):
        run(speak_dialogues.main, "--dialogues", path, "--speechless", tmp_path, "--out",
            tmp_path / "out")  # fmt: skip


@pytest.fixture(scope="module")
def trained(calling_gemma, tiny_models, tmp_path_factory):
    """Two adapters on the Gemma that calls: one trained on a call, the other on none."""
    folder = tmp_path_factory.mktemp("calls")
    flags = write_dialogues(folder, tiny_models)
    flags = [calling_gemma if flag == tiny_models / "gemma" else flag for flag in flags]
    run(train.main, *flags, "--out", folder / "without")
    write_folder(folder / "calling", spoken_dialogues())
    flags[1] = folder / "calling"
    run(train.main, *flags, "--out", folder / "with")
    return folder


def test_an_adapter_records_the_calls_it_was_trained_on(trained, calling_gemma, tmp_path):
    recorded = {name: read_json(trained / name / "provenance.json") for name in ("with", "without")}
    assert recorded["with"]["num_calls"] == 1 and recorded["without"]["num_calls"] == 0
    assert recorded["with"]["called_functions"] == ["add"]
    for name in ("with", "without"):
        merged = tmp_path / name
        words = ("--gemma", calling_gemma, "--finetune", trained / name, "--allow-mixture")
        run(export.main, *words, "--out", merged)
        for gemma, finetune in ((calling_gemma, trained / name), (merged, None)):
            conversation = load_conversation(str(gemma), finetune, **CPU)
            assert conversation.has_learned_calls == (name == "with")


def test_models_that_were_not_trained_for_it_are_refused(trained, calling_gemma, tiny_models):
    words = ("--prompt", SUM, "--tools", TOOLS, "--device", "cpu")
    adapter = ("--gemma", calling_gemma, "--finetune", trained / "without", "--allow-mixture")
    with pytest.raises(InputError, match="--tools: this adapter was trained on dialogues without"):
        run(chat.main, *adapter, *words)
    with pytest.raises(InputError, match=r"--tools: Gemma's tokenizer has no <\|tool>"):
        run(chat.main, "--gemma", tiny_models / "gemma", *words)
    flags = ("--rvq", trained / "rvq", "--gemma", tiny_models / "gemma", "--device", "cpu")
    with pytest.raises(InputError, match="'tools' in --dialogues: Gemma's tokenizer has no"):
        run(train.main, "--dialogues", trained / "calling", *flags, "--out", trained / "never")


def test_the_chat_calls_and_answers(calling_gemma, corpus, monkeypatch, capsys):
    words = ("--gemma", calling_gemma, "--tools", TOOLS, "--json", "--device", "cpu")
    printed = run(chat.main, *words, "--prompt", SUM)
    assert json.loads(printed) == {"transcript": "", "answer": SUM_ANSWER}
    assert "(add(a=2, b=3): 5)" in capsys.readouterr().err
    recording = corpus / "audio" / "train_question_0000.wav"
    printed = run(chat.main, *words, "--audio", recording)
    assert json.loads(printed) == {"transcript": SUM, "answer": SUM_ANSWER}


@pytest.fixture
def conversation(calling_gemma, monkeypatch):
    monkeypatch.setattr(world_tools, "date", Monday)
    loaded = load_conversation(str(calling_gemma), None, **CPU)
    loaded.use_tools(load_tools(TOOLS))
    return loaded


def test_a_conversation_with_calls_goes_on_and_can_be_saved(conversation):
    shown, called = [], []
    for question, answer in ((SUM, SUM_ANSWER), (DAY, DAY_ANSWER)):
        shown.clear()
        reply = conversation.ask(conversation.typed_turn(question), shown.append, called.append)
        assert reply.answer == "".join(shown) == answer
    assert [result.as_line() for result in called] == [
        "(add(a=2, b=3): 5)",
        "(day_today(): Dwoada)",
    ]
    assert [turn.role for turn in conversation.turns] == ["user", "assistant", "assistant"] * 2
    saved = parse_dialogue(json.loads(json.dumps(conversation.as_messages())), "1")
    assert list(saved.turns) == conversation.turns and saved.tools == conversation.tools.schemas
    assert conversation.make_room(Turn("user", SUM)) == 0


def test_of_a_long_conversation_questions_are_forgotten_with_their_calls(conversation, monkeypatch):
    for question in (SUM, DAY):
        conversation.ask(conversation.typed_turn(question), str)
    whole = len(conversation.prompt([Turn("user", SUM)]).input_ids)
    monkeypatch.setattr("stage3_finetune.prompt_limits.MAX_PROMPT_TOKENS", whole - 1)
    assert conversation.make_room(Turn("user", SUM)) == 3
    assert conversation.turns[0].content == DAY


@pytest.mark.parametrize(("num_remembered", "kept"), [(None, 6), (3, 6), (2, 6), (1, 3), (0, 0)])
def test_only_what_is_to_be_remembered_is_shown(conversation, monkeypatch, num_remembered, kept):
    """Questions with their calls and answers; that is not said to be forgotten."""
    for question in (SUM, DAY):
        conversation.ask(conversation.typed_turn(question), str)
    turns = list(conversation.turns)
    monkeypatch.setattr(conversation, "num_remembered", num_remembered)
    assert conversation.make_room(Turn("user", SUM)) == 0
    assert conversation.turns == turns[6 - kept :]
    assert conversation.continuing([]).make_room(Turn("user", SUM)) == 0


def test_a_model_is_told_what_went_wrong_and_so_is_the_user(conversation):
    def fail(a: int, b: int) -> int:
        raise ZeroDivisionError("division by zero")

    conversation.tools._functions["add"] = fail
    called = []
    conversation.ask(conversation.typed_turn(SUM), str, called.append)
    assert called[0].as_line() == ("(add(a=2, b=3): failed: ZeroDivisionError: division by zero)")
    assert conversation.turns[1].results == ("error: ZeroDivisionError: division by zero",)


def test_a_model_that_only_calls_is_stopped(conversation, monkeypatch):
    ids = TOKENIZER("<|tool_call>call:add{a:2,b:3}<tool_call|>", add_special_tokens=False).input_ids
    monkeypatch.setattr("stage3_finetune.conversation.stream_tokens", lambda *a, **k: iter(ids))
    called = []
    with pytest.raises(InputError, match=r"called functions 5 times and gave no answer"):
        conversation.ask(conversation.typed_turn(SUM), str, called.append)
    assert len(called) == MAX_ROUNDS and conversation.turns == []


@pytest.mark.parametrize(
    "written", ["<|tool_call>call:add{a:2,b:3}", "<|tool_call>call:add{a:2,b:3}<tool_call|>Yoo."]
)
def test_a_malformed_call_runs_nothing(conversation, monkeypatch, written):
    ids = TOKENIZER(written, add_special_tokens=False).input_ids
    monkeypatch.setattr("stage3_finetune.conversation.stream_tokens", lambda *a, **k: iter(ids))
    called = []
    with pytest.raises(InputError, match="in a wrong way, so none was called"):
        conversation.ask(conversation.typed_turn(SUM), str, called.append)
    assert not called and conversation.turns == []


def test_without_tools_nothing_is_called(calling_gemma, monkeypatch):
    ids = TOKENIZER("<|tool_call>call:add{a:2,b:3}<tool_call|>", add_special_tokens=False).input_ids
    monkeypatch.setattr("stage3_finetune.conversation.stream_tokens", lambda *a, **k: iter(ids))
    loaded = load_conversation(str(calling_gemma), None, **CPU)
    with pytest.raises(InputError, match="Gemma called 'add', and no functions were given"):
        loaded.ask(loaded.typed_turn(SUM), str)
