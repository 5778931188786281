"""Is what the head says understood: the CTC reader on its speech, beside the recordings.

    python -m speech_head.evaluate --head runs/head --manifest data/cv/test.jsonl \
        --reader runs/reader --gemma google/gemma-4-E4B-it --mimi kyutai/mimi --out runs/head-test

Writes `metrics.json`, `utterances.jsonl` (what was said, what was heard) and `wav/`; prints the
table. Two ceilings stand beside the head: the recordings, and the recordings through Mimi. Every
text counts in every number; one that was cut off is read up to there.
"""

# F Mimi frames (12.5 per second), K codebooks, N samples

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_manifests.artifact import create_output, write_json, write_json_lines
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, write_wav
from data_manifests.config import InputError, parse_config, run_command
from data_manifests.error_rates import compute_error_rates
from data_manifests.manifest import Utterance, read_manifest, read_utterance_audio
from data_manifests.twi_text import normalize_for_training
from speech_head.answer import SpokenText
from speech_head.generate import Talker, load_talker, speak_texts, tokenize_within_limit
from speech_head.listener import Listener
from speech_head.stream import End, Sampling
from stage1_rvq.data import iterate_batches
from stage1_rvq.device import DtypeName, pick_device, pick_dtype
from stage1_rvq.reader import load_reader


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure how well a speech head is understood, on texts it was not trained on."""

    head: str
    """folder of speech_head.train, or hub name"""
    reader: Path
    """folder of stage1_rvq.train_reader"""
    out: Path
    """new folder for metrics.json"""
    manifest: Path | None = None
    """held-out recordings with transcripts: the transcripts are spoken"""
    texts: Path | None = None
    """held-out texts, one a line, where there are no recordings"""
    num_utterances: int = 0
    """measure on the first so many; 0 takes all"""
    gemma: str = "google/gemma-4-E4B-it"
    """hub name or folder of the Gemma 4 the head was trained on"""
    finetune: Path | None = None
    """adapter, written by stage3_finetune.train"""
    mimi: str = "kyutai/mimi"
    """hub name or folder of Mimi"""
    temperature: float = Sampling.temperature
    """of sampling; 0 takes the most probable code"""
    top_k: int = Sampling.top_k
    """draw codes from the k most probable; 0 draws from all"""
    batch_size: int = 16
    """texts spoken together; changes nothing but speed"""
    seed: int = 0
    """another seed says the same texts another way"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    dtype: DtypeName = "auto"
    """precision of Gemma; head and Mimi run in float32"""
    resume: bool = False
    """accept an unfinished folder and write it again"""

    def __post_init__(self) -> None:
        if (self.manifest is None) == (self.texts is None):
            raise ValueError("give one of --manifest, --texts")
        if self.num_utterances < 0:
            raise ValueError(f"--num-utterances must not be negative, got {self.num_utterances}")


@dataclass(frozen=True)
class HeldOut:
    """A text to speak, and its recording where there is one."""

    id: str
    text: SpokenText
    recording: Utterance | None


@dataclass(frozen=True)
class Spoken:
    """What came of it: samples at Mimi's rate, how it ended, and what the reader heard in it, in
    the recording, and in the recording through Mimi."""

    held_out: HeldOut
    samples_N: np.ndarray
    end: End
    heard: str
    heard_in_recording: str | None
    heard_through_mimi: str | None


def main(argv: list[str] | None = None) -> None:
    """Measure, write `metrics.json`, print the table."""
    config = parse_config(EvaluateConfig, argv)
    sampling = Sampling(config.seed, config.temperature, config.top_k)
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    reader = load_reader(config.reader, device=device)
    talker = load_talker(
        config.gemma, config.finetune, config.mimi, config.head, device=device, dtype=dtype
    )
    listener = Listener(talker.conversation.encoder, reader)
    held_out = list_held_out(config, talker)[: config.num_utterances or None]
    output = create_output(
        config.out,
        config,
        command="speech_head.evaluate",
        inputs={
            "head": config.head, "reader": config.reader, "manifest": config.manifest,
            "texts": config.texts, "gemma": config.gemma, "finetune": config.finetune,
            "mimi": config.mimi,
        },
        resume=config.resume,
    )  # fmt: skip
    if output.is_done:
        print(config.out)
        return
    output.record(device=str(device), dtype=str(dtype))
    spoken: list[Spoken] = []
    with tqdm(total=len(held_out), desc="speak", unit=" texts") as progress:
        for picks in iterate_batches(len(held_out), config.batch_size):
            spoken += speak_and_read([held_out[i] for i in picks], talker, listener, sampling)
            progress.update(len(picks))
    metrics = compute_metrics(spoken)
    _write_speech(config.out, spoken, talker.mimi.sample_rate_hz)
    write_json(config.out / "metrics.json", metrics)
    output.finish()
    print(format_table(metrics))
    print(config.out)


