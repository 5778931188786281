"""How well questions are heard and answered under several conditions: a table and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.atomic_write import written_aside
from data_manifests.degradations import NOISES, read_condition
from data_manifests.quoted_rates import QuotedRates

# Who hears, in the order of the table, and what it is called there.
LISTENERS = {"gemma": "fine-tuned Gemma", "recognizer": "our recogniser", "asr": "--asr"}


@dataclass(frozen=True)
class Heard:
    """Answers to the questions, and by name of the listener its transcripts; None of one that is
    not there, or writes none."""

    answers: Sequence[str]
    transcripts: Mapping[str, Sequence[str] | None]


@dataclass(frozen=True)
class NoiseScores:
    """Scores under one condition.

    Attributes:
        condition: its name, as `data_manifests.degradations` reads it.
        num_questions: recordings of questions.
        exact_match: share of answers that equal their reference, normalised for scoring.
        exact_match_interval: its 95 % bootstrap interval over questions.
        chrf: chrF2 of the answers, as a fraction.
        error_rates: of the transcripts of each of `LISTENERS`; None where there are none.
    """

    condition: str
    num_questions: int
    exact_match: float
    exact_match_interval: tuple[float, float]
    chrf: float
    error_rates: dict[str, QuotedRates | None]


def format_table(scores: Sequence[NoiseScores], typed: float, *, asr: str | None) -> str:
    """A row for each condition: right answers, then the CER and WER of each listener, in percent.

    Args:
        scores: of the conditions, in the order of the rows.
        typed: share of the same questions that the base model answers exactly when typed.
        asr: the recogniser of transformers; None without one.
    """
    known = [by for by in LISTENERS if any(of.error_rates[by] for of in scores)]
    names = {by: asr if by == "asr" else LISTENERS[by] for by in known}
    header = f"{'':<24}{'answers %':>10}  {'95 % interval':<15}"
    lines = [
        f"{scores[0].num_questions} recorded questions; typed, the base model answers "
        f"{100 * typed:.1f} % exactly",
        header + "".join(f"{str(names[by])[-22:]:>24}" for by in known),
        " " * len(header) + f"{'CER %   WER %':>24}" * len(known),
    ]
    for of in scores:
        low, high = (100 * end for end in of.exact_match_interval)
        cells = f"{100 * of.exact_match:>10.1f}  {f'{low:.1f} to {high:.1f}':<15}"
        for by in known:
            rates = of.error_rates[by]
            shown = f"{100 * rates.cer:>6.1f}  {100 * rates.wer:>6.1f}" if rates else "-"
            cells += f"{shown:>24}"
        lines.append(f"{of.condition:<24}{cells}")
    return "\n".join(lines)


def plot_scores(scores: Sequence[NoiseScores], typed: float, path: Path) -> None:
    """Draw right answers and CER against the signal-to-noise ratio of each noise, and as bars for
    all other conditions, as an SVG file.

    Args:
        scores: of all conditions.
        typed: as in `format_table`; a dashed line.
        path: the file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    ladders, others = _ladders(scores)
    columns = [*ladders, *([None] if others else [])]
    # Text as text, and the same bytes every time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "noise"}):
        size = (max(5.0, 3.2 * len(columns)), 6.0)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(2, len(columns), sharey="row", squeeze=False)
        for column, name in enumerate(columns):
            rows = others if name is None else [of for _, of in ladders[name]]
            ticks = [of.condition for of in others] if name is None else []
            levels = list(range(len(rows))) if name is None else [db for db, _ in ladders[name]]
            style = "o" if name is None else "o-"
            _draw(grid[0][column], grid[1][column], levels, rows, typed, style)
            for axes in grid[:, column]:
                axes.grid(alpha=0.3)
                if name is None:
                    axes.set_xticks(levels, ticks, rotation=25, ha="right")
                else:
                    axes.set_xlabel("signal-to-noise ratio, dB")
                    axes.invert_xaxis()
            grid[0][column].set_title(name or "other conditions")
        grid[0][0].set(ylabel="answered exactly", ylim=(0, 1.02))
        grid[1][0].set(ylabel="CER of the transcripts")
        grid[0][-1].legend()
        grid[1][-1].legend()
        with written_aside(path) as aside:
            figure.savefig(aside, format="svg", metadata={"Date": None})


def _draw(
    above: Any,
    below: Any,
    levels: Sequence[float],
    rows: Sequence[NoiseScores],
    typed: float,
    style: str,
) -> None:
    above.axhline(typed, color="k", linestyle="--", label="typed (ceiling)")
    above.plot(levels, [of.exact_match for of in rows], style, label="spoken")
    for by, label in LISTENERS.items():
        shown = [
            (level, rates.cer)
            for level, of in zip(levels, rows, strict=True)
            if (rates := of.error_rates[by])
        ]
        if shown:
            below.plot(*zip(*shown, strict=True), style, label=label)


def _ladders(
    scores: Sequence[NoiseScores],
) -> tuple[dict[str, list[tuple[float, NoiseScores]]], list[NoiseScores]]:
    """Noises that were tried at several levels, with their decibels; and all other conditions."""
    found: dict[str, list[tuple[float, NoiseScores]]] = {}
    for of in scores:
        first, *others = read_condition(of.condition).steps
        if first.kind in NOISES and not others:
            found.setdefault(first.kind, []).append((first.amount, of))
    ladders = {
        name: sorted(steps, key=lambda step: -step[0])
        for name, steps in found.items()
        if len(steps) > 1
    }
    drawn = [of for steps in ladders.values() for _, of in steps]
    return ladders, [of for of in scores if of not in drawn]
