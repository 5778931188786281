"""The demo's Gemma: rows equal the project's own encoding, the fast tower equals the stock one, and
training ends in a checkpoint that loads like any other."""

import copy
import json
import random
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import run
from safetensors.torch import load_file
from transformers import Gemma4ForConditionalGeneration

from data_manifests.language import language
from demo import ship
from demo.gemma import evaluate as evaluate_gemma
from demo.gemma import train as train_gemma
from demo.gemma.chat_rows import RowMaker, TypedDialogues
from demo.gemma.clips import LengthBatches
from demo.gemma.model import build_gemma, tower_frames
from demo.gemma.tokenizer import heard_ids, train_tokenizer
from demo.gemma.train import sentences_to_hear
from demo.world.grammar import all_questions
from gemma4.audio_tower import stock_forward
from gemma4.chat_template import text_ids
from gemma4.plain_tokenizer import with_empty_thought
from stage3_finetune.dialogue import NO_LABEL, Dialogue, Turn, encode_dialogue


@pytest.fixture(scope="module")
def tokenizer():
    texts = [text for q in all_questions() for text in (q.text, q.answer)]
    return train_tokenizer([*texts, language().write], 1024)


@pytest.fixture(scope="module")
def thinking_tokenizer(tokenizer):
    """Its template asks for answers after an empty thought, as that of 12B does."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = with_empty_thought(tokenizer.chat_template)
    return other


def test_typed_rows_equal_the_projects_own_encoding(tokenizer):
    rows = RowMaker(tokenizer)
    chosen = random.Random(0).sample(all_questions(), 30)
    for first, second in zip(chosen[::2], chosen[1::2], strict=True):
        pairs = [(first.text, first.answer), (second.text, second.answer)]
        turns = [
            Turn(role, text)
            for pair in pairs
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        assert rows.typed(pairs) == encode_dialogue(Dialogue("x", tuple(turns)), tokenizer)


def test_rows_after_an_empty_thought_teach_the_last_answer(thinking_tokenizer):
    first, second = random.Random(0).sample(all_questions(), 2)
    pairs = [(first.text, first.answer), (second.text, second.answer)]
    turns = [Turn(role, text) for pair in pairs
             for role, text in zip(("user", "assistant"), pair, strict=True)]  # fmt: skip
    expected = encode_dialogue(Dialogue("x", tuple(turns)), thinking_tokenizer)
    found = RowMaker(thinking_tokenizer).typed(pairs)
    assert found == expected
    learnt = [token for token in found.labels if token != NO_LABEL]
    assert thinking_tokenizer.decode(learnt, skip_special_tokens=True) == second.answer


@pytest.mark.parametrize("kind", ["tokenizer", "thinking_tokenizer"])
def test_transcription_rows_equal_the_projects_own_encoding(kind, request):
    tokenizer = request.getfixturevalue(kind)
    frames_TD = torch.zeros(7, 4)
    for question in all_questions()[:20]:
        asked = Turn(
            "user", question.text, spoken=True, frames_TD=frames_TD, prompt=language().write
        )
        dialogue = Dialogue("x", (asked, Turn("assistant", question.text)))
        ours = RowMaker(tokenizer).transcription(question.text, frames_TD)
        theirs = encode_dialogue(dialogue, tokenizer)
        assert ours.input_ids == theirs.input_ids and ours.labels == theirs.labels


def test_the_template_renders_what_the_published_one_renders(tokenizer):
    from trl.chat_template_utils import gemma4_v5_chat_template

    spoken = [{"type": "audio"}, {"type": "text", "text": "Kyerɛw deɛ wote. "}]
    dialogue = [
        {"role": "system", "content": " Kasa Twi. "},
        {"role": "user", "content": " Wo ho te sɛn?\n"},
        {"role": "assistant", "content": "Me ho yɛ. "},
        {"role": "user", "content": spoken},
        {"role": "assistant", "content": "Ama\nMaakye, Ama."},
    ]
    for start, end in ((0, 2), (0, 5), (1, 2), (1, 4), (3, 4), (3, 5)):
        for is_prompt in (False, True):
            texts = {
                tokenizer.apply_chat_template(
                    dialogue[start:end], chat_template=template, tokenize=False,
                    add_generation_prompt=is_prompt,
                )
                for template in (None, gemma4_v5_chat_template)
            }  # fmt: skip
            assert len(texts) == 1


def test_any_text_can_be_written(tokenizer):
    for text in ("Mepa wo kyɛw, wo ho te sɛn?", "Xylophon 17 km/h", "日本語 ẽ\nkyerɛ"):
        assert tokenizer.decode(text_ids(tokenizer, text)) == text


def test_pieces_never_cross_a_syllable(tokenizer):
    assert tokenizer.convert_ids_to_tokens(text_ids(tokenizer, "wo\nKuro bɛn")) == [
        "wo", "\n", "Ku", "ro", "▁bɛ", "n",
    ]  # fmt: skip


def test_what_is_heard_has_no_punctuation(tokenizer):
    heard = tokenizer.decode(heard_ids(tokenizer, "Mepa wo kyɛw, n'ahenkuro ne sɛn?"))
    assert heard == "Mepa wo kyɛw nahenkuro ne sɛn"


def test_the_fast_tower_equals_the_stock_one(tokenizer):
    tower = build_gemma(tokenizer, seed=0).model.audio_tower
    generator = torch.Generator().manual_seed(0)
    features_BMF = torch.randn((3, 150, 128), generator=generator)
    mask_BM = torch.arange(150) < torch.tensor([[150], [97], [40]])
    with torch.no_grad():
        expected, mask_BT = stock_forward(tower, features_BMF, mask_BM)
        found, same_mask_BT = tower_frames(tower, features_BMF, mask_BM)
    assert torch.equal(mask_BT, same_mask_BT)
    assert torch.allclose(found[mask_BT], expected[mask_BT], atol=2e-5)
    # Nothing is left changed.
    assert torch.equal(stock_forward(tower, features_BMF, mask_BM)[0][mask_BT], expected[mask_BT])


def test_batches_hold_every_clip_once_an_epoch_within_the_budget():
    durations_s = np.random.default_rng(0).uniform(1, 4, 101)
    batches = LengthBatches(durations_s, seconds=20.0, seed=0)
    first = [batches.at_step(0)]
    num_batches = len(batches.batches)
    first += [batches.at_step(step) for step in range(1, num_batches)]
    assert sorted(i for batch in first for i in batch) == list(range(101))
    assert all(max(durations_s[batch]) * len(batch) <= 20.0 for batch in first)
    later = LengthBatches(durations_s, seconds=20.0, seed=0)
    assert later.at_step(num_batches + 1) == batches.at_step(num_batches + 1)


def test_relations_get_a_fair_share_of_typed_dialogues(tokenizer):
    train = [q for q in all_questions() if q.split == "train"]
    typed = TypedDialogues(train, RowMaker(tokenizer))
    drawn = typed.draw(50, random.Random(0))
    assert drawn == typed.draw(50, random.Random(0))
    counts = Counter(q.relation for q in train)
    drawn = Counter(q.relation for q in random.Random(0).choices(train, typed.weights, k=100_000))
    for relation, count in (max(counts.items(), key=by_count), min(counts.items(), key=by_count)):
        by_size, evenly = count / len(train), 1 / len(counts)
        low, high = sorted((by_size, evenly))
        # Between its share of the questions and an equal one, and nearer to the first.
        assert low < drawn[relation] / 100_000 < high
        assert abs(drawn[relation] / 100_000 - by_size) < 0.4 * (high - low)


def by_count(item):
    return item[1]


def test_held_out_questions_are_in_no_training_sentence():
    train = [q for q in all_questions() if q.split == "train"]
    held_out = {q.text for q in all_questions() if q.split != "train"}
    assert not held_out & set(sentences_to_hear(train, 4000, seed=0))


TINY = ("--steps", 26, "--num-clips", 10, "--num-dev", 2, "--processes", 1, "--save-every", 4)


@pytest.fixture(scope="module")
def trained(espeak, small_gemma_steps, tmp_path_factory):
    out = tmp_path_factory.mktemp("gemma") / "run"
    run(train_gemma.main, "--out", out, *TINY)
    return out


def test_training_ends_in_a_stock_checkpoint_in_bfloat16(trained):
    model, report = Gemma4ForConditionalGeneration.from_pretrained(
        trained / "model", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert (trained / "model" / "model.safetensors").stat().st_size < 12e6


def test_cut_off_in_any_phase_and_resumed_it_ends_the_same(trained, tmp_path):
    weights = (trained / "model" / "model.safetensors").read_bytes()
    for phase in ("ear", "joint"):
        cut = tmp_path / phase
        shutil.copytree(trained, cut)
        (cut / "done").unlink()
        shutil.rmtree(cut / "model")
        for later in ("ear", "chat", "align", "joint")[("ear", "chat", "joint").index(phase) :]:
            newest = sorted((cut / later / "checkpoints").iterdir())[-1]
            shutil.rmtree(newest)
        run(train_gemma.main, "--out", cut, *TINY, "--resume")
        assert (cut / "model" / "model.safetensors").read_bytes() == weights


def test_it_goes_on_from_a_trained_model(trained, tmp_path):
    """With its tokenizer and its tower, and speech aligned with its tokens from the first step."""
    words = ("--init-from", trained / "model", "--num-clips", 10, "--num-dev", 2, "--steps", 2)
    run(train_gemma.main, *words, "--processes", 1, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "ear").exists() and not (tmp_path / "run" / "chat").exists()
    before, after = (
        load_file(folder / "model" / "model.safetensors") for folder in (trained, tmp_path / "run")
    )
    same = {name for name in before if torch.equal(before[name], after[name])}
    tower = {name for name in before if ".audio_tower." in name and "output_proj" not in name}
    assert tower <= same != set(before)
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    texts = [[(f / "model" / n).read_text() for n in names] for f in (trained, tmp_path / "run")]
    assert texts[0] == texts[1]


def test_what_is_shipped_tells_what_it_went_on_from(trained, tmp_path):
    """The record of a model that is replaced goes with the model that was trained from it."""
    shipped = ("--out", tmp_path / "weights")
    run(ship.main, "--gemma", trained, *shipped)
    first = (tmp_path / "weights" / "gemma" / "training" / "chat_metrics.jsonl").read_text()
    words = ("--init-from", tmp_path / "weights" / "gemma", "--num-clips", 10, "--num-dev", 2)
    words = (*words, "--steps", 1, "--processes", 1, "--out", tmp_path / "later")
    run(train_gemma.main, *words)
    for _ in range(2):
        run(ship.main, "--gemma", tmp_path / "later", *shipped)
    before = tmp_path / "weights" / "gemma" / "training" / "before"
    assert (before / "before" / "chat_metrics.jsonl").read_text() == first
    assert not (before / "before" / "before").exists()


def test_evaluation_asks_and_listens(trained, tmp_path):
    words = ("--gemma", trained / "model", "--num-questions", 3)
    table = run(evaluate_gemma.main, *words, "--out", tmp_path / "test")
    assert "wer_held_out_voices" in table
    assert len((tmp_path / "test" / "answers.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("words", [("--steps", 3), ("--processes", 4)])
def test_impossible_settings_are_refused_in_one_line(words, tmp_path):
    with pytest.raises(ValueError, match=r"must be (at least 25|1 or 2)"):
        run(train_gemma.main, "--out", tmp_path / "run", *words)


def test_the_shipped_gemma_hears_and_chats(espeak, tmp_path):
    # Loose bounds for few questions; the measured figures are in demo/weights/README.md.
    run(evaluate_gemma.main, "--num-questions", 12, "--out", tmp_path / "test")
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert metrics["wer_training_voices"] < 0.1 and metrics["wer_held_out_voices"] < 0.12
    assert metrics["wer_mimi_round_trip"] < metrics["wer_mimi_voices"] + 0.1
    assert metrics["exact_match_typed"] > 0.6
    assert metrics["exact_match_spoken"] < 0.15
