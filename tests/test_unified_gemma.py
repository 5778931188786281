"""The Gemma 4 without encoders (12B): loaded, it hears patches of the waveform, types and speaks as
the others do."""

import importlib
import io
import json
import re
import shutil

import numpy as np
import pytest
import soundfile
import torch
from calling_world import ADD, SUM, SUM_ANSWER, TOOLS, calling_tokenizer
from conftest import run
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import Gemma4UnifiedConfig, Gemma4UnifiedForConditionalGeneration

from commands.atomic_write import write_json_lines
from commands.command_line import run_command
from commands.errors import InputError
from commands.json_files import read_json
from gemma4.chat_template import EMPTY_THOUGHT, EXAMPLE, render_answer, render_chat
from gemma4.gemma import load_gemma
from gemma4.kinds import KINDS, PATCHES
from gemma4.plain_tokenizer import CHAT_TEMPLATE, published_chat_template, with_empty_thought
from gemma4.published_config import write_as_published
from gemma4.speech_encoder import live_ear, load_encoder, model_origin
from gemma4.true_shapes import unified_12b_config
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import RVQConfig, SpeechRVQ
from stage3_finetune import chat, transcribe
from stage3_finetune.conversation import load_conversation
from stage3_finetune.decoding import Decoding, most_probable
from stage3_finetune.dialogue import (
    NO_LABEL,
    Dialogue,
    Turn,
    encode_dialogue,
    encode_prompt,
    written_parts,
)
from stage3_finetune.generate import generate_answers, prompt_inputs, stop_ids, stream_tokens
from stage3_finetune.live_prompt import LivePrompt, hear_together
from stage3_finetune.mixture import up_to_each_answer, with_chain_target
from stage3_finetune.tools import load_tools

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def name(tiny_models):
    return str(tiny_models / "gemma-unified")


@pytest.fixture()
def conversation(name):
    return load_conversation(name, None, device=CPU, dtype=torch.float32, max_new_tokens=8)


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def asked(conversation, *waveforms):
    frames = conversation.encoder.encode(waveforms)
    return [[Turn("user", "?", spoken=True, frames_TD=frames_TD)] for frames_TD in frames]


def copy_of(name, folder, file, **changes):
    shutil.copytree(name, folder)
    path = folder / file
    path.write_text(json.dumps(read_json(path) | changes), "utf-8")
    return str(folder)


def test_the_true_size_has_as_many_weights_and_tensors_as_are_published():
    """google/gemma-4-12B-it: 11,959,730,224 weights in 677 tensors, the tied head not counted."""
    kind = KINDS[PATCHES]
    with torch.device("meta"):
        model = kind.model._from_config(unified_12b_config(), attn_implementation=kind.attention)
    state = model.state_dict()
    del state["lm_head.weight"]
    assert len(state) == 677
    assert sum(tensor.numel() for tensor in state.values()) == 11_959_730_224


def test_it_loads_as_the_stock_class(name):
    model, tokenizer = load_gemma(name, device=CPU, dtype=torch.float32)
    assert type(model) is Gemma4UnifiedForConditionalGeneration and not model.left_over_tensors
    encoder = load_encoder(name, device=CPU, dtype=torch.float32)
    assert encoder.dim == model.config.audio_config.audio_embed_dim == 640
    assert encoder.origin == model_origin(model)
    stops = stop_ids(tokenizer, model)
    assert stops == [*tokenizer.convert_tokens_to_ids(["<eos>", "<turn|>", "<|channel>"])]


def test_its_settings_are_written_as_they_are_published(name, tmp_path):
    """And mean the same."""
    shutil.copytree(name, tmp_path / "copy")
    before = Gemma4UnifiedConfig.from_pretrained(name)
    write_as_published(tmp_path / "copy")
    text = read_json(tmp_path / "copy" / "config.json")["text_config"]
    assert (text["global_head_dim"], text["num_global_key_value_heads"]) == (32, 1)
    assert "per_layer_config" not in text and text["attention_k_eq_v"]
    after = Gemma4UnifiedConfig.from_pretrained(str(tmp_path / "copy"))
    assert after.text_config.to_dict() == before.text_config.to_dict()


