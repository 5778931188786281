"""Results of all stages: `report.json` (for programs), `report.txt` and `report.html` (for people).

Every number is read from the `metrics.json` of the command that measured it, in the folders that
the demo and the recipes name alike: `rvq-test`, `speechless-test`, `finetune-test`, `head-test`,
and `answer.json`. A number that was not measured is null. Rates are fractions: 0.05 is 5 %. Beside
them stand the 95 % bootstrap intervals that the commands measured (`intervals`).
"""

import html
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from commands.atomic_write import write_json, write_text
from commands.data_card import describe_data
from commands.finished_folder import read_provenance
from commands.json_files import read_json
from pipeline.report_intervals import read_intervals
from pipeline.report_sections import (
    answer_section,
    format_voices,
    pictures,
    samples_section,
    voices_section,
)

TEMPLATE_PATH = Path(__file__).with_name("report_template.html")
TESTS = ("rvq-test", "speechless-test", "finetune-test", "head-test")  # of the stages, in order
STAGES = ("stage1", "stage2", "stage3", "speech_head")


@dataclass(frozen=True)
class Line:
    """A row of the table: its place in the report, its name, and its meaning in words."""

    stage: str
    key: str
    label: str
    meaning: str


LINES = (
    Line(
        "stage1",
        "wer_continuous",
        "WER, embeddings",
        "the recogniser on unquantised speech: ceiling",
    ),
    Line("stage1", "wer_quantized.8", "WER, 8 codebooks", "the same after quantising"),
    Line("stage1", "wer_quantized.1", "WER, 1 codebook", "the same, coarsest codebook alone"),
    Line("stage1", "relative_error", "relative error", "what quantising loses; 0 best, 1 worst"),
    Line(
        "stage2",
        "wer_real_codes",
        "WER, real codes",
        "the recogniser on codes of recordings: ceiling",
    ),
    Line("stage2", "wer_generated", "WER, generated codes", "on codes written from text alone"),
    Line("stage2", "length_ratio", "length ratio", "generated / real duration; 1 is right"),
    Line("stage2", "never_ended", "never ended", "generated utterances that ran past 30 s"),
    Line(
        "stage3", "exact_match.typed", "typed question", "right answers of the base model: ceiling"
    ),
    Line("stage3", "exact_match.spoken_before", "spoken, before", "base model, question spoken"),
    Line(
        "stage3",
        "exact_match.cascade",
        "spoken, cascade",
        "recogniser's transcript, then base model",
    ),
    Line("stage3", "exact_match.spoken_after", "spoken, after", "fine-tuned on generated speech"),
    Line("stage3", "exact_match.spoken_second", "spoken, second", "after another question"),
    Line("stage3", "exact_match.spoken_fifth", "spoken, fifth", "after four other questions"),
    Line("stage3", "exact_match.spoken_direct", "spoken, direct", "without the transcript first"),
    Line("stage3", "typed_after", "typed, after", "typed chat after fine-tuning"),
    Line(
        "speech_head", "wer_teacher", "WER, recording", "the recogniser on the recording: ceiling"
    ),
    Line("speech_head", "wer_mimi", "WER, Mimi", "on the recording coded by Mimi: ceiling"),
    Line("speech_head", "wer_spoken", "WER, spoken answer", "on what Gemma answers to speech"),
    Line("speech_head", "wer_parallel", "WER, parallel head", "the published architecture"),
    Line("speech_head", "runaway", "runaway", "answers that had to be cut off"),
    Line("speech_head", "cut_short", "cut short", "answers that ended before their text"),
    Line(
        "chat", "time_to_first_audio_ms", "first sound, ms", "from the question to the first sound"
    ),
    Line("chat", "real_time_factor", "real-time factor", "time to speak / length of the speech"),
)


@dataclass(frozen=True)
class About:
    """What a report is about.

    Attributes:
        title: of the page.
        caveat: what its numbers say and do not say, in a sentence or two.
        question: text and recording of the question that `answer.wav` answers; None if it was
            typed, or nothing was asked.
    """

    title: str
    caveat: str
    question: tuple[str, Path] | None = None


def build_report(folder: Path, seconds: dict[str, float], peak_rss_mb: float) -> dict[str, Any]:
    """Gather what the commands measured.

    Returns:
        The report; rates as fractions, null for what was not measured.
    """
    answer = _read(folder / "answer.json")
    provenance = _read(folder / "rvq" / "provenance.json")
    return {
        **measured_stages(folder),
        "intervals": read_intervals(
            {stage: read_measured(folder / test) for stage, test in zip(STAGES, TESTS, strict=True)}
        ),
        "chat": {key: answer.get(key) for key in ("time_to_first_audio_ms", "real_time_factor")},
        "meta": {
            "commit": provenance.get("git", {}).get("commit"),
            "seconds_total": round(sum(seconds.values()), 1),
            "seconds": {stage: round(spent, 1) for stage, spent in seconds.items()},
            "peak_rss_mb": round(peak_rss_mb),
        },
    }


