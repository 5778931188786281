"""What training measures on: dev utterances and, if there is one, the recogniser that evaluates
speech."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from commands.origins import Origin
from commands.parquet_files import CodeFormat
from stage1_rvq.codes import read_code_format, refuse_other_format
from stage2_speechless.corpus import open_corpus, print_left_out
from stage2_speechless.data import TrainingUtterance
from stage2_speechless.round_trip import RoundTrip, load_round_trip
from stage2_speechless.vocabulary import Vocabulary


@dataclass(frozen=True)
class Dev:
    """What is measured during training: loss on all utterances, generated speech on the first
    few."""

    utterances: Sequence[TrainingUtterance]
    round_trip: RoundTrip | None


def load_dev(
    codes: Path,
    rvq: str | None,
    recognizer: Path | None,
    fmt: CodeFormat,
    origins: Mapping[str, Origin],
    *,
    expected_by: str,
    device: torch.device,
    allow_mixture: bool,
) -> Dev:
    """Load what `--dev-codes`, `--rvq` and `--recognizer` name.

    Args:
        rvq: quantiser that made them; without it or the recogniser, only the loss is measured.
        fmt: format of the training codes.
        origins: what the codes of both splits belong to, by flag and value.
        expected_by: the flag that named the training codes, for messages.
        allow_mixture: do not refuse another quantiser or audio tower.

    Raises:
        InputError: codes, quantiser and recogniser do not belong together.
    """
    refuse_other_format(
        read_code_format(codes, flag="--dev-codes"),
        fmt,
        flag=f"--dev-codes {codes}",
        expected_by=expected_by,
    )
    corpus = open_corpus(codes, Vocabulary(), flag="--dev-codes")
    print_left_out(corpus, "--dev-codes")
    if not (recognizer and rvq):
        return Dev(corpus.utterances, None)
    round_trip = load_round_trip(
        rvq, recognizer, fmt, origins, expected_by=expected_by, device=device,
        allow_mixture=allow_mixture,
    )  # fmt: skip
    return Dev(corpus.utterances, round_trip)
