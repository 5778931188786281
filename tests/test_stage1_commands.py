"""Stage 1's commands in order: resumed = straight, byte for byte, and mistakes in one line."""

import json
import shutil

import datasets
import pytest
import soundfile
import torch
from conftest import run
from tiny_recognizers import save_wav2vec2

from commands.checkpoint import list_checkpoints
from commands.errors import InputError
from commands.parquet_files import CodeFormat
from data_manifests.manifest import read_manifest, write_manifest
from gemma4.gemma import count_audio_tokens
from stage1_rvq import (
    compare_codes,
    corpus_encoder,
    embed,
    evaluate,
    tokenize_corpus,
    train,
    train_recognizer,
    transcribe,
)
from stage1_rvq.codes import read_code_format, read_codes, write_codes
from stage1_rvq.data import EmbeddingFolder, ShuffledBatches
from stage1_rvq.recognizer import load_recognizer

TRAIN = ("--codebook-size", 16, "--num-codebooks", 4, "--batch-frames", 256, "--device", "cpu")
RECOGNIZER = ("--num-units", 64, "--width", 32, "--batch-size", 8, "--device", "cpu")


@pytest.fixture(scope="module")
def small_shards():
    """Shards of 4 utterances, so that even a small corpus has several."""
    patch = pytest.MonkeyPatch()
    patch.setattr(corpus_encoder, "UTTERANCES_PER_SHARD", 4)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def gemma(tiny_models):
    return tiny_models / "gemma"


