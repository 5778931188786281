"""Checks of what the four stages rely on in Mimi and in each other.

Checks of Gemma are in `preflight_gemma.py`, of the machine's memory in `preflight_memory.py`.
"""

# N samples, T frames (25 per second), D embedding width, S text positions, L Gemma layers, F Mimi
# frames (12.5 per second)

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from commands.errors import InputError
from commands.json_files import read_json
from commands.origins import NUM_DIGITS, UNKNOWN, find_mixture
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, MIMI_SAMPLE_RATE_HZ, read_audio
from gemma4.gemma import AudioEncoder
from gemma4.patches import PatchEncoder
from gemma4.speech_encoder import require_tower
from speech_head.mimi import Mimi
from speech_head.mimi_stream import MimiStreamDecoder
from speech_head.model import load_head
from speech_head.talker import refuse_misfit
from stage1_rvq.codebook_metrics import measure_reconstruction
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import load_rvq
from stage3_finetune.conversation import Conversation
from stage3_finetune.dialogue import render_example

MAX_RECORDING_S = 10.0
# A quantiser's share of power lost on a recording: 0.2 to 0.7 for its own tower, and 3 or more for
# another one (measured on the demo's tower, 4 codebooks of 128 and more). A tone is not speech.
ERROR_LIMIT, ERROR_LIMIT_OF_TONE = 0.95, 2.0
EQUAL_CODES = 0.98  # share; a frame just between two codes may go either way
NOT_MADE_FOR_IT = "name the checkpoint it was trained on, or train it again on this one"
UNTESTED = "these versions of torch and transformers do not do what this project relies on: install"
UNTESTED += " those of constraints.txt, and open an issue if it stays"


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: what should hold.
        measure: returns the measured figure; raises InputError that says what is wrong.
        remedy: what to do if it does not hold.
    """

    name: str
    measure: Callable[[], str]
    remedy: str


@dataclass(frozen=True)
class Sounds:
    """Input of the checks, float32 `[N]`: the same sound at Gemma's rate and at Mimi's.

    Attributes:
        is_speech: whether it is a recording.
    """

    gemma_N: np.ndarray
    mimi_N: np.ndarray
    is_speech: bool


def load_sounds(recording: Path | None) -> Sounds:
    """The first seconds of a recording, or a gliding tone with noise.

    Raises:
        InputError: the recording is unusable.
    """
    rates = (GEMMA_SAMPLE_RATE_HZ, MIMI_SAMPLE_RATE_HZ)
    if recording is None:
        gemma_N, mimi_N = (make_sound(round(2.5 * rate_hz), rate_hz) for rate_hz in rates)
        return Sounds(gemma_N, mimi_N, is_speech=False)
    gemma_N, mimi_N = (
        read_audio(recording, rate_hz)[: round(MAX_RECORDING_S * rate_hz)] for rate_hz in rates
    )
    return Sounds(gemma_N, mimi_N, is_speech=True)


def three_lengths(waveform_N: np.ndarray) -> list[np.ndarray]:
    """A recording and two beginnings of it, for a batch with padding."""
    return [waveform_N, waveform_N[:12_345], waveform_N[:30_000]]


@overload
def float32_encoder(encoder: AudioEncoder) -> AudioEncoder: ...
@overload
def float32_encoder(encoder: AudioEncoder | PatchEncoder) -> AudioEncoder | PatchEncoder: ...
def float32_encoder(encoder: AudioEncoder | PatchEncoder) -> AudioEncoder | PatchEncoder:
    """The same tower in float32, as stage 1 runs it by default; a copy, if it is in another
    precision (1.2 GB for E2B's and E4B's). Patches have no precision."""
    if isinstance(encoder, PatchEncoder):
        return encoder
    if encoder.tower.dtype == torch.float32:
        return encoder
    return AudioEncoder(copy.deepcopy(encoder.tower).float(), encoder.extractor)


def mimi_checks(mimi: Mimi, sounds: Sounds) -> list[Check]:
    """What the speech head relies on in Mimi."""

    def rates() -> str:
        found = (mimi.sample_rate_hz, mimi.frame_rate_hz)
        if found != (MIMI_SAMPLE_RATE_HZ, 12.5):
            raise InputError(f"{found[0]} Hz, {found[1]} frames/s; expected 24000 Hz, 12.5")
        return f"{mimi.sample_rate_hz} Hz, 12.5 frames/s, {mimi.num_codebooks} codebooks"

    def streaming() -> str:
        [codes_FK] = mimi.encode([sounds.mimi_N])
        stream = MimiStreamDecoder(mimi)
        pieces = [stream.decode(codes_1K) for codes_1K in codes_FK.split(1)]
        return refuse_difference(torch.cat(pieces), mimi.decode(codes_FK), 1e-3)

    return [
        Check("Mimi's rates", rates, "--mimi kyutai/mimi is the codec this project speaks through"),
        Check("Mimi as a stream = Mimi at once", streaming, UNTESTED),
    ]


def quantizer_checks(
    encoder: AudioEncoder, sounds: Sounds, rvq: str, device: torch.device
) -> list[Check]:
    """Whether a quantiser fits an audio tower, best judged in float32; loads it.

    Raises:
        InputError: it cannot be loaded.
    """
    quantizer = load_rvq(rvq, device=device)

    def rvq_fits() -> str:
        if quantizer.config.dim != encoder.dim:
            raise InputError(f"--rvq takes {quantizer.config.dim}, Gemma has {encoder.dim}")
        return f"embeddings {quantizer.config.dim} wide"

    def reconstruction() -> str:
        [frames_TD] = encoder.encode([sounds.gemma_N])
        decoded_TD = quantizer.decode(quantizer.encode(frames_TD.to(device))).cpu()
        metric = FrameMetric(encoder.frame_scale_D, encoder.output_proj_PD)
        found = measure_reconstruction(frames_TD, decoded_TD, metric)["projected"]
        limit = ERROR_LIMIT if sounds.is_speech else ERROR_LIMIT_OF_TONE
        measured = f"relative error {found.relative_error:.2f}, cosine {found.cosine:.2f}"
        if not found.relative_error <= limit:
            raise InputError(f"{measured}; expected an error below {limit}")
        return measured if sounds.is_speech else f"{measured} (of a tone: --recording says more)"

    def same_codes() -> str:
        clips = three_lengths(sounds.gemma_N)
        batched, single = (
            torch.cat([quantizer.encode(frames_TD.to(device)) for frames_TD in frames])
            for frames in (encoder.encode(clips), [encoder.encode([clip])[0] for clip in clips])
        )
        share = (batched == single).float().mean().item()
        if share < EQUAL_CODES:
            raise InputError(f"{share:.1%} of codes are equal, at least {EQUAL_CODES:.0%} expected")
        return f"{share:.1%} of codes are equal"

    return [
        Check("RVQ fits Gemma", rvq_fits, NOT_MADE_FOR_IT),
        Check("RVQ reconstructs this Gemma's embeddings", reconstruction, NOT_MADE_FOR_IT),
        Check("codes of a batch = of single clips", same_codes, UNTESTED),
    ]


def stage_checks(
    conversation: Conversation,
    encoder: AudioEncoder | PatchEncoder,
    mimi: Mimi,
    sounds: Sounds,
    rvq: str | None,
    finetune: Path | None,
    head: str | None,
    device: torch.device,
) -> list[Check]:
    """Whether the trained stages that were named fit these models.

    Args:
        encoder: the conversation's own, or the same in float32.
    """
    tokenizer = conversation.tokenizer

    def template_is_the_one_trained_with() -> str:
        assert finetune is not None
        trained_with = read_json(finetune / "provenance.json").get("chat_template_example")
        if trained_with is None:
            return "unknown: trained before it was recorded"
        if trained_with != (found := render_example(tokenizer)):
            raise InputError(f"renders {found!r}, trained with {trained_with!r}")
        return "renders a dialogue as it was trained on"

    def head_fits() -> str:
        speech_head = load_head(head or "", device=device)
        refuse_misfit(speech_head, conversation.model, mimi)
        config = speech_head.config
        return f"states {config.state_width} wide, {config.num_codebooks} codebooks"

    def all_belong_together() -> str:
        origins = dict(conversation.origins)
        if rvq:
            origins[f"--rvq {rvq}"] = load_rvq(rvq, device=torch.device("cpu")).origin()
        if head:
            origins[f"--head {head}"] = load_head(head, device=torch.device("cpu")).config.origin
        if mixture := find_mixture(origins):
            raise InputError(mixture)
        unknown = [name for name, origin in origins.items() if origin == UNKNOWN]
        if unknown:
            return f"unknown of {', '.join(unknown)}"
        older = [name for name, origin in origins.items() if len(origin.tower) == NUM_DIGITS]
        # Recorded by a version that took the fingerprint of the last layer only.
        return "of one audio tower" + (
            f", by its last layer for {', '.join(older)}" if older else ""
        )

    checks = []
    if rvq:
        tower = require_tower(encoder, instead="it has no codes; leave --rvq out")
        checks = quantizer_checks(tower, sounds, rvq, device)
    if finetune:
        checks.append(
            Check("chat template of the adapter", template_is_the_one_trained_with, NOT_MADE_FOR_IT)
        )
    if head:
        checks.append(Check("speech head fits Gemma and Mimi", head_fits, NOT_MADE_FOR_IT))
    if rvq or finetune or head:
        checks.append(
            Check("towers and codes belong together", all_belong_together, NOT_MADE_FOR_IT)
        )
    return checks


def refuse_difference(found: Tensor, expected: Tensor, limit: float) -> str:
    """Norm of the difference of two tensors, relative to the expected one's; InputError above a
    limit.

    Not the largest difference: weights that are as uneven as trained ones have single values in
    which rounding errors gather.
    """
    difference = relative_difference(found, expected)
    if not difference <= limit:
        raise InputError(f"differ by {difference:.1e} (relative norm), at most {limit}")
    return f"differ by {difference:.1e}"


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference, relative to the expected tensor's; InputError if shapes differ."""
    if found.shape != expected.shape:
        raise InputError(f"shapes {list(found.shape)} and {list(expected.shape)} differ")
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def make_sound(num_samples: int, sample_rate_hz: int) -> np.ndarray:
    """A gliding tone with noise, float32 `[N]`."""
    times_N = np.arange(num_samples) / sample_rate_hz
    noise_N = np.random.default_rng(0).standard_normal(num_samples)
    tone_N = np.sin(2 * np.pi * (150 + 100 * times_N) * times_N)
    return (0.3 * tone_N + 0.02 * noise_N).astype(np.float32)
