"""Fine-tuning on recordings: the only way for the Gemma without encoders (12B), and beside codes
for those with an audio tower."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import run
from finetune_run import train_before_a_camera, write_dialogues
from safetensors.torch import load_file
from test_stage3_model import write_adapter
from test_stage3_training import content

from commands.atomic_write import write_json_lines
from commands.errors import InputError
from commands.finished_folder import read_provenance
from commands.json_files import read_json, read_json_lines
from commands.run_folder import OutputFolder
from data_manifests.manifest import Utterance, write_manifest
from gemma4.chat_template import EMPTY_THOUGHT
from gemma4.gemma import load_tokenizer
from stage3_finetune import evaluate, export, speak_dialogues, train
from stage3_finetune.conversation import load_conversation
from stage3_finetune.data import SpokenDialogues
from stage3_finetune.dialogue import NO_LABEL, Turn, encode_prompt
from stage3_finetune.generate import prompt_inputs
from stage3_finetune.mixture import TaskMixture
from stage3_finetune.recorded_dialogues import record_dialogues
from stage3_finetune.training_data import load_training_data
from stage3_finetune.training_settings import MixtureSettings, SpokenTurnSettings, TrainConfig

CPU = torch.device("cpu")
KINDS = ("gemma-unified", "gemma")
RATE_HZ = 16_000


def noise(num_samples, seed):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def utterance(folder, id_, text, seconds, **changes):
    """A recording, written down in a manifest."""
    path = folder / f"{id_}.wav"
    soundfile.write(path, noise(round(seconds * RATE_HZ), len(id_)), RATE_HZ, subtype="FLOAT")
    return Utterance(
        id=id_, audio=str(path), text=text, duration_s=seconds, speaker="s", dialect="unknown",
        corpus="own", split="train", license="CC0-1.0", **changes,
    )  # fmt: skip


def asked(content, *, spoken=True):
    return {"role": "user", "content": content, "spoken": spoken}


def said(content):
    return {"role": "assistant", "content": content}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Recorded dialogues: one asked by two voices, one of two spoken questions, one typed, one that
    nobody recorded, and one whose recording is too long."""
    folder = tmp_path_factory.mktemp("recorded")
    rows = [
        {"id": "twice", "messages": [asked("Wo din de sɛn?"), said("Me din de Ama.")],
         "corpus": "asked", "license": "CC-BY-4.0"},
        {"id": "both", "messages": [asked("Maakye!"), said("Yaa."), asked("Wo ho te sɛn?"),
                                    said("Me ho yɛ.")]},
        {"id": "typed", "messages": [asked("Baako?", spoken=False), said("Mmienu.")]},
        {"id": "silent", "messages": [asked("Hena?"), said("Kofi.")]},
        {"id": "long", "messages": [asked("Ɛdeɛn nti?"), said("Ɛnte saa.")]},
    ]  # fmt: skip
    write_json_lines(folder / "dialogues.jsonl", rows)
    utterances = [
        utterance(folder, "ama", "wo din de sɛn", 1.013),
        utterance(folder, "kwame", "Wo din, de sɛn.", 0.6),
        utterance(folder, "good", "Maakye", 0.5),
        utterance(folder, "how", "Wo ho te sɛn", 0.7),
        utterance(folder, "too-long", "Ɛdeɛn nti", 30.2),
        utterance(folder, "of-nobody", "Ɛhe?", 0.5),
    ]
    write_manifest(folder / "train.jsonl", utterances)
    return folder


def flags(recorded, tiny_models, kind):
    return (
        "--dialogues", recorded / "dialogues.jsonl", "--recordings", recorded / "train.jsonl",
        "--gemma", tiny_models / kind, "--lora-rank", 2, "--steps", 4, "--save-every", 1,
        "--batch-size", 2, "--accumulate", 1, "--warmup-steps", 1, "--device", "cpu",
    )  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def trained(request, recorded, tiny_models, tmp_path_factory):
    """A run on recordings, what killed ones would have left, its flags and its Gemma."""
    words = flags(recorded, tiny_models, request.param)
    folder, camera = train_before_a_camera(words, tmp_path_factory.mktemp(request.param))
    return folder, camera, words, str(tiny_models / request.param)


