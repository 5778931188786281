"""Stage 2's commands on synthetic codes: resumed = straight, byte for byte, and mistakes in one
line."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import run
from matplotlib.image import imread
from parts import join, refuse_difference, write_parts
from safetensors.torch import load_file

from commands.checkpoint import list_checkpoints
from commands.errors import InputError
from commands.json_files import read_json
from commands.run_folder import OutputFolder, run_folder
from stage1_rvq.codes import (
    CodedUtterance,
    CodeFormat,
    code_format,
    read_code_format,
    read_codes,
    write_codes,
)
from stage1_rvq.config import RVQConfig
from stage1_rvq.model import SpeechRVQ
from stage1_rvq.recognizer import CTCRecognizer, RecognizerConfig
from stage1_rvq.text_units import train_units
from stage2_speechless import evaluate, generate, train
from stage2_speechless.metrics import ReadSentence, SpeechMetrics
from stage2_speechless.model import load_speechless

RVQ = RVQConfig(dim=8, num_codebooks=3, codebook_size=12)
FORMAT = code_format(RVQ)
TEXTS = ["Me din de Ama.", "Kofi", "Yɛfrɛ me Akosua, na mewɔ Kumasi", "Maakye!"]
TINY = (
    "--width", 32, "--num-layers", 2, "--depth-width", 32, "--depth-layers", 1, "--batch-size", 4,
    "--warmup-steps", 1, "--learning-rate", 1e-2, "--steps", 6, "--save-every", 3,
    "--device", "cpu",
)  # fmt: skip


def coded(num: int, prefix: str = "u") -> list[CodedUtterance]:
    """Utterances whose codes spell their text, two frames a character."""
    return [
        CodedUtterance(
            f"{prefix}{i}", text, "spk", "asante",
            torch.tensor([[ord(c) % 12, ord(c) % 5, i % 12] for c in text.lower() for _ in "ab"]),
        )
        for i, text in enumerate((TEXTS * num)[:num])
    ]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Codes, a quantiser and a recogniser that fit together, as stage 1 leaves them."""
    world = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    for name, num in (("train", 18), ("dev", 4)):
        (world / name).mkdir()
        write_codes(world / name / "codes_00000.parquet", coded(num, name), FORMAT)
    with run_folder(world / "rvq", RVQ, "stage1_rvq.train"):
        SpeechRVQ(RVQ).save_pretrained(world / "rvq" / "model")
    units = train_units(TEXTS, 48)
    shape = RecognizerConfig(dim=8, num_units=units.get_vocab_size(), width=8)
    with run_folder(world / "recognizer", shape, "stage1_rvq.train_recognizer"):
        CTCRecognizer(shape).save_pretrained(world / "recognizer" / "model")
        units.save(str(world / "recognizer" / "units.json"))
    return world


def judge(world: Path) -> tuple[object, ...]:
    return ("--rvq", world / "rvq", "--recognizer", world / "recognizer")


def train_words(world: Path) -> tuple[object, ...]:
    return ("--codes", world / "train", "--dev-codes", world / "dev", *judge(world), *TINY)


@pytest.fixture(scope="module")
def speechless(world: Path) -> Path:
    printed = run(train.main, *train_words(world), "--out", world / "speechless")
    assert printed == f"{world / 'speechless'}\n"
    return world / "speechless"


def content(folder: Path, *names: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for name in names for path in sorted(folder.glob(name))}


