"""Plots of the durations and speaking rates in every corpus."""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from commands.atomic_write import written_aside
from data_manifests.corpus_statistics import Histogram, StatisticsByCorpus, histograms_by_corpus
from data_manifests.defects import MAX_CHARACTERS_PER_S, MIN_CHARACTERS_PER_S


def plot_durations(statistics: StatisticsByCorpus, path: Path) -> None:
    """Plot the share of utterances by duration (logarithmic axis) as PNG, one line per corpus."""
    histograms = histograms_by_corpus(statistics, lambda total: total.durations)
    _plot(histograms, path, "duration, seconds", is_logarithmic=True)


def plot_speaking_rates(statistics: StatisticsByCorpus, path: Path) -> None:
    """Plot the share of utterances by characters a second as PNG, one line per corpus; dashed lines
    mark the limits of human speech, and the last bin holds all that is beyond the axis."""
    histograms = histograms_by_corpus(statistics, lambda total: total.speaking_rates)
    limits = (MIN_CHARACTERS_PER_S, MAX_CHARACTERS_PER_S)
    _plot(histograms, path, "characters a second", limits=limits)


def _plot(
    histograms: Mapping[str, Histogram],
    path: Path,
    label: str,
    *,
    is_logarithmic: bool = False,
    limits: tuple[float, ...] = (),
) -> None:
    # Takes a second to import. A bare Figure draws with Agg, with no display or global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for corpus, histogram in histograms.items():
        total = sum(histogram.counts)
        shares = [count / total for count in histogram.counts]
        axes.stairs(shares, histogram.edges, label=f"{corpus} ({total})")
    for limit in limits:
        axes.axvline(limit, color="black", linestyle="--", linewidth=0.8)
    if is_logarithmic:
        axes.set(xscale="log", xlim=_filled_range(histograms))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    axes.set(xlabel=label, ylabel="share of utterances")
    axes.legend(loc="upper right")
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=120, format="png")


def _filled_range(histograms: Mapping[str, Histogram]) -> tuple[float, float]:
    """Whole powers of ten around the bins that hold anything."""
    edges = [
        (low, high)
        for histogram in histograms.values()
        for (low, high), count in zip(pairwise(histogram.edges), histogram.counts, strict=True)
        if count
    ]
    lowest, highest = min(low for low, _ in edges), max(high for _, high in edges)
    return 10 ** math.floor(math.log10(lowest)), 10 ** math.ceil(math.log10(highest))
