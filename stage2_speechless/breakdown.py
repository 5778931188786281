"""Break down Speechless's results by dialect, length and number of codebooks, and plot them.

Every row compares generated speech with real speech of the same sentences, which is its ceiling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.atomic_write import written_aside
from stage1_rvq.codebook_metrics import codebook_prefixes
from stage2_speechless.metrics import (
    PooledErrors,
    ReadSentence,
    SpeechMetrics,
    pool_errors,
    pool_sentences,
)
from stage2_speechless.round_trip import RoundTrip

# Longest short and longest medium sentence in characters, including spaces: thirds of Common
# Voice's validated Twi (its quantiles are 25 and 42), fixed so that rows of different test sets can
# be compared.
LENGTH_BOUNDS = (25, 40)


@dataclass(frozen=True)
class Breakdown:
    """The metrics of all sentences, of groups of them, and by how many codebooks are decoded."""

    total: SpeechMetrics
    by_dialect: Mapping[str, SpeechMetrics]
    by_length: Mapping[str, SpeechMetrics]
    by_codebooks: Mapping[str, PooledErrors]

    def as_dict(self) -> dict[str, Any]:
        """For `metrics.json`."""
        tables: dict[str, Mapping[str, SpeechMetrics | PooledErrors]] = {
            "by_dialect": self.by_dialect, "by_length": self.by_length,
            "by_codebooks": self.by_codebooks,
        }  # fmt: skip
        shown = {
            name: {group: row.as_dict() for group, row in rows.items()}
            for name, rows in tables.items()
        }
        return {**self.total.as_dict(), **shown}


def break_down(sentences: Sequence[ReadSentence], round_trip: RoundTrip) -> Breakdown:
    """Everything that is measured of Speechless."""
    return Breakdown(
        pool_sentences(sentences),
        measure_by_dialect(sentences),
        measure_by_length(sentences),
        measure_by_codebooks(sentences, round_trip),
    )


def measure_by_dialect(sentences: Sequence[ReadSentence]) -> dict[str, SpeechMetrics]:
    """`pool_sentences` for each dialect that occurs."""
    names = sorted({s.real.dialect for s in sentences})
    return {
        name: pool_sentences([s for s in sentences if s.real.dialect == name]) for name in names
    }


def measure_by_length(sentences: Sequence[ReadSentence]) -> dict[str, SpeechMetrics]:
    """`pool_sentences` for short, medium and long sentences ("up to 25", "26 to 40", "over 40"
    characters), where any occur."""
    short, medium = LENGTH_BOUNDS
    groups: dict[str, list[ReadSentence]] = {
        f"up to {short}": [], f"{short + 1} to {medium}": [], f"over {medium}": [],
    }  # fmt: skip
    names = list(groups)
    for sentence in sentences:
        num_characters = len(sentence.real_errors.reference)
        groups[names[sum(num_characters > bound for bound in LENGTH_BOUNDS)]].append(sentence)
    return {name: pool_sentences(group) for name, group in groups.items() if group}


def measure_by_codebooks(
    sentences: Sequence[ReadSentence], round_trip: RoundTrip
) -> dict[str, PooledErrors]:
    """`pool_errors` when only the coarsest 1, 2, 4, ... and all codebooks are decoded.

    This shows how much of what the recogniser understands is in which codebooks, and in which of
    them generated speech falls behind.
    """
    texts = [s.real.text for s in sentences]
    rows = {}
    for k in codebook_prefixes(round_trip.rvq.config.num_codebooks):
        real = round_trip.align([s.real.codes_TK[:, :k] for s in sentences], texts)
        generated = round_trip.align([s.generated.codes_TK[:, :k] for s in sentences], texts)
        rows[str(k)] = pool_errors(real, generated)
    return rows


def plot_durations(sentences: Sequence[ReadSentence], frame_rate_hz: float, path: Path) -> None:
    """Plot each sentence's generated duration against the real one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for ended, marker, label in ((True, "o", "ended"), (False, "x", "cut off")):
        chosen = [s for s in sentences if s.generated.ended == ended]
        real_s = [len(s.real.codes_TK) / frame_rate_hz for s in chosen]
        generated_s = [len(s.generated.codes_TK) / frame_rate_hz for s in chosen]
        axes.scatter(real_s, generated_s, s=14, marker=marker, label=f"{label} ({len(chosen)})")
    longest_s = max(
        max(len(s.real.codes_TK), len(s.generated.codes_TK)) / frame_rate_hz for s in sentences
    )
    axes.plot([0, longest_s], [0, longest_s], color="grey", linewidth=0.8, label="equal")
    limits = (0, 1.05 * longest_s)
    axes.set(xlabel="recording, s", ylabel="generated, s", xlim=limits, ylim=limits)
    axes.legend()
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=120, format="png")


def plot_error_rates(metrics: Breakdown, path: Path) -> None:
    """Plot WER and its 95 % interval on real and generated codes by length, dialect and
    codebooks."""
    from matplotlib.figure import Figure

    panels = {
        "characters": {name: row.errors for name, row in metrics.by_length.items()},
        "dialect": {name: row.errors for name, row in metrics.by_dialect.items()},
        "codebooks": metrics.by_codebooks,
    }
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    axes_of_panels = figure.subplots(1, len(panels), sharey=True)
    for axes, (label, rows) in zip(axes_of_panels, panels.items(), strict=True):
        versions = {
            "real": [row.real_codes for row in rows.values()],
            "generated": [row.generated for row in rows.values()],
        }
        for shift, (version, rates) in zip((-0.2, 0.2), versions.items(), strict=True):
            places = [place + shift for place in range(len(rates))]
            axes.bar(places, [100 * rate.wer for rate in rates], 0.4, label=version)
            lows, highs = [100 * r.wer_low for r in rates], [100 * r.wer_high for r in rates]
            axes.vlines(places, lows, highs, color="black", linewidth=1)
        axes.set_xticks(range(len(rows)), list(rows))
        axes.set(xlabel=label, xlim=(-0.6, max(len(rows), 3) - 0.4))
    figure.axes[0].set(ylabel="recogniser's WER, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper")
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=120, format="png")
