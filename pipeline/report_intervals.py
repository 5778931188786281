"""The 95 % bootstrap intervals of a report's rates, where the commands have measured them."""

from collections.abc import Mapping
from typing import Any

# A version of the speech, in the metrics of `speech_head.evaluate`, by its row of the report.
SPEECH = {
    "wer_teacher": "recording", "wer_mimi": "mimi", "wer_spoken": "spoken",
    "wer_parallel": "parallel",
}  # fmt: skip

Interval = tuple[float, float]


def read_intervals(tests: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Interval]]:
    """Intervals by stage, and by the key of the row that they belong to.

    Args:
        tests: stage -> the metrics of its test; empty if it was not measured. Metrics of older
            versions hold fewer intervals.
    """
    stage1, stage3 = tests["stage1"], tests["stage3"]
    of_stage1 = {"wer_continuous": _ends(stage1.get("continuous"), "wer")}
    for codebooks, rates in (stage1.get("quantized") or {}).items():
        of_stage1[f"wer_quantized.{codebooks}"] = _ends(rates, "wer")
    of_stage2 = {key: _ends(tests["stage2"], key) for key in ("wer_real_codes", "wer_generated")}
    of_stage3 = {
        "typed_after" if name == "typed_after" else f"exact_match.{name}": tuple(ends)
        for name, ends in stage3.get("exact_match_interval", {}).items()
        if ends
    }
    rates = tests["speech_head"].get("error_rates", {})
    of_head = {key: _ends(rates.get(version), "wer") for key, version in SPEECH.items()}
    found: dict[str, dict[str, Any]] = {
        "stage1": of_stage1, "stage2": of_stage2, "stage3": of_stage3, "speech_head": of_head,
    }  # fmt: skip
    return {
        stage: {key: ends for key, ends in intervals.items() if ends}
        for stage, intervals in found.items()
    }


def _ends(rates: Mapping[str, Any] | None, name: str) -> Interval | None:
    low, high = ((rates or {}).get(f"{name}_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (low, high)
