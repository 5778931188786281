"""Measure what the CTC recogniser hears in codes: dequantise, read, compare with the text.

This evaluates generated speech in training (which checkpoint to keep), in `generate` (which
sentences to keep) and in `evaluate`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from commands.errors import InputError
from commands.fingerprints import fingerprint
from data_manifests.error_rates import UtteranceErrors, align_utterances
from stage1_rvq.codes import code_format, refuse_other_format
from stage1_rvq.codes_recognizer import CodesRecognizer
from stage1_rvq.model import load_rvq
from stage1_rvq.recognizer import load_recognizer
from stage2_speechless.config import SpeechlessConfig


@dataclass(frozen=True)
class RoundTrip(CodesRecognizer):
    """Quantiser and recogniser that belong together, and that match a Speechless model's codes."""

    def align(self, codes: Sequence[Tensor], texts: Sequence[str]) -> list[UtteranceErrors]:
        """Align what the recogniser reads with the text that each utterance was meant to say."""
        return align_utterances(texts, self.transcribe(codes)) if codes else []

    def character_error_rates(self, codes: Sequence[Tensor], texts: Sequence[str]) -> list[float]:
        """Each utterance's own CER against the text it was meant to say."""
        return [utterance.characters.rate for utterance in self.align(codes, texts)]


def load_round_trip(
    rvq_name: str,
    recognizer_folder: Path,
    speech: SpeechlessConfig,
    *,
    expected_by: str,
    device: torch.device,
) -> RoundTrip:
    """Load quantiser and recogniser, and check that they can read the codes in question.

    Args:
        rvq_name: folder of stage1_rvq.train, or hub name.
        recognizer_folder: folder of stage1_rvq.train_recognizer.
        speech: configuration of the model whose codes are read: their format and quantiser.
        expected_by: the flag that named that model or its codes, for the message.
        device: where both run.

    Raises:
        InputError: unfinished or foreign folders, another code format, another quantiser, or a
            recogniser of another embedding width.
    """
    rvq = load_rvq(rvq_name, device=device)
    refuse_other_format(
        code_format(rvq.config),
        speech.code_format,
        flag=f"--rvq {rvq_name}",
        expected_by=expected_by,
    )
    found = fingerprint(rvq_name).get("sha256", "")
    if speech.quantizer and found and found != speech.quantizer:
        raise InputError(
            f"--rvq {rvq_name} is not the quantiser that made the codes of {expected_by}: their "
            "formats are the same, their codes mean other sounds"
        )
    return RoundTrip(rvq, load_recognizer(recognizer_folder, device=device))
