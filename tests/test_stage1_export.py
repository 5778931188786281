"""A quantiser shared: both layouts, a card that says what was measured, an example that runs."""

import json
import re
import runpy
import shutil
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import run
from embedding_folder import write_embeddings
from huggingface_hub import HfApi, ModelCard
from test_stage1_published import CPU, draw_frames, make_rvq

from commands import checkpoint
from commands.atomic_write import write_json
from commands.errors import InputError
from commands.json_files import read_json
from commands.run_folder import OutputFolder
from stage1_rvq import evaluate, export, tokenize_corpus, train
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.dev_set import DevMetrics
from stage1_rvq.model import SpeechRVQ, load_rvq
from stage1_rvq.published import find_published
from stage1_rvq.training_data import describe_training_data


@pytest.fixture(scope="module")
def frames_ND():
    return draw_frames()


@pytest.fixture(scope="module")
def embeddings(frames_ND, tmp_path_factory):
    return write_embeddings(tmp_path_factory.mktemp("data"), frames_ND)


@pytest.fixture(scope="module")
def held_out(frames_ND, tmp_path_factory):
    return write_embeddings(tmp_path_factory.mktemp("held_out"), frames_ND.flip(0))


@pytest.fixture(scope="module")
def trained(embeddings, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "rvq"
    words = ("--num-codebooks", 3, "--codebook-size", 16, "--batch-frames", 256, "--device", "cpu")
    words = ("--embeddings", embeddings, *words, "--steps", 4, "--save-every", 2, "--out", out)
    run(train.main, *words)
    return out


def test_the_card_of_a_training_run(trained, embeddings):
    card = (trained / "model" / "README.md").read_text(encoding="utf-8")
    front_matter = ModelCard(card).data
    assert (front_matter.language, front_matter.license) == (["tw", "ak"], "apache-2.0")
    assert "More Information Needed" not in card
    assert "0.01 hours: 20 utterances, 800 frames" in card
    assert "first (0.01 h), second (0.00 h)" in card and "| speakers | 3 |" in card
    assert "| audio tower | google/gemma-4-E4B-it |" in card and "steps 4" in card
    assert read_json(trained / "provenance.json")["git"].get("commit", "") in card
    assert card.count("not yet measured") == 4
    for path in (trained, embeddings):
        assert str(path.parent) not in card


def test_older_embeddings_do_not_say_their_corpora(embeddings, tmp_path):
    copy = shutil.copytree(embeddings, tmp_path / "copy")
    facts = read_json(copy / "provenance.json")
    del facts["sources"]
    write_json(copy / "provenance.json", facts)
    OutputFolder(copy, is_done=True).finish()  # lists its files anew
    assert describe_training_data(EmbeddingFolder(copy)).corpus_hours == {}


def test_export(trained, held_out, frames_ND, tmp_path, capsys):
    out = tmp_path / "repository"
    words = ("--rvq", trained, "--embeddings", held_out, "--device", "cpu")
    run(evaluate.main, *words, "--out", tmp_path / "metrics")
    words = ("--rvq", trained, "--metrics", tmp_path / "metrics", "--dev-embeddings", held_out)
    assert run(export.main, *words, "--out", out) == f"{out}\n"
    assert re.search(
        r"rvq_averaged\.pt: (not )?an average.*: relative error on dev", capsys.readouterr().err
    )
    codes_NK = load_rvq(str(trained), device=CPU).encode(frames_ND)
    assert torch.equal(load_rvq(str(out), device=CPU).encode(frames_ND), codes_NK)
    published = load_rvq(str(find_published(out)), device=CPU)
    assert torch.equal(published.encode(frames_ND), codes_NK)
    assert torch.equal(SpeechRVQ.from_pretrained(out).encode(frames_ND), codes_NK)
    card = (out / "README.md").read_text(encoding="utf-8")
    metrics = read_json(tmp_path / "metrics" / "metrics.json")
    assert f"| 1 | {100 * metrics['used_fraction'][0]:.1f} % |" in card
    for space, part in metrics["reconstruction"]["3"].items():
        assert f"| 3 | {space} | {part['relative_error']:.4f} |" in card
    assert "not yet measured | not yet measured" in card  # no recogniser, no WER
    listed = re.findall(r"^\| (`[^|]*`) \|", card, re.MULTILINE)
    names = {path.name for path in out.iterdir()}
    assert names - {"README.md", ".gitattributes"} == set(re.findall(r"[\w.]+", str(listed)))
    assert names > {"rvq_best.pt", "rvq_final.pt", "rvq_averaged.pt", "config_stage1.json"}
    assert str(tmp_path) not in card
    with pytest.raises(InputError, match="exists already"):
        run(export.main, *words, "--out", out)
    with pytest.raises(InputError, match="measured another quantiser"):
        words = ("--rvq", out, "--metrics", tmp_path / "metrics", "--out", tmp_path / "other")
        run(export.main, *words)


def test_numbers_of_the_training_speech_stay_out_of_the_card(trained, embeddings, tmp_path):
    words = ("--rvq", trained, "--embeddings", embeddings, "--device", "cpu")
    run(evaluate.main, *words, "--out", tmp_path / "metrics")
    words = ("--rvq", trained, "--metrics", tmp_path / "metrics", "--out", tmp_path / "repository")
    with pytest.raises(InputError, match="measured on the embeddings --rvq was trained on"):
        run(export.main, *words)


def test_averaged_weights_only_if_better(trained, embeddings, monkeypatch, capsys):
    rvq = load_rvq(str(trained), device=CPU)
    dev = EmbeddingFolder(embeddings)
    checkpoints = checkpoint.list_checkpoints(trained)
    assert len(checkpoints) == 2
    for averaged_error, is_kept in ((0.1, True), (0.3, False), (0.2, False)):
        monkeypatch.setattr(
            export,
            "measure_on_dev",
            lambda model, _, e=averaged_error: DevMetrics(0.2 if model is rvq else e, 1.0),
        )
        assert (export.average_if_better(rvq, checkpoints, dev) is not None) == is_kept
        assert ("not an average" in capsys.readouterr().err) != is_kept
    monkeypatch.undo()
    averaged = export.average_checkpoints(rvq.config, checkpoints)
    weights = []
    for path in checkpoints:
        model = SpeechRVQ(rvq.config)
        checkpoint.load_weights(model, path / "model.safetensors")
        weights.append(model.project_in.weight.data)
    torch.testing.assert_close(averaged.project_in.weight.data, sum(weights) / 2)


def test_push_uploads_what_was_written(trained, tmp_path, monkeypatch):
    out = tmp_path / "repository"
    words = ("--rvq", trained, "--out", out, "--push", "ama/twi-codes")
    with pytest.raises(InputError, match=r"is written, not pushed: .*offline"):
        run(export.main, *words)
    assert 'load_rvq("ama/twi-codes"' in (out / "README.md").read_text(encoding="utf-8")
    uploads = []
    monkeypatch.setattr(
        HfApi, "create_repo", lambda self, name, exist_ok: type("Url", (), {"repo_id": name})
    )
    monkeypatch.setattr(
        HfApi, "upload_folder", lambda self, **words: uploads.append(words) or "url"
    )
    assert export.push(out, "ama/twi-codes") == "url"
    assert uploads == [{"repo_id": "ama/twi-codes", "folder_path": out}]


def test_the_usage_example_runs(tiny_models, tmp_path, monkeypatch, capsys):
    """The card's code as it stands, with names that exist here."""
    make_rvq(draw_frames(dim=64)).save_pretrained(tmp_path / "rvq")
    out = tmp_path / "repository"
    run(export.main, "--rvq", tmp_path / "rvq", "--out", out)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.count("not recorded") == 7 + 3  # in the tables of the training and of the data
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = code.replace("google/gemma-4-E4B-it", str(tiny_models / "gemma"))
    code = code.replace("path/to/this/folder", str(out))
    seconds = np.arange(24_000) / 24_000
    soundfile.write(tmp_path / "question.wav", 0.3 * np.sin(2 * np.pi * 220 * seconds), 24_000)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "example.py"))
    assert capsys.readouterr().out == "torch.Size([25, 3])\n"
    assert names["decoded_TD"].shape == (25, 64)
    for unwanted in ("exec", "torch.load", "rand", "trust_remote_code"):
        assert unwanted not in code


