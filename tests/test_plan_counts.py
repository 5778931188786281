"""What the plan counts is what torch counts and what is written: operations, memory, bytes."""

import math
import weakref
from collections import Counter

import pytest
import torch
from embedding_folder import write_embeddings
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import Gemma4AudioConfig

from commands.checkpoint import save_checkpoint
from data_manifests.manifest import Utterance
from gemma4.memory_plan import bytes_kept
from gemma4.true_shapes import tiny_config
from pipeline import flops, plan_sizes
from pipeline.plan_models import META, build_decoder, build_tower, count_parameters, first_layers
from pipeline.recipe import Speech
from speech_head.answer import AnswerTokens
from speech_head.config import SpeechHeadConfig
from speech_head.head_batch import HeadBatch
from speech_head.mimi import tiny_mimi
from speech_head.model import SpeechHead
from speech_head.states_shards import StatesRow, write_shard
from stage1_rvq import codebooks
from stage1_rvq.codes import CodedUtterance, code_format, write_codes
from stage1_rvq.config import RVQConfig
from stage1_rvq.model import SpeechRVQ
from stage1_rvq.recognizer import CTCRecognizer, RecognizerConfig
from stage2_speechless.config import SpeechlessConfig
from stage2_speechless.model import Speechless
from stage2_speechless.muon import make_optimizer, orthogonalize

TINY = {"width": 64, "num_layers": 2, "num_heads": 4}
DEPTH = {"depth_width": 32, "depth_layers": 2, "depth_heads": 4}


