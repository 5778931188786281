"""A Gemma that others have fine-tuned: preflight says whether it hears as its base does."""

import contextlib
import io
import json
import re
import shutil

import pytest
import torch
from head_world import CPU
from peft import LoraConfig, get_peft_model

from commands.errors import InputError
from data_manifests.manifest import read_manifest
from gemma4.gemma import load_audio_encoder, load_gemma
from pipeline import preflight
from pipeline.preflight_base import base_checks
from pipeline.preflight_checks import load_sounds
from stage1_rvq.config import RVQConfig
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import SpeechRVQ

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def base(head_world):
    return head_world / "gemma"


@pytest.fixture(scope="module")
def recording(head_world):
    return next(iter(read_manifest(head_world / "train.jsonl"))).audio


@pytest.fixture(scope="module")
def rvq(base, head_world, tmp_path_factory):
    """Fitted to the base's embeddings."""
    folder = tmp_path_factory.mktemp("rvq")
    encoder = load_audio_encoder(str(base), device=DEVICE, dtype=torch.float32)
    utterances = read_manifest(head_world / "train.jsonl")
    frames_ND = torch.cat(encoder.encode([load_sounds(u.audio).gemma_N for u in utterances]))
    config = RVQConfig(dim=64, num_codebooks=4, codebook_size=8, tower=encoder.origin.tower)
    quantiser = SpeechRVQ(config)
    metric = FrameMetric(encoder.frame_scale_D, encoder.output_proj_PD)
    quantiser.init_codebooks(frames_ND, metric)
    quantiser.save_pretrained(folder)
    return folder


def derive(base, out, change):
    """A copy of a Gemma with other weights."""
    shutil.copytree(base, out)
    model, _ = load_gemma(str(base), device=DEVICE, dtype=torch.float32)
    with torch.no_grad():
        model = change(model) or model
    model.save_pretrained(out)
    return out


def change_decoder(model):
    for weight in model.model.language_model.layers[0].parameters():
        weight.mul_(1.1)


def change_tower(model):
    """One matrix below the last layer, slightly."""
    weight = dict(model.model.audio_tower.named_parameters())[
        "layers.0.feed_forward1.ffw_layer_1.linear.weight"
    ]
    torch.manual_seed(0)
    weight.add_(0.3 * weight.std() * torch.randn_like(weight))


def merge_lora(where):
    """A LoRA adapter on some linear layers, merged."""

    def change(model):
        torch.manual_seed(0)
        targets = [
            name for name, module in model.named_modules()
            if where in name and isinstance(module, torch.nn.Linear) and "layers.0." in name
        ]  # fmt: skip
        adapted = get_peft_model(
            model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
        )
        return adapted.merge_and_unload()

    return change


def measure(base, derived, recording, rvq):
    encoder = load_audio_encoder(str(derived), device=DEVICE, dtype=torch.float32)
    sounds = load_sounds(recording)
    words = (str(base), encoder, sounds, str(rvq) if rvq else None)
    [check] = base_checks(*words, device=DEVICE, dtype=torch.float32)
    return check.measure()


@pytest.mark.parametrize(
    "change", [change_decoder, merge_lora("language_model")], ids=["weights", "LoRA"]
)
def test_codes_carry_over_where_only_the_decoder_was_trained(
    base, recording, rvq, tmp_path, change
):
    derived = derive(base, tmp_path / "derived", change)
    first, other = ((folder / "model.safetensors").read_bytes() for folder in (base, derived))
    assert first != other
    said = measure(base, derived, recording, rvq)
    assert re.match(
        r"the same \d\d+ tensors: codes carry over; embeddings differ by 0.0e\+00", said
    )
    assert "100.0% of codes are equal, 100.0% of the coarsest; fingerprint" in said
    assert re.search("fingerprint [0-9a-f]{32}$", said)


@pytest.mark.parametrize("change", [change_tower, merge_lora("audio_tower")], ids=["one", "LoRA"])
def test_how_many_codes_stay_where_the_tower_was_trained(base, recording, rvq, tmp_path, change):
    derived = derive(base, tmp_path / "derived", change)
    with pytest.raises(InputError) as refused:
        measure(base, derived, recording, rvq)
    found = re.fullmatch(
        r"(\d+) of \d+ tensors differ, by (\S+) of their norm, first layers.0.\S+; "
        r"embeddings differ by (\S+), (\S+)% of codes are equal, (\S+)% of the coarsest",
        str(refused.value),
    )
    assert found is not None, refused.value
    num_tensors, by, apart, equal, coarsest = map(float, found.groups())
    assert num_tensors == 1 if change is change_tower else num_tensors > 1
    assert by > 0 and apart > 0 and 0 < equal < 100 and 0 < coarsest <= 100
    with pytest.raises(InputError, match=r"embeddings differ by \S+ \(of a tone: --recording"):
        measure(base, derived, None, None)


def test_another_front_end_is_another_ear(base, recording, rvq, tmp_path):
    derived = tmp_path / "derived"
    shutil.copytree(base, derived)
    path = derived / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mel_floor": 0.1}))
    with pytest.raises(InputError, match=r"the same \d+ tensors, but another front end"):
        measure(base, derived, recording, rvq)


def test_preflight_compares_with_the_base(base, head_world, recording, rvq, tmp_path):
    def check(gemma, *words):
        table = io.StringIO()
        words = ("--gemma", gemma, "--mimi", head_world / "mimi", "--recording", recording, *words)
        with pytest.raises(SystemExit) as stopped, contextlib.redirect_stdout(table):
            preflight.main([str(word) for word in (*words, *CPU)])
        return stopped.value.code, table.getvalue()

    tuned = derive(base, tmp_path / "tuned", change_tower)
    code, table = check(tuned, "--base-gemma", base, "--rvq", rvq)
    assert code == 1 and "FAIL  audio tower is that of --base-gemma" in table
    assert "-> what was made with the base is not for this one: begin at stage1_rvq.embed" in table
    assert "FAIL  towers and codes belong together" in table
    # A quantiser of an older version knows the last layer only; the comparison knows more.
    path = shutil.copytree(rvq, tmp_path / "older") / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"tower": config["tower"][:16]}))
    code, table = check(tuned, "--base-gemma", base, "--rvq", tmp_path / "older")
    assert code == 1 and "FAIL  audio tower is that of --base-gemma" in table
    assert f"of one audio tower, by its last layer for --rvq {tmp_path / 'older'}" in table
    code, table = check(base, "--base-gemma", tmp_path / "nothing")
    assert code == 1 and "--base-gemma" in table and "cannot be loaded" in table