SNIPPET = """
exec(open(hf_hub_download("REPO_ID", "rvq_wrapper.py")).read())
cfg = json.load(open(hf_hub_download("REPO_ID", "config_stage1.json")))
rvq = RVQWrapper(cfg["rvq_dim"], cfg["rvq_num_quantizers"], cfg["rvq_codebook_size"])
ckpt = torch.load(hf_hub_download("REPO_ID", "rvq_averaged.pt"), map_location="cpu")
rvq.load_state_dict(ckpt["rvq"])
rvq.eval()
with torch.no_grad():
    decoded, indices, _ = rvq(hs)
"""


def test_the_published_cards_way_of_loading_works(frames_ND, tmp_path, monkeypatch):
    """The calls of the card of ik/speechless-twi-stage1-rvq-gemma4, in its order. Frames come from
    a hook on `output_proj` there."""
    make_rvq(frames_ND).save_pretrained(tmp_path / "rvq")
    out = tmp_path / "repository"
    run(export.main, "--rvq", tmp_path / "rvq", "--out", out)
    original = load_rvq(str(tmp_path / "rvq"), device=CPU)
    published = load_rvq(str(find_published(out)), device=CPU)
    names = {"json": json, "torch": torch, "hf_hub_download": lambda _, name: out / name}
    names["hs"] = frames_ND.view(2, -1, frames_ND.shape[1])
    exec(SNIPPET, names)
    codes_BTK = names["indices"].mT
    assert codes_BTK.dtype == torch.int64 and names["indices"].shape == (2, 3, 400)
    assert torch.equal(codes_BTK, original.encode(names["hs"]))
    assert torch.equal(names["decoded"], published.decode(codes_BTK))
    # The scale of the last norm is folded into the maps, so the last bits differ here.
    torch.testing.assert_close(names["decoded"], original.decode(codes_BTK), rtol=1e-5, atol=1e-5)
    with pytest.raises(RuntimeError, match=r"call \.eval\(\) first"):
        names["rvq"].train()(names["hs"])


