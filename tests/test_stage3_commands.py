"""Stage 3's commands: from a table to an answer; resumed = straight, frozen stays frozen."""

import json
import shutil

import pytest
import torch
from conftest import run
from parts import join, refuse_difference, write_parts
from safetensors.torch import load_file, save_file
from tiny_recognizers import save_whisper
from transformers import AutoModelForImageTextToText, Gemma4ForConditionalGeneration

from commands.errors import InputError
from commands.json_files import read_json, read_json_lines
from commands.parquet_files import CodeFormat
from commands.run_folder import OutputFolder
from data_manifests import degrade
from data_manifests.manifest import read_manifest
from gemma4.gemma import load_gemma
from stage1_rvq.codes import CodedUtterance, code_format, write_codes
from stage1_rvq.config import RVQConfig
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import SpeechRVQ
from stage2_speechless import speaking_commands
from stage2_speechless import train as train_speechless
from stage3_finetune import chat, evaluate, evaluate_noise, export, speak_dialogues, train
from stage3_finetune.conversation import load_conversation
from stage3_finetune.dialogue import Turn, encode_prompt
from stage3_finetune.dialogue_files import read_spoken_dialogues
from stage3_finetune.generate import prompt_inputs
from stage3_finetune.model_card import merged_card

SHAPE = RVQConfig(dim=64, num_codebooks=4, codebook_size=16)
TRAIN = ("--batch-size", 2, "--warmup-steps", 1, "--device", "cpu", "--lora-rank", 4)


@pytest.fixture(scope="module")
def world(tiny_models, corpus, tmp_path_factory):
    """A quantiser, a stage-2 model of a few steps, and spoken dialogues made with them."""
    folder = tmp_path_factory.mktemp("stage3")
    torch.manual_seed(0)
    rvq = SpeechRVQ(SHAPE)
    rvq.init_codebooks(torch.randn(400, 64), FrameMetric(torch.ones(64)))
    rvq.save_pretrained(folder / "rvq")
    generator = torch.Generator().manual_seed(0)
    utterances = [
        CodedUtterance(
            f"u{i}", "baako ne mmienu", "s", "asante",
            torch.randint(16, (20 + i, 4), generator=generator),
        )
        for i in range(8)
    ]  # fmt: skip
    (folder / "codes").mkdir()
    write_codes(folder / "codes" / "codes_00000.parquet", utterances, code_format(SHAPE))
    run(
        train_speechless.main, "--codes", folder / "codes", "--out", folder / "speechless",
        "--width", 32, "--num-layers", 1, "--num-heads", 4, "--depth-width", 16,
        "--depth-layers", 1, "--depth-heads", 2, "--steps", 2, "--batch-size", 4,
        "--device", "cpu",
    )  # fmt: skip
    run(speak_dialogues.main, *speaking(corpus, folder), "--out", folder / "spoken")
    return folder


def spoken_codes(folder):
    """Codes of every turn, by dialogue."""
    return [
        (dialogue.id, [turn.codes_TK.tolist() for turn in dialogue.turns if turn.spoken])
        for dialogue in read_spoken_dialogues(folder, code_format(SHAPE))
    ]


def speaking(corpus, world):
    dialogues = corpus / "dialogues_train.jsonl"
    return ("--dialogues", dialogues, "--dialect", "asante", "--speechless", world / "speechless")


@pytest.fixture(scope="module")
def base(world, tiny_models):
    return (
        "--dialogues", world / "spoken", "--rvq", world / "rvq", "--gemma", tiny_models / "gemma",
    )  # fmt: skip