@pytest.fixture(scope="module")
def embeddings(corpus, gemma, small_shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("embeddings") / "train"
    run(embed.main, "--manifest", corpus / "train.jsonl", "--gemma", gemma, "--out", out)
    return out


@pytest.fixture(scope="module")
def rvq(embeddings, tmp_path_factory):
    out = tmp_path_factory.mktemp("rvq") / "rvq"
    words = ("--embeddings", embeddings, "--dev-embeddings", embeddings, *TRAIN)
    run(train.main, *words, "--steps", 4, "--save-every", 2, "--out", out)
    return out


@pytest.fixture(scope="module")
def recognizer(embeddings, tmp_path_factory):
    out = tmp_path_factory.mktemp("recognizer") / "run"
    steps = (*RECOGNIZER, "--steps", 40, "--out", out)
    run(train_recognizer.main, "--embeddings", embeddings, *steps)
    return out


@pytest.fixture(scope="module")
def codes(corpus, gemma, rvq, small_shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("codes") / "train"
    words = ("--manifest", corpus / "train.jsonl", "--rvq", rvq, "--gemma", gemma, "--jsonl")
    run(tokenize_corpus.main, *words, "--out", out)
    return out


def content(folder, *names):
    return {path.name: path.read_bytes() for name in names for path in sorted(folder.glob(name))}


def test_embeddings_are_the_manifest_s_utterances(corpus, embeddings):
    folder = EmbeddingFolder(embeddings)
    manifest = list(read_manifest(corpus / "train.jsonl"))
    assert [u.id for u in folder.utterances] == [u.id for u in manifest]
    assert len({u.shard for u in folder.utterances}) > 2
    first = folder.read(folder.utterances[0])
    samples = soundfile.info(manifest[0].audio).frames * 16_000 // 24_000
    assert abs(len(first) - count_audio_tokens(samples)) <= 1 and first.dtype == torch.float32
    last = folder.utterances[-1]
    position = folder.num_frames - 1
    assert torch.equal(folder.gather(torch.tensor([position]))[0], folder.read(last)[-1])
    sample = folder.sample(50, seed=1)
    assert torch.equal(sample, folder.sample(50, seed=1)) and len(sample) == 50


def test_embed_resumed_equals_straight(corpus, gemma, embeddings, small_shards, tmp_path):
    cut = shutil.copytree(embeddings, tmp_path / "cut")
    for name in ("done", "shard_00002.jsonl", "shard_00003.jsonl", "shard_00003.safetensors"):
        (cut / name).unlink()
    (cut / "shard_00002.safetensors").write_bytes(b"half written")
    words = ("--manifest", corpus / "train.jsonl", "--gemma", gemma, "--out", cut)
    with pytest.raises(InputError, match="is unfinished: --resume continues it"):
        run(embed.main, *words)
    with pytest.raises(InputError, match="unfinished"):
        EmbeddingFolder(cut)
    run(embed.main, *words, "--resume")
    assert content(cut, "shard_*") == content(embeddings, "shard_*")
    assert (cut / "done").exists()


def test_train_resumed_equals_straight(embeddings, rvq, tmp_path):
    words = ("--embeddings", embeddings, "--dev-embeddings", embeddings, *TRAIN)
    words = (*words, "--save-every", 2, "--steps", 4, "--out", tmp_path / "cut")
    run(train.main, *words)
    shutil.rmtree(list_checkpoints(tmp_path / "cut")[-1])  # the model stays: step 2's may be better
    (tmp_path / "cut" / "done").unlink()
    run(train.main, *words, "--resume")
    names = ("model/*", "checkpoints/step_000004/model.safetensors", "metrics.jsonl")
    assert content(tmp_path / "cut", *names) == content(rvq, *names)
    written = (tmp_path / "cut" / "model" / "model.safetensors").stat().st_mtime_ns
    run(train.main, *words, "--resume")  # finished already: nothing is written again
    assert (tmp_path / "cut" / "model" / "model.safetensors").stat().st_mtime_ns == written


def test_recognizer_resumed_equals_straight(embeddings, tmp_path):
    words = ("--embeddings", embeddings, "--dev-embeddings", embeddings, *RECOGNIZER)
    words = (*words, "--steps", 4, "--save-every", 2, "--warmup-steps", 1)
    run(train_recognizer.main, *words, "--out", tmp_path / "straight")
    run(train_recognizer.main, *words, "--out", tmp_path / "cut")
    shutil.rmtree(list_checkpoints(tmp_path / "cut")[-1])
    (tmp_path / "cut" / "done").unlink()
    run(train_recognizer.main, *words, "--out", tmp_path / "cut", "--resume")
    names = ("model/*", "checkpoints/step_000004/model.safetensors", "metrics.jsonl", "units.json")
    assert content(tmp_path / "cut", *names) == content(tmp_path / "straight", *names)


def test_evaluate(embeddings, rvq, tmp_path):
    recognizer = tmp_path / "recognizer"
    words = ("--embeddings", embeddings, *RECOGNIZER, "--steps", 2, "--out", recognizer)
    run(train_recognizer.main, *words)
    words = ("--rvq", rvq, "--embeddings", embeddings, "--recognizer", recognizer)
    table = run(evaluate.main, *words, "--out", tmp_path / "metrics")
    metrics = json.loads((tmp_path / "metrics" / "metrics.json").read_text())
    assert len(metrics["used_fraction"]) == 4 and set(metrics["quantized"]) == {"1", "2", "4"}
    for used, perplexity in zip(metrics["used_fraction"], metrics["perplexity"], strict=True):
        assert perplexity <= used * 16 + 1e-6
    assert "codebook" in table and (tmp_path / "metrics" / "codebook_usage.png").exists()
    run(evaluate.main, *words, "--beam-size", 8, "--out", tmp_path / "beam")
    wider = json.loads((tmp_path / "beam" / "metrics.json").read_text())
    errors = [m["reconstruction"]["4"]["projected"]["relative_error"] for m in (metrics, wider)]
    assert errors[1] < errors[0]


def test_codes_are_parquet_that_datasets_loads(corpus, codes, small_shards):
    rows = list(read_codes(codes))
    assert [r.id for r in rows] == [u.id for u in read_manifest(corpus / "train.jsonl")]
    assert read_code_format(codes) == CodeFormat(4, 16, 25.0)
    files = [str(path) for path in sorted(codes.glob("*.parquet"))]
    table = datasets.load_dataset("parquet", data_files=files, split="train")
    assert table.column_names == ["id", "text", "speaker", "dialect", "num_frames", "codes"]
    assert table[0]["codes"] == rows[0].codes_TK.tolist()
    strings = (codes / "twi_semantic_tokens.jsonl").read_text(encoding="utf-8").splitlines()
    tokens = json.loads(strings[0])["semantic_tokens"]
    assert tokens.count("<|sound_") == 4 * len(rows[0].codes_TK) + 2
    first = rows[0].codes_TK[0].tolist()
    assert tokens.startswith(f"<|sound_start|><|sound_0_{first[0]:04d}|><|sound_1_{first[1]:04d}|>")


def test_tokenize_resumed_equals_straight(corpus, gemma, rvq, codes, small_shards, tmp_path):
    cut = shutil.copytree(codes, tmp_path / "cut")
    for name in ("done", "codes_00001.parquet", "twi_semantic_tokens.jsonl"):
        (cut / name).unlink()
    words = ("--manifest", corpus / "train.jsonl", "--rvq", rvq, "--gemma", gemma, "--jsonl")
    run(tokenize_corpus.main, *words, "--out", codes.parent / "straight")
    config = json.loads((cut / "config.json").read_text())
    (cut / "config.json").write_text(json.dumps({**config, "out": str(cut)}))
    run(tokenize_corpus.main, *words, "--out", cut, "--resume")
    assert content(cut, "codes_*", "*.jsonl") == content(codes, "codes_*", "*.jsonl")


def test_cached_embeddings_give_the_codes_of_the_audio(embeddings, rvq, codes, tmp_path):
    out = tmp_path / "codes"
    words = ("--embeddings", embeddings, "--rvq", rvq, "--jsonl", "--device", "cpu", "--out", out)
    run(tokenize_corpus.main, *words)
    ours, theirs = list(read_codes(out)), list(read_codes(codes))
    assert [(u.id, u.text, u.speaker) for u in ours] == [(u.id, u.text, u.speaker) for u in theirs]
    is_equal_NK = torch.cat([u.codes_TK for u in ours]) == torch.cat([u.codes_TK for u in theirs])
    # The cache is in bfloat16; coarse codes hardly notice.
    assert is_equal_NK[:, 0].float().mean() > 0.97 and is_equal_NK.float().mean() > 0.8
    before = content(out, "codes_*", "*.jsonl")
    for name in ("done", "codes_00001.parquet"):
        (out / name).unlink()
    run(tokenize_corpus.main, *words, "--resume")
    assert content(out, "codes_*", "*.jsonl") == before
    with pytest.raises(InputError, match="one of --manifest and --embeddings"):
        run(tokenize_corpus.main, "--rvq", rvq, "--out", tmp_path / "neither")


def test_tokenizations_compared(embeddings, rvq, codes, tmp_path):
    recognizer, cached = tmp_path / "recognizer", tmp_path / "codes"
    run(
        train_recognizer.main,
        "--embeddings",
        embeddings,
        *RECOGNIZER,
        "--steps",
        2,
        "--out",
        recognizer,
    )
    run(tokenize_corpus.main, "--embeddings", embeddings, "--rvq", rvq, "--out", cached)
    words = (
        "--codes",
        codes,
        "--rvq",
        rvq,
        "--recognizer",
        recognizer,
        "--device",
        "cpu",
        "--json",
    )
    same = json.loads(run(compare_codes.main, *words, "--other-codes", codes))
    assert same["agreement"] == [1.0] * 4 and same["num_texts_differing"] == 0
    assert same["wer"] == same["wer_other"] and same["wer_difference_high"] == 0
    other = json.loads(run(compare_codes.main, *words, "--other-codes", cached))
    assert 0.8 < min(other["agreement"]) < 1
    assert other["wer_difference"] == other["wer_other"] - other["wer"]
    assert "points, 95 % interval" in run(compare_codes.main, *words[:-1], "--other-codes", cached)
    rows = list(read_codes(codes))
    write_codes(tmp_path / "fewer.parquet", rows[1:], read_code_format(codes))
    with pytest.raises(InputError, match="not of the same utterances"):
        run(compare_codes.main, *words, "--other-codes", tmp_path / "fewer.parquet")


def test_codes_and_embeddings_are_read_back(embeddings, recognizer, rvq, codes, tmp_path):
    words = ("--recognizer", recognizer, "--device", "cpu")
    for name, source in (
        ("c", ("--codes", codes, "--rvq", rvq)),
        ("e", ("--embeddings", embeddings)),
    ):
        out = tmp_path / f"{name}.jsonl"
        table = run(transcribe.main, *words, *source, "--out", out)
        rows = [json.loads(line) for line in out.open("rb")]
        assert [row["id"] for row in rows] == [row.id for row in read_codes(codes)]
        assert all(row.keys() == {"id", "text", "heard", "cer", "wer"} for row in rows)
        assert table.startswith("WER") and table.splitlines()[-1] == str(out)
        with pytest.raises(InputError, match="exists already"):
            run(transcribe.main, *words, *source, "--out", out)
    folder = EmbeddingFolder(embeddings)
    frames = [folder.read(utterance) for utterance in folder.utterances]
    heard = load_recognizer(recognizer, device=torch.device("cpu")).transcribe(frames)
    assert [row["heard"] for row in rows] == heard
    with pytest.raises(InputError, match="--codes and --rvq go together"):
        run(transcribe.main, *words, "--codes", codes, "--out", tmp_path / "x")
    with pytest.raises(InputError, match="one of --codes, --embeddings and --manifest"):
        run(transcribe.main, *words, "--out", tmp_path / "x")
    with pytest.raises(InputError, match="--asr and --hypotheses are for the recordings"):
        run(transcribe.main, "--asr", "x", "--embeddings", embeddings, "--out", tmp_path / "x")
    with pytest.raises(InputError, match="give one of --recognizer, --asr, --hypotheses"):
        run(transcribe.main, "--embeddings", embeddings, "--out", tmp_path / "x")


def test_recordings_are_heard_by_any_recogniser(embeddings, recognizer, corpus, gemma, tmp_path):
    """By ours as it reads their embeddings; what one has written is a file of hypotheses."""
    write_manifest(tmp_path / "few.jsonl", list(read_manifest(corpus / "train.jsonl"))[:10])
    cpu, manifest = ("--device", "cpu"), ("--manifest", tmp_path / "few.jsonl")
    ours = ("--recognizer", recognizer, *cpu)

    def heard(name, *words):
        out = tmp_path / f"{name}.jsonl"
        table = run(transcribe.main, *words, "--out", out)
        rows = {row["id"]: row["heard"] for row in map(json.loads, out.open("rb"))}
        return rows, table.splitlines()[:-1]

    embedded, _ = heard("e", "--embeddings", embeddings, *ours)
    recorded, table = heard("m", *manifest, "--gemma", gemma, *ours)
    same = sum(text == embedded[id_] for id_, text in recorded.items())
    assert recorded.keys() <= embedded.keys() and same >= 0.9 * len(recorded) > 4
    asr = save_wav2vec2(tmp_path / "asr")
    others, _ = heard("asr", *manifest, "--asr", asr, *cpu)
    assert others.keys() == recorded.keys() and others != recorded
    again, same_table = heard("h", *manifest, "--hypotheses", tmp_path / "m.jsonl", *cpu)
    assert again == recorded and same_table == table


def test_bad_audio_stops_or_is_listed(corpus, gemma, rvq, small_shards, tmp_path):
    manifest = corpus / "train.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["audio"] = str(corpus / row["audio"])
    (tmp_path / "empty.wav").write_bytes(b"")
    rows[5]["audio"] = str(tmp_path / "empty.wav")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--manifest", bad, "--rvq", rvq, "--gemma", gemma)
    with pytest.raises(InputError, match=r"bad.jsonl:6: .*empty file"):
        run(tokenize_corpus.main, *words, "--out", tmp_path / "stopped")
    assert (tmp_path / "stopped" / "codes_00000.parquet").exists()  # what was made stays
    run(tokenize_corpus.main, *words, "--skip-bad-audio", "--out", tmp_path / "skipped")
    skipped = [json.loads(line) for line in (tmp_path / "skipped" / "skipped.jsonl").open()]
    assert [row["id"] for row in skipped] == [rows[5]["id"]] and "empty" in skipped[0]["reason"]
    assert len(list(read_codes(tmp_path / "skipped"))) == len(rows) - 1


def test_mistakes(corpus, gemma, embeddings, rvq, codes, tmp_path):
    out = ("--out", tmp_path / "out")
    with pytest.raises(
        InputError, match=r"written by stage1_rvq.embed, expected .*stage1_rvq.train"
    ):
        words = ("--manifest", corpus / "dev.jsonl", "--rvq", embeddings, "--gemma", gemma)
        run(tokenize_corpus.main, *words, *out)
    with pytest.raises(InputError, match="k-means needs"):
        words = ("--embeddings", embeddings, "--codebook-size", 4096, "--device", "cpu")
        run(train.main, *words, *out)
    write_codes(tmp_path / "other.parquet", [], CodeFormat(8, 2048, 25.0))
    shutil.copy(codes / "codes_00000.parquet", tmp_path / "mixed.parquet")
    with pytest.raises(InputError, match="files of different code formats"):
        read_code_format(tmp_path)


def test_batches_are_a_function_of_seed_and_step():
    batches = ShuffledBatches(10, 3, seed=0)
    seen = [batches.at_step(step).tolist() for step in range(6)]
    assert [ShuffledBatches(10, 3, seed=0).at_step(step).tolist() for step in (5, 0)] == [
        seen[5],
        seen[0],
    ]
    for epoch in (seen[:3], seen[3:]):
        flat = [item for batch in epoch for item in batch]
        assert len(set(flat)) == 9
    assert seen[:3] != seen[3:]
    with pytest.raises(InputError, match="nothing to train on"):
        ShuffledBatches(0, 3, seed=0)
