"""Error rates as tables quote them: CER first, then WER, each with its 95 % interval.

The division of Twi into words is unstable (sɛ ebia / sɛebia), and a WER counts every word that is
divided in another way; so it is the CER that compares recognisers, and what they judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_manifests.error_rates import compute_error_rates

LABEL_WIDTH = 26
HEADER = (
    f"{'':<{LABEL_WIDTH}}{'CER %':>7}  {'95 % interval':<16}{'WER %':>7}  {'95 % interval':<16}"
    f"{'texts':>6}"
)


@dataclass(frozen=True)
class QuotedRates:
    """Pooled error rates of one recogniser on one set; fractions, each with its 95 % interval."""

    cer: float
    cer_low: float
    cer_high: float
    wer: float
    wer_low: float
    wer_high: float
    num_texts: int

    def format(self) -> str:
        """In percent, below `HEADER`."""
        cer = f"{100 * self.cer_low:.2f} to {100 * self.cer_high:.2f}"
        wer = f"{100 * self.wer_low:.2f} to {100 * self.wer_high:.2f}"
        return (
            f"{100 * self.cer:>7.2f}  {cer:<16}{100 * self.wer:>7.2f}  {wer:<16}{self.num_texts:>6}"
        )


def quote_rates(references: Sequence[str], heard: Sequence[str | None]) -> QuotedRates | None:
    """Error rates of transcripts; None if there are none.

    Args:
        references: what was said.
        heard: what was recognised; None where nothing was there to be heard.

    Raises:
        InputError: no reference has a word in it.
    """
    known = [(r, text) for r, text in zip(references, heard, strict=True) if text is not None]
    if not known:
        return None
    rates = compute_error_rates(*zip(*known, strict=True))
    return QuotedRates(
        rates.cer, rates.cer_low, rates.cer_high,
        rates.wer, rates.wer_low, rates.wer_high, len(known),
    )  # fmt: skip


def format_rates(rows: Mapping[str, QuotedRates | None]) -> list[str]:
    """Lines of a table, for rows by their labels."""
    return [HEADER] + [
        f"{label:<{LABEL_WIDTH}}{rates.format() if rates else 'not measured':>14}"
        for label, rates in rows.items()
    ]