def counted(call):
    """Operations that torch counts; of attention it counts only the plain kernel's on a CPU."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return counter.get_total_flops()


def tiny_speechless():
    return Speechless(SpeechlessConfig(codebook_size=64, **TINY, **DEPTH, dropout=0.0))


def speechless_batch(model, rows, prefix, frames):
    size = (rows, prefix + frames, model.config.num_codebooks)
    targets = torch.full(size, -100)
    targets[:, prefix - 1 : -1] = 0
    targets[:, -1, 0] = model.end_of_speech
    positions = torch.arange(size[1]).float().expand(rows, -1)
    return torch.ones(size, dtype=torch.long), positions, targets


@pytest.mark.parametrize("config", [tiny_config().audio_config, Gemma4AudioConfig()])
def test_operations_of_the_tower(config):
    with META:
        tower = build_tower(config)
    features, mask = (torch.zeros(2, 600, 128), torch.ones(2, 600, dtype=torch.bool))
    found = counted(lambda: tower(features.to(META), mask.to(META)))
    found -= 2 * 300 * config.hidden_size * config.output_proj_dims  # after what we take
    assert flops.tower(config, 300) == pytest.approx(found, rel=0.01)


def test_operations_of_gemma_forward_and_with_frozen_weights():
    config = tiny_config().text_config
    with META:
        decoder = build_decoder(config).requires_grad_(False)
    mask = torch.ones(3, 1, 50, 50, dtype=torch.bool, device=META)
    inputs = torch.zeros(3, 50, config.hidden_size, device=META, requires_grad=True)
    per_layer = torch.zeros(
        3, 50, config.num_hidden_layers, config.hidden_size_per_layer_input, device=META
    )

    def run():
        masks = dict.fromkeys(set(config.layer_types), mask)
        return decoder(
            inputs_embeds=inputs, per_layer_inputs=per_layer, attention_mask=masks, use_cache=False
        ).last_hidden_state

    forward = flops.gemma(config, flops.matrices_of(decoder), 3, 50, written=0)
    assert forward == pytest.approx(counted(run), rel=0.05)
    both = counted(lambda: run().sum().backward())
    # Attention has two gradients to compute for each product, and is a third here.
    assert flops.FROZEN * forward == pytest.approx(both, rel=0.25)
    head = flops.gemma(config, flops.matrices_of(decoder), 3, 50, written=2) - forward
    assert head == 2 * 3 * 2 * config.vocab_size * config.hidden_size


def test_a_few_layers_stand_for_all():
    config = tiny_config().text_config
    with META:
        few, whole = build_decoder(first_layers(config, 2)), build_decoder(config)
    assert len(few.layers) == 2 and count_parameters(few) < count_parameters(whole)


def test_operations_of_a_training_step_of_speechless():
    model = tiny_speechless()
    batch = speechless_batch(model, 3, 20, 30)
    found = counted(lambda: model(*batch, depth_fraction=0.5).total.backward())
    forward = flops.speechless(model, 3, 20, 30, depth_fraction=0.5)
    assert flops.TRAINING * forward == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize("reads", ["gate", "states", "embedding"])
def test_operations_of_a_training_step_of_the_head(reads):
    config = SpeechHeadConfig(
        state_width=48, layers=[-2, -1], codebook_size=64, **TINY, **DEPTH, reads=reads, dropout=0.0
    )
    model = SpeechHead(config)
    batch = HeadBatch(
        torch.randn(3, 12, 2, 48), torch.randn(3, 12, 48), torch.ones(3, 12, dtype=torch.bool),
        torch.zeros(3, 20, 8, dtype=torch.long), torch.arange(21).clamp(max=11).expand(3, -1),
        torch.ones(3, 20, dtype=torch.bool),
    )  # fmt: skip
    found = counted(lambda: model(batch, torch.ones(8)).total.backward())
    ours = flops.TRAINING * flops.speech_head(model, 3, 12, 20)
    assert ours == pytest.approx(found, rel=0.07)


def test_operations_of_the_recognizer():
    model = CTCRecognizer(RecognizerConfig(dim=32, num_units=16, width=24))
    frames, lengths = torch.randn(2, 10, 32), torch.full((2,), 10)
    with torch.backends.mkldnn.flags(enabled=False):  # whose LSTM is not counted
        found = counted(lambda: model(frames, lengths).sum().backward())
    ours = flops.TRAINING * 2 * flops.matrices_of(model) * 20
    assert ours == pytest.approx(found, rel=0.1)


def test_operations_of_the_quantizer(monkeypatch):
    dim, number, size, frames = 32, 4, 16, 600
    shape = (dim, number, size)
    config = RVQConfig(dim=dim, num_codebooks=number, codebook_size=size)
    x = torch.randn(frames, dim)
    # oneDNN's product is not counted.
    monkeypatch.setattr(codebooks, "linear", F.linear)
    rvq = SpeechRVQ(config).eval()
    assert flops.rvq_encoding(*shape, frames) == counted(lambda: rvq.encode(x))
    fit = counted(
        lambda: codebooks.fit_codebooks(x, number, size, torch.Generator().manual_seed(0))
    )
    assert flops.kmeans(*shape, frames) == pytest.approx(fit, rel=0.1)
    for layer in rvq.quantizer.layers:
        layer._codebook.embed.normal_()
    rvq.quantizer.quantize_dropout = False
    rvq.train()
    with torch.no_grad():
        found = counted(lambda: rvq(x))
    assert flops.rvq_training(*shape, frames, learns=False) == pytest.approx(found, rel=0.1)


def test_operations_of_muon_and_mimi():
    assert flops.muon([(48, 16)]) == counted(lambda: orthogonalize(torch.randn(1, 48, 16)))
    model = tiny_mimi()
    with torch.no_grad():
        encodes = counted(lambda: model.encode(torch.zeros(1, 1, 240_000), num_quantizers=8))
        decodes = counted(lambda: model.decode(torch.zeros(1, 8, 125, dtype=torch.long)))
    # Its attention is not counted: a tenth of so narrow a model, 2 % of the published one.
    assert flops.mimi(model, 10) == pytest.approx(encodes, rel=0.12)
    assert flops.mimi(model, 10, decodes=True) == pytest.approx(decodes, rel=0.12)


class Live(TorchDispatchMode):
    """Bytes of the tensors that are alive at a time, at most; on the meta device, too."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.holders = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = (storage._cdata, storage.nbytes())
                self.now += 0 if self.holders[key] else storage.nbytes()
                self.most = max(self.most, self.now)
                self.holders[key] += 1
                weakref.finalize(tensor, self.release, key)
        return out

    def release(self, key):
        self.holders[key] -= 1
        self.now -= 0 if self.holders[key] else key[1]


