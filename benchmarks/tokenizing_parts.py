"""What tokenizing speech is made of, measured part by part, so that a user sees which to feed."""

# N frames or samples, D embedding width

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from commands.device import full_float32
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.manifest import Utterance, read_utterance_audio
from gemma4.audio_tower import fast_cpu_forward, stock_forward
from gemma4.gemma import AudioEncoder
from gemma4.tower_stream import StreamingTower
from stage1_rvq.codes import CodedUtterance, code_format, write_codes
from stage1_rvq.model import SpeechRVQ

# Done by one core each, beside the device; the others by the device.
BY_ONE_CORE = ("decoding", "log-mel features", "writing")


@torch.no_grad()
def measure_parts(
    clips: Sequence[Utterance], encoder: AudioEncoder, rvq: SpeechRVQ, batch_size: int, folder: Path
) -> dict[str, float]:
    """Seconds that each part of tokenizing takes, one after another.

    Args:
        clips: recordings, each of less than 30 s.
        encoder: the tower on its device.
        rvq: the quantiser, on the same device.
        batch_size: clips per forward pass.
        folder: where codes are written.
    """
    device = encoder.tower.device
    seconds: dict[str, float] = {}

    def timed(part: str, compute: Callable[[], object]) -> None:
        began = time.perf_counter()
        compute()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds[part] = time.perf_counter() - began

    clips = sorted(clips, key=lambda clip: clip.duration_s)
    waveforms: list[np.ndarray] = []
    features: list[tuple[Tensor, Tensor]] = []
    frames: list[Tensor] = []
    coded: list[CodedUtterance] = []

    def decode() -> None:
        waveforms.extend(read_utterance_audio(clip, GEMMA_SAMPLE_RATE_HZ) for clip in clips)

    def extract() -> None:
        for start in range(0, len(waveforms), batch_size):
            features.append(encoder.log_mel(waveforms[start : start + batch_size]))

    def run_tower() -> None:
        weight = encoder.tower.output_proj.weight
        forward = fast_cpu_forward if encoder.fast_cpu else stock_forward
        with full_float32():
            for features_BMF, mask_BM in features:
                frames_BTD, mask_BT = forward(
                    encoder.tower, features_BMF.to(device, weight.dtype), mask_BM.to(device)
                )
                frames.extend(
                    row[mask].float() for row, mask in zip(frames_BTD, mask_BT, strict=True)
                )

    def quantize() -> None:
        for clip, frames_TD in zip(clips, frames, strict=True):
            codes_TK = rvq.encode(frames_TD).cpu()
            coded.append(CodedUtterance(clip.id, clip.text, clip.speaker, clip.dialect, codes_TK))

    for part, compute in (
        ("decoding", decode), ("log-mel features", extract), ("audio tower", run_tower),
        ("quantiser", quantize),
        ("writing", lambda: write_codes(folder / "parts.parquet", coded, code_format(rvq.config))),
    ):  # fmt: skip
        timed(part, compute)
    return seconds


def time_stream(encoder: AudioEncoder, sound_N: np.ndarray, step_s: float) -> float:
    """Seconds that the tower takes for one recording as it arrives, so much at a time."""
    stream = StreamingTower(encoder).start()
    step = round(step_s * GEMMA_SAMPLE_RATE_HZ)
    began = time.perf_counter()
    for start in range(0, len(sound_N), step):
        stream.push(sound_N[start : start + step])
    stream.finish().cpu()
    return time.perf_counter() - began


def format_parts(seconds: dict[str, float], speech_s: float) -> str:
    """A row for each part: how many times faster than the speech lasts, and who does it."""
    rows = ["parts of tokenizing, one after another"]
    for part, taken in seconds.items():
        by = "one core" if part in BY_ONE_CORE else "the device"
        rows.append(f"{part:<26}{speech_s / taken:>9.1f} x real time, {by}")
    return "\n".join(rows)