def measured_stages(folder: Path, *, leave_out: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """The part of a report on the four stages.

    Args:
        folder: as for `write_report`.
        leave_out: names of folders in it that are not looked at.
    """
    stage1, stage2, stage3, head = (
        {} if name in leave_out else read_measured(folder / name) for name in TESTS
    )
    projected = {}
    if stage1:
        all_codebooks = str(len(stage1["used_fraction"]))
        projected = stage1["reconstruction"][all_codebooks]["projected"]
    systems = (
        "typed", "spoken_before", "spoken_after", "spoken_second", "spoken_fifth", "spoken_direct",
        "cascade",
    )  # fmt: skip
    exact_match = stage3.get("exact_match", {})
    return {
        "stage1": {
            "used_fraction": stage1.get("used_fraction"),
            "perplexity": stage1.get("perplexity"),
            "normalized_entropy": stage1.get("normalized_entropy"),
            "relative_error": projected.get("relative_error"),
            "cosine": projected.get("cosine"),
            "wer_continuous": (stage1.get("continuous") or {}).get("wer"),
            "wer_quantized": {
                k: rates["wer"] for k, rates in (stage1.get("quantized") or {}).items()
            },
        },
        "stage2": {
            key: stage2.get(key)
            for key in (
                "wer_real_codes", "wer_generated", "cer_generated", "length_ratio", "never_ended",
            )
        },
        "stage3": {
            "exact_match": {name: exact_match.get(name) for name in systems},
            "typed_after": exact_match.get("typed_after"),
            "num_held_out": stage3.get("num_held_out"),
        },
        "speech_head": {
            key: head.get(key)
            for key in (
                "wer_teacher", "wer_mimi", "wer_spoken", "cer_spoken", "wer_parallel", "runaway",
                "cut_short", "num_held_out", "voices",
            )
        },
    }  # fmt: skip


def look_up(report: Mapping[str, Any], line: Line) -> float | None:
    """The number of a row; None if it was not measured."""
    value: Any = report[line.stage]
    for key in line.key.split("."):
        value = value.get(key)
        if value is None:
            return None
    return float(value)


def read_measured(folder: Path) -> dict[str, Any]:
    """The metrics of a command that has finished; else none."""
    return _read(folder / "metrics.json") if (folder / "done").exists() else {}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found


def format_table(report: dict[str, Any], caveat: str) -> str:
    """The report as a table with a sentence for each number."""
    lines: list[str] = []
    for stage, rows in groupby(LINES, lambda line: line.stage):
        lines += [
            stage,
            *(
                f"  {r.label:<22}{_shown(look_up(report, r)):>10}  {_interval(report, r):<15}"
                f"{r.meaning}"
                for r in rows
            ),
            "",
        ]
    lines += format_voices(report["speech_head"]["voices"])
    meta = report["meta"]
    lines.append(f"{meta['seconds_total']:.0f} s in all, {meta['peak_rss_mb']} MB at most")
    lines.append(caveat)
    return "\n".join(lines)


def write_report(
    folder: Path, seconds: dict[str, float], peak_rss_mb: float, about: About
) -> dict[str, Any]:
    """Write `report.json`, `report.txt` and `report.html`, whose links are relative.

    Args:
        folder: holds the folders that the module's docstring names; those that are missing were
            not measured.
        seconds: what each stage took.
        peak_rss_mb: most memory that a process took.

    Returns:
        The report.
    """
    report = build_report(folder, seconds, peak_rss_mb)
    write_json(folder / "report.json", report)
    head = folder / "head"
    made_from = read_provenance(head).made_from() if (head / "done").exists() else ()
    data = f"data: {describe_data(made_from) or 'not recorded'}"
    write_text(folder / "report.txt", f"{format_table(report, about.caveat)}\n{data}\n")
    rows = []
    for stage, lines in groupby(LINES, lambda line: line.stage):
        rows.append(f'<tr><th colspan="4">{stage}</th></tr>')
        for line in lines:
            value = _shown(look_up(report, line))
            cells = (line.label, value, _interval(report, line), line.meaning)
            shown = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            rows.append(f"<tr>{shown}</tr>")
    sections = [
        answer_section(folder, about.question),
        voices_section(report["speech_head"]["voices"]),
        samples_section(folder),
        pictures(folder),
    ]
    meta = report["meta"]
    page = Template(TEMPLATE_PATH.read_text(encoding="utf-8")).substitute(
        title=html.escape(about.title),
        caveat=html.escape(about.caveat),
        data=html.escape(data),
        rows="\n".join(rows),
        sections="\n".join(section for section in sections if section),
        seconds=f"{meta['seconds_total']:.0f}",
        peak_rss_mb=meta["peak_rss_mb"],
        commit=html.escape(str(meta["commit"])),
    )
    write_text(folder / "report.html", page)
    return report


def _interval(report: Mapping[str, Any], line: Line) -> str:
    ends = report["intervals"].get(line.stage, {}).get(line.key)
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""


def _shown(value: float | None) -> str:
    if value is None:
        return "null"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"