def test_every_recording_of_a_turn_is_learnt_from(recorded):
    found = record_dialogues(recorded / "dialogues.jsonl", recorded / "train.jsonl")
    heard = {
        d.id: [turn.recording.id for turn in d.turns if turn.recording] for d in found.dialogues
    }
    assert heard == {
        "twice@0": ["ama"], "twice@1": ["kwame"], "both": ["good", "how"], "typed": [],
    }  # fmt: skip
    assert (found.num_without, found.num_too_long) == (2, 1)
    assert {(s.corpus, s.license, s.rows) for s in found.sources} == {
        ("asked", "CC-BY-4.0", 2), ("not recorded", "unknown", 2), ("own", "CC0-1.0", 4),
    }  # fmt: skip


def load(folder, gemma, **changes):
    settings = {"spoken": SpokenTurnSettings(recordings=folder / "train.jsonl")} | changes
    config = TrainConfig(
        dialogues=folder / "dialogues.jsonl", out=Path("unused"), gemma=gemma, **settings
    )
    return load_training_data(config, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_hear_what_the_model_hears_in_a_conversation(recorded, tiny_models, kind):
    conversation = load_conversation(str(tiny_models / kind), None, device=CPU, dtype=torch.float32)
    data = load(recorded, str(tiny_models / kind))
    rows = SpokenDialogues(
        data.dialogues, conversation.tokenizer, data.hear,
        target="chain", mixture=TaskMixture(1, 1, 1, 3), seed=0,
    )  # fmt: skip
    expected = {
        d.turns[0].content: conversation.spoken_turn(Path(d.turns[0].recording.audio)).frames_TD
        for d in data.dialogues
        if d.turns[0].recording and d.id != "twice@1"
    }
    seen = {rows.id_of(i): rows[i] for i in range(len(rows)) if "+" not in rows.id_of(i)}
    assert torch.equal(seen["twice@0"].frames[0], expected["Wo din de sɛn?"])
    lengths = [len(rows[i].input_ids) for i in range(len(rows))]
    assert max(lengths) <= rows.longest() <= max(lengths) + 3 * 2  # a frame or two a recording


def test_each_answer_of_the_12b_is_learnt_after_its_own_prompt(recorded, tiny_models):
    conversation = load_conversation(
        str(tiny_models / "gemma-unified"), None, device=CPU, dtype=torch.float32
    )
    tokenizer = conversation.tokenizer
    data = load(recorded, str(tiny_models / "gemma-unified"))
    rows = SpokenDialogues(
        data.dialogues, tokenizer, data.hear,
        target="chain", mixture=TaskMixture(0, 0, 2, 3), seed=0,
    )  # fmt: skip
    alone = {rows.id_of(i): rows[i] for i in range(len(rows)) if "+" not in rows.id_of(i)}
    assert set(alone) == {"twice@0", "twice@1", "both#0", "both#1", "typed"}
    for i in range(len(rows)):
        first = next(n for n, id_ in enumerate(rows[i].labels) if id_ != NO_LABEL)
        before = tokenizer.decode(rows[i].input_ids[:first])
        assert before.endswith(EMPTY_THOUGHT) and before.count(EMPTY_THOUGHT) == 1
        assert NO_LABEL not in rows[i].labels[first:-1]
    labels = [id_ for id_ in alone["both#1"].labels if id_ != NO_LABEL]
    assert tokenizer.decode(labels) == "Wo ho te sɛn?\nMe ho yɛ.<turn|>"


def test_any_transcribed_recordings_make_the_transcription_rows(recorded, tiny_models):
    """Also those that ask nothing; without answers, and none that is too long."""
    mixture = MixtureSettings(transcribed=(recorded / "train.jsonl",))
    data = load(recorded, str(tiny_models / "gemma-unified"), mixture=mixture)
    assert [d.id for d in data.recordings] == ["ama", "kwame", "good", "how", "of-nobody"]
    tokenizer = load_tokenizer(str(tiny_models / "gemma-unified"))
    rows = SpokenDialogues(
        data.dialogues, tokenizer, data.hear, recordings=data.recordings,
        target="chain", mixture=TaskMixture(4, 0, 0, 3), seed=0,
    )  # fmt: skip
    texts = {d.id: d.turns[0].content for d in data.recordings}
    written = {rows.id_of(i): rows[i] for i in range(5, 25)}
    assert set(written) == set(texts)
    for id_, row in written.items():
        labels = [label for label in row.labels if label != NO_LABEL]
        assert tokenizer.decode(labels) == f"{texts[id_]}<turn|>" and len(row.frames) == 1
    assert {s.corpus for of in data.sources.values() for s in of} == {
        "asked", "not recorded", "own",
    }  # fmt: skip


def test_training_moves_the_adapter_and_says_what_it_heard(trained):
    folder = trained[0]
    record = read_json(folder / "provenance.json")
    assert record["spoken_turns"]["generated_codes"] == 0
    assert record["spoken_turns"]["recordings"] == 4 and record["num_dialogues"] == 4
    assert {s.corpus for s in read_provenance(folder).sources if s.used_for == "adapter"} == {
        "asked", "own", "not recorded",
    }  # fmt: skip
    assert read_provenance(folder).origin.tower
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert all(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name)
    losses = [row["loss"] for row in read_json_lines(folder / "metrics.jsonl")]
    assert len(losses) == 4 and all(map(np.isfinite, losses))


@pytest.mark.parametrize("moment", ["before checkpoints/step_000002", "before done"])
def test_killed_and_resumed_equals_straight(trained, moment, tmp_path):
    folder, camera, words, _ = trained
    killed = shutil.copytree(camera.last(moment), tmp_path / "killed")
    assert not (killed / "done").exists()
    run(train.main, *words, "--out", killed, "--resume")
    assert content(killed) == content(folder)


def heard_logits(conversation, recording):
    prompts = [
        encode_prompt([conversation.spoken_turn(recording)], conversation.tokenizer),
        encode_prompt([Turn("user", "Wo din de sɛn?")], conversation.tokenizer),
    ]
    with torch.no_grad():
        return [
            conversation.model(
                **prompt_inputs([prompt], conversation.tokenizer, conversation.model)
            ).logits
            for prompt in prompts
        ]


@pytest.mark.parametrize("trains_way_in", [False, True])
def test_without_its_adapter_it_is_the_base_and_merged_it_is_the_adapter(
    trained, recorded, tmp_path, trains_way_in
):
    """With an adapter that is far from zero, and with the map from patches to the decoder."""
    straight, _, _, gemma = trained
    folder = shutil.copytree(straight, tmp_path / "finetune")
    other = write_adapter(tmp_path / "far", gemma, seed=1, train_embed_audio=trains_way_in)
    shutil.rmtree(folder / "adapter")
    shutil.copytree(other / "adapter", folder / "adapter")
    OutputFolder(folder, is_done=True).finish()
    settings = {"device": CPU, "dtype": torch.float32}
    recording = recorded / "ama.wav"
    base = heard_logits(load_conversation(gemma, None, **settings), recording)
    adapted = load_conversation(gemma, folder, **settings)
    assert adapted.writes_transcripts
    answers = heard_logits(adapted, recording)
    assert not any(torch.allclose(a, b, atol=1e-2) for a, b in zip(answers, base, strict=True))
    with adapted.model.disable_adapter():
        for logits, expected in zip(heard_logits(adapted, recording), base, strict=True):
            assert torch.equal(logits, expected)
    out = tmp_path / "merged"
    words = ("--gemma", gemma, "--finetune", folder, "--dtype", "float32", "--out", out)
    run(export.main, *words)
    merged = load_conversation(str(out), None, **settings)
    assert merged.writes_transcripts
    assert merged.origins[f"--gemma {out}"] == adapted.origins[f"--gemma {gemma}"]
    for logits, expected in zip(heard_logits(merged, recording), answers, strict=True):
        # As preflight judges logits: an adapter so far from zero makes rounding errors grow.
        assert (logits - expected).norm() < 1e-3 * expected.norm()
    assert "and 4 recorded ones" in (out / "README.md").read_text("utf-8")


def test_codes_and_recordings_are_learnt_from_together(recorded, tiny_models, tmp_path):
    """By a Gemma with a tower, which takes both."""
    of_codes = write_dialogues(tmp_path, tiny_models)
    more = ("--more-dialogues", recorded / "dialogues.jsonl")
    run(
        train.main, *of_codes, *more, "--recordings", recorded / "train.jsonl",
        "--out", tmp_path / "run",
    )  # fmt: skip
    spoken = read_json(tmp_path / "run" / "provenance.json")["spoken_turns"]
    assert spoken == {"generated_codes": 8, "recordings": 4}


def test_recorded_questions_are_asked_and_scored(trained, recorded, tmp_path):
    folder, _, _, gemma = trained
    words = (
        "--gemma", gemma, "--finetune", folder, "--dialogues", recorded / "dialogues.jsonl",
        "--recordings", recorded / "train.jsonl", "--max-new-tokens", 4, "--device", "cpu",
    )  # fmt: skip
    run(evaluate.main, *words, "--out", tmp_path / "test")
    scores = read_json(tmp_path / "test" / "metrics.json")
    assert scores["num_held_out"] == 4 and set(scores["exact_match"]) >= {"typed", "spoken_after"}


def test_what_is_missing_is_told_in_one_line(recorded, tiny_models, tmp_path):
    of_codes = dict(zip(*[iter(write_dialogues(tmp_path, tiny_models))] * 2, strict=True))
    codes, rvq = of_codes["--dialogues"], of_codes["--rvq"]
    unified = str(tiny_models / "gemma-unified")
    write_json_lines(tmp_path / "typed.jsonl", [{"messages": [asked("A", spoken=False)]}])
    write_json_lines(tmp_path / "other.jsonl", [{"messages": [asked("Da yie."), said("Yoo.")]}])
    none = SpokenTurnSettings()
    cases = [
        ({"spoken": none}, "is a file: name the recordings of its spoken turns"),
        ({"dialogues": codes, "rvq": str(rvq)}, "--recordings needs a `messages` file"),
        ({"dialogues": codes, "spoken": none}, "holds codes: name their quantiser with --rvq"),
        ({"dialogues": tmp_path / "no", "spoken": none}, "no"),
        ({"dialogues": codes, "rvq": str(rvq), "spoken": none, "gemma": unified},
         r"without an audio tower \(12B\), for which there are no codes"),
        ({"mixture": MixtureSettings(transcribed=(tmp_path / "codes",))},
         "codes holds codes: name their quantiser with --rvq"),
        ({"dialogues": tmp_path / "typed.jsonl"}, 'no user turn is marked "spoken"'),
        ({"dialogues": tmp_path / "other.jsonl"}, "no recording of a spoken turn"),
    ]  # fmt: skip
    whole = TrainConfig(
        dialogues=recorded / "dialogues.jsonl", out=tmp_path, gemma=str(tiny_models / "gemma"),
        spoken=SpokenTurnSettings(recordings=recorded / "train.jsonl"),
    )  # fmt: skip
    for changes, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            load_training_data(replace(whole, **changes), device=CPU, dtype=torch.float32)
        assert "\n" not in str(caught.value)


def test_a_broken_recording_ends_the_run_in_one_line(recorded, tiny_models, tmp_path):
    own = shutil.copytree(recorded, tmp_path / "own")
    rows = [
        row | {"audio": str(own / Path(row["audio"]).name)}
        for row in read_json_lines(own / "train.jsonl")
    ]
    write_json_lines(own / "train.jsonl", rows)
    for row in rows:
        Path(row["audio"]).write_bytes(b"no sound")
    words = flags(own, tiny_models, "gemma-unified")
    with pytest.raises(InputError, match=r"train.jsonl:\d: .*not readable as audio") as caught:
        run(train.main, *words, "--out", tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_what_is_held_out_is_not_trained_on(recorded, tiny_models, tmp_path):
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_bytes((recorded / "dialogues.jsonl").read_bytes())
    words = flags(recorded, tiny_models, "gemma")
    for flag in ("--dialogues", "--more-dialogues"):
        with pytest.raises(InputError, match=r"held_out\.jsonl: these rows are held out"):
            run(train.main, *words, flag, held_out, "--out", tmp_path / "run")
    with pytest.raises(InputError, match=r"--dialogues .*held_out\.jsonl: these rows"):
        run(
            speak_dialogues.main, "--dialogues", held_out, "--speechless", tmp_path, "--out",
            tmp_path / "spoken",
        )  # fmt: skip
    assert not (tmp_path / "run").exists() and not (tmp_path / "spoken").exists()