def test_what_is_not_whole_is_refused_in_one_line(name, tmp_path):
    shutil.copytree(name, tmp_path / "nan")
    weights = load_file(tmp_path / "nan" / "model.safetensors")
    key = "model.embed_audio.embedding_projection.weight"
    weights[key][0, 0] = torch.nan
    save_file(weights, tmp_path / "nan" / "model.safetensors", {"format": "pt"})
    shutil.copytree(name, tmp_path / "missing")
    save_file(
        {n: w for n, w in weights.items() if n != key},
        tmp_path / "missing" / "model.safetensors", {"format": "pt"},
    )  # fmt: skip
    shutil.copytree(name, tmp_path / "template")
    path = tmp_path / "template" / "chat_template.jinja"
    path.write_text(path.read_text().replace("<turn|>", "<end>"))
    shutil.copytree(name, tmp_path / "generation")
    (tmp_path / "generation" / "generation_config.json").write_text("{")
    for folder, message in (
        ("nan", "NaN or infinity"),
        ("missing", r"1 tensor\(s\) missing, e.g. model.embed_audio"),
        ("template", "does not end a turn with"),
        ("generation", "not valid JSON"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            load_gemma(str(tmp_path / folder), device=CPU, dtype=torch.float32)
        assert "\n" not in str(caught.value)
    other = copy_of(name, tmp_path / "x", "preprocessor_config.json", audio_samples_per_token=320)
    with pytest.raises(InputError, match="audio_samples_per_token = 320, Gemma 4 640"):
        load_encoder(other, device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def small_world(name, tmp_path_factory):
    """A recording of it, and a quantiser and a recogniser that know nothing."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    rvq = SpeechRVQ(RVQConfig(dim=64, num_codebooks=2, codebook_size=16))
    rvq.init_codebooks(torch.randn(400, 64), FrameMetric(torch.ones(64)))
    rvq.save_pretrained(folder / "rvq")
    soundfile.write(folder / "a.wav", noise(16_000), 16_000)
    row = {"id": "a", "audio": "a.wav", "text": "Maakye", "duration_s": 1.0, "speaker": "s",
           "dialect": "unknown", "corpus": "c", "split": "train", "license": "x"}  # fmt: skip
    write_json_lines(folder / "train.jsonl", [row])
    return folder


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("stage1_rvq.embed", "--manifest {}/train.jsonl"),
        ("stage1_rvq.tokenize_corpus", "--manifest {}/train.jsonl --rvq {}/rvq"),
        ("stage1_rvq.transcribe", "--manifest {}/train.jsonl --recognizer {}/recognizer"),
    ],
)
def test_what_needs_a_tower_says_what_to_do_instead(
    name, small_world, command, words, tmp_path, capsys
):
    """Stage 1, on whose codes stage 2 is trained; in a line."""
    given = [word.format(small_world) for word in words.split()]
    given += ["--gemma", name, "--out", str(tmp_path / "out"), "--device", "cpu"]
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: importlib.import_module(command).main(given))
    assert caught.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"12B\): it has no audio tower, whose.* name E2B or E4B.* --recordings", last)
    assert not (tmp_path / "out" / "done").exists()


def test_patches_are_the_waveform_alone_and_in_a_batch(conversation):
    waveforms = [noise(n, seed=n) for n in (1, 640, 16_000, 16_001, 1_000_003)]
    together = conversation.encoder.encode(waveforms)
    for waveform, frames_TD in zip(waveforms, together, strict=True):
        [alone_TD] = conversation.encoder.encode([waveform])
        assert torch.equal(alone_TD, frames_TD) and len(frames_TD) == -(-len(waveform) // 640)
        heard_N = frames_TD.flatten().numpy()
        assert np.array_equal(heard_N[: len(waveform)], waveform)
        assert not heard_N[len(waveform) :].any()
    with pytest.raises(InputError, match="no sample in it"):
        conversation.encoder.encode([noise(0)])


@settings(max_examples=20, deadline=None)
@given(
    num_samples=st.integers(1, 20_000),
    sizes=st.lists(st.integers(0, 5_000), min_size=1, max_size=5).filter(lambda s: max(s) > 50),
)
def test_any_cutting_gives_the_patches_of_the_whole(name, num_samples, sizes):
    encoder = load_encoder(name, device=CPU, dtype=torch.float32)
    waveform = noise(num_samples)
    [expected_TD] = encoder.encode([waveform])
    stream, found, start = live_ear(encoder).start(), [], 0
    while start < num_samples:
        for size in sizes:
            found.append(stream.push(waveform[start : start + size]))
            start += size
        assert stream.num_frames == sum(map(len, found)) and stream.num_waiting == 0
    assert torch.equal(torch.cat([*found, stream.finish()]), expected_TD)


def test_logits_do_not_depend_on_the_batch_or_its_padding(conversation):
    model, tokenizer = conversation.model, conversation.tokenizer
    conversations = [
        *asked(conversation, noise(20_000, 1), noise(70_000, 2)),
        [Turn("user", "Wo din de sɛn?")],
    ]
    prompts = [encode_prompt(turns, tokenizer) for turns in conversations]
    inputs = prompt_inputs(prompts, tokenizer, model)
    assert 0 in inputs["attention_mask"]
    positions_BS = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)  # as `generate` does
    with torch.no_grad():
        batch_BSV = model(**inputs, position_ids=positions_BS).logits
        for i, prompt in enumerate(prompts):
            single_SV = model(**prompt_inputs([prompt], tokenizer, model)).logits[0]
            found_SV = batch_BSV[i, -len(single_SV) :]
            torch.testing.assert_close(found_SV, single_SV, atol=1e-4, rtol=0)
    together = generate_answers(model, tokenizer, conversations, max_new_tokens=8, batch_size=3)
    alone = generate_answers(model, tokenizer, conversations, max_new_tokens=8, batch_size=1)
    assert together == alone


def test_speech_is_heard_and_nothing_after_it(conversation):
    """Patches reach the logits, and attention to sound is causal, as in training so in writing."""
    model, tokenizer = conversation.model, conversation.tokenizer
    waveform = noise(20 * 640)
    changed = waveform.copy()
    changed[15 * 640 :] = 0
    one, other = (encode_prompt(t, tokenizer) for t in asked(conversation, waveform, changed))
    first = one.input_ids.index(model.config.audio_token_id)
    with torch.no_grad():
        logits, otherwise = (
            model(**prompt_inputs([p], tokenizer, model)).logits[0] for p in (one, other)
        )
    assert torch.equal(logits[: first + 15], otherwise[: first + 15])
    assert not torch.allclose(logits[first + 15 :], otherwise[first + 15 :], atol=1e-3)


def test_streamed_tokens_are_the_generated_ones_and_a_live_prompt_gives_them_too(conversation):
    model, tokenizer = conversation.model, conversation.tokenizer
    for turns in asked(conversation, noise(30_000, 3), noise(90_000, 4)):
        prompt = encode_prompt(turns, tokenizer)
        inputs = prompt_inputs([prompt], tokenizer, model)
        expected = model.generate(
            **inputs, max_new_tokens=8, do_sample=False, eos_token_id=stop_ids(tokenizer, model)
        )[0, inputs["input_ids"].shape[1] :].tolist()
        expected = [id_ for id_ in expected if id_ not in stop_ids(tokenizer, model)]
        assert list(stream_tokens(model, tokenizer, prompt, max_new_tokens=8)) == expected
    model.double()  # random layers make much of how a sum was rounded, and threads round otherwise
    for turns in asked(conversation, noise(30_000, 3), noise(90_000, 4)):
        prompt = encode_prompt(turns, tokenizer)
        live = LivePrompt(model, tokenizer, [])
        for part_TD in turns[0].frames_TD.split(7):
            live.hear(part_TD)
        whole = Decoding(model, prompt).next().logits_1V
        pieces = Decoding(model, live.begun()).next().logits_1V
        torch.testing.assert_close(pieces, whole, atol=1e-8, rtol=0)


def test_two_who_speak_at_once_are_heard_as_each_alone(conversation):
    model, tokenizer = conversation.model, conversation.tokenizer
    ear = live_ear(conversation.encoder)
    waveforms = [noise(20 * 640, 5), noise(31 * 640, 6)]
    streams, prompts = [], []
    for waveform in waveforms:
        streams.append(ear.start())
        streams[-1].add(waveform)
        prompts.append(LivePrompt(model, tokenizer, []))
    for _ in range(2):
        hear_together(prompts, streams[0].encode_with(streams[1:], 9))
    for stream, live, [turn] in zip(streams, prompts, asked(conversation, *waveforms), strict=True):
        live.hear(stream.push(noise(0)))
        assert torch.equal(live.frames_TD, turn.frames_TD)
        expected = Decoding(model, encode_prompt([turn], tokenizer)).next().logits_1V
        found = Decoding(model, live.begun()).next().logits_1V
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_no_answer_holds_what_the_checkpoint_suppresses_or_a_placeholder(conversation):
    model = conversation.model
    ends = conversation.tokenizer.convert_tokens_to_ids(["<audio|>", "<image|>"])
    places = [model.config.audio_token_id, model.config.image_token_id]
    for id_ in (*ends, *places):
        logits_1V = torch.zeros(1, model.config.text_config.vocab_size)
        logits_1V[0, id_] = 5.0
        assert int(most_probable(logits_1V, model)) != id_


def test_an_answer_ends_at_each_token_that_the_checkpoint_names(conversation, monkeypatch):
    """Its third token, too, which the tokenizer does not tell of."""
    model, tokenizer = conversation.model, conversation.tokenizer
    prompt = encode_prompt([Turn("user", "Maakye.")], tokenizer)
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    [first, *_] = stream_tokens(model, tokenizer, prompt, max_new_tokens=8)
    monkeypatch.setattr(model.generation_config, "eos_token_id", [1, first])
    assert list(stream_tokens(model, tokenizer, prompt, max_new_tokens=8)) == []
    turns = [[Turn("user", "Maakye.")]]
    [written] = generate_answers(model, tokenizer, turns, max_new_tokens=8)
    assert written == tokenizer.decode([first], skip_special_tokens=True).strip()


@pytest.mark.parametrize("source", ["demo", "published"])
def test_an_answer_is_learnt_as_it_is_asked_for(conversation, source):
    """After an empty thought, which later turns are not shown: so only the last is labelled."""
    tokenizer = conversation.tokenizer
    if source == "published":
        tokenizer.chat_template = with_empty_thought(published_chat_template(CHAT_TEMPLATE))
    rendered = render_answer(EXAMPLE[:-1], EXAMPLE, tokenizer)
    assert rendered.prompt == render_chat(EXAMPLE[:-1], tokenizer, asks=True)
    assert rendered.prompt.endswith(f"<|turn>model\n{EMPTY_THOUGHT}")
    assert rendered.rest == "Me ho yɛ.<turn|>\n" and rendered.prompt.count(EMPTY_THOUGHT) == 1
    turns = (
        Turn("user", "A", spoken=True, frames_TD=torch.zeros(3, 640)), Turn("assistant", "B"),
        Turn("user", "C"), Turn("assistant", "D"),
    )  # fmt: skip
    encoded = encode_dialogue(Dialogue("d", turns), tokenizer)
    prompt = encode_prompt(turns[:3], tokenizer)
    assert encoded.input_ids[: len(prompt.input_ids)] == prompt.input_ids
    labels = [id_ for id_ in encoded.labels if id_ != NO_LABEL]
    assert tokenizer.decode(labels) == "D<turn|>"
    assert encoded.labels[: len(prompt.input_ids)] == [NO_LABEL] * len(prompt.input_ids)
    assert len(encoded.frames) == 1


def test_calls_and_what_follows_them_are_learnt_as_they_are_asked_for():
    """The template shows later turns no empty thought, and asks without one after a result."""
    tokenizer = calling_tokenizer()
    tokenizer.chat_template = with_empty_thought(tokenizer.chat_template)
    tools = load_tools(TOOLS).schemas
    answer, more = Turn("assistant", SUM_ANSWER), (Turn("user", "Yoo."), Turn("assistant", "Yoo."))
    heard = Turn("user", SUM, spoken=True, frames_TD=torch.zeros(3, 640))
    dialogue = with_chain_target(Dialogue("d", (heard, ADD, answer, *more), tools=tools))
    learnt = []
    for part in up_to_each_answer(dialogue):
        encoded = encode_dialogue(part, tokenizer)
        begin, _ = list(written_parts(part.turns))[-1]
        prompt = encode_prompt(part.turns[:begin], tokenizer, tools).input_ids
        assert encoded.input_ids[: len(prompt)] == prompt
        assert set(encoded.labels[: len(prompt)]) == {NO_LABEL} and len(encoded.frames) == 1
        learnt.append(tokenizer.decode([id_ for id_ in encoded.labels if id_ != NO_LABEL]))
    assert learnt == [
        f"{SUM}<|tool_call>call:add{{a:2,b:3}}<tool_call|><|tool_response>",
        f"{SUM_ANSWER}<turn|>", "Yoo.<turn|>",
    ]  # fmt: skip


def test_chat_and_transcribe(name, tmp_path, monkeypatch, capsys):
    soundfile.write(tmp_path / "question.flac", noise(40 * 16_000), 16_000)
    words = ("--gemma", name, "--max-new-tokens", 4, "--device", "cpu")
    reply = json.loads(run(chat.main, *words, "--audio", tmp_path / "question.flac", "--json"))
    assert set(reply) == {"transcript", "answer"}
    typed = iter(["Maakye.", f"/audio {tmp_path / 'question.flac'} Kyerɛ aseɛ.", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    run(chat.main, *words)
    assert "error" not in capsys.readouterr().err
    out = tmp_path / "talk.json"
    run(transcribe.main, *words, "--audio", tmp_path / "question.flac", "--out", out)
    assert read_json(out)["segments"]


def test_a_conversation_longer_than_the_window(conversation):
    """64 positions in the tiny model's sliding layers: what slid out is forgotten in the same way
    token by token."""
    model, tokenizer = conversation.model, conversation.tokenizer
    [[turn]] = asked(conversation, noise(200 * 640, 7))
    prompt = encode_prompt([turn], tokenizer)
    decoding = Decoding(model, prompt)
    tokens = [decoding.next() for _ in range(3)]
    written = [int(token.id_1) for token in tokens]
    inputs = prompt_inputs([prompt.followed_by(written[:-1])], tokenizer, model)
    with torch.no_grad():
        logits_SV = model(**inputs).logits[0, -3:]
    most_probable(logits_SV, model)
    for token, expected_V in zip(tokens, logits_SV, strict=True):
        torch.testing.assert_close(token.logits_1V[0], expected_V, atol=1e-4, rtol=0)


def test_typed_lines_need_no_ear(name, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    reply = run(
        chat.main, "--gemma", name, "--prompt", "Wo din de sɛn?", "--json", "--max-new-tokens", 4,
        "--device", "cpu",
    )  # fmt: skip
    assert "answer" in json.loads(reply)


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize("precision", ["8bit", "4bit"])
def test_its_decoder_alone_is_quantised(name, precision):
    settings = {"device": CPU, "dtype": torch.float32, "max_new_tokens": 4}
    conversation = load_conversation(name, None, quantize=precision, **settings)
    model = conversation.model
    layer = model.model.language_model.layers[3]  # of those whose values are their keys
    assert layer.self_attn.v_proj is None
    kind = {"8bit": torch.int8, "4bit": torch.uint8}[precision]
    assert {layer.self_attn.k_proj.weight.dtype, layer.mlp.up_proj.weight.dtype} == {kind}
    assert model.model.embed_audio.embedding_projection.weight.dtype == torch.float32
    [turns] = asked(conversation, noise(16_000))
    prompt = encode_prompt(turns, conversation.tokenizer)
    logits_1V = Decoding(model, prompt).next().logits_1V
    assert logits_1V.isfinite().any() and not logits_1V.isnan().any()
