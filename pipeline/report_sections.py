"""What the page of a report shows below its table: answers to listen to, and pictures."""

import html
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from commands.atomic_write import written_aside
from commands.json_files import read_json, read_json_lines
from pipeline.samples import read_spoken_samples

RUNS = ("rvq", "recognizer", "speechless", "finetune", "head", "head-parallel")
NUM_SAMPLES = 10


def answer_section(folder: Path, asked: tuple[str, Path] | None) -> str:
    """The question and the spoken answer, to be heard.

    Args:
        folder: holds `answer.wav` and `answer.json`; without them there is no section.
        asked: text and recording of the question, if it was spoken.
    """
    if not (folder / "answer.wav").exists():
        return ""
    parts = ["<h2>A question and the spoken answer</h2>"]
    if asked:
        text, recording = asked
        parts += [f"<p>{html.escape(text)}</p>", _player(Path(os.path.relpath(recording, folder)))]
    said = folder / "answer.json"
    answer = read_json(said)["answer"] if said.exists() else ""
    return "\n".join([*parts, f"<p>{html.escape(answer)}</p>", _player(Path("answer.wav"))])


VOICE_COLUMNS = {
    "num_answers": "answers", "wer": "WER", "cer": "CER",
    "in_pitch": "at its pitch", "in_pitch_mimi": "recordings through Mimi",
}  # fmt: skip


def format_voices(voices: Mapping[str, Mapping[str, float]] | None) -> list[str]:
    """Lines of a table of the voices that the head speaks in; none for a head of one voice.

    Args:
        voices: as in the `metrics.json` of `speech_head.evaluate`.
    """
    if not voices:
        return []
    widths = [max(len(label), 5) + 2 for label in VOICE_COLUMNS.values()]

    def line(name: str, cells: Iterable[str]) -> str:
        shown = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"{name:<16}{''.join(shown)}"

    lines = [line("voice", VOICE_COLUMNS.values())]
    lines += [line(name, _voice_cells(measured)) for name, measured in voices.items()]
    return [*lines, ""]


def voices_section(voices: Mapping[str, Mapping[str, float]] | None) -> str:
    """The voices that the head speaks in; arguments as `format_voices`."""
    if not voices:
        return ""
    labels = "".join(f"<th>{html.escape(label)}</th>" for label in VOICE_COLUMNS.values())
    rows = [
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{cell}</td>" for cell in _voice_cells(measured)) + "</tr>"
        for name, measured in voices.items()
    ]  # fmt: skip
    table = ["<table>", f"<tr><th>voice</th>{labels}</tr>", *rows, "</table>"]
    return "\n".join(["<h2>Voices</h2>", *table])


def _voice_cells(measured: Mapping[str, float]) -> list[str]:
    values = [measured.get(key) for key in VOICE_COLUMNS]
    return ["null" if x is None else str(x) if isinstance(x, int) else f"{x:.3f}" for x in values]


def samples_section(folder: Path) -> str:
    """Some of the answers that were judged, with their questions and what was heard."""
    samples = read_spoken_samples(folder / "head-test", folder / "finetune-test", NUM_SAMPLES)
    if not samples:
        return ""
    parts = ["<h2>Spoken answers</h2>", "<table>"]
    for sample in samples:
        heard = f"the judge heard: {sample.heard}" if sample.heard else ""
        english = f"in English, question - reference: {sample.english}" if sample.english else ""
        texts = (sample.question, sample.answer, english, heard)
        shown = "<br>".join(html.escape(text) for text in texts if text)
        players = [_player(sample.wav.relative_to(folder))]
        if sample.ceiling:
            ceiling = _player(sample.ceiling.relative_to(folder))
            players.append(f"a recording through Mimi, the ceiling:<br>{ceiling}")
        parts.append(f"<tr><td>{shown}</td><td>{'<br>'.join(players)}</td></tr>")
    return "\n".join([*parts, "</table>"])


def _player(path: Path) -> str:
    return f'<audio controls src="{quote(path.as_posix())}"></audio>'


def pictures(folder: Path) -> str:
    """The use of codebooks, and the loss of every training, as far as they are there."""
    parts = []
    if (folder / "rvq-test" / "codebook_usage.png").exists():
        use = "used codes and entropy by codebook"
        parts.append(f'<h2>Codebook use</h2>\n<img src="rvq-test/codebook_usage.png" alt="{use}">')
    if _plot_losses(folder, folder / "training.png"):
        loss = "training loss of each stage"
        parts.append(f'<h2>Training</h2>\n<img src="training.png" alt="{loss}">')
    return "\n".join(parts)


def _plot_losses(folder: Path, path: Path) -> bool:
    """Plot the training loss of each stage against its step, one panel per run; False if there are
    none."""
    from matplotlib.figure import Figure

    runs = [run for run in RUNS if (folder / run / "metrics.jsonl").exists()]
    if not runs:
        return False
    figure = Figure(figsize=(2 * len(runs), 2.6), layout="constrained")
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, run in zip(panels, runs, strict=True):
        entries = read_json_lines(folder / run / "metrics.jsonl")
        train = [entry for entry in entries if entry["split"] == "train"]
        losses = [e.get("total", e.get("loss", math.nan)) for e in train]
        axes.plot([e["step"] for e in train], losses)
        axes.set(title=run, xlabel="step")
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    return True
