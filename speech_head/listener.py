"""Transcribe speech with Gemma's audio tower and the CTC recogniser, or with any recogniser.

cpu = torch.device("cpu")
listener = load_listener("google/gemma-4-E4B-it", Path("runs/recognizer"), device=cpu)
[text] = listener.transcribe([samples_N], 24_000)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import (
    MODEL_FOR_CTC_MAPPING,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    pipeline,
)

from commands.errors import InputError
from commands.pretrained import one_line_errors, refuse_missing_tensors, refuse_other_size
from commands.schema import shorten
from commands.tensor_files import refuse_non_finite_weights
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, resample
from gemma4.gemma import AudioEncoder, load_audio_encoder
from stage1_rvq.recognizer import CTCRecognizer, load_recognizer


class Transcriber(Protocol):
    """Anything that transcribes speech."""

    def transcribe(self, waveforms: Sequence[np.ndarray], sample_rate_hz: int) -> list[str]:
        """What is heard in mono waveforms of a given rate, each at least 40 ms long."""
        ...


@dataclass(frozen=True)
class Listener:
    """An audio tower, and a recogniser that was trained on its embeddings.

    Raises:
        InputError: the recogniser was trained on embeddings of another width.
    """

    encoder: AudioEncoder
    recognizer: CTCRecognizer

    def __post_init__(self) -> None:
        self.recognizer.refuse_other_width(self.encoder.dim, flag="--gemma")

    def transcribe(self, waveforms: Sequence[np.ndarray], sample_rate_hz: int) -> list[str]:
        """What is heard in mono waveforms of a given rate, each at least 40 ms long."""
        at_16_khz = [resample(w, sample_rate_hz, GEMMA_SAMPLE_RATE_HZ) for w in waveforms]
        return self.recognizer.transcribe(self.encoder.encode(at_16_khz))


def load_listener(gemma: str, recognizer: Path, *, device: torch.device) -> Listener:
    """Load the tower of a Gemma, in float32, and a recogniser.

    Raises:
        InputError: one cannot be loaded, or they do not fit together.
    """
    encoder = load_audio_encoder(gemma, device=device, dtype=torch.float32)
    return Listener(encoder, load_recognizer(recognizer, device=device))


class AsrListener:
    """Any transformers speech recogniser (CTC, Whisper, ...), independent of the head's training.
    It transcribes one recording at a time: padding affects some, wav2vec 2.0 among them."""

    def __init__(self, name: str, *, device: torch.device) -> None:
        """
        Raises:
            InputError: not found, or not a speech recogniser.
        """
        with one_line_errors("--asr", name):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            is_ctc = type(config) in MODEL_FOR_CTC_MAPPING
            model_class = AutoModelForCTC if is_ctc else AutoModelForSpeechSeq2Seq
            refuse_other_size(name, config, model_class.from_config)
            model, report = model_class.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
            self._pipeline: Any = pipeline(
                "automatic-speech-recognition", model=model, device=device, batch_size=1,
                tokenizer=AutoTokenizer.from_pretrained(name, trust_remote_code=False),
                feature_extractor=AutoFeatureExtractor.from_pretrained(
                    name, trust_remote_code=False
                ),
                trust_remote_code=False,
            )  # fmt: skip
            self._rate_hz = sampling_rate_of(self._pipeline.feature_extractor)
        refuse_missing_tensors("--asr", name, report)
        refuse_non_finite_weights(model, where=f"--asr {name}")
        self._name = name
        self.transcribe([np.zeros(self._rate_hz, np.float32)], self._rate_hz)  # check that it works

    def transcribe(self, waveforms: Sequence[np.ndarray], sample_rate_hz: int) -> list[str]:
        """As `Transcriber.transcribe`; "" if the recogniser writes nothing."""
        resampled = [resample(waveform, sample_rate_hz, self._rate_hz) for waveform in waveforms]
        with one_line_errors("--asr", self._name):
            heard = self._pipeline(
                [{"raw": raw, "sampling_rate": self._rate_hz} for raw in resampled]
            )
            return [result["text"].strip() for result in heard]


def sampling_rate_of(extractor: Any) -> int:
    """Sampling rate of a model's front end, in hertz; raises InputError if it is implausible."""
    rate_hz = extractor.sampling_rate
    if type(rate_hz) is not int or not 1000 <= rate_hz <= 200_000:
        raise InputError(f"preprocessor_config.json has sampling_rate = {shorten(rate_hz)}")
    return rate_hz
