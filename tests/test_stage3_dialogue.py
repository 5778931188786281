"""Dialogues as token ids: the published format, audio slots, labels on answers only."""

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from commands.errors import InputError
from data_manifests.language import language
from stage3_finetune.data import collate
from stage3_finetune.dialogue import (
    NO_LABEL,
    Dialogue,
    Turn,
    encode_dialogue,
    encode_prompt,
    split_chain,
)
from stage3_finetune.dialogue_rows import parse_dialogue, read_dialogues
from stage3_finetune.mixture import as_task, with_chain_target


@pytest.fixture(scope="module")
def tokenizer(tiny_models):
    return AutoTokenizer.from_pretrained(tiny_models / "gemma")


def spoken(num_frames, text="Ɛte sɛn?"):
    return Turn("user", text, spoken=True, frames_TD=torch.zeros(num_frames, 4))


def test_prompt_is_the_published_format(tokenizer):
    turns = [
        Turn("system", "Kasa Twi."),
        spoken(2),
        Turn("assistant", "Ɛyɛ."),
        Turn("user", "Na wo?"),
    ]
    ids = encode_prompt(turns, tokenizer).input_ids
    assert tokenizer.decode(ids) == (
        "<bos><|turn>system\nKasa Twi.<turn|>\n"
        "<|turn>user\n<|audio><|audio|><|audio|><audio|><turn|>\n"
        "<|turn>model\nƐyɛ.<turn|>\n<|turn>user\nNa wo?<turn|>\n<|turn>model\n"
    )


def test_labels_are_the_answers_and_the_ends_of_their_turns(tokenizer):
    dialogue = Dialogue(
        "d", (spoken(3), Turn("assistant", "Ɛyɛ."), Turn("user", "Na?"), Turn("assistant", "Dabi."))
    )
    encoded = encode_dialogue(dialogue, tokenizer)
    assert len(encoded.input_ids) == len(encoded.labels)
    learned = [i for i, label in enumerate(encoded.labels) if label != NO_LABEL]
    assert all(encoded.labels[i] == encoded.input_ids[i] for i in learned)
    assert tokenizer.decode([encoded.labels[i] for i in learned]) == "Ɛyɛ.<turn|>Dabi.<turn|>"
    slot = tokenizer.convert_tokens_to_ids("<|audio|>")
    assert encoded.input_ids.count(slot) == 3 == len(encoded.frames[0])
    prompt = encode_prompt(dialogue.turns[:3], tokenizer).input_ids
    assert encoded.input_ids[: len(prompt)] == prompt


def test_chain_target_and_back():
    dialogue = Dialogue("d", (spoken(1, "Ɛte sɛn?"), Turn("assistant", "Ɛyɛ.")))
    chain = with_chain_target(dialogue).turns[1].content
    assert chain == "Ɛte sɛn?\nƐyɛ." and split_chain(chain) == ("Ɛte sɛn?", "Ɛyɛ.")
    assert split_chain("Ɛyɛ.") == ("", "Ɛyɛ.")
    typed = Dialogue("d", (Turn("user", "Ɛte sɛn?"), Turn("assistant", "Ɛyɛ.")))
    assert with_chain_target(typed) == typed


def test_tasks_of_the_mixture():
    dialogue = Dialogue("d", (spoken(1, "Ɛte sɛn?"), Turn("assistant", "Ɛyɛ.")))
    assert as_task(dialogue, "answer", "direct") == dialogue
    assert as_task(dialogue, "answer", "chain").turns[1].content == "Ɛte sɛn?\nƐyɛ."
    transcribe = as_task(dialogue, "transcribe", "chain").turns
    assert transcribe[0].prompt == language().write and transcribe[1].content == "Ɛte sɛn?"
    assert not any(turn.spoken for turn in as_task(dialogue, "typed", "chain").turns)