@pytest.fixture(scope="module")
def finetune(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("finetune") / "run"
    words = (*base, *TRAIN, "--accumulate", 2, "--steps", 4, "--save-every", 2, "--out", out)
    run(train.main, *words)
    return out


def test_dialogues_spoken_in_parts_are_those_of_one_process(world, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(speak_dialogues, "DIALOGUES_PER_SHARD", 8)
    words = (*speaking(corpus, world), "--variants", 2)
    run(speak_dialogues.main, *words, "--out", tmp_path / "whole")
    write_parts(speak_dialogues, words, tmp_path / "parts", 2)
    join(tmp_path / "parts")
    refuse_difference(tmp_path / "whole", tmp_path / "parts")


def test_dialogues_are_spoken_on_where_a_run_was_killed(world, corpus, tmp_path, monkeypatch):
    words = (*speaking(corpus, world), "--out", tmp_path / "run")
    monkeypatch.setattr(speak_dialogues, "DIALOGUES_PER_SHARD", 4)
    speak, shards = speaking_commands.generate_takes, []

    def speak_or_die(*args, **settings):
        shards.append(args)
        if len(shards) == 3:
            raise KeyboardInterrupt
        return speak(*args, **settings)

    monkeypatch.setattr(speaking_commands, "generate_takes", speak_or_die)
    with pytest.raises(KeyboardInterrupt):
        run(speak_dialogues.main, *words)
    with pytest.raises(InputError, match="unfinished"):
        spoken_codes(tmp_path / "run")
    run(speak_dialogues.main, *words, "--resume")
    written = sorted((tmp_path / "run").glob("dialogues_*.parquet"))
    assert len(shards) == len(written) + 1 and len(written) > 2  # only the third was begun twice
    assert spoken_codes(tmp_path / "run") == spoken_codes(world / "spoken")
    for name in ("kept.jsonl", "dropped.jsonl"):
        resumed, straight = (
            [(row["id"], row["turns"]) for row in read_json_lines(folder / name)]
            for folder in (tmp_path / "run", world / "spoken")
        )
        assert resumed == straight
    for path in written:
        path.unlink()
    with pytest.raises(InputError, match="which 'done' lists, is gone"):
        spoken_codes(tmp_path / "run")


def test_spoken_dialogues_have_codes_on_spoken_turns_only(world, corpus):
    dialogues = list(read_spoken_dialogues(world / "spoken", code_format(SHAPE)))
    rows = (corpus / "dialogues_train.jsonl").read_text(encoding="utf-8").splitlines()
    dropped = (world / "spoken" / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(dialogues) + len(dropped) == len(rows) and dialogues
    for dialogue in dialogues:
        question, answer = dialogue.turns
        assert question.codes_TK.shape[1] == 4 and answer.codes_TK is None
    with pytest.raises(InputError, match="--rvq has 8 of 2048"):
        next(read_spoken_dialogues(world / "spoken", CodeFormat(8, 2048, 25.0)))


def adapter(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_training_moves_the_adapter_and_nothing_else(finetune, tiny_models):
    weights = adapter(finetune)
    assert weights and all("lora_" in name and ".language_model." in name for name in weights)
    assert all(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)
    provenance = json.loads((finetune / "provenance.json").read_text())
    assert provenance["spoken_turns"]["recordings"] == 0
    steps = [json.loads(line)["step"] for line in (finetune / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4]


def test_accumulating_four_times_one_row_is_one_time_four_rows(base, tmp_path):
    """Although rows have different numbers of labels. One step: a random net is chaotic, and AdamW
    makes steps of equal size from gradients that differ by rounding."""
    steps = []
    for batch_size, accumulate in ((1, 4), (4, 1)):
        out = tmp_path / f"{batch_size}"
        run(
            train.main, *base, *TRAIN, "--batch-size", batch_size, "--accumulate", accumulate,
            "--lora-dropout", 0, "--steps", 1, "--out", out,
        )  # fmt: skip
        steps.append([json.loads(line) for line in (out / "metrics.jsonl").open("rb")])
    for small, large in zip(*steps, strict=True):
        assert small["loss"] == pytest.approx(large["loss"], rel=1e-5)
        assert small["grad_norm"] == pytest.approx(large["grad_norm"], rel=1e-3)


def test_memory_is_planned_and_then_measured(finetune):
    provenance = json.loads((finetune / "provenance.json").read_text("utf-8"))
    assert 0 < provenance["memory_planned_gib"] < provenance["memory_peak_gib"] < 24


def test_resumed_equals_straight(base, finetune, tmp_path):
    cut = shutil.copytree(finetune, tmp_path / "cut")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "step_000004")
    (cut / "done").unlink()
    words = (*base, *TRAIN, "--accumulate", 2, "--steps", 4, "--save-every", 2, "--out", cut)
    run(train.main, *words, "--resume")
    straight, resumed = adapter(finetune), adapter(cut)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert (cut / "metrics.jsonl").read_text() == (finetune / "metrics.jsonl").read_text()


def test_recordings_are_mixed_in(world, base, tmp_path):
    """Of which provenance and the merged model's card tell."""
    codes = ("--transcribed", world / "codes", "--transcribe-share", 1)
    run(train.main, *base, *TRAIN, *codes, "--steps", 1, "--out", tmp_path / "run")
    provenance = read_json(tmp_path / "run" / "provenance.json")
    assert provenance["num_recordings"] == 8
    assert str(world / "codes") in json.dumps(provenance["inputs"])
    settings = read_json(tmp_path / "run" / "config.json")
    card = merged_card("gemma", settings, provenance, [], dtype="float32")
    assert "It also learnt to write down 8 recordings." in card


def test_evaluate_compares_the_systems(world, corpus, finetune, tiny_models, tmp_path):
    words = ("--gemma", tiny_models / "gemma", "--finetune", finetune, "--max-new-tokens", 3)
    words = (*words, "--dialogues", corpus / "dialogues_test.jsonl")
    words = (*words, "--recordings", corpus / "test.jsonl", "--device", "cpu")
    table = run(evaluate.main, *words, "--out", tmp_path / "metrics")
    metrics = json.loads((tmp_path / "metrics" / "metrics.json").read_text())
    assert metrics["num_held_out"] == 4 and metrics["num_without_recording"] == 0
    assert metrics["exact_match"]["typed"] is not None
    assert metrics["exact_match"]["cascade"] is None and "not measured" in table
    assert metrics["chrf"]["cascade"] is None and 0 <= metrics["chrf"]["typed"] < 1
    by_category = metrics["by_category"]
    assert sum(row["num_held_out"] for row in by_category.values()) == 4
    assert all({"typed", "spoken_after"} <= row.keys() for row in by_category.values())
    assert all(f"\n  {category} " in table for category in by_category)
    rows = [json.loads(line) for line in (tmp_path / "metrics" / "answers.jsonl").open()]
    assert len(rows) == 4 and {"typed", "spoken_after", "transcript"} <= set(rows[0])
    with pytest.raises(InputError, match="no recording of any question"):
        words = [*words[:-4], "--recordings", corpus / "dev.jsonl"]
        run(evaluate.main, *words, "--out", tmp_path / "none")


def test_the_same_questions_are_asked_under_every_condition(
    corpus, finetune, tiny_models, tmp_path
):
    """Clean, it is what `evaluate` finds; and every listener hears the same clips."""
    rows = list(read_manifest(corpus / "test.jsonl"))
    run(
        degrade.main, "--manifest", corpus / "test.jsonl", "--out", tmp_path / "degraded",
        "--conditions", "clean", "white-10", "white-0",
    )  # fmt: skip
    asked = ("--gemma", tiny_models / "gemma", "--finetune", finetune, "--max-new-tokens", 3)
    asked = (*asked, "--dialogues", corpus / "dialogues_test.jsonl", "--device", "cpu")
    words = (*asked, "--degraded", tmp_path / "degraded", "--out", tmp_path / "noise")
    asr = save_whisper(tmp_path / "asr")
    table = run(evaluate_noise.main, *words, "--asr", asr, "--asr-language", "jw")
    metrics = read_json(tmp_path / "noise" / "metrics.json")
    names = ["clean", "white-10", "white-0"]
    assert [of["condition"] for of in metrics["conditions"]] == names
    assert all(f"\n{name} " in table for name in names) and "typed, the base model" in table
    assert [of["error_rates"]["asr"]["num_texts"] for of in metrics["conditions"]] == [4] * 3
    assert metrics["conditions"][0]["error_rates"]["recognizer"] is None
    recordings = ("--recordings", tmp_path / "degraded" / "clean.jsonl")
    run(evaluate.main, *asked, *recordings, "--out", tmp_path / "plain")
    answers = read_json_lines(tmp_path / "noise" / "answers.jsonl")
    assert [(row["condition"], row["recording"]) for row in answers] == [
        (name, utterance.id) for name in names for utterance in rows
    ]
    plain = read_json_lines(tmp_path / "plain" / "answers.jsonl")
    assert [row["answer"] for row in answers[:4]] == [row["spoken_after"] for row in plain]
    assert {row["asr"] for row in answers} and {row["gemma"] for row in answers}
    picture = (tmp_path / "noise" / "noise.svg").read_text(encoding="utf-8")
    assert "signal-to-noise ratio, dB" in picture and ">clean</text>" in picture


def test_any_recogniser_can_hear_for_the_cascade(world, corpus, finetune, tiny_models, tmp_path):
    """Its own error on the same recordings stands beside Gemma's."""
    words = ("--gemma", tiny_models / "gemma", "--finetune", finetune, "--max-new-tokens", 8)
    words = (*words, "--dialogues", corpus / "dialogues_test.jsonl")
    words = (*words, "--recordings", corpus / "test.jsonl", "--device", "cpu")
    recordings = [json.loads(line) for line in (corpus / "test.jsonl").open("rb")]
    path = tmp_path / "heard.jsonl"
    rows = [{"id": row["id"], "heard": f"{row['text']}, anaa?"} for row in recordings]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    table = run(evaluate.main, *words, "--hypotheses", path, "--out", tmp_path / "file")
    metrics = json.loads((tmp_path / "file" / "metrics.json").read_text())
    found = metrics["error_rates"]["recognizer"]
    assert metrics["judge"] == str(path) and metrics["exact_match"]["cascade"] is not None
    assert 0 < found["cer_low"] <= found["cer"] <= found["cer_high"] and found["wer"] > 0
    assert metrics["error_rates"]["gemma"]["wer"] == metrics["wer_transcript"]
    assert f"cascade: {path}" in table and table.index("CER %") < table.index("WER %")
    [row, *_] = [json.loads(line) for line in (tmp_path / "file" / "answers.jsonl").open("rb")]
    assert row["heard"] == f"{row['question']}, anaa?"
    asr = save_whisper(tmp_path / "asr")
    heard = ("--asr", asr, "--asr-language", "jw")
    run(evaluate.main, *words, *heard, "--out", tmp_path / "asr-test")
    metrics = json.loads((tmp_path / "asr-test" / "metrics.json").read_text())
    assert metrics["judge"] == f"{asr} (jw)"
    assert metrics["error_rates"]["recognizer"]["num_texts"] == 4
    path.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(InputError, match=r"--hypotheses .* lacks \d of the 4 recordings of .*test"):
        run(evaluate.main, *words, "--hypotheses", path, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_chat_one_shot(finetune, corpus, tiny_models):
    words = ("--gemma", tiny_models / "gemma", "--max-new-tokens", 6, "--device", "cpu")
    reply = json.loads(run(chat.main, *words, "--prompt", "Ɛte sɛn?", "--json"))
    assert set(reply) == {"transcript", "answer"}
    audio = corpus / "audio" / "train_question_0000.wav"
    run(chat.main, *words, "--finetune", finetune, "--audio", audio)
    both = json.loads(run(chat.main, *words, "--prompt", "Ka.", "--audio", audio, "--json"))
    assert set(both) == {"transcript", "answer"}
    with pytest.raises(InputError, match="nothing was asked"):
        run(chat.main, *words, "--prompt", " ")


def test_the_way_into_the_decoder_can_be_trained_too(base, tiny_models, tmp_path):
    settings = ("--accumulate", 1, "--steps", 2, "--learning-rate", 0.01, "--train-embed-audio")
    run(train.main, *base, *TRAIN, *settings, "--lora-alpha", 8, "--out", tmp_path / "run")
    adapter_config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert (adapter_config["r"], adapter_config["lora_alpha"]) == (4, 8)
    adapter = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    [name] = [name for name in adapter if "embed_audio" in name]
    before = load_file(tiny_models / "gemma" / "model.safetensors")
    assert not torch.equal(adapter[name], before["model.embed_audio.embedding_projection.weight"])
    words = ("--gemma", tiny_models / "gemma", "--finetune", tmp_path / "run")
    run(export.main, *words, "--dtype", "float32", "--out", tmp_path / "merged")
    after = load_file(tmp_path / "merged" / "model.safetensors")
    assert torch.equal(adapter[name], after["model.embed_audio.embedding_projection.weight"])
    assert after.keys() == before.keys()


@pytest.mark.usefixtures("bitsandbytes")
def test_an_adapter_is_trained_and_asked_on_four_bits(base, tiny_models, tmp_path):
    four_bits = ("--quantize", "4bit")
    words = (*base, *TRAIN, *four_bits, "--accumulate", 1, "--steps", 2, "--out", tmp_path / "run")
    run(train.main, *words)
    adapter = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert any(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name)
    gemma = ("--gemma", tiny_models / "gemma", "--finetune", tmp_path / "run", *four_bits)
    printed = run(chat.main, *gemma, "--prompt", "Baako?", "--json", "--max-new-tokens", 4)
    assert {"transcript", "answer"} <= json.loads(printed).keys()


@pytest.fixture(scope="module")
def exported(finetune, tiny_models, tmp_path_factory):
    """An adapter that changes what is answered, and the checkpoint it was merged into."""
    folder = tmp_path_factory.mktemp("exported")
    adapter = shutil.copytree(finetune, folder / "finetune") / "adapter"
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in load_file(adapter / "adapter_model.safetensors").items()
    }
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    OutputFolder(folder / "finetune", is_done=True).finish()  # lists its files anew
    words = ("--gemma", tiny_models / "gemma", "--finetune", folder / "finetune")
    out = folder / "repository"
    assert run(export.main, *words, "--dtype", "float32", "--out", out) == f"{out}\n"
    with pytest.raises(InputError, match="exists already"):
        run(export.main, *words, "--out", out)
    return folder


def test_a_merged_checkpoint_answers_as_its_adapter_does(exported, tiny_models, corpus):
    """Typed and spoken, loaded by stock transformers and by our own chat."""
    gemma, repository = str(tiny_models / "gemma"), str(exported / "repository")
    settings = {"device": torch.device("cpu"), "dtype": torch.float32, "max_new_tokens": 12}
    recording = corpus / "audio" / "train_question_0000.wav"
    replies = []
    for name, finetune in ((gemma, None), (gemma, exported / "finetune"), (repository, None)):
        conversation = load_conversation(name, finetune, **settings)
        typed = conversation.ask(conversation.typed_turn("Baako?"), on_text=str)
        conversation.turns.clear()
        heard = conversation.spoken_turn(recording)
        replies.append((typed, conversation.ask(heard, on_text=str)))
        assert conversation.writes_transcripts == (name == repository or finetune is not None)
    assert replies[1] == replies[2] != replies[0]

    stock = AutoModelForImageTextToText.from_pretrained(repository, dtype=torch.float32)
    assert type(stock) is Gemma4ForConditionalGeneration
    rows = [encode_prompt([Turn("user", "Baako?")], conversation.tokenizer)]
    inputs = prompt_inputs(rows, conversation.tokenizer, stock)
    written = stock.generate(**inputs, max_new_tokens=12, do_sample=False)
    new_tokens = written[0, inputs["input_ids"].shape[1] :]
    text = conversation.tokenizer.decode(new_tokens, skip_special_tokens=True)
    assert text.strip() == replies[1][0].answer


def test_a_merged_checkpoint_says_what_it_was_made_of(exported):
    card = (exported / "repository" / "README.md").read_text("utf-8")
    assert "rank 4" in card and "and 0 recorded ones" in card
    assert "what it heard, a line break, and the answer" in card
    names = {path.name for path in (exported / "repository").iterdir()}
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    assert "preprocessor_config.json" in names and not list(exported.glob("*.tmp"))


def test_base_model_is_untouched_by_training(tiny_models, finetune, base):
    """The frozen checkpoint on disk is what it was; the adapter alone was written."""
    model, _ = load_gemma(
        str(tiny_models / "gemma"), device=torch.device("cpu"), dtype=torch.float32
    )
    saved = load_file(tiny_models / "gemma" / "model.safetensors")
    weights = model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in saved.items())
    assert not list((finetune / "adapter").glob("model*.safetensors"))
