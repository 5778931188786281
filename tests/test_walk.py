"""The walk of docs/pipeline.md, which is the recipe for Common Voice: line by line, on real
recordings, with tiny models; and what it writes to stderr.

Only what a laptop test must change is changed: where the corpus and the models are, how much of the
corpus there is, the number of steps and questions, the number of codes (a random tower's frames are
few), the models' width and depth, how long a spoken answer may get, and how often a training does
the same (`short_steps.FEWER`).
"""

import json
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
from conftest import ROOT
from fork_server import MARK
from short_steps import shorter

from pipeline.recipe_steps import read_runnable
from pipeline.report import About, write_report

NUM_ROWS = 16

# All that a command that succeeds may write to stderr, beside progress bars.
KNOWN_LINES = {
    "a corpus's size before and after the split": r"(corpus|common_voice) .*",
    "how recordings were split": r"splits made here, disjoint by .*",
    "whose dialects are known": r"dialect: named of .*",
    "English in a text": r"English: [\d.]+ % of [\d,]+ words.*",
    "what was left out": r"\d+ left out, listed in dropped\.jsonl",
    "spoken text": r"\d+ (sentences|dialogues) spoken, \d+ dropped",
    "memory of a training": r"memory planned:|  (weights|adapter|gradients|optimizer|activations"
    r"|logits|total|host) +[\d.]+ GiB",
    "memory that it took": r"[\d,]+ rows, [\d,]+ weights; memory: .*",
    "size of a cache": r"states of [\d,]+ tokens, [\d.]+ kB each: [\d.]+ GB",
    "speed of speech": r"first sound after [\d.]+ s, .*",
}
PROGRESS = r".*(\d+%\||: \d+ ?[a-z ]*\[\d+:\d+).*"


def walk():
    """The command lines of the walk."""
    document = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- walk:.*?-->\n```bash\n(.*?)```", document, re.DOTALL)[1]
    return [line for line in block.splitlines() if line.startswith("python -m ")]


def common_voice_of(rows, source, folder):
    """A Common Voice folder with the first so many rows of each table, its clips linked."""
    folder.mkdir()
    (folder / "clips").symlink_to(source / "clips")
    for table in source.glob("*.tsv"):
        lines = table.read_text(encoding="utf-8").split("\n")
        if table.name != "clip_durations.tsv":
            lines = lines[: 1 + rows]
        (folder / table.name).write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def walked(forks, real_data, tiny_models, tmp_path_factory):
    """The folder in which the walk was walked; its stderr is in `stderr.txt`."""
    folder = tmp_path_factory.mktemp("walk")
    corpus = common_voice_of(NUM_ROWS, real_data / "common_voice_tw", folder / "tw")
    models = {"GEMMA": str(tiny_models / "gemma"), "MIMI": str(tiny_models / "mimi")}
    names = {"CV": str(corpus), **models}
    lines = []
    for line in walk():
        words = [re.sub(r"\$(\w+)", lambda found: names[found[1]], w) for w in shlex.split(line)]
        command, *words = words[2:]
        lines.append([command, *shorter(command, words)])
    assert len(lines) > 15
    (folder / "lines.json").write_text(json.dumps(lines), encoding="utf-8")
    process = forks.run("tests.run_lines", "lines.json", folder=folder)
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stderr.count(MARK) == len(lines)
    (folder / "stderr.txt").write_text(process.stderr, encoding="utf-8")
    return folder


def test_the_walk_is_the_recipe():
    given = ["common_voice=$CV", "gemma=$GEMMA", "mimi=$MIMI"]
    recipe = read_runnable(ROOT / "recipes" / "common_voice.toml", Path("runs/cv"), given)
    words = [["python", "-m", step.command, *step.words] for step in recipe.steps]
    assert [shlex.split(line) for line in walk()] == words


def test_the_walk_on_real_recordings(walked):
    counts = [
        len(pyarrow.parquet.read_table(path))
        for path in sorted((walked / "runs" / "cv" / "codes").glob("*/codes_*.parquet"))
    ]
    assert sum(counts) > 20  # train, dev and test of those rows of two tables
    samples, rate = soundfile.read(walked / "runs" / "cv" / "answer.wav")
    assert rate == 24_000 and len(samples) > 0 and np.isfinite(samples).all()


def test_it_ends_in_a_report(walked):
    """What the recipe writes in the end, of the folders as the walk left them."""
    folder = walked / "runs" / "cv"
    report = write_report(folder, {"stage1": 1.0}, 1.0, About("Walk & all", "Tiny."))
    assert 0 < report["stage1"]["relative_error"] < 1
    assert report["stage2"]["wer_generated"] is not None
    assert report["stage3"]["exact_match"]["spoken_second"] is not None
    assert report["speech_head"]["wer_teacher"] is not None
    ends = [pair for of_stage in report["intervals"].values() for pair in of_stage.values()]
    assert len(report["intervals"]["stage3"]) == 7 and all(low <= high for low, high in ends)
    assert {"wer_continuous", "wer_quantized.8"} <= report["intervals"]["stage1"].keys()
    shown = re.search(
        r"WER, 8 codebooks +[\d.]+ +([\d.]+) to ([\d.]+) ", (folder / "report.txt").read_text()
    )
    assert shown.groups() == tuple(
        f"{end:.3f}" for end in report["intervals"]["stage1"]["wer_quantized.8"]
    )
    page = (folder / "report.html").read_text(encoding="utf-8")
    players = re.findall(r'<audio controls src="([^"]+)">', page)
    assert len(players) > 1 and all((folder / unquote(path)).is_file() for path in players)
    assert "<h1>Walk &amp; all</h1>" in page and (folder / "report.txt").stat().st_size > 1000


def test_stderr_holds_only_what_is_the_user_s(walked):
    command, foreign = "", []
    known = re.compile("|".join(f"({form})" for form in [*KNOWN_LINES.values(), PROGRESS]))
    for line in re.split(r"[\r\n]", (walked / "stderr.txt").read_text(encoding="utf-8")):
        text = re.sub(r"\x1b\[[A-Z]", "", line)  # a bar below another moves the cursor up
        if text.startswith(MARK):
            command = text.removeprefix(MARK)
        elif text.strip() and not known.fullmatch(text):
            foreign.append(f"{command}: {text}")
    assert not foreign, "\n".join(foreign)
