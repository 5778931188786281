"""Preflight: every line passes on models that fit, and fails where what it is about does."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from head_world import CPU, models

from commands.errors import InputError
from commands.origins import Origin
from pipeline import preflight, preflight_checks, preflight_gemma, preflight_memory
from pipeline.preflight_checks import (
    float32_encoder,
    load_sounds,
    make_sound,
    mimi_checks,
    stage_checks,
)
from pipeline.preflight_gemma import gemma_checks
from pipeline.preflight_memory import memory_check
from speech_head import talker as talker_module
from stage1_rvq.config import RVQConfig
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import SpeechRVQ
from stage3_finetune.dialogue import render_example

SOUNDS = load_sounds(None)


@pytest.fixture(scope="module")
def finetune(head_world, tmp_path_factory):
    """Where an adapter's provenance lies, as stage3_finetune.train writes it."""
    folder = tmp_path_factory.mktemp("finetune")
    conversation = talker_module.load_conversation(
        str(head_world / "gemma"), None, device=torch.device("cpu"), dtype=torch.float32
    )
    example = {"chat_template_example": render_example(conversation.tokenizer)}
    (folder / "provenance.json").write_text(json.dumps(example))
    return folder


def checks_of(talker, head_world, finetune, rvq):
    device, conversation = torch.device("cpu"), talker.conversation
    encoder = float32_encoder(conversation.encoder)
    assert encoder is conversation.encoder
    checks = [
        *gemma_checks(conversation, encoder, SOUNDS), *mimi_checks(talker.mimi, SOUNDS),
        *stage_checks(
            conversation, encoder, talker.mimi, SOUNDS, str(rvq), finetune,
            str(head_world / "head"), device,
        ),
        memory_check(str(head_world / "gemma"), device, torch.float32),
    ]  # fmt: skip
    return {check.name: check for check in checks}


@pytest.fixture(scope="module")
def rvq(talker, tmp_path_factory):
    """Fitted to the sound of the checks."""
    folder = tmp_path_factory.mktemp("rvq")
    encoder = talker.conversation.encoder
    frames_ND = torch.cat(encoder.encode([SOUNDS.gemma_N, make_sound(60_000, 16_000)[30_000:]]))
    quantiser = SpeechRVQ(RVQConfig(dim=64, num_codebooks=2, codebook_size=4))
    metric = FrameMetric(encoder.frame_scale_D, encoder.output_proj_PD)
    quantiser.init_codebooks(frames_ND, metric)
    quantiser.save_pretrained(folder)
    return folder


def wrong_sum(encode):
    """An encoder whose frames depend on how many recordings it is given."""
    return lambda sounds: [frames_TD * (1 + 0.01 * len(sounds)) for frames_TD in encode(sounds)]


def another_tower(encode, from_clips=1):
    """An encoder with its dimensions in another order where it is given so many recordings."""

    def shuffled(sounds):
        turn = 7 if len(sounds) >= from_clips else 0
        return [frames_TD.roll(turn, dims=1) for frames_TD in encode(sounds)]

    return shuffled


def spoilt_backward(forward):
    """As cuDNN's attention does on H100: the loss is sound, its gradient is not."""

    def run(**inputs):
        output = forward(**inputs)
        output.loss.register_hook(lambda gradient: gradient * torch.nan)
        return output

    return run


