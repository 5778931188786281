"""Prove on your own checkpoints what this project could only test on models of the same classes.

    python -m speech_head.preflight --gemma google/gemma-4-E4B-it --mimi kyutai/mimi \
        --rvq runs/rvq --finetune runs/finetune --head runs/head

One line per check, with the figure measured; exit code 1 where a line fails.
"""

# N samples, T frames (25 per second), D embedding width, S text positions

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, MIMI_SAMPLE_RATE_HZ
from data_manifests.config import InputError, parse_config, run_command
from speech_head.answer import LAYERS, answer_states, stream_answer, tokenize_spoken_text
from speech_head.generate import refuse_misfit
from speech_head.mimi import Mimi, MimiStreamDecoder, load_mimi
from speech_head.model import load_head
from stage1_rvq.device import DtypeName, pick_device, pick_dtype
from stage1_rvq.gemma import count_audio_tokens
from stage1_rvq.model import load_rvq
from stage3_finetune.chat import Conversation, load_conversation
from stage3_finetune.dialogue import Turn, encode_prompt
from stage3_finetune.generate import prompt_inputs, stop_ids

LENGTHS = (161, 640, 641, 1000, 16_000, 16_160, 20_000, 50_001, 160_000, 480_000)
NUM_TOKENS = 8  # answer tokens compared
# Largest difference allowed, relative to the largest value; bfloat16 keeps 8 bits.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


