"""Compare two tokenizations of the same speech: how often codes agree, and how they are read.

    python -m stage1_rvq.compare_codes --codes data/cv-codes/test \
        --other-codes data/cv-codes-bfloat16/test --rvq runs/rvq --recognizer runs/recognizer

This tells whether a faster way to tokenize (`--dtype bfloat16`, another batch size, a smaller beam)
is safe for a corpus: codes may differ in many frames and still be read as the same words. Both are
read on the same utterances, so the interval of the difference of their WERs is far narrower than
that of either WER.
"""

# K codebooks (coarsest first)

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from commands.command_line import parse_config, run_command
from commands.device import DeviceName, pick_device
from commands.errors import InputError
from commands.origins import refuse_mixture
from commands.setting_types import ModelName, Seed
from data_manifests.alignments import align_utterances
from data_manifests.error_rates import difference_interval, pool_error_rates
from stage1_rvq.codes import CodedUtterance, read_codes_origins
from stage1_rvq.codes_recognizer import CodesRecognizer, load_codes_recognizer

TOLERANCE = 0.3  # percentage points of WER that the other codes may lose


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare two tokenizations of the same speech."""

    codes: Path
    """folder of stage1_rvq.tokenize_corpus, with transcripts: the reference"""
    other_codes: Path
    """another such folder with codes of the same utterances"""
    rvq: ModelName
    """quantiser that made both: folder of stage1_rvq.train, or hub name"""
    recognizer: Path
    """folder of stage1_rvq.train_recognizer"""
    json: bool = False
    """print JSON, rates as fractions, instead of a table in percent"""
    seed: Seed = 0
    """seed for the resampling behind the 95 % intervals"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""


@dataclass(frozen=True)
class Comparison:
    """Fractions, over the same utterances.

    Attributes:
        num_utterances: number of utterances compared.
        agreement: share of frames with the same code, by codebook.
        wer: WER of the reference codes.
        wer_other: WER of the other codes.
        wer_difference: wer_other minus wer.
        wer_difference_low: lower end of its 95 % interval, utterances resampled in pairs.
        wer_difference_high: upper end.
        num_texts_differing: utterances that are not read as the same text.
    """

    num_utterances: int
    agreement: list[float]
    wer: float
    wer_other: float
    wer_difference: float
    wer_difference_low: float
    wer_difference_high: float
    num_texts_differing: int


def main(argv: list[str] | None = None) -> None:
    """Print the comparison."""
    config = parse_config(CompareConfig, argv)
    device = pick_device(config.device)
    codes_recognizer = load_codes_recognizer(config.rvq, config.recognizer, device=device)
    first = codes_recognizer.read_codes(config.codes, flag="--codes")
    other = codes_recognizer.read_codes(config.other_codes, flag="--other-codes")
    refuse_mixture(
        {
            **read_codes_origins(config.codes),
            **read_codes_origins(config.other_codes, flag="--other-codes"),
            **codes_recognizer.origins(config.rvq, config.recognizer),
        },
        allowed=config.allow_mixture,
    )
    compared = compare(first, other, codes_recognizer, seed=config.seed)
    if config.json:
        print(json.dumps(asdict(compared), indent=2))
    else:
        print(format_comparison(compared))


def compare(
    first: list[CodedUtterance],
    other: list[CodedUtterance],
    codes_recognizer: CodesRecognizer,
    *,
    seed: int = 0,
) -> Comparison:
    """Compare two tokenizations.

    Raises:
        InputError: the utterances or their lengths differ.
    """
    if [(u.id, len(u.codes_TK)) for u in first] != [(u.id, len(u.codes_TK)) for u in other]:
        raise InputError("--codes and --other-codes are not of the same utterances and lengths")
    same_NK = torch.cat([a.codes_TK == b.codes_TK for a, b in zip(first, other, strict=True)])
    texts = [u.text for u in first]
    aligned = [
        align_utterances(texts, codes_recognizer.transcribe([u.codes_TK for u in utterances]))
        for utterances in tqdm((first, other), desc="read", unit=" folders")
    ]
    wer, wer_other = (pool_error_rates(utterances, seed=seed).wer for utterances in aligned)
    low, high = difference_interval(*([u.words for u in part] for part in aligned), seed=seed)
    return Comparison(
        num_utterances=len(first),
        agreement=same_NK.float().mean(dim=0).tolist(),
        wer=wer,
        wer_other=wer_other,
        wer_difference=wer_other - wer,
        wer_difference_low=low,
        wer_difference_high=high,
        num_texts_differing=sum(
            a.hypothesis != b.hypothesis for a, b in zip(*aligned, strict=True)
        ),
    )


def format_comparison(compared: Comparison) -> str:
    """The comparison in percent, and whether it stays within `TOLERANCE`."""
    agreement = " ".join(f"{100 * share:.2f}" for share in compared.agreement)
    low, high = 100 * compared.wer_difference_low, 100 * compared.wer_difference_high
    difference = 100 * compared.wer_difference
    verdict = "at most" if difference <= TOLERANCE else "MORE than"
    if difference <= TOLERANCE < high:
        verdict = "at most (the interval says: perhaps not)"
    return "\n".join(
        [
            f"{compared.num_utterances} utterances, {compared.num_texts_differing} of them read "
            "as other texts",
            f"codes that agree, % by codebook: {agreement}",
            f"WER of --codes        {100 * compared.wer:6.2f} %",
            f"WER of --other-codes  {100 * compared.wer_other:6.2f} %",
            f"difference            {difference:+6.2f} points, 95 % interval {low:+.2f} to "
            f"{high:+.2f}: {verdict} {TOLERANCE:g} points",
        ]
    )


if __name__ == "__main__":
    run_command(main)