def test_train_logs_and_remembers(world: Path, speechless: Path) -> None:
    rows = [json.loads(line) for line in (speechless / "metrics.jsonl").open(encoding="utf-8")]
    assert [row["step"] for row in rows if row["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    names = {"loss", "end", "codebook_0", "codebook_1", "codebook_2"}
    assert names <= rows[0].keys()
    dev = [row for row in rows if row["split"] == "dev"]
    assert [row["step"] for row in dev] == [3, 6]
    assert {"loss", "cer", "wer", "length_ratio", "never_ended"} <= dev[0].keys()
    assert dev[1]["loss"] < dev[0]["loss"]
    model = load_speechless(str(speechless), device=torch.device("cpu"))
    assert model.config.code_format == FORMAT
    assert model.config.quantizer == read_json(speechless / "provenance.json")["quantizer"]
    assert len(model.config.quantizer) == 16
    assert model.config.rates_cps == pytest.approx([12.5] * 19, rel=0.2)


def test_train_resumed_equals_straight(world: Path, speechless: Path, tmp_path: Path) -> None:
    words = (*train_words(world), "--out", tmp_path / "cut")
    run(train.main, *words)
    cut = tmp_path / "cut"
    shutil.rmtree(list_checkpoints(cut)[-1])
    shutil.rmtree(cut / "model")
    (cut / "done").unlink()
    with pytest.raises(InputError, match="is unfinished: --resume continues it"):
        run(train.main, *words)
    run(train.main, *words, "--resume")
    # The better of the two measurements may be the first, whose model/ was deleted above.
    names = ("checkpoints/step_000006/*", "metrics.jsonl")
    assert content(cut, *names).keys() == {
        "model.safetensors", "trainer.pt", "step.json", "metrics.jsonl",
    }  # fmt: skip
    assert content(cut, *names) == content(speechless, *names)


def test_model_is_kept_at_the_lowest_error(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([0.5, 0.4, 0.6])

    pool = train.pool_sentences

    def speech(sentences: list[ReadSentence]) -> SpeechMetrics:
        pooled = pool(sentences)
        read = replace(pooled.errors.generated, cer=next(errors))
        return replace(pooled, errors=replace(pooled.errors, generated=read))

    monkeypatch.setattr(train, "pool_sentences", speech)
    words = (*train_words(world), "--save-every", 2, "--out", tmp_path / "run")
    run(train.main, *words)
    kept = content(tmp_path / "run", "model/model.safetensors")
    run_of_4 = tmp_path / "run" / "checkpoints" / "step_000004"
    assert kept == content(run_of_4, "model.safetensors")


def test_a_diverged_dev_loss_does_not_replace_the_best_model(
    world: Path, speechless: Path, tmp_path: Path, monkeypatch
) -> None:
    measure = train.measure_loss
    out = tmp_path / "run"

    def diverge_at_the_end(*arguments, **keywords):
        metrics = measure(*arguments, **keywords)
        is_end = (out / "checkpoints" / "step_000003").exists()
        return dict.fromkeys(metrics, float("nan")) if is_end else metrics

    monkeypatch.setattr(train, "measure_loss", diverge_at_the_end)
    with pytest.raises(InputError, match="step 6: dev loss is nan: training has diverged"):
        run(train.main, *train_words(world), "--out", out)
    assert not (out / "done").exists()
    assert [path.name for path in list_checkpoints(out)] == ["step_000003"]
    kept = load_file(out / "model" / "model.safetensors")
    assert all(value.isfinite().all() for value in kept.values())


def test_generate(world: Path, speechless: Path, tmp_path: Path, monkeypatch) -> None:
    lines = ["Me din de Ama.", "", "2024", "Привет", "a" * 10_000, "Kofi", "Akosua"]
    text = tmp_path / "sentences.txt"
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(generate, "SENTENCES_PER_SHARD", 5)
    words = ("--speechless", speechless, "--text", text, "--takes", 3, "--device", "cpu")
    run(generate.main, *words, "--out", tmp_path / "a")
    run(generate.main, *words, "--out", tmp_path / "b", "--batch-size", 1)
    assert read_code_format(tmp_path / "a") == FORMAT
    rows = {u.id: u for u in read_codes(tmp_path / "a")}
    dropped = [json.loads(row) for row in (tmp_path / "a" / "dropped.jsonl").open("r")]
    reasons = {row["id"]: row["reason"] for row in dropped}
    assert rows.keys() | reasons.keys() == {f"sentences-{i:06d}" for i in range(1, 8)}
    assert not rows.keys() & reasons.keys()
    assert reasons["sentences-000002"] == "empty"
    assert reasons["sentences-000003"] == "no letter to pronounce in '2024'"
    assert reasons["sentences-000004"].startswith("no sound for в е и п р т")
    assert reasons["sentences-000005"].startswith("too long: 10000 characters, at most 500")
    assert all(u.speaker == "speechless" and len(u.codes_TK) > 0 for u in rows.values())
    for one, other in zip(rows.values(), read_codes(tmp_path / "b"), strict=True):
        assert torch.equal(one.codes_TK, other.codes_TK)
    facts = read_json(tmp_path / "a" / "provenance.json")
    assert (facts["num_utterances"], facts["num_dropped"]) == (len(rows), len(dropped))

    kept = [json.loads(row) for row in (tmp_path / "a" / "kept.jsonl").open("r")]
    assert {row["id"] for row in kept} == rows.keys()
    assert {row["cer"] for row in kept} == {None}
    counts = Counter(str(row["take"]) for row in kept)
    assert facts["kept_takes"] == dict(counts)

    write_parts(generate, words, tmp_path / "parts", 3)
    join(tmp_path / "parts")
    refuse_difference(tmp_path / "a", tmp_path / "parts")

    before = content(tmp_path / "a", "codes_*", "*.jsonl")
    assert len(before) == 5
    for name in ("done", "codes_00001.parquet"):
        (tmp_path / "a" / name).unlink()
    run(generate.main, *words, "--out", tmp_path / "a", "--resume")
    assert content(tmp_path / "a", "codes_*", "*.jsonl") == before
    assert read_json(tmp_path / "a" / "provenance.json")["kept_takes"] == dict(counts)


def test_generate_drops_what_the_recognizer_cannot_read(
    world: Path, speechless: Path, tmp_path: Path
) -> None:
    text = tmp_path / "sentences.jsonl"
    rows = [{"id": f"s{i}", "text": t, "dialect": "fante"} for i, t in enumerate(TEXTS)]
    text.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ("--speechless", speechless, "--text", text, *judge(world), "--device", "cpu")
    with pytest.raises(InputError, match="all 4 sentences were dropped"):
        run(generate.main, *words, "--max-cer", 0.0, "--out", tmp_path / "none")
    dropped = (tmp_path / "none" / "dropped.jsonl").read_text(encoding="utf-8")
    assert re.search(r"read back with a CER of [\d.]+ at best \(1 take\), over 0", dropped)
    run(generate.main, *words, "--max-cer", 1000, "--takes", 3, "--out", tmp_path / "all")
    assert {u.dialect for u in read_codes(tmp_path / "all")} == {"fante"}
    kept = [json.loads(row) for row in (tmp_path / "all" / "kept.jsonl").open("r")]
    assert all(row["cer"] > 0 and 0 <= row["take"] < 3 for row in kept)


def test_evaluate(world: Path, speechless: Path, tmp_path: Path) -> None:
    words = ("--speechless", speechless, "--codes", world / "dev", *judge(world))
    printed = run(evaluate.main, *words, "--device", "cpu", "--out", tmp_path / "test")
    metrics = read_json(tmp_path / "test" / "metrics.json")
    assert list(metrics)[:7] == [
        "wer_real_codes", "wer_generated", "cer_generated", "length_ratio", "length_ratio_asked",
        "never_ended", "num_utterances",
    ]  # fmt: skip
    assert list(metrics["by_dialect"]) == ["asante"]
    assert list(metrics["by_length"]) == ["up to 25", "26 to 40"]
    assert list(metrics["by_codebooks"]) == ["1", "2", "3"]
    assert metrics["by_dialect"]["asante"].items() <= metrics.items()
    assert metrics["wer_generated_low"] <= metrics["wer_generated_high"]
    for name in ("durations.png", "wer.png"):
        assert imread(tmp_path / "test" / name).std() > 0
    assert metrics["num_utterances"] == 4
    assert 0 <= metrics["never_ended"] <= 1
    assert metrics["length_ratio"] > 0
    run(evaluate.main, *words, "--num-utterances", 1, "--out", tmp_path / "one")
    assert read_json(tmp_path / "one" / "metrics.json")["num_utterances"] == 1
    # All of this corpus is spoken at 12.5 characters a second, and so is what is asked for.
    assert metrics["length_ratio_asked"] == pytest.approx(1, rel=0.2)
    assert re.search(r"WER, real codes +[\d.]+ %", printed)


def test_refused_folders(world: Path, speechless: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_codes(other / "codes_00000.parquet", coded(4), CodeFormat(3, 16, 25.0))
    out = ("--device", "cpu", "--out", tmp_path / "out")
    ours = ("--speechless", speechless, *judge(world), *out)
    with pytest.raises(InputError, match="3 codebooks of 16 at 25 Hz, --speechless"):
        run(evaluate.main, *ours, "--codes", other)
    with pytest.raises(InputError, match="3 codebooks of 16 at 25 Hz, --codes"):
        run(train.main, "--codes", world / "train", "--dev-codes", other, *TINY, *out[2:])
    with pytest.raises(InputError, match="--recognizer needs --dev-codes and --rvq"):
        run(train.main, "--codes", world / "train", "--recognizer", world / "recognizer", *out)
    with pytest.raises(InputError, match=r"was written by stage1_rvq\.train"):
        run(evaluate.main, "--speechless", world / "rvq", *ours[2:], "--codes", world / "dev")
    assert not (tmp_path / "out").exists()

    unfinished = shutil.copytree(speechless, tmp_path / "unfinished")
    (unfinished / "done").unlink()
    with pytest.raises(InputError, match="unfinished"):
        load_speechless(str(unfinished), device=torch.device("cpu"))
    impostor = shutil.copytree(world / "rvq", tmp_path / "impostor")
    other_rvq = SpeechRVQ(RVQ)  # of the same shape, and with other codebooks
    other_rvq.save_pretrained(impostor / "model")
    OutputFolder(impostor, is_done=True).finish()
    with pytest.raises(InputError, match="speechless belongs to another quantiser than --rvq"):
        run(
            evaluate.main, "--speechless", speechless, "--rvq", impostor,
            "--recognizer", world / "recognizer", "--codes", world / "dev", *out,
        )  # fmt: skip
