"""What a long recording costs in accuracy, time and memory, beside its sentences one by one.

    python -m benchmarks.long_recording --pipeline demo/weights --manifest data/demo/test.jsonl

Recordings of a manifest are joined, with silence between them, into one file, and transcribed as
`stage3_finetune.transcribe` does it. Printed are, of the recordings one by one (the ceiling) and of
the joined one, the WER; how many texts are the same; how far the times are from the joints; and
this process's peak memory after the first tenth of the joined recording, and after all of it (on
Linux).
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from benchmarks.peak_memory import resident_bytes, show_peak
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName
from commands.setting_types import ModelName, NonNegativeFloat, PositiveInt
from data_manifests.alignments import align_utterances
from data_manifests.audio import MIMI_SAMPLE_RATE_HZ, read_audio
from data_manifests.error_rates import pool_error_rates
from data_manifests.long_audio import open_long_audio
from data_manifests.manifest import Utterance, read_manifest
from stage3_finetune.conversation import Conversation
from stage3_finetune.long_transcript import write_down
from stage3_finetune.settings import TextConversationConfig
from stage3_finetune.subtitles import Cue

RATE_HZ = MIMI_SAMPLE_RATE_HZ


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Transcribe recordings one by one, and joined into one long recording."""

    manifest: Path
    """manifest of recordings with texts"""
    pipeline: ModelName = "demo/weights"
    """folder of pipeline.publish, or hub name"""
    num_clips: PositiveInt = 40
    """recordings that are joined: the first ones"""
    silence_s: NonNegativeFloat = 1.0
    """silence between them, in seconds"""
    repeat: PositiveInt = 1
    """times that the row of recordings comes in the joined one"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "auto"
    """bfloat16 on CUDA, float32 elsewhere"""


@dataclass(frozen=True)
class Found:
    """What was found of a recording inside the joined one.

    Attributes:
        text: its pieces' texts.
        num_pieces: how many they are.
        off_s: how far the beginning of the first piece, and the end of the last one, are from the
            recording's own, the farther of the two, in seconds; 0 if there is none.
    """

    text: str
    num_pieces: int
    off_s: float


def main(argv: list[str] | None = None) -> None:
    """Print a table."""
    config = parse_config(BenchmarkConfig, argv)
    conversation = TextConversationConfig(
        pipeline=config.pipeline, device=config.device, dtype=config.dtype
    ).load()
    clips = list(read_manifest(config.manifest))[: config.num_clips]
    alone = [
        conversation.write_down(Path(clip.audio))
        for clip in tqdm(clips, desc="clips", unit=" clips")
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "joined.wav"
        spans = write_joined(path, clips * config.repeat, config.silence_s)
        begun = time.monotonic()
        cues, peak_bytes = _transcribe(conversation, path, spans[-1][1])
        took_s = time.monotonic() - begun
    found = [find_clip(cues, span) for span in spans]
    texts = [clip.text for clip in clips]
    wer = pool_error_rates(align_utterances(texts, alone)).wer
    heard = [one.text for one in found]
    joined_wer = pool_error_rates(align_utterances(texts * config.repeat, heard)).wer
    off_s = np.array([one.off_s for one in found])
    print(f"recordings one by one        {len(clips)}, WER {wer:.2%}")
    print(f"joined                       {spans[-1][1]:.0f} s, WER {joined_wer:.2%}")
    print(f"  in one piece each          {sum(one.num_pieces == 1 for one in found)}/{len(found)}")
    same = sum(a == b for a, b in zip(alone * config.repeat, heard, strict=True))
    print(f"  text as of the recording   {same}/{len(found)}")
    print(f"  times off the joints       {off_s.mean():.2f} s, at most {off_s.max():.2f} s")
    print(f"  transcribed in             {took_s:.0f} s")
    print(f"  peak memory                {' -> '.join(map(show_peak, peak_bytes))}")


def write_joined(
    path: Path, clips: Sequence[Utterance], silence_s: float
) -> list[tuple[float, float]]:
    """Write recordings as one, with silence between them; returns when each begins and ends."""
    spans = []
    silence_N = np.zeros(round(silence_s * RATE_HZ), np.float32)
    num_samples = 0
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16") as sound:
        for clip in clips:
            samples_N = read_audio(Path(clip.audio), RATE_HZ)
            sound.write(samples_N)
            sound.write(silence_N)
            spans.append((num_samples / RATE_HZ, (num_samples + len(samples_N)) / RATE_HZ))
            num_samples += len(samples_N) + len(silence_N)
    return spans


def find_clip(cues: Sequence[Cue], span: tuple[float, float]) -> Found:
    """The pieces whose middle is in a span of time."""
    inside = [cue for cue in cues if span[0] <= (cue.start_s + cue.end_s) / 2 <= span[1]]
    if not inside:
        return Found("", 0, 0.0)
    off_s = max(abs(inside[0].start_s - span[0]), abs(inside[-1].end_s - span[1]))
    return Found(" ".join(cue.text for cue in inside), len(inside), off_s)


def _transcribe(
    conversation: Conversation, path: Path, duration_s: float
) -> tuple[list[Cue], tuple[int, int]]:
    """The pieces; peak memory after a tenth of the recording, and after all of it."""
    cues: list[Cue] = []
    first = 0
    with open_long_audio(path) as recording, tqdm(total=round(duration_s), unit=" s") as progress:
        for piece in write_down(conversation, recording, batch_size=8):
            cues.append(piece.cue)
            progress.update(round(piece.cue.end_s) - progress.n)
            if piece.cue.end_s < duration_s / 10:
                first = resident_bytes("VmHWM")
    return cues, (first, resident_bytes("VmHWM"))


if __name__ == "__main__":
    run_command(main)
