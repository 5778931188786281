"""A recipe with few hours of speech and with many: what is shared, what fails, what is drawn."""

import json
from pathlib import Path

import pytest

from commands.errors import InputError
from commands.json_files import read_json
from pipeline import hours_curve as command
from pipeline.curve import ROWS, format_curve, read_point
from pipeline.run_step import StepFailed

SUBSET = "data data_manifests.subset\n --manifest {m} --hours {hours} --out {out}/speech"
JUDGE = "stage1 stage1_rvq.train_recognizer\n --embeddings {shared}/all --out {out}/recognizer"
SHARED = "stage1 stage1_rvq.embed\n --manifest {m} --out {shared}/all"
TEST = (
    "stage1 stage1_rvq.evaluate\n"
    " --rvq r --embeddings {shared}/all --recognizer {judge} --out {out}/rvq-test"
)


def write_recipe(folder, *commands, values='m = "a.jsonl"\nhours = 0'):
    path = folder / "recipe.toml"
    lines = "\n\n".join(commands or (SHARED, SUBSET, JUDGE, TEST))
    path.write_text(f'[values]\n{values}\n[run]\ntitle = "T"\ncommands = """\n{lines}\n"""\n')
    return path


@pytest.fixture
def ran(monkeypatch):
    """Stands in for running the commands; gives those that were run, in order."""
    steps = []

    def run(step):
        steps.append(step)
        if step.out.name == "rvq-test" and (step.out.parent / "fail").exists():
            raise StepFailed(step.line, 2, None)
        step.out.mkdir(parents=True)
        return ""

    monkeypatch.setattr(command, "in_this_process_or_failed", run)
    return steps


def draw(recipe, out, *words):
    with pytest.raises(SystemExit) as ended:
        command.main([str(recipe), "--out", str(out), "--one-process", *words])
    return ended.value.code


def test_what_is_shared_is_made_once_and_the_most_hours_judge(tmp_path, ran):
    publish = "publish pipeline.publish\n --run {out} --out {out}/pipeline"
    recipe = write_recipe(tmp_path, SHARED, SUBSET, JUDGE, TEST, publish)
    out = tmp_path / "out"
    assert draw(recipe, out, "--hours", "1", "4", "0.5") == 0
    made = [str(step.out.relative_to(out)) for step in ran]
    assert made == [
        "shared/all", "4h/speech", "4h/recognizer",
        "1h/speech", "1h/recognizer", "1h/rvq-test", "4h/rvq-test",
        "0.5h/speech", "0.5h/recognizer", "0.5h/rvq-test",
    ]  # fmt: skip
    judges = {step.value_of("--recognizer") for step in ran if step.out.name == "rvq-test"}
    assert judges == {str(out / "4h" / "recognizer")}
    assert [s.value_of("--hours") for s in ran if s.out.name == "speech"] == ["4", "1", "0.5"]
    assert [point["hours"] for point in read_json(out / "curve.json")["points"]] == [0.5, 1, 4]
    assert (out / "curve.svg").read_text(encoding="utf-8").count("hours of recorded speech") == 4
    assert all((out / f"{hours}h" / "report.json").exists() for hours in ("0.5", "1", "4"))
    assert draw(recipe, out, "--hours", "4", "1", "0.5") == 0
    assert len(ran) == len(made)  # nothing is done twice


def test_an_amount_that_fails_keeps_what_it_has_and_the_next_begins(tmp_path, ran, capsys):
    recipe, out = write_recipe(tmp_path), tmp_path / "out"
    (out / "1h").mkdir(parents=True)
    (out / "1h" / "fail").touch()
    assert draw(recipe, out, "--hours", "1", "2") == 1
    assert [str(step.out.relative_to(out)) for step in ran][-2:] == ["1h/rvq-test", "2h/rvq-test"]
    printed = capsys.readouterr()
    assert "1 h is not complete: ended with exit code 2" in printed.out
    assert "this amount stops there" in printed.err
    (out / "1h" / "fail").unlink()
    assert draw(recipe, out, "--hours", "1", "2") == 0
    assert ran[-1].out == out / "1h" / "rvq-test" and "not complete" not in capsys.readouterr().out


