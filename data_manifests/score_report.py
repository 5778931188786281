"""What `data_manifests.score` reports, as a table and as JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from data_manifests.error_breakdowns import GroupRates, Interval, LanguageErrors, SpeakerRates
from data_manifests.error_rates import ErrorRates


@dataclass(frozen=True, kw_only=True)
class ScoreReport:
    """Error rates, and what was asked for beside them; None where it was not."""

    rates: ErrorRates
    num_left_out: int | None = None
    """Utterances left out because their reference has no word."""
    speakers: SpeakerRates | None = None
    words: Mapping[str, LanguageErrors] | None = None
    """Errors in words of a language, by its name."""
    by: Mapping[str, Mapping[str, GroupRates]] | None = None
    """Rates of groups, by their names, by what makes the groups: "dialect"."""

    def as_dict(self) -> dict[str, Any]:
        """The rates by name, then what was asked for; JSON-ready, rates as fractions."""
        more = {name: value for name, value in asdict(self).items() if name != "rates"}
        asked = {name: value for name, value in more.items() if value is not None}
        return {**self.rates.as_dict(), **asked}

    def format(self) -> str:
        """In percent, as lines of text for a terminal."""
        lines = [self.rates.format_table(), *self._format_counts()]
        for kind, groups in (self.by or {}).items():
            lines += ["", *_format_groups(kind, groups)]
        return "\n".join(lines)

    def _format_counts(self) -> Iterator[str]:
        if self.num_left_out is not None:
            yield f"{'left out':22}{self.num_left_out:8d}  (no word in the reference)"
        if (speakers := self.speakers) is not None:
            yield f"{'speakers':22}{speakers.num_speakers:8d}"
            yield f"{'  mean of their WERs':22}{100 * speakers.wer_speaker_mean:8.2f} %"
            highest = 100 * speakers.wer_speaker_highest
            yield f"{'  highest of them':22}{highest:8.2f} %  {speakers.highest}"
            yield f"{'  WER over speakers':32}{_format_interval(speakers.wer_interval)}"
            yield f"{'  CER over speakers':32}{_format_interval(speakers.cer_interval)}"
        for name, words in (self.words or {}).items():
            interval = _format_interval(words.rate_interval)
            yield f"{name + ' words':22}{words.num_reference_words:8d}"
            yield f"{'  wrong':22}{100 * words.rate:8.2f} %{interval}"
            yield f"{'  substitutions':22}{words.substitutions:8d}"
            yield f"{'  deletions':22}{words.deletions:8d}"
            yield f"{'  insertions':22}{words.insertions:8d}"


def _format_groups(kind: str, groups: Mapping[str, GroupRates]) -> Iterator[str]:
    width = max(22, *(len(name) + 2 for name in groups))
    yield (
        f"{kind:{width}}{'WER %':>8}  {'95 % interval':18}{'CER %':>8}"
        f"{'utterances':>12}{'words':>8}"
    )
    for name, rates in groups.items():
        interval = "" if rates.wer_interval is None else _format_ends(rates.wer_interval)
        yield (
            f"{name:{width}}{100 * rates.wer:8.2f}  {interval:18}{100 * rates.cer:8.2f}"
            f"{rates.num_utterances:12d}{rates.num_reference_words:8d}"
        )


def _format_interval(interval: Interval) -> str:
    return "" if interval is None else f"  95 % interval {_format_ends(interval)}"


def _format_ends(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"
