"""Which recogniser transcribes speech: ours, any of transformers, or one that writes a file.

    judge: JudgeSettings = JudgeSettings()
    ...
    judge = load_judge(config.judge, config.gemma, device=device)
    texts = transcribe_recordings(judge, utterances)

The same three in every command that judges recordings or spoken answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from commands.origins import refuse_mixture
from commands.setting_types import ModelName
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.manifest import Utterance, read_utterance_audio
from gemma4.speech_encoder import SpeechEncoder, require_tower
from stage1_rvq.asr import AsrListener
from stage1_rvq.listener import Listener, Transcriber, load_listener
from stage1_rvq.recognizer import load_recognizer


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """What transcribes the speech."""

    recognizer: Path | None = None
    """folder of stage1_rvq.train_recognizer, which transcribes the speech"""
    asr: ModelName | None = None
    """instead of --recognizer: hub name or folder of a speech recogniser of transformers"""
    asr_language: str | None = None
    """with --asr of several languages: code of the one it writes, as its card says (jw, aka)"""

    def __post_init__(self) -> None:
        if self.asr_language is not None and self.asr is None:
            raise ValueError("--asr-language needs --asr: it is the language which that writes")
        if sum(value is not None for value in self._judges().values()) > 1:
            raise ValueError(f"give one of {self.flags()} to transcribe the speech")

    def flags(self) -> str:
        """The flags that name a judge, for messages."""
        return ", ".join(f"--{name}" for name in self._judges())

    def name(self) -> str | None:
        """The judge as results name it; None if none is given."""
        if self.asr is not None and self.asr_language is not None:
            return f"{self.asr} ({self.asr_language})"
        return next((str(value) for value in self._judges().values() if value is not None), None)

    def _judges(self) -> dict[str, Path | str | None]:
        return {"recognizer": self.recognizer, "asr": self.asr}


@dataclass(frozen=True, kw_only=True)
class AnyJudgeSettings(JudgeSettings):
    """What transcribes the speech; or a file of transcripts by any other recogniser."""

    hypotheses: Path | None = None
    """instead: transcripts by any other recogniser, JSON Lines with id and heard"""

    def _judges(self) -> dict[str, Path | str | None]:
        return {**super()._judges(), "hypotheses": self.hypotheses}


# Where Gemma has no audio tower, on whose embeddings our recogniser was trained.
OTHER_JUDGE = "in place of --recognizer give --asr"


def load_asr(judge: JudgeSettings, *, device: torch.device) -> AsrListener | None:
    """The recogniser of transformers, if one is given; InputError if it cannot be loaded."""
    if judge.asr is None:
        return None
    return AsrListener(judge.asr, judge.asr_language, device=device)


def load_judge(
    judge: JudgeSettings, gemma: str, *, device: torch.device, allow_mixture: bool = False
) -> Transcriber:
    """Load the judge that is given, to hear recordings.

    Args:
        judge: which; not a file.
        gemma: hub name or folder of the Gemma 4 whose tower hears for our recogniser.
        device: where it runs.
        allow_mixture: go on although the two belong to different audio towers.

    Raises:
        InputError: it cannot be loaded, or our recogniser belongs to another tower.
    """
    if asr := load_asr(judge, device=device):
        return asr
    assert judge.recognizer is not None
    listener = load_listener(gemma, judge.recognizer, device=device)
    _refuse_other_tower(listener, judge, gemma, allowed=allow_mixture)
    return listener


def load_judge_beside(
    judge: JudgeSettings,
    gemma: str,
    encoder: SpeechEncoder,
    *,
    device: torch.device,
    allow_mixture: bool,
) -> Transcriber | None:
    """The judge that is given, beside a Gemma that is loaded already and hears for our recogniser.

    Args:
        judge: which; not a file.
        gemma: name of that Gemma, for messages.
        encoder: what it hears with.
        device: where the judge runs.
        allow_mixture: go on although recogniser and audio tower do not belong together.

    Returns:
        None if no judge is given.

    Raises:
        InputError: it cannot be loaded, or our recogniser belongs to another tower, or to none.
    """
    if judge.recognizer is None:
        return load_asr(judge, device=device)
    recognizer = load_recognizer(judge.recognizer, device=device)
    listener = Listener(require_tower(encoder, instead=OTHER_JUDGE), recognizer)
    _refuse_other_tower(listener, judge, gemma, allowed=allow_mixture)
    return listener


def _refuse_other_tower(
    listener: Listener, judge: JudgeSettings, gemma: str, *, allowed: bool
) -> None:
    origins = {
        f"--gemma {gemma}": listener.encoder.origin,
        f"--recognizer {judge.recognizer}": listener.recognizer.origin(),
    }
    refuse_mixture(origins, allowed=allowed)


def transcribe_recordings(judge: Transcriber, utterances: Sequence[Utterance]) -> list[str]:
    """What a judge hears in the recordings of a manifest; InputError if one cannot be read."""
    heard = []
    for utterance in tqdm(utterances, desc="transcribe", unit=" recordings"):
        waveform_N = read_utterance_audio(utterance, GEMMA_SAMPLE_RATE_HZ)
        heard += judge.transcribe([waveform_N], GEMMA_SAMPLE_RATE_HZ)
    return heard