def test_a_command_that_fails_in_this_process_is_a_failed_step(capsys):
    step = command.Step("s", "data_manifests.subset", ("--hours", "x"))
    with pytest.raises(StepFailed, match="subset --hours x"):
        command.in_this_process_or_failed(step)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("commands", "words", "message"),
    [
        ((SHARED, SUBSET, TEST), (), r"no command of the recipe writes \{out\}/recognizer"),
        ((SUBSET.replace("{out}", "{shared}"), JUDGE), (), r"writes into \{shared\}, and reads"),
        ((), ("--set", "hours=3"), "--set hours=...: name all amounts with --hours"),
        ((), ("--hours", "1", "1"), "--hours: an amount is named twice"),
        ((), ("--devices", "2"), "--one-process uses one device"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_anything_runs(tmp_path, ran, commands, words, message):
    recipe = write_recipe(tmp_path, *commands)
    with pytest.raises(InputError, match=message):
        command.main([str(recipe), "--out", str(tmp_path / "out"), "--one-process", *words])
    assert not ran and not (tmp_path / "out").exists()


def test_a_recipe_without_hours_is_refused(tmp_path, ran):
    recipe = write_recipe(tmp_path, JUDGE.replace("{shared}", "x"), values='m = "a.jsonl"')
    with pytest.raises(InputError, match="has no 'hours'"):
        command.main([str(recipe), "--out", str(tmp_path / "out")])


def write_metrics(folder, **metrics):
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "done").touch()


def test_figures_of_a_point_stand_in_the_table(tmp_path):
    point = tmp_path / "1h"
    parts = {"projected": {"relative_error": 0.5, "cosine": 0.9}}
    write_metrics(
        point / "rvq-test", used_fraction=[1.0, 0.9], continuous={"wer": 0.05},
        quantized={"1": {"wer": 0.4}, "2": {"wer": 0.11}}, reconstruction={"2": parts},
    )  # fmt: skip
    write_metrics(point / "speechless-test", wer_generated=0.22, wer_real_codes=0.12)
    write_metrics(point / "own-test", continuous={"wer": 0.13})
    answers = {"typed": 0.98, "spoken_after": 0.81, "cascade": 0.7}
    write_metrics(point / "finetune-test", exact_match=answers)
    read = read_point(1.0, point)
    assert read.figures == {
        "wer_recognizer": 0.13, "wer_codes": 0.11, "wer_continuous": 0.05, "wer_generated": 0.22,
        "wer_real_codes": 0.12, "spoken_after": 0.81, "cascade": 0.7, "typed": 0.98,
        "wer_spoken": None, "wer_mimi": None,
    }  # fmt: skip
    assert set(read.figures) == {row.key for rows in ROWS.values() for row in rows}
    empty = read_point(2.0, tmp_path / "2h")
    table = format_curve([read, empty], title="T", judge=Path("j"))
    [line] = [line for line in table.splitlines() if line.startswith("  8 codebooks")]
    assert line.split()[2:4] == ["0.110", "-"]
    assert "judge: j, the recogniser of the most hours" in table


def test_stage_1_in_miniature(tmp_path, corpus, tiny_models, monkeypatch):
    """Two amounts of real speech, by real commands: the few hours are part of the many."""
    lines = f"""
stage1 stage1_rvq.embed
    --manifest {corpus}/dev.jsonl --gemma {tiny_models}/gemma --out {{shared}}/dev

data data_manifests.subset
    --manifest {corpus}/train.jsonl --hours {{hours}} --out {{out}}/speech

stage1 stage1_rvq.embed
    --manifest {{out}}/speech/train.jsonl --gemma {tiny_models}/gemma --out {{out}}/train

stage1 stage1_rvq.train_recognizer
    --embeddings {{out}}/train --num-units 64 --width 32 --steps 2 --out {{out}}/recognizer

stage1 stage1_rvq.train
    --embeddings {{out}}/train --codebook-size 4 --num-codebooks 2 --steps 2 --batch-frames 64
    --out {{out}}/rvq

stage1 stage1_rvq.evaluate
    --rvq {{out}}/rvq --recognizer {{judge}} --embeddings {{shared}}/dev --out {{out}}/rvq-test
""".strip()
    recipe = write_recipe(tmp_path, lines, values="hours = 0")
    assert draw(recipe, tmp_path / "out", "--hours", "0.005", "0.01") == 0
    few, many = read_json(tmp_path / "out" / "curve.json")["points"]
    assert 0 < few["subsets"]["speech"]["hours"] < many["subsets"]["speech"]["hours"] <= 0.01
    assert few["figures"]["wer_continuous"] == many["figures"]["wer_continuous"]
    assert few["figures"]["wer_codes"] is not None
    assert few["figures"]["wer_spoken"] is None
