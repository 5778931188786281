"""The demo's results: `report.json` (for programs), `report.txt` and `report.html` (for people).

Every number is read from the `metrics.json` of the command that measured it; a number that was not
measured is null. Rates are fractions: 0.05 is 5 %.
"""

import html
import json
import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from commands.atomic_write import write_text, written_aside
from commands.json_files import read_json
from data_manifests.manifest import read_manifest

CAVEAT = (
    "Held-out questions by held-out voices, but of a synthesiser and about a small world: the "
    "numbers compare systems with each other and say nothing about people."
)
TEMPLATE_PATH = Path(__file__).with_name("report_template.html")
STAGES = ("stage1", "stage2", "stage3", "speech_head", "chat")


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


def build_report(folder: Path, seconds: dict[str, float], peak_rss_mb: float) -> dict[str, Any]:
    """Gather what the demo's commands measured.

    Returns:
        The report; rates as fractions, null for what was not measured.
    """
    stage1 = read_json(folder / "rvq-test" / "metrics.json")
    stage2 = read_json(folder / "speechless-test" / "metrics.json")
    stage3 = read_json(folder / "finetune-test" / "metrics.json")
    head = read_json(folder / "head-test" / "metrics.json")
    answer = read_json(folder / "answer.json")
    all_codebooks = str(len(stage1["used_fraction"]))
    projected = stage1["reconstruction"][all_codebooks]["projected"]
    systems = (
        "typed", "spoken_before", "spoken_after", "spoken_second", "spoken_direct", "cascade",
    )  # fmt: skip
    return {
        "stage1": {
            "used_fraction": stage1["used_fraction"],
            "perplexity": stage1["perplexity"],
            "normalized_entropy": stage1["normalized_entropy"],
            "relative_error": projected["relative_error"],
            "cosine": projected["cosine"],
            "wer_continuous": stage1["continuous"]["wer"],
            "wer_quantized": {k: rates["wer"] for k, rates in stage1["quantized"].items()},
        },
        "stage2": {
            key: stage2[key]
            for key in (
                "wer_real_codes", "wer_generated", "cer_generated", "length_ratio", "never_ended",
            )
        },
        "stage3": {
            "exact_match": {name: stage3["exact_match"][name] for name in systems},
            "typed_after": stage3["exact_match"]["typed_after"],
            "num_held_out": stage3["num_held_out"],
        },
        "speech_head": {
            key: head[key]
            for key in (
                "wer_teacher", "wer_mimi", "wer_spoken", "cer_spoken", "wer_parallel", "runaway",
                "cut_short", "num_held_out",
            )
        },
        "chat": {
            "time_to_first_audio_ms": answer["time_to_first_audio_ms"],
            "real_time_factor": answer["real_time_factor"],
        },
        "meta": {
            "commit": read_json(folder / "rvq" / "provenance.json")["git"].get("commit"),
            "seconds_total": round(sum(seconds.values()), 1),
            "seconds": {stage: round(seconds.get(stage, 0.0), 1) for stage in STAGES},
            "peak_rss_mb": round(peak_rss_mb),
        },
    }  # fmt: skip


def format_table(report: dict[str, Any]) -> str:
    """The report as a table with a sentence for each number."""
    lines: list[str] = []
    for stage, rows in groupby(LINES, lambda line: line.stage):
        lines += [
            stage,
            *(f"  {r.label:<22}{_shown(_look_up(report, r)):>10}   {r.meaning}" for r in rows),
            "",
        ]
    meta = report["meta"]
    lines.append(f"{meta['seconds_total']:.0f} s in all, {meta['peak_rss_mb']} MB at most")
    lines.append(CAVEAT)
    return "\n".join(lines)


def write_html(path: Path, folder: Path, report: dict[str, Any]) -> None:
    """Write `report.html` (table, plots, audio players; all links relative), and `report.txt`."""
    write_text(folder / "report.txt", format_table(report) + "\n")
    _plot_losses(folder, folder / "training.png")
    rows = []
    for stage, lines in groupby(LINES, lambda line: line.stage):
        rows.append(f'<tr><th colspan="3">{stage}</th></tr>')
        for line in lines:
            cells = (line.label, _shown(_look_up(report, line)), line.meaning)
            shown = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            rows.append(f"<tr>{shown}</tr>")
    answer = read_json(folder / "answer.json")
    first_test = next(iter(read_manifest(folder / "corpus" / "test.jsonl")))
    question = Path(first_test.audio).relative_to(folder)
    meta = report["meta"]
    page = Template(TEMPLATE_PATH.read_text(encoding="utf-8")).substitute(
        caveat=CAVEAT,
        rows="\n".join(rows),
        question=html.escape(first_test.text),
        question_audio=question,
        answer=html.escape(answer["answer"]),
        seconds=f"{meta['seconds_total']:.0f}",
        peak_rss_mb=meta["peak_rss_mb"],
        commit=html.escape(str(meta["commit"])),
    )
    write_text(path, page)


def _look_up(report: dict[str, Any], line: Line) -> float | None:
    value: Any = report[line.stage]
    for key in line.key.split("."):
        value = value[key]
    return value


def _shown(value: float | None) -> str:
    if value is None:
        return "null"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"


def _plot_losses(folder: Path, path: Path) -> None:
    """Plot the training loss of each stage against its step, one panel per run."""
    from matplotlib.figure import Figure

    runs = ("rvq", "recognizer", "speechless", "finetune", "head", "head-parallel")
    figure = Figure(figsize=(12, 2.6), layout="constrained")
    for axes, run in zip(figure.subplots(1, len(runs)), runs, strict=True):
        lines = (folder / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        entries = [e for e in map(json.loads, lines) if e["split"] == "train"]
        losses = [e.get("total", e.get("loss", math.nan)) for e in entries]
        axes.plot([e["step"] for e in entries], losses)
        axes.set(title=run, xlabel="step")
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
