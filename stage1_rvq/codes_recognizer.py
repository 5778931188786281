"""Read semantic codes back as text: dequantise them, then run the CTC recogniser.

codes_recognizer = load_codes_recognizer("runs/rvq", Path("runs/recognizer"),
device=torch.device("cpu"))
texts = codes_recognizer.transcribe([codes_TK, ...])
"""

# T frames (25 per second), K codebooks, k <= K of them

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from commands.errors import InputError
from commands.origins import Origin
from stage1_rvq.codes import (
    CodedUtterance,
    code_format,
    read_code_format,
    read_codes,
    refuse_other_format,
)
from stage1_rvq.model import SpeechRVQ, load_rvq
from stage1_rvq.recognizer import CTCRecognizer, load_recognizer

BATCH_SIZE = 32


@dataclass(frozen=True)
class CodesRecognizer:
    """Quantiser and recogniser that belong together.

    Raises:
        InputError: the recogniser was trained on embeddings of another width.
    """

    rvq: SpeechRVQ
    recognizer: CTCRecognizer

    def __post_init__(self) -> None:
        self.recognizer.refuse_other_width(self.rvq.config.dim, flag="--rvq")

    def origins(self, rvq: str, recognizer: Path) -> dict[str, Origin]:
        """What both were made with, for `refuse_mixture`; the arguments are what the user named."""
        return {
            f"--rvq {rvq}": self.rvq.origin(),
            f"--recognizer {recognizer}": self.recognizer.origin(),
        }

    def transcribe(self, codes: Sequence[Tensor]) -> list[str]:
        """Transcripts of codes `[T_i, k]`, each with at least one frame; with k < K only the
        coarsest k codebooks are used."""
        device = self.rvq.project_in.weight.device
        texts = []
        for start in range(0, len(codes), BATCH_SIZE):
            frames = [
                self.rvq.decode(c.to(device)).cpu() for c in codes[start : start + BATCH_SIZE]
            ]
            texts += self.recognizer.transcribe(frames)
        return texts

    def read_codes(self, path: Path, *, flag: str) -> list[CodedUtterance]:
        """The utterances of a codes folder or file that have at least one frame.

        Raises:
            InputError: the folder is unfinished, there are no codes, or they have another format.
        """
        refuse_other_format(
            read_code_format(path, flag=flag), code_format(self.rvq.config),
            flag=f"{flag} {path}", expected_by="--rvq",
        )  # fmt: skip
        utterances = [u for u in read_codes(path, flag=flag) if len(u.codes_TK)]
        if not utterances:
            raise InputError(f"{flag} {path}: no utterance in it")
        return utterances


def load_codes_recognizer(rvq: str, recognizer: Path, *, device: torch.device) -> CodesRecognizer:
    """Load a quantiser (folder of stage1_rvq.train, or hub name) and a recogniser (folder of
    stage1_rvq.train_recognizer).

    Raises:
        InputError: unfinished or foreign folders, or models that do not belong together.
    """
    return CodesRecognizer(load_rvq(rvq, device=device), load_recognizer(recognizer, device=device))