def test_memory_of_the_tower():
    config = Gemma4AudioConfig()
    with META:
        tower = build_tower(config)
    features = torch.zeros(8, 600, 128, device=META)
    mask = torch.ones(8, 600, dtype=torch.bool, device=META)
    with torch.no_grad(), Live() as live:
        tower(features, mask)
    planned = plan_sizes.tower_activations(8, 6.0, 4)
    assert live.most / 1.5 < planned < 1.5 * live.most


def test_memory_that_a_transformer_keeps_is_that_of_real_tensors():
    model = tiny_speechless()
    inputs, mask = torch.randn(2, 30, 64), torch.ones(2, 1, 30, 30, dtype=torch.bool)
    real = bytes_kept(
        model.temporal,
        lambda: model.temporal(
            inputs_embeds=inputs, attention_mask=mask, position_ids=torch.zeros(2, 30),
            use_cache=False,
        ),
    )  # fmt: skip
    with META:
        meta = tiny_speechless()
    ours = plan_sizes.transformer_activations(meta.temporal, 2, 30)
    assert ours == pytest.approx(real, rel=0.2)


def test_disk_of_a_training(tmp_path):
    model = tiny_speechless()
    optimizer = make_optimizer(model, "muon", learning_rate=1e-3)
    model(*speechless_batch(model, 2, 8, 10)).total.backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, model, optimizer, schedule)
    model.save_pretrained(tmp_path / "model")
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    number = count_parameters(model)
    saved = {"steps": 3, "save_every": 1}
    state = plan_sizes.muon_bytes(model)
    assert plan_sizes.run_bytes(number, state, saved) == pytest.approx(written, rel=0.05)


def test_disk_of_embeddings(tmp_path):
    folder = write_embeddings(tmp_path, torch.randn(1200, 1024))
    written = sum(path.stat().st_size for path in folder.glob("shard_*"))
    speech = Speech(hours=1200 / 25 / 3600, seconds_an_utterance=1.6)
    ours = plan_sizes.embeddings_bytes(speech, speech.hours, dim=1024)
    assert ours == pytest.approx(written, rel=0.01)


@pytest.mark.parametrize("codebook_size", [2048, 256])
def test_disk_of_codes(tmp_path, codebook_size):
    config = RVQConfig(codebook_size=codebook_size)
    text = "me din de ama na mefiri kumase"
    rows = [
        CodedUtterance(f"u{i}", text, "s", "asante", torch.randint(codebook_size, (150, 8)))
        for i in range(256)
    ]
    path = tmp_path / "codes.parquet"
    write_codes(path, rows, code_format(config))
    ours = plan_sizes.codes_bytes(256 * 150, 8, codebook_size)
    assert ours == pytest.approx(path.stat().st_size, rel=0.15)


def test_disk_of_states(tmp_path):
    seconds, tokens = 6.0, 40
    utterance = Utterance(
        id="a-1", audio="a.wav", text="me din de ama " * 6, duration_s=seconds, speaker="s",
        dialect="asante", corpus="c", split="train", license="CC0-1.0",
    )  # fmt: skip
    answer = AnswerTokens(
        torch.arange(tokens), torch.randn(tokens, 6, 256), torch.randn(tokens, 256)
    )
    frames = math.ceil(seconds * 12.5)
    row = StatesRow(
        utterance, answer, torch.zeros(frames, 8, dtype=torch.long),
        torch.zeros(frames + 1, dtype=torch.long),
    )  # fmt: skip
    write_shard(tmp_path / "shard_00000.jsonl", 0, [row] * 64)
    written = sum(path.stat().st_size for path in tmp_path.glob("shard_*"))
    speech = Speech(hours=64 * seconds / 3600, seconds_an_utterance=seconds)
    ours = plan_sizes.states_bytes(
        speech, speech.hours, tokens=64 * tokens, layers=6, width=256, codebooks=8
    )
    assert ours == pytest.approx(written, rel=0.02)
