"""Models of others: refused in one line where a folder of theirs is damaged, hostile or absurd, and
no code of it runs."""

import contextlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from commands.checkpoint import list_checkpoints, resume_from_latest, save_checkpoint
from commands.errors import InputError
from gemma4.chat_template import refuse_unusable_template, render_chat
from gemma4.gemma import load_audio_encoder, load_gemma, load_tokenizer
from speech_head.mimi import load_mimi
from stage1_rvq.config import RVQConfig
from stage1_rvq.model import SpeechRVQ, load_rvq

CPU = torch.device("cpu")
USES = [{"role": "user", "content": "Maakye."}]


@pytest.fixture
def gemma(tiny_models, tmp_path):
    """A copy of the tiny Gemma, to be damaged."""
    return shutil.copytree(tiny_models / "gemma", tmp_path / "gemma")


def change(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def put_nan(folder, part):
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(tensors) if part in name)
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "over"),
        ("{{ 9 ** (9 ** 9) }}", "over"),
        ("{{ 'a' * 10 ** 12 }}", "too much memory"),
        ("{{ raise_exception('not for you') }}", "not for you"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "does not end a turn"),
        ("{{ messages | length }}<turn|><|audio|>", "renders a turn differently once"),
        ("{% for m in messages %}<turn|>{% endfor %}", "writes 0 <.audio.> for one recording"),
        ("{{ 'a' * 10 ** 7 }}", "characters for a short dialogue"),
    ],
)
def test_a_template_that_misbehaves_is_refused(tiny_models, monkeypatch, template, message):
    monkeypatch.setattr("gemma4.chat_template.TRIAL_S", 1.0)
    tokenizer = AutoTokenizer.from_pretrained(tiny_models / "gemma")
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=f"--gemma x: its chat template .*: .*{message}"):
        refuse_unusable_template(tokenizer, flag="--gemma", name="x")


def test_a_template_that_fails_later_is_one_line(tiny_models):
    tokenizer = load_tokenizer(str(tiny_models / "gemma"))
    assert "Maakye." in render_chat(USES, tokenizer, asks=True)
    tokenizer.chat_template = "{{ messages[7].content.x }}"
    with pytest.raises(InputError, match="the chat template fails at this dialogue"):
        render_chat(USES, tokenizer, asks=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "is of kind 'llama', expected gemma4"),
        ({"model_type": "gemma4_text"}, "is of kind 'gemma4_text', expected gemma4 or gemma4_unif"),
        ({"text_config": {"num_hidden_layers": 10**6}}, "claims num_hidden_layers = 1000000"),
        ({"text_config": {}}, "config.json describes .* million weights"),
        ({"audio_config": "x"}, "cannot be loaded"),
        ({"attn_implementation": "some/kernel"}, "an attention that is downloaded"),
    ],
)
def test_a_config_that_cannot_be_is_refused_before_memory_is_taken(gemma, changes, message):
    change(gemma / "config.json", **changes)
    with pytest.raises(InputError, match=message):
        load_gemma(str(gemma), device=CPU, dtype=torch.float32)


def test_spoilt_weights_are_refused_and_infinite_limits_are_not(gemma, tiny_models, tmp_path):
    encoder = load_audio_encoder(str(gemma), device=CPU, dtype=torch.float32)
    limits = [b for name, b in encoder.tower.named_buffers() if name.endswith(("_min", "_max"))]
    assert any(limit.isinf().any() for limit in limits)
    put_nan(gemma, "audio_tower.layers.0")
    with pytest.raises(InputError, match=r"layers\.0.* holds NaN"):
        load_audio_encoder(str(gemma), device=CPU, dtype=torch.float32)
    with pytest.raises(InputError, match="holds NaN"):
        load_gemma(str(gemma), device=CPU, dtype=torch.bfloat16)
    mimi = shutil.copytree(tiny_models / "mimi", tmp_path / "mimi")
    put_nan(mimi, "codebook.embed_sum")
    with pytest.raises(InputError, match=r"--mimi .*embed_sum holds NaN"):
        load_mimi(mimi)
    SpeechRVQ(RVQConfig(dim=8, num_codebooks=2, codebook_size=4)).save_pretrained(tmp_path / "rvq")
    put_nan(tmp_path / "rvq", "_codebook.embed")  # a buffer
    with pytest.raises(InputError, match="holds NaN"):
        load_rvq(str(tmp_path / "rvq"), device=CPU)


def test_another_front_end_and_another_tokenizer_are_refused(gemma):
    change(gemma / "preprocessor_config.json", feature_size=80)
    with pytest.raises(InputError, match="feature_size = 80, Gemma 4 128"):
        load_audio_encoder(str(gemma), device=CPU, dtype=torch.float32)
    change(gemma / "config.json", audio_token_id=3)
    with pytest.raises(InputError, match=r"model and tokenizer differ in what <.audio.> is"):
        load_gemma(str(gemma), device=CPU, dtype=torch.float32)
    (gemma / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds an adapter, not a model"):
        load_gemma(str(gemma), device=CPU, dtype=torch.float32)


def test_code_of_a_folder_does_not_run_even_where_a_y_is_typed(gemma, tmp_path, monkeypatch):
    (gemma / "hostile.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    maps = dict.fromkeys(("AutoConfig", "AutoModel", "AutoFeatureExtractor"), "hostile.X")
    change(gemma / "config.json", auto_map=maps)
    change(gemma / "tokenizer_config.json", auto_map={"AutoTokenizer": ["hostile.X", None]},
           tokenizer_class="X")  # fmt: skip
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    with contextlib.suppress(InputError):  # loaded or refused: either is right
        load_gemma(str(gemma), device=CPU, dtype=torch.float32)
    assert not asked and not (tmp_path / "ran").exists()


def test_a_pickle_is_no_checkpoint(gemma):
    weights = load_file(gemma / "model.safetensors")
    torch.save(weights, gemma / "pytorch_model.bin")
    (gemma / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"--gemma .*cannot be loaded: .*safetensors"):
        load_gemma(str(gemma), device=CPU, dtype=torch.float32)


@pytest.mark.parametrize("file", ["trainer.pt", "model.safetensors", "step.json"])
def test_a_damaged_checkpoint_says_what_to_delete(tmp_path, file):
    def state():
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)

    for step in (1, 2):
        save_checkpoint(tmp_path, step, *state())
    older, newest = list_checkpoints(tmp_path)
    (newest / file).write_bytes((newest / file).read_bytes()[:-40])
    with pytest.raises(InputError, match=rf"{file}.*delete .*step_000002 and --resume goes on"):
        resume_from_latest(tmp_path, *state())
    shutil.rmtree(newest)
    assert resume_from_latest(tmp_path, *state()) == 1
    change(older / "step.json", step=7)
    with pytest.raises(InputError, match="says step 7"):
        resume_from_latest(tmp_path, *state())


def test_settings_of_generation_that_cannot_be_read_are_not_passed_over(gemma):
    (gemma / "generation_config.json").write_text('{"eos_token_id": ', encoding="utf-8")
    with pytest.raises(InputError, match=r"generation_config\.json: not valid JSON"):
        load_gemma(str(gemma), device=CPU, dtype=torch.float32)