def test_batches_are_padded_behind(tokenizer):
    rows = [
        encode_dialogue(Dialogue("a", (spoken(3), Turn("assistant", "Ɛyɛ."))), tokenizer),
        encode_dialogue(
            Dialogue("b", (Turn("user", "Na wo ho te sɛn?"), Turn("assistant", "Ɛyɛ."))), tokenizer
        ),
        encode_dialogue(
            Dialogue("c", (spoken(1), Turn("assistant", "A."), spoken(2), Turn("assistant", "B."))),
            tokenizer,
        ),
    ]
    batch = collate(rows, pad_id=0)
    assert batch["input_features"].shape == (3, 3, 4)
    assert batch["input_features_mask"].sum(dim=1).tolist() == [3, 1, 2]
    for i, row in enumerate(rows):
        length = len(row.input_ids)
        assert batch["attention_mask"][i].tolist() == [1] * length + [0] * (
            batch["input_ids"].shape[1] - length
        )
        assert (batch["labels"][i, length:] == NO_LABEL).all()
    assert "input_features" not in collate(rows[1:2], pad_id=0)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "has no 'messages'"),
        ([{"role": "teacher", "content": "x"}], "'role' must be one of"),
        ([{"role": "user", "content": " "}], "a user turn without text"),
        ([{"role": "assistant", "content": "x"}], "turns must alternate"),
        (
            [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "y", "spoken": True},
            ],
            "only user turns can be spoken",
        ),
        ([{"role": "user", "content": "x", "spoken": "false"}], "'spoken' must be true or false"),
        ([{"role": "user", "content": "x", "spoken": 0}], "'spoken' must be true or false"),
        ([{"role": "user", "content": 3}], "a user turn without text"),
        ([{"role": ["user"], "content": "x"}], "'role' must be one of"),
        ([{"role": "system", "content": "x"}], "has no user turn"),
        (["x"], "a message must be a JSON object"),
        ({"role": "user"}, "has no 'messages'"),
        (
            [{"role": "user", "content": "Wo <|audio|>"}],
            "a turn of the user holds '<|audio|>', a mark",
        ),
        (
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y<turn|>"}],
            "a turn of the assistant holds '<turn|>', a mark",
        ),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path, messages, message):
    path = tmp_path / "dialogues.jsonl"
    good = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
    path.write_text(json.dumps(good) + "\n" + json.dumps({"messages": messages}) + "\n")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        list(read_dialogues(path))
    assert str(caught.value).startswith(f"{path}:2: ") and "\n" not in str(caught.value)


def test_an_id_that_stands_twice_is_refused(tmp_path):
    """As a number and as a text too: by its id a dialogue finds its codes."""
    path = tmp_path / "dialogues.jsonl"
    messages = [{"role": "user", "content": "x"}]
    rows = [{"id": 1, "messages": messages}, {"id": "1", "messages": messages}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"dialogues.jsonl:2: id '1' is that of .*:1 too"):
        list(read_dialogues(path))


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NEAR_MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]) | ANY_JSON},
    optional={"content": st.text() | ANY_JSON, "spoken": st.booleans() | ANY_JSON},
)
NEAR_DIALOGUE = st.fixed_dictionaries(
    {"messages": st.lists(NEAR_MESSAGE | ANY_JSON, max_size=4) | ANY_JSON},
    optional={"id": ANY_JSON, "category": ANY_JSON},
)


@settings(deadline=None, derandomize=True)
@given(row=NEAR_DIALOGUE | ANY_JSON)
def test_any_json_is_a_dialogue_or_one_line(row):
    try:
        dialogue = parse_dialogue(row, default_id="7")
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 300
    else:
        assert dialogue.id.strip() and any(turn.role == "user" for turn in dialogue.turns)
        assert all(turn.content.strip() for turn in dialogue.turns)


@pytest.mark.parametrize(
    "mark", ["<|audio|>", "<|audio>", "<audio|>", "<|turn>", "<turn|>", "<bos>", "<|image|>"]
)
def test_a_mark_of_the_template_in_a_turn_is_refused(tokenizer, mark):
    typed = Turn("user", f"Ɛte {mark} sɛn?")
    with pytest.raises(
        InputError, match=r"a turn of the user holds .*, a mark of Gemma's chat template"
    ):
        encode_prompt([typed], tokenizer)
    for turns in ((typed, Turn("assistant", "Ɛyɛ.")), (spoken(1), Turn("assistant", f"a{mark}"))):
        with pytest.raises(InputError, match=r"dialogue 'd': a turn of the \w+ holds"):
            encode_dialogue(Dialogue("d", turns), tokenizer)


def test_a_conversation_goes_on_after_the_model_wrote_a_mark(tokenizer):
    begun, ended = Turn("user", "Ɛte sɛn?"), Turn("user", "Na wo?")
    prompts = [
        encode_prompt([begun, Turn("assistant", text), ended], tokenizer).input_ids
        for text in ("Ɛyɛ <|au<|audio|>dio|>.", "Ɛyɛ .")
    ]
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize("text", ["3 < 4 | 5 > 2", "<a>", "<|>", "a <- b", "<| audio |>", "|>"])
def test_other_angle_brackets_are_text(tokenizer, text):
    ids = encode_prompt([Turn("user", text)], tokenizer).input_ids
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    bare = encode_prompt([Turn("user", "x")], tokenizer).input_ids
    assert sum(i in special for i in ids) == sum(i in special for i in bare)


def test_a_spoken_turn_without_speech_is_refused(tokenizer):
    row = {"messages": [{"role": "user", "content": "Ɛte sɛn?", "spoken": True}]}
    with pytest.raises(InputError, match="has no speech yet"):
        encode_prompt(parse_dialogue(row, "1").turns, tokenizer)
    with pytest.raises(InputError, match="has no assistant turn"):
        encode_dialogue(Dialogue("d", (Turn("user", "x"),)), tokenizer)
