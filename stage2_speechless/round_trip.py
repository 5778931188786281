"""Measure what the CTC recogniser hears in codes: dequantise, read, compare with the text.

This evaluates generated speech in training (which checkpoint to keep), in `generate` (which
sentences to keep) and in `evaluate`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from commands.origins import Origin, refuse_mixture
from commands.parquet_files import CodeFormat
from commands.sources import Sources, merge
from data_manifests.alignments import UtteranceErrors, align_utterances
from stage1_rvq.codes import code_format, refuse_other_format
from stage1_rvq.codes_recognizer import CodesRecognizer
from stage1_rvq.model import load_rvq
from stage1_rvq.recognizer import load_recognizer


@dataclass(frozen=True)
class RoundTrip(CodesRecognizer):
    """Quantiser and recogniser that belong together, and that match a Speechless model's codes."""

    def made_from(self) -> Sources:
        """What quantiser and recogniser were trained on."""
        return merge(self.rvq.made_from(), self.recognizer.made_from())

    def align(self, codes: Sequence[Tensor], texts: Sequence[str]) -> list[UtteranceErrors]:
        """Align what the recogniser reads with the text that each utterance was meant to say."""
        return align_utterances(texts, self.transcribe(codes)) if codes else []

    def character_error_rates(self, codes: Sequence[Tensor], texts: Sequence[str]) -> list[float]:
        """Each utterance's own CER against the text it was meant to say."""
        return [utterance.characters.rate for utterance in self.align(codes, texts)]


def load_round_trip(
    rvq_name: str,
    recognizer_folder: Path,
    fmt: CodeFormat,
    origins: Mapping[str, Origin],
    *,
    expected_by: str,
    device: torch.device,
    allow_mixture: bool,
) -> RoundTrip:
    """Load quantiser and recogniser, and check that they can read the codes in question.

    Args:
        rvq_name: folder of stage1_rvq.train, or hub name.
        recognizer_folder: folder of stage1_rvq.train_recognizer.
        fmt: format of the codes that are read.
        origins: what those codes and the model that makes them belong to, by flag and value.
        expected_by: the flag that named that model or its codes, for the message.
        device: where both run.
        allow_mixture: do not refuse another quantiser or audio tower.

    Raises:
        InputError: unfinished or foreign folders, another code format, a recogniser of another
            embedding width, or things of different quantisers or audio towers.
    """
    rvq = load_rvq(rvq_name, device=device)
    refuse_other_format(
        code_format(rvq.config),
        fmt,
        flag=f"--rvq {rvq_name}",
        expected_by=expected_by,
    )
    round_trip = RoundTrip(rvq, load_recognizer(recognizer_folder, device=device))
    refuse_mixture(
        {**origins, **round_trip.origins(rvq_name, recognizer_folder)}, allowed=allow_mixture
    )
    return round_trip