def test_the_wrapper_needs_nothing_of_this_project(frames_ND, tmp_path, monkeypatch):
    """The card's second example."""
    make_rvq(frames_ND).save_pretrained(tmp_path / "rvq")
    out = tmp_path / "repository"
    run(export.main, "--rvq", tmp_path / "rvq", "--out", out)
    wrapper = (out / "rvq_wrapper.py").read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:from|import) (\w+)", wrapper, re.MULTILINE))
    assert imported == {"json", "pathlib", "torch", "vector_quantize_pytorch"}
    card = (out / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[1]
    torch.save(frames_ND[None], tmp_path / "frames.pt")
    code = code.replace("path/to/this/folder", str(out))
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    names = runpy.run_path("example.py")
    assert sys.modules.pop("rvq_wrapper").__file__ == str(out / "rvq_wrapper.py")
    codes_1KN, decoded_1ND = names["codes_BKT"], names["decoded_BTD"]
    coarse_1ND = names["rvq"].decode(codes_1KN[:, :1])
    rvq = load_rvq(str(out / "rvq_best.pt"), device=CPU)
    assert torch.equal(codes_1KN[0].T, rvq.encode(frames_ND))
    assert torch.equal(decoded_1ND[0], rvq.decode(codes_1KN[0].T))
    assert torch.equal(coarse_1ND[0], rvq.decode(codes_1KN[0, :1].T))


def test_codes_travel_along(trained, embeddings, held_out, tmp_path):
    for name, source in (("train", embeddings), ("test", held_out)):
        words = ("--rvq", trained, "--embeddings", source, "--device", "cpu", "--jsonl")
        run(tokenize_corpus.main, *words, "--out", tmp_path / name)
    words = ("--rvq", trained, "--out", tmp_path / "repository", "--codes", tmp_path / "test")
    with pytest.raises(InputError, match=r"'u0' is in another folder too"):
        run(export.main, *words, "--codes", tmp_path / "train")
    assert not (tmp_path / "repository").exists()
    run(export.main, *words, "--train-codes", tmp_path / "train")
    card = (tmp_path / "repository" / "README.md").read_text(encoding="utf-8")
    for name, suffix in (("train", "_train"), ("test", "")):
        written = tmp_path / "repository" / f"twi_semantic_tokens{suffix}.jsonl"
        assert written.read_text() == (tmp_path / name / "twi_semantic_tokens.jsonl").read_text()
        assert f"| `{written.name}` |" in card


def test_foreign_codes_are_refused(trained, embeddings, tmp_path):
    rvq = load_rvq(str(trained), device=CPU)
    rvq.quantizer.layers[0]._codebook.embed.neg_()
    rvq.save_pretrained(tmp_path / "rvq")
    words = ("--embeddings", embeddings, "--device", "cpu", "--out", tmp_path / "codes")
    run(tokenize_corpus.main, *words, "--rvq", tmp_path / "rvq")
    words = ("--codes", tmp_path / "codes", "--out", tmp_path / "repository")
    with pytest.raises(InputError, match=r"another quantiser than --codes"):
        run(export.main, "--rvq", trained, *words)
