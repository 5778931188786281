"""The picture of a curve: one panel for each stage, figures against hours of speech."""

from collections.abc import Sequence
from pathlib import Path

from commands.atomic_write import written_aside
from pipeline.curve import ROWS, Point


def plot_curve(points: Sequence[Point], path: Path) -> None:
    """Draw the figures of all stages, and their ceilings dashed, as an SVG file.

    Args:
        points: in the order of their hours; what was not measured has no mark.
        path: the file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    hours = [point.hours for point in points]
    # Text as text, and the same bytes every time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "curve"}):
        figure = Figure(figsize=(9, 6.4), layout="constrained")
        for axes, (stage, rows) in zip(figure.subplots(2, 2).flat, ROWS.items(), strict=True):
            if all(point.figures[row.key] is None for point in points for row in rows):
                axes.text(0.5, 0.5, "not yet measured", transform=axes.transAxes, ha="center")
            for row in rows:
                known = [(p.hours, y) for p in points if (y := p.figures[row.key]) is not None]
                style = "k--" if row.is_ceiling else "o-"
                label = row.label + (" (ceiling)" if row.is_ceiling else "")
                axes.plot(*zip(*known, strict=True) if known else ([], []), style, label=label)
            axes.set_xscale("log", base=2)
            axes.set(title=stage, xlabel="hours of recorded speech", ylim=(0, None))
            axes.set_xticks(hours, [f"{amount:g}" for amount in hours])
            axes.grid(alpha=0.3)
            axes.legend()
        with written_aside(path) as aside:
            figure.savefig(aside, format="svg", metadata={"Date": None})