@dataclass(frozen=True, kw_only=True)
class PreflightConfig:
    """Check Gemma, Mimi and your trained stages against each other before you rely on them."""

    gemma: str = "google/gemma-4-E4B-it"
    """hub name or folder of Gemma 4"""
    mimi: str = "kyutai/mimi"
    """hub name or folder of Mimi"""
    num_codebooks: int = 8
    """Mimi codebooks to use"""
    rvq: str | None = None
    """quantiser of stage 1"""
    finetune: Path | None = None
    """adapter of stage 3"""
    head: str | None = None
    """speech head of stage 4"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    dtype: DtypeName = "auto"
    """precision of Gemma"""


Check = Callable[[], str]  # returns what was measured; InputError says what is wrong


def main(argv: list[str] | None = None) -> None:
    """Run all checks; exit code 1 where one fails."""
    config = parse_config(PreflightConfig, argv)
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    num_failed = 0
    try:
        conversation = load_conversation(config.gemma, config.finetune, device=device, dtype=dtype)
        mimi = load_mimi(config.mimi, num_codebooks=config.num_codebooks, device=device)
    except InputError as error:
        print(f"FAIL  {'every tensor is there':<46}{error}")
        sys.exit(1)
    checks = {
        **gemma_checks(conversation, TOLERANCE[dtype]),
        **mimi_checks(mimi),
        **stage_checks(config, conversation, mimi, device),
    }
    for name, check in checks.items():
        try:
            verdict, measured = "ok", check()
        except InputError as error:
            verdict, measured = "FAIL", str(error)
            num_failed += 1
        print(f"{verdict:<6}{name:<46}{measured}")
    print(f"{len(checks) - num_failed} of {len(checks)} checks passed")
    sys.exit(1 if num_failed else 0)


def gemma_checks(conversation: Conversation, tolerance: float) -> dict[str, Check]:
    """What the stages rely on in Gemma: its tower, its way of taking speech, its states."""
    model, tokenizer, encoder = conversation.model, conversation.tokenizer, conversation.encoder
    waveform_N = _test_sound(2.5, GEMMA_SAMPLE_RATE_HZ)

    def every_tensor() -> str:
        num_parameters = sum(p.numel() for p in model.parameters())
        return f"{num_parameters / 1e6:,.1f} M parameters, width {_width(conversation)}"

    def audio_tokens() -> str:
        for num_samples in LENGTHS:
            sound_N = _test_sound(num_samples / GEMMA_SAMPLE_RATE_HZ, GEMMA_SAMPLE_RATE_HZ)
            found = len(encoder.encode([sound_N[:num_samples]])[0])
            if found != count_audio_tokens(num_samples):
                expected = count_audio_tokens(num_samples)
                raise InputError(f"{num_samples} samples give {found} embeddings, not {expected}")
        return f"{len(LENGTHS)} lengths agree"

    def batch_is_single() -> str:
        sounds = [waveform_N, waveform_N[:12_345], waveform_N[:30_000]]
        batched = torch.cat(encoder.encode(sounds))
        single = torch.cat([encoder.encode([sound_N])[0] for sound_N in sounds])
        return _refuse_difference(batched, single, tolerance)

    def injected_is_real() -> str:
        [frames_TD] = encoder.encode([waveform_N])
        turns = [Turn("user", "", spoken=True, frames_TD=frames_TD)]
        injected = prompt_inputs([encode_prompt(turns, tokenizer)], tokenizer, model)
        features = encoder.extractor(
            [waveform_N], sampling_rate=GEMMA_SAMPLE_RATE_HZ, return_tensors="pt"
        )
        real = injected | {
            name: features[name].to(model.device)
            for name in ("input_features", "input_features_mask")
        }
        with torch.no_grad():
            logits = [model(**inputs).logits.float() for inputs in (injected, real)]
        return _refuse_difference(*logits, tolerance)

    def template() -> str:
        text = tokenize_spoken_text("Maakye, wo ho te sɛn?", tokenizer)
        if int(text.ids_S[-1]) not in stop_ids(tokenizer):
            closing = tokenizer.convert_ids_to_tokens(int(text.ids_S[-1]))
            raise InputError(f"a turn is closed by {closing!r}, which does not stop Gemma")
        return f"turns are closed by {tokenizer.convert_ids_to_tokens(int(text.ids_S[-1]))}"

    def streamed_states() -> str:
        text = tokenize_spoken_text("Maakye.", tokenizer)
        turns = [Turn("user", "Kasa.")]
        streamed = list(itertools.islice(stream_answer(model, tokenizer, turns), NUM_TOKENS))
        written_S = torch.cat([tokens.ids_S for tokens in streamed])
        [known] = answer_states(model, [replace(text, ids_S=written_S)])
        states = torch.cat([tokens.states_SLD for tokens in streamed])
        return _refuse_difference(states.float(), known.states_SLD.float(), tolerance)

    return {
        "every tensor of Gemma is there": every_tensor,
        "audio embeddings are as many as slots": audio_tokens,
        "a batch gives what single clips give": batch_is_single,
        "injected speech equals real speech (logits)": injected_is_real,
        "chat template": template,
        f"states while writing = afterwards ({len(LAYERS)} layers)": streamed_states,
    }


def mimi_checks(mimi: Mimi) -> dict[str, Check]:
    """What the speech head relies on in Mimi."""

    def rates() -> str:
        found = (mimi.sample_rate_hz, mimi.frame_rate_hz)
        if found != (MIMI_SAMPLE_RATE_HZ, 12.5):
            raise InputError(f"{found[0]} Hz, {found[1]} frames/s; expected 24000 Hz, 12.5")
        return f"{mimi.sample_rate_hz} Hz, 12.5 frames/s, {mimi.num_codebooks} codebooks"

    def streaming() -> str:
        sound_N = torch.from_numpy(_test_sound(3.0, mimi.sample_rate_hz))
        [codes_FK] = mimi.encode([sound_N])
        stream = MimiStreamDecoder(mimi)
        pieces = [stream.decode(codes_1K[None])[0] for codes_1K in codes_FK.split(1)]
        return _refuse_difference(torch.cat(pieces), mimi.decode(codes_FK), 1e-4)

    return {"Mimi's rates": rates, "Mimi as a stream = Mimi at once": streaming}


def stage_checks(
    config: PreflightConfig, conversation: Conversation, mimi: Mimi, device: torch.device
) -> dict[str, Check]:
    """Whether the trained stages that were named fit these models."""
    checks: dict[str, Check] = {}

    def rvq_fits() -> str:
        rvq = load_rvq(config.rvq or "", device=device)
        if rvq.config.dim != conversation.encoder.dim:
            raise InputError(f"--rvq takes {rvq.config.dim}, Gemma has {conversation.encoder.dim}")
        return f"embeddings {rvq.config.dim} wide"

    def head_fits() -> str:
        head = load_head(config.head or "", device=device)
        refuse_misfit(head, conversation.model, mimi)
        return f"states {head.config.state_width} wide, {head.config.num_codebooks} codebooks"

    if config.rvq:
        checks["RVQ fits Gemma"] = rvq_fits
    if config.head:
        checks["speech head fits Gemma and Mimi"] = head_fits
    return checks


def _width(conversation: Conversation) -> int:
    width: int = conversation.model.config.text_config.hidden_size
    return width


def _refuse_difference(found: Tensor, expected: Tensor, tolerance: float) -> str:
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= tolerance:
        raise InputError(f"differ by {difference:.1e} of the largest value, at most {tolerance}")
    return f"differ by {difference:.1e}"


def _test_sound(duration_s: float, sample_rate_hz: int) -> np.ndarray:
    """A gliding tone with noise, float32 `[N]`, N at least 161."""
    times_N = np.arange(max(161, round(duration_s * sample_rate_hz))) / sample_rate_hz
    noise_N = np.random.default_rng(0).standard_normal(len(times_N))
    tone_N = np.sin(2 * np.pi * (150 + 100 * times_N) * times_N)
    return (0.3 * tone_N + 0.02 * noise_N).astype(np.float32)


if __name__ == "__main__":
    run_command(main)
