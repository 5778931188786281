"""Twi error rates as a Hugging Face `evaluate.Metric`, for code that already uses that interface.

    metric = TwiErrorRate()
    metric.add_batch(references=["mepa wo kyɛw"], predictions=["mepa wo kyew"])
    metric.compute()["wer"]  # 0.333...

Unlike `evaluate.load("wer")` it downloads no code. It is separate from `error_rates` because
importing `evaluate` imports torch and takes seconds.
"""

from typing import Any

import datasets
import evaluate

from data_manifests.error_rates import compute_error_rates
from data_manifests.text_rules import TextRules


class TwiErrorRate(evaluate.Metric):
    """Computes all fields of `ErrorRates`, by name; rates are fractions.

    `compute(references=..., predictions=..., normalize=True, numbers_as_digits=False,
    leave_out_tags=False, seed=0)`, as in `TextRules` and `compute_error_rates`. The constructor's
    arguments are those of `evaluate.Metric`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Corpus WER, mean per-utterance WER and CER of normalised Twi.",
            citation="",
            inputs_description="references, predictions: one string an utterance, same order.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        normalize: bool = True,
        numbers_as_digits: bool = False,
        leave_out_tags: bool = False,
        seed: int = 0,
    ) -> dict[str, Any]:
        rules = TextRules(
            normalize=normalize, numbers_as_digits=numbers_as_digits, leave_out_tags=leave_out_tags
        )
        rates = compute_error_rates(references, predictions, rules=rules, seed=seed)
        return rates.as_dict()