BREAKS = {
    "every tensor of Gemma has its place": lambda patch, talker: patch.setattr(
        talker.conversation.model, "left_over_tensors", ["a.weight"]
    ),
    "configuration is the one relied on": lambda patch, talker: patch.setattr(
        talker.conversation.encoder.extractor, "hop_length", 200
    ),
    "audio embeddings are as many as slots": lambda patch, talker: patch.setattr(
        preflight_gemma, "count_audio_tokens", lambda num_samples: num_samples // 640
    ),
    "a batch gives what single clips give": lambda patch, talker: patch.setattr(
        talker.conversation.encoder, "encode", wrong_sum(talker.conversation.encoder.encode)
    ),
    "long speech in pieces = at once": lambda patch, talker: patch.setattr(
        talker.conversation.encoder, "encode",
        lambda sounds: talker.conversation.encoder.encode_at_once([0.5 * sounds[0]]),
    ),
    "embeddings have unit size after the norm": lambda patch, talker: patch.setattr(
        talker.conversation.encoder, "frame_scale_D",
        1.1 * talker.conversation.encoder.frame_scale_D,
    ),
    "injected speech = real speech": lambda patch, talker: patch.setattr(
        talker.conversation.encoder, "encode",
        lambda sounds: talker.conversation.encoder.encode_at_once([s[::-1].copy() for s in sounds]),
    ),
    "chat template closes its turns": lambda patch, talker: patch.setattr(
        preflight_gemma, "stop_ids", lambda tokenizer, model: [tokenizer.eos_token_id]
    ),
    "states while writing = afterwards": lambda patch, talker: patch.setattr(
        preflight_gemma, "answer_states", changed_states(lambda states: states + 1)
    ),
    "layers that the head reads": lambda patch, talker: patch.setattr(
        preflight_gemma, "answer_states", changed_states(lambda states: states * torch.nan)
    ),
    "Mimi's rates": lambda patch, talker: patch.setattr(talker.mimi, "frame_rate_hz", 25.0),
    "Mimi as a stream = Mimi at once": lambda patch, talker: patch.setattr(
        preflight_checks.MimiStreamDecoder, "decode", lambda self, codes: torch.zeros(1920)
    ),
    "RVQ fits Gemma": lambda patch, talker: patch.setattr(talker.conversation.encoder, "dim", 96),
    "a padded batch has finite gradients": lambda patch, talker: patch.setattr(
        talker.conversation.model, "forward", spoilt_backward(talker.conversation.model.forward)
    ),
    "RVQ reconstructs this Gemma's embeddings": lambda patch, talker: patch.setattr(
        talker.conversation.encoder, "encode", another_tower(talker.conversation.encoder.encode)
    ),
    "codes of a batch = of single clips": lambda patch, talker: patch.setattr(
        talker.conversation.encoder, "encode",
        another_tower(talker.conversation.encoder.encode, from_clips=2),
    ),
    "chat template of the adapter": lambda patch, talker: patch.setattr(
        preflight_checks, "render_example", lambda tokenizer: "<start_of_turn>user"
    ),
    "speech head fits Gemma and Mimi": lambda patch, talker: patch.setattr(
        talker.conversation.model.config.text_config, "hidden_size", 48
    ),
    "towers and codes belong together": lambda patch, talker: patch.setattr(
        talker.conversation, "origins", {"--gemma other": Origin("0" * 16)}
    ),
    "memory to fine-tune, with the defaults": lambda patch, talker: patch.setattr(
        preflight_memory, "memory_there", lambda device: 1000
    ),
}  # fmt: skip


def changed_states(change):
    known = preflight_gemma.answer_states

    def states(model, texts):
        return [replace(t, states_SLD=change(t.states_SLD)) for t in known(model, texts)]

    return states


def test_every_check_passes_on_models_that_fit(talker, head_world, finetune, rvq):
    checks = checks_of(talker, head_world, finetune, rvq)
    assert checks.keys() == BREAKS.keys()
    for check in checks.values():
        assert check.measure() and check.remedy


@pytest.mark.parametrize("name", BREAKS)
def test_every_check_fails_where_it_should(name, talker, head_world, finetune, rvq, monkeypatch):
    BREAKS[name](monkeypatch, talker)
    check = checks_of(talker, head_world, finetune, rvq)[name]
    with pytest.raises(InputError):
        check.measure()


def printed(*words):
    """Exit code and output of the command."""
    table = io.StringIO()
    with pytest.raises(SystemExit) as stopped, contextlib.redirect_stdout(table):
        preflight.main([str(word) for word in words])
    return stopped.value.code, table.getvalue()


def test_the_command_prints_a_line_for_each_and_what_to_do(head_world, tmp_path):
    recording = next(
        Path(json.loads(line)["audio"]) for line in (head_world / "train.jsonl").open()
    )
    words = models(head_world)
    code, table = printed(*words, "--recording", recording)
    assert code == 0 and "16 of 16 checks passed" in table and "FAIL" not in table
    head = talker_module.load_head(str(head_world / "head"), device=torch.device("cpu"))
    wider = type(head.config)(**{**vars(head.config), "state_width": 48})
    type(head)(wider).save_pretrained(tmp_path / "wider")
    code, table = printed(*words, "--head", tmp_path / "wider")
    assert code == 1 and "FAIL  speech head fits" in table and "15 of 16" in table
    assert "\n      -> name the checkpoint it was trained on" in table
    code, table = printed("--gemma", tmp_path / "nothing", *CPU)
    assert code == 1 and "cannot be loaded" in table


def test_a_recording_is_heard_for_ten_seconds(tmp_path):

    soundfile.write(tmp_path / "long.wav", np.full(12 * 24_000, 0.1, np.float32), 24_000)
    sounds = load_sounds(tmp_path / "long.wav")
    assert (len(sounds.gemma_N), len(sounds.mimi_N)) == (160_000, 240_000)


def test_a_gemma_without_a_tower_is_checked_as_far_as_it_goes(head_world, tiny_models, rvq):
    words = ("--gemma", tiny_models / "gemma-unified", "--mimi", head_world / "mimi")
    words += ("--num-codebooks", 4, *CPU)
    code, table = printed(*words)
    assert code == 0 and "12 of 12 checks passed" in table
    assert "patches of 640 samples, decoder" in table and "in pieces" not in table
    for flag, value in (("--rvq", rvq), ("--base-gemma", head_world / "gemma")):
        code, table = printed(*words, flag, value)
        assert code == 1 and "without an audio tower (12B): " in table and flag in table
