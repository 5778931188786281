"""How speech sounds, as far as models can tell: DNSMOS, and similarity to the recorded voice.

Word errors show whether speech is understood, not whether it is pleasant to hear. Neither measure
was made for Twi: they only compare systems with each other and with their ceilings.
"""

# N samples, E width of a voice embedding

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioXVector

from commands.errors import InputError
from commands.pretrained import one_line_errors, refuse_missing_tensors, refuse_other_size
from commands.tensor_files import refuse_non_finite_weights
from data_manifests.audio import resample
from stage1_rvq.asr import sampling_rate_of

DNSMOS_RATE_HZ = 16_000


@dataclass(frozen=True)
class Versions:
    """The same answers as recorded, as coded by Mimi, and as spoken by the head.

    Attributes:
        recorded, through_mimi, spoken: mono float32 waveforms `[N]`.
        sample_rate_hz: sampling rate of all of them.
        speakers: of the recordings.
        voices: in which the answers were spoken; among the speakers.
    """

    recorded: Sequence[np.ndarray]
    through_mimi: Sequence[np.ndarray]
    spoken: Sequence[np.ndarray]
    sample_rate_hz: int
    speakers: Sequence[str]
    voices: Sequence[str | None]


class Rater(Protocol):
    """Anything that rates speech."""

    name: str  # name of the metric

    def rate(self, versions: Versions) -> dict[str, float]:
        """Mean ratings: "teacher" (the recordings), "mimi" and "spoken"."""
        ...


class Dnsmos:
    """DNSMOS P.835, overall quality from 1 to 5, without a reference (arXiv:2110.01763)."""

    name = "dnsmos"

    def __init__(self) -> None:
        """Raise InputError if speechmos, which contains the model, is not installed."""
        try:
            from speechmos import dnsmos
        except ImportError:
            raise InputError("--dnsmos needs speechmos: pip install -e '.[mos]'") from None
        self._run = dnsmos.run

    def rate(self, versions: Versions) -> dict[str, float]:
        """As `Rater.rate`."""

        def mean(waveforms: Sequence[np.ndarray]) -> float:
            ratings = []
            for waveform in waveforms:
                heard = resample(waveform, versions.sample_rate_hz, DNSMOS_RATE_HZ)
                # DNSMOS refuses samples beyond full scale, which resampling may slightly exceed.
                ratings.append(self._run(heard.clip(-1, 1), sr=DNSMOS_RATE_HZ)["ovrl_mos"])
            return float(np.mean(ratings))

        return {
            "teacher": mean(versions.recorded), "mimi": mean(versions.through_mimi),
            "spoken": mean(versions.spoken),
        }  # fmt: skip


class SpeakerSimilarity:
    """Cosine similarity of speaker embeddings to their mean over a speaker's recordings, -1 to 1.

    The recording of the same words is left out of the mean. So a recording is compared with others
    of the same speaker, which shows what a voice itself reaches (ceiling); and with the recordings
    of other speakers, which shows what any voice reaches (floor).
    """

    name = "speaker_similarity"

    def __init__(self, name: str, *, device: torch.device) -> None:
        """
        Args:
            name: hub name or folder of a transformers speaker-verification model, such as
                microsoft/wavlm-base-plus-sv.
            device: where it runs.

        Raises:
            InputError: not found, or not a speaker-verification model.
        """
        with one_line_errors("--speaker-model", name):
            self._extractor: Any = AutoFeatureExtractor.from_pretrained(
                name, trust_remote_code=False
            )
            self._rate_hz = sampling_rate_of(self._extractor)
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            refuse_other_size(name, config, AutoModelForAudioXVector.from_config)
            model, report = AutoModelForAudioXVector.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
        refuse_missing_tensors("--speaker-model", name, report)
        refuse_non_finite_weights(model, where=f"--speaker-model {name}")
        self._model: Any = model.to(device).eval()
        self._device = device
        self._name = name
        self._embed(np.zeros(self._rate_hz, np.float32), self._rate_hz)  # check that it works

    def rate(self, versions: Versions) -> dict[str, float]:
        """As `Rater.rate`; with several speakers also "others" (recordings beside those of another
        speaker) and "right_voice" (share of the speech that is nearest to its own voice).

        Raises:
            InputError: no voice that was spoken in has two recordings.
        """
        recorded_NE, mimi_NE, spoken_NE = (
            torch.stack([self._embed(waveform, versions.sample_rate_hz) for waveform in waveforms])
            for waveforms in (versions.recorded, versions.through_mimi, versions.spoken)
        )
        speakers, voices = versions.speakers, [voice or "" for voice in versions.voices]
        names = sorted({name for name in speakers if speakers.count(name) > 1})
        rows = [i for i, name in enumerate(speakers) if name in names]
        said = [i for i, name in enumerate(voices) if name in names]
        if not said:
            raise InputError("--speaker-model needs two recordings or more of the voice")
        sum_E = {n: recorded_NE[[i for i in rows if speakers[i] == n]].sum(dim=0) for n in names}

        def mean_of(name: str, i: int) -> Tensor:
            """Mean embedding of a speaker's recordings but that of answer i, not scaled."""
            return sum_E[name] - recorded_NE[i] if speakers[i] == name else sum_E[name]

        own_NE = torch.stack([mean_of(speakers[i], i) for i in rows])
        rated = {
            "teacher": _cosine(recorded_NE[rows], own_NE),
            "mimi": _cosine(mimi_NE[rows], own_NE),
            "spoken": _cosine(spoken_NE[said], torch.stack([mean_of(voices[i], i) for i in said])),
        }
        if len(names) > 1:
            pairs = [(i, name) for i in rows for name in names if name != speakers[i]]
            others_NE = torch.stack([sum_E[name] for _, name in pairs])
            rated["others"] = _cosine(recorded_NE[[i for i, _ in pairs]], others_NE)
            likeness = [[_likeness(spoken_NE[i], mean_of(n, i)) for n in names] for i in said]
            nearest = [names[row.index(max(row))] for row in likeness]
            rated["right_voice"] = float(
                np.mean([voices[i] == name for i, name in zip(said, nearest, strict=True)])
            )
        return rated

    @torch.no_grad()
    def _embed(self, waveform: np.ndarray, sample_rate_hz: int) -> Tensor:
        """Unit-length embedding `[E]`; one waveform at a time, since padding would affect it."""
        heard = resample(waveform, sample_rate_hz, self._rate_hz)
        with one_line_errors("--speaker-model", self._name):
            inputs = self._extractor(heard, sampling_rate=self._rate_hz, return_tensors="pt")
            embedding_E = self._model(**inputs.to(self._device)).embeddings[0].float().cpu()
            if not embedding_E.isfinite().all():
                raise InputError("its embedding of speech is not finite")
        return F.normalize(embedding_E, dim=0)


def _likeness(first_E: Tensor, second_E: Tensor) -> float:
    return float(F.cosine_similarity(first_E, second_E, dim=0))


def _cosine(first: Tensor, second: Tensor) -> float:
    return float(F.cosine_similarity(first, second, dim=1).mean())
