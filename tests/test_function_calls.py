"""Calls in Gemma 4's format: what its chat template writes is read, anything else is not."""

import pytest
from calling_world import calling_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from commands.errors import InputError
from gemma4.chat_template import render_chat
from gemma4.function_calls import (
    CALL,
    CALL_TOKENS,
    RESPONSE,
    FunctionCall,
    as_message,
    read_calls,
    refuse_unable_to_call,
)
from gemma4.plain_tokenizer import published_chat_template

TOKENIZER = calling_tokenizer()
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text(alphabet="aɛ {}[]:,\"'\\\n\t<|>|x1", max_size=12).filter(
    lambda text: "<|" not in text and "|>" not in text
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
CALLS = st.lists(
    st.builds(FunctionCall, NAMES, st.dictionaries(NAMES, VALUES, max_size=3)),
    min_size=1,
    max_size=2,
)


def written(calls):
    """The calls as the published template writes them, up to where Gemma hands over."""
    message = as_message(calls, [str(i) for i in range(len(calls))])
    text = render_chat([{"role": "user", "content": "U"}, message], TOKENIZER, asks=False)
    assert text.endswith(RESPONSE)
    return text[text.index(CALL) : -len(RESPONSE)]


@settings(deadline=None, derandomize=True)
@given(calls=CALLS)
def test_what_the_template_writes_is_read(calls):
    assert read_calls(written(calls)) == calls


@settings(deadline=None, derandomize=True, max_examples=200)
@given(calls=CALLS, data=st.data())
def test_a_call_that_was_cut_or_changed_is_another_call_or_none(calls, data):
    """Whatever is missing: no exception but ours, and never a part of a call."""
    text = written(calls)
    place = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(InputError) as caught:
        read_calls(text[:place])
        # Cut between two calls, the first is whole.
        assert len(calls) == 2 and text[place:].startswith(CALL)
        raise InputError("whole")
    assert "\n" not in str(caught.value)
    changed = data.draw(st.sampled_from("{}[]:,x1<|> "))
    try:
        read_calls(text[:place] + changed + text[place + 1 :])
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected '<|tool_call>call:' at character 0"),
        ("add{a:1}", "expected '<|tool_call>call:'"),
        ("<|tool_call>call:add{a:1}", "expected '<tool_call|>'"),
        ("<|tool_call>call:add{a:1}<tool_call|> ", "expected '<|tool_call>call:' at character 37"),
        ("<|tool_call>call:{}<tool_call|>", "expected a function's name"),
        ("<|tool_call>call:os.system{}<tool_call|>", "expected '{'"),
        ("<|tool_call>call:add(1)<tool_call|>", "expected '{'"),
        ("<|tool_call>call:add{a:1,a:2}<tool_call|>", "expected 'a' once"),
        ("<|tool_call>call:add{a: 1}<tool_call|>", "expected a value"),
        ("<|tool_call>call:add{a:two}<tool_call|>", "expected a value"),
        ('<|tool_call>call:add{a:"2"}<tool_call|>', "expected a value"),
        ('<|tool_call>call:add{a:<|"|>2}<tool_call|>', 'expected <|"|> after the string'),
        ("<|tool_call>call:add{a:01}<tool_call|>", "expected ','"),
        ("<|tool_call>call:add{a:1e999}<tool_call|>", "expected a smaller number"),
        ("<|tool_call>call:add{a:1,}<tool_call|>", "expected a name"),
        ("<|tool_call>call:add{a:" + "[" * 20 + "}<tool_call|>", "at most 8 values inside each"),
        ("<|tool_call>call:add{a:" + "1" * 40 + "}<tool_call|>", "expected ','"),
    ],
)
def test_anything_else_is_not_read(text, expected):
    with pytest.raises(InputError) as caught:
        read_calls(text)
    assert expected in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("revision", ["", "_v2", "_v3", "_v4", "_v5"])
def test_templates_that_cannot_carry_calls_are_refused(revision):
    """Revisions before July 2026 close the turn between a transcript and a call; one writes results
    as turns of their own."""
    tokenizer = calling_tokenizer()
    tokenizer.chat_template = published_chat_template(f"gemma4{revision}.jinja")
    usable = {False: revision != "_v2", True: revision == "_v5"}
    for has_text, is_usable in usable.items():
        if is_usable:
            refuse_unable_to_call(tokenizer, where="--tools", has_text=has_text)
            continue
        with pytest.raises(InputError, match="--tools: Gemma's chat template does not write calls"):
            refuse_unable_to_call(tokenizer, where="--tools", has_text=has_text)


def test_a_tokenizer_without_the_marks_of_calls_is_refused(tiny_models):
    tokenizer = AutoTokenizer.from_pretrained(tiny_models / "gemma")
    with pytest.raises(InputError, match=r"--tools: Gemma's tokenizer has no <\|tool>, so it was"):
        refuse_unable_to_call(tokenizer, where="--tools", has_text=False)
    assert len(set(TOKENIZER.convert_tokens_to_ids(list(CALL_TOKENS)))) == len(CALL_TOKENS)
