"""What each stage reaches with so many hours of speech: the points of a curve, and its table.

points = [read_point(2.0, Path("runs/hours/2h"))]
print(format_curve(points, title="Twi", judge="runs/hours/8h/recognizer"))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.json_files import read_json
from pipeline.report import measured_stages, read_measured

# What `data_manifests.subset` says of the speech of a point, and of the voice that answers.
SUBSETS = {"speech": "speech/subset.json", "voice": "voice-speech/subset.json"}


@dataclass(frozen=True)
class Row:
    """A figure of the table.

    Attributes:
        key: its name in `Point.figures`.
        label: as the table and the picture call it.
        meaning: what it is, and who judges.
        is_ceiling: the best that could be hoped for.
    """

    key: str
    label: str
    meaning: str
    is_ceiling: bool = False


ROWS = {
    "stage 1: recogniser and quantiser, WER": (
        Row("wer_recognizer", "own recogniser", "this point's recogniser, on unquantised speech"),
        Row("wer_codes", "8 codebooks", "the judge, on codes of this point's quantiser"),
        Row("wer_continuous", "unquantised", "the judge, on unquantised speech", True),
    ),
    "stage 2: Speechless, WER": (
        Row("wer_generated", "codes from text", "the judge, on codes written from text"),
        Row("wer_real_codes", "codes of recordings", "the judge, on codes of recordings", True),
    ),
    "stage 3: answers, exactly right": (
        Row("spoken_after", "spoken questions", "after stage 3"),
        Row("cascade", "cascade", "this point's recogniser, its transcript typed"),
        Row("typed", "typed questions", "the base model, which no recording changes", True),
    ),
    "stage 4: speech head, WER": (
        Row("wer_spoken", "spoken answers", "the judge, on answers to spoken questions"),
        Row("wer_mimi", "recordings by Mimi", "the judge, on recordings coded by Mimi", True),
    ),
}


@dataclass(frozen=True)
class Point:
    """One amount of speech.

    Attributes:
        hours: as asked for.
        subsets: hours, utterances and speakers that were used, by `SUBSETS`.
        figures: by `Row.key`; None where it was not measured.
        stages: the four stages of the point's report.
        dialogues: spoken dialogues that stage 3 learned from; None where there are none yet.
        seconds: what its commands took.
        failure: the command that failed, and how; "" if none did.
    """

    hours: float
    subsets: Mapping[str, Mapping[str, Any]]
    figures: Mapping[str, float | None]
    stages: Mapping[str, Any]
    dialogues: int | None
    seconds: float
    failure: str = ""


def read_point(hours: float, folder: Path, *, seconds: float = 0.0, failure: str = "") -> Point:
    """Gather what the commands of a point have measured so far.

    Args:
        hours: as asked for.
        folder: of the run; it need not exist.
        seconds: what its commands took.
        failure: what failed, if anything did.
    """
    stages = measured_stages(folder)
    subsets = {
        name: read_json(folder / path) for name, path in SUBSETS.items() if (folder / path).exists()
    }
    own = read_measured(folder / "own-test").get("continuous") or {}
    spoken = folder / "spoken-dialogues"
    dialogues = None
    if (spoken / "done").exists():
        dialogues = int(read_json(spoken / "provenance.json")["num_dialogues"])
    quantized = stages["stage1"]["wer_quantized"]
    answers = stages["stage3"]["exact_match"]
    figures = {
        "wer_recognizer": own.get("wer"),
        "wer_codes": quantized[max(quantized, key=int)] if quantized else None,
        "wer_continuous": stages["stage1"]["wer_continuous"],
        **{key: stages["stage2"][key] for key in ("wer_generated", "wer_real_codes")},
        **{key: answers[key] for key in ("spoken_after", "cascade", "typed")},
        **{key: stages["speech_head"][key] for key in ("wer_spoken", "wer_mimi")},
    }
    return Point(hours, subsets, figures, stages, dialogues, seconds, failure)


def format_curve(points: Sequence[Point], *, title: str, judge: Path) -> str:
    """The table: a column for each amount of speech."""
    lines = [title, _row("hours of speech", [f"{point.hours:g}" for point in points])]
    for name in SUBSETS:
        for unit, digits in (("hours", 2), ("speakers", 0)):
            amounts = [point.subsets.get(name, {}).get(unit) for point in points]
            if any(amount is not None for amount in amounts):
                lines.append(_row(f"  {name}, {unit}", [_shown(n, digits) for n in amounts]))
    lines.append(_row("  spoken dialogues", [_shown(p.dialogues, 0) for p in points]))
    for stage, rows in ROWS.items():
        lines += ["", stage]
        for row in rows:
            label = f"  {row.label}" + (", ceiling" if row.is_ceiling else "")
            numbers = [_shown(point.figures[row.key], 3) for point in points]
            lines.append(f"{_row(label, numbers)}   {row.meaning}")
    lines += ["", f"judge: {judge}, the recogniser of the most hours, the same for all of them"]
    lines += [f"{p.hours:g} h is not complete: {p.failure}" for p in points if p.failure]
    return "\n".join(lines)


def _row(label: str, cells: Sequence[str]) -> str:
    return f"{label:<32}" + "".join(f"{cell:>9}" for cell in cells)


def _shown(number: float | None, digits: int) -> str:
    return "-" if number is None else f"{number:.{digits}f}"