def list_held_out(config: EvaluateConfig, talker: Talker) -> list[HeldOut]:
    """What to speak; InputError names a text that cannot be spoken."""
    rows: list[tuple[str, str, Utterance | None]] = []
    if config.manifest is not None:
        rows = [(u.id, u.text, u) for u in read_manifest(config.manifest)]
    elif config.texts is not None:
        try:
            lines = config.texts.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InputError(f"--texts {config.texts}: {error.strerror or error}") from None
        rows = [(f"line_{i:05d}", line, None) for i, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise InputError(f"--texts {config.texts}: no text in it")
    held_out = []
    for id_, text, recording in rows:
        try:
            spoken = tokenize_within_limit(normalize_for_training(text), talker.tokenizer)
        except InputError as error:
            raise InputError(f"{id_}: {error}") from None
        held_out.append(HeldOut(id_, spoken, recording))
    return held_out


def speak_and_read(
    batch: Sequence[HeldOut], talker: Talker, listener: Listener, sampling: Sampling
) -> list[Spoken]:
    """Speak a batch of texts, and read it and its recordings."""
    mimi = talker.mimi
    rate_hz = mimi.sample_rate_hz
    texts = [held_out.text for held_out in batch]
    codes, ends = zip(
        *speak_texts(talker, texts, [held_out.id for held_out in batch], sampling), strict=True
    )
    samples = [samples_N.cpu().numpy() for samples_N in mimi.decode(list(codes))]
    heard = listener.transcribe(samples, rate_hz)
    recordings = [held_out.recording for held_out in batch if held_out.recording is not None]
    from_recordings: Sequence[str | None] = [None] * len(batch)
    through_mimi = from_recordings
    if recordings:
        waveforms = [read_utterance_audio(u, rate_hz) for u in recordings]
        from_recordings = listener.transcribe(
            [read_utterance_audio(u, GEMMA_SAMPLE_RATE_HZ) for u in recordings],
            GEMMA_SAMPLE_RATE_HZ,
        )
        decoded = mimi.decode(mimi.encode(waveforms), [len(w) for w in waveforms])
        through_mimi = listener.transcribe(
            [samples_N.cpu().numpy() for samples_N in decoded], rate_hz
        )
    columns = zip(batch, samples, ends, heard, from_recordings, through_mimi, strict=True)
    return [Spoken(*row) for row in columns]


def compute_metrics(spoken: Sequence[Spoken]) -> dict[str, Any]:
    """The stage-4 row; rates are fractions, null where there is nothing to measure."""
    texts = [one.held_out.text.text for one in spoken]
    rates = compute_error_rates(texts, [one.heard for one in spoken])

    def wer(heard: Sequence[str | None]) -> float | None:
        known = [text for text in heard if text is not None]
        return compute_error_rates(texts, known).wer if known else None

    return {
        "wer_teacher": wer([one.heard_in_recording for one in spoken]),
        "wer_mimi": wer([one.heard_through_mimi for one in spoken]),
        "wer_spoken": rates.wer,
        "cer_spoken": rates.cer,
        "wer_parallel": None,
        "runaway": sum(one.end == "runaway" for one in spoken) / len(spoken),
        "cut_short": sum(one.end == "cut short" for one in spoken) / len(spoken),
        "num_held_out": len(spoken),
    }


def format_table(metrics: dict[str, Any]) -> str:
    """The numbers as a person reads them."""
    names = {
        "wer_teacher": "WER, recordings",
        "wer_mimi": "WER, recordings through Mimi",
        "wer_spoken": "WER, spoken",
        "cer_spoken": "CER, spoken",
        "wer_parallel": "WER, parallel head",
        "runaway": "runaway",
        "cut_short": "cut short",
    }
    lines = [f"{metrics['num_held_out']} texts"]
    for key, name in names.items():
        value = metrics[key]
        lines.append(f"{name:<30}" + ("not measured" if value is None else f"{100 * value:8.2f} %"))
    return "\n".join(lines)


def _write_speech(out: Path, spoken: Sequence[Spoken], sample_rate_hz: int) -> None:
    rows = []
    for one in spoken:
        path = Path("wav") / f"{one.held_out.id}.wav"
        write_wav(out / path, one.samples_N, sample_rate_hz)
        row = {
            "id": one.held_out.id, "text": one.held_out.text.text, "heard": one.heard,
            "heard_in_recording": one.heard_in_recording,
            "heard_through_mimi": one.heard_through_mimi, "end": one.end, "audio": str(path),
        }  # fmt: skip
        rows.append(row)
    write_json_lines(out / "utterances.jsonl", rows)


if __name__ == "__main__":
    run_command(main)
