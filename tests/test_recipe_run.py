"""Recipes are run: what one may not say, which processes a step is, how a run goes on."""

import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from commands.atomic_write import remove
from commands.errors import InputError
from pipeline import run as command
from pipeline.recipe import read_recipe
from pipeline.recipe_steps import read_runnable, read_tables
from pipeline.run_step import StepFailed, processes_of, refuse_too_few_gpus, run_step
from pipeline.run_steps import in_this_process, run_steps
from pipeline.steps import Step

RECIPES = sorted(p for p in (ROOT / "recipes").glob("*.toml") if "run" in read_tables(p))
EMBED = "stage1 stage1_rvq.embed\n  --manifest {m} --out {out}/embedded"
# A command that a recipe may hold, and that takes no time: it counts its calls, prints its words,
# and fails where its folder says so.
STUB = """
import json, pathlib, sys
words = sys.argv[1:]
out = pathlib.Path(words[words.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
with (out / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
print(" ".join(words))
if (out / "fail").exists():
    print("error: it was told to fail", file=sys.stderr)
    sys.exit(2)
"""


def write_recipe(folder, commands=EMBED, values='m = "a.jsonl"', tables="[corpus]\nhours = 2\n"):
    path = folder / "recipe.toml"
    lines = f'[values]\n{values}\n[run]\ncommands = """\n{commands}\n"""\n'
    path.write_text(tables + lines, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": 'm = ""'}, r"recipe.toml needs --set m=\.\.\.: what they are, the file says"),
        ({"values": ""}, r"uses \{m\}, which \[values\] does not have"),
        ({"commands": "stage1 stage1_rvq.embet --out {out}"}, "is no command of a recipe.*embed"),
        ({"commands": EMBED + " --batch-sise 3"}, "stage1_rvq.embed: unknown flag --batch-sise"),
        ({"commands": EMBED + " --batch-size x"}, "stage1_rvq.embed: .*batch-size"),
        ({"commands": "stage1"}, "each paragraph is a stage, a command, its flags"),
        ({"commands": "{"}, r"\[run\]"),
        ({"commands": ""}, r"\[run\] has no commands"),
    ],
)
def test_what_a_recipe_may_not_say(tmp_path, changes, message):
    path = write_recipe(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        read_runnable(path, tmp_path / "out", [])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["m"], "--set takes NAME=VALUE, got 'm'"),
        (["m="], "--set takes NAME=VALUE"),
        (["n=x"], "has no 'n': known: m"),
    ],
)
def test_what_may_not_be_set(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        read_runnable(write_recipe(tmp_path), tmp_path / "out", given)


def test_a_list_for_the_plan_alone_cannot_be_run(tmp_path):
    with pytest.raises(InputError, match="can be planned"):
        read_runnable(ROOT / "recipes" / "thousand_hours.toml", tmp_path, [])
    path = write_recipe(tmp_path, tables="[corpus]\nhours = 2\n[stage1_rvq.train]\n")
    with pytest.raises(InputError, match=r"has \[run\] and \[stage1_rvq.train\]"):
        read_recipe(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_come_along_are_understood_and_can_be_planned(path, tmp_path):
    """Every flag exists, every input is what an earlier command writes or a value, and it ends in
    a report, a spoken answer, and a repository of all parts."""
    names = [name for name, value in read_values(path).items() if value == ""]
    recipe = read_runnable(path, tmp_path / "out", [f"{name}={name}" for name in names])
    made = [str(step.out) for step in recipe.steps]
    for number, step in enumerate(recipe.steps):
        inside = [word for word in step.words if word.startswith(str(tmp_path / "out"))]
        for word in inside:
            is_run = step.command == "pipeline.publish" and word == str(tmp_path / "out")
            is_made = any(word.startswith(out) for out in made[: number + 1])
            assert is_run or is_made, (step.line, word)
    is_small = path.stem in ("demo_ewe", "demo_hours")
    ends = ["answer.wav"] if is_small else ["answer.wav", "pipeline"]
    assert [Path(name).name for name in made][-len(ends) :] == ends
    assert len(made) == len(set(made))
    for folder in ("rvq-test", "speechless-test", "finetune-test", "head-test"):
        assert str(tmp_path / "out" / folder) in made
    planned = read_recipe(path).commands
    assert {"stage1_rvq.embed", "stage1_rvq.train", "stage2_speechless.train"} <= planned.keys()


def test_a_value_may_be_a_list_of_words(tmp_path):
    lines = EMBED + "\n  {more} --num-workers 0"
    values = 'm = "{a}"\nmore = ["--gemma", "{out}/g", "--dtype", "float32"]'
    path = write_recipe(tmp_path, lines, values)

    def words(*given):
        [step] = read_runnable(path, tmp_path / "o", given).steps
        return step.words[4:-2]

    assert words() == ("--gemma", f"{tmp_path / 'o'}/g", "--dtype", "float32")
    assert words("more=--gemma", "more={b} c") == ("--gemma", "{b} c")
    path.write_text(path.read_text().replace('"--gemma", "{out}/g", "--dtype", "float32"', ""))
    assert words() == ()
    path.write_text(path.read_text().replace("[]", '["{absent}"]'))
    with pytest.raises(InputError, match=r"uses \{absent\}, which \[values\] does not have"):
        words()


def read_values(path):
    return read_tables(path)["values"]


def test_a_recipe_says_only_what_differs_from_another(tmp_path):
    first = write_recipe(tmp_path, values='m = "a.jsonl"', tables="[corpus]\nhours = 2\n")
    other = tmp_path / "other.toml"
    other.write_text('like = "recipe.toml"\n[corpus]\nhours = 3\n[values]\nm = "b.jsonl"\n')
    [step] = read_runnable(other, tmp_path, []).steps
    assert step.value_of("--manifest") == "b.jsonl"
    assert (read_recipe(first).corpus.hours, read_recipe(other).corpus.hours) == (2, 3)
    third = tmp_path / "third.toml"
    third.write_text('like = "other.toml"\n')
    with pytest.raises(InputError, match=r"is like other.toml, which is like another"):
        read_runnable(third, tmp_path, [])
    third.write_text('like = "absent.toml"\n')
    with pytest.raises(InputError, match=r"absent.toml: No such file"):
        read_runnable(third, tmp_path, [])
    third.write_text("like = 3\n")
    with pytest.raises(InputError, match="like must be the name of a file"):
        read_runnable(third, tmp_path, [])


def test_the_plan_counts_what_is_set(tmp_path):
    path = write_recipe(tmp_path, EMBED + " --batch-size {n}", 'm = ""\nn = 4')
    assert read_recipe(path).settings("stage1_rvq.embed")["batch_size"] == 4
    assert read_recipe(path, given=("n=9",)).settings("stage1_rvq.embed")["batch_size"] == 9
    with pytest.raises(InputError, match="has no 'k': known: m, n"):
        read_recipe(path, given=("k=9",))
    with pytest.raises(InputError, match=r"has no \[run\] whose values could be set"):
        read_recipe(ROOT / "recipes" / "demo.toml", given=("k=9",))


def test_steps_from_one_stage_to_another(tmp_path):
    lines = "\n\n".join(
        f"{stage} stage1_rvq.embed\n --manifest {{m}} --out {{out}}/{stage}" for stage in "abc"
    )
    recipe = read_runnable(write_recipe(tmp_path, lines), tmp_path, [])
    assert recipe.stages == ["a", "b", "c"] and recipe.title == "recipe"

    def chosen(*between):
        return [step.stage for step in command.chosen_steps(recipe, *between)]

    assert chosen("", "") == ["a", "b", "c"]
    assert chosen("b", "") == ["b", "c"] and chosen("", "b") == ["a", "b"]
    assert chosen("b", "b") == ["b"]
    with pytest.raises(InputError, match="--from-stage d"):
        chosen("d", "")
    with pytest.raises(InputError, match="--to-stage a comes before --from-stage b"):
        chosen("b", "a")


def test_processes_of_a_step(tmp_path):
    """A corpus is shared out in parts, which are then joined; a training is one run of several
    processes; anything else is one process."""

    def lines(name, devices):
        step = Step("s", name, ("--out", str(tmp_path / "x")))
        return [[p.line for p in together] for together in processes_of(step, devices)]

    out = f"--out {tmp_path / 'x'}"
    assert lines("stage1_rvq.embed", 1) == [[f"python -m stage1_rvq.embed {out}"]]
    assert lines("stage1_rvq.embed", 2) == [
        [f"python -m stage1_rvq.embed {out} --part {i}/2" for i in (1, 2)],
        [f"python -m pipeline.join_parts {out}"],
    ]
    assert lines("stage1_rvq.train", 3) == [[
        f"python -m torch.distributed.run --standalone --nproc-per-node 3 -m stage1_rvq.train {out}"
    ]]  # fmt: skip
    assert lines("stage1_rvq.evaluate", 8) == [[f"python -m stage1_rvq.evaluate {out}"]]
    part = tmp_path / "x" / "part-2-of-2"
    part.mkdir(parents=True)
    (part / "config.json").write_text("{}")
    assert [line[-8:] for line in lines("stage1_rvq.embed", 2)[0]] == ["part 1/2", "--resume"]
    (tmp_path / "x" / "config.json").write_text("{}")
    assert lines("stage1_rvq.embed", 2) == [[f"python -m pipeline.join_parts {out}"]]


def test_every_gpu_writes_a_part(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(InputError, match=r"--devices 3: this machine shows 2 GPU"):
        refuse_too_few_gpus(3)
    refuse_too_few_gpus(2)
    [parts, _] = processes_of(Step("s", "speech_head.states", ("--out", str(tmp_path))), 2)
    assert [part.line[:24] for part in parts] == [f"CUDA_VISIBLE_DEVICES={i} p" for i in (0, 1)]


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Modules that stand in for the commands of a recipe, in new processes."""
    for name in ("stage1_rvq.embed", "pipeline.join_parts"):
        package, module = name.split(".")
        (tmp_path / "stubs" / package).mkdir(parents=True)
        (tmp_path / "stubs" / package / f"{module}.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stubs"))
    monkeypatch.chdir(tmp_path / "stubs")


def calls(folder):
    return (folder / "calls").read_text().count("\n") if (folder / "calls").exists() else 0


def test_what_failed_is_run_again_and_what_is_finished_is_not(tmp_path, stub, capfd):
    lines = "\n\n".join(
        f"{stage} stage1_rvq.embed\n --manifest {{m}} --out {{out}}/{stage}" for stage in "abc"
    )
    out = tmp_path / "out"
    words = [str(write_recipe(tmp_path, lines)), "--out", str(out)]
    (out / "b").mkdir(parents=True)
    (out / "b" / "fail").touch()
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    said = capfd.readouterr().err
    assert ended.value.code == 2 and "error: it was told to fail" in said
    assert "[2/3] b" in said and "ended with exit code 2" in said and "to go on there" in said
    assert [calls(out / stage) for stage in "abc"] == [1, 1, 0]
    assert not (out / "report.json").exists()
    (out / "b" / "fail").unlink()
    command.main(words)
    assert [calls(out / stage) for stage in "abc"] == [1, 2, 1]
    report = json.loads((out / "report.json").read_text())
    assert set(report["meta"]["seconds"]) == {"a", "b", "c"}
    assert report["stage1"]["wer_continuous"] is None
    command.main([*words, "--set", "m=other.jsonl", "--from-stage", "c"])
    assert [calls(out / stage) for stage in "abc"] == [1, 2, 2]
    (out / "a" / "provenance.json").write_text("{}")  # of a command that has not written `done`
    command.main([*words, "--to-stage", "a"])
    (out / "a" / "done").touch()
    command.main([*words, "--to-stage", "a"])
    assert [calls(out / stage) for stage in "abc"] == [2, 2, 2]
    assert "null" in capfd.readouterr().out


def test_a_part_that_fails_is_named_with_its_log(tmp_path, stub):
    step = Step("s", "stage1_rvq.embed", ("--out", str(tmp_path / "out")))
    printed = run_step(step, 2, tmp_path / "logs")
    assert printed.strip() == f"--out {tmp_path / 'out'}" and calls(tmp_path / "out") == 3
    [log] = (tmp_path / "logs").iterdir()
    assert log.name == "stage1_rvq.embed_2_of_2.txt" and "--part 2/2" in log.read_text()
    (tmp_path / "out" / "fail").touch()
    with pytest.raises(StepFailed, match="--part 1/2") as failed:
        run_step(step, 2, tmp_path / "logs")
    assert failed.value.exit_code == 2


def test_a_dry_run_prints_lines_that_a_shell_takes(tmp_path, capsys):
    lines = EMBED + "\n\ntalk speech_head.speak\n --head h --text {q} --out {out}/a.wav"
    path = write_recipe(tmp_path, lines, 'm = "a b.jsonl"\nq = "Ɛte sɛn?"')
    words = [str(path), "--out", "runs/x", "--dry-run", "--no-plan"]

    def dry_run(*more):
        with pytest.raises(SystemExit) as ended:
            command.main([*words, *more])
        assert ended.value.code == 0

    dry_run()
    printed = capsys.readouterr().out
    assert printed.splitlines() == [
        "# stage1",
        "python -m stage1_rvq.embed --manifest 'a b.jsonl' --out runs/x/embedded",
        "",
        "# talk",
        "python -m speech_head.speak --head h --text 'Ɛte sɛn?' --out runs/x/a.wav",
    ]
    dry_run("--devices", "2")
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("&") for line in lines[1:3]] == [True, True] and lines[3] == "wait"
    assert sys.executable not in printed


def test_a_step_whose_input_has_changed_since_is_not_taken_for_finished(tmp_path):
    """The text it was made of was edited: making the next steps of the old result would be wrong,
    and so would deleting it unasked."""
    text, first, second = tmp_path / "a.txt", tmp_path / "first", tmp_path / "second"
    text.write_text("Me din de Ama.\nMe din de Kofi.\nMe din de Yaa.\n")
    build = "stage2_speechless.build_text"
    steps = [
        Step("text", build, ("--corpus", f"text={text}", "--license", "x", "--out", str(first))),
        Step("again", build, ("--corpus", f"text={first}/sentences.jsonl", "--out", str(second))),
    ]
    calls = []

    def run(step):
        calls.append(step.stage)
        return in_this_process(step)

    for _ in range(2):
        run_steps(steps, tmp_path, run)
    assert calls == ["text", "again"]
    text.write_text("Me din de Akosua.\nMe din de Kofi.\nMe din de Yaa.\n")
    with pytest.raises(InputError, match=rf"first was made from another {text} than there is now"):
        run_steps(steps, tmp_path, run)
    remove(first)
    with pytest.raises(InputError, match=rf"second was made from another {first}.sentences.jsonl"):
        run_steps(steps, tmp_path, run)
    remove(second)
    run_steps(steps, tmp_path, run)
    assert calls == ["text", "again", "text", "again"]
    remove(first)
    text.unlink()  # what is no longer there is not compared
    run_steps(steps[1:], tmp_path, run)
    assert calls == ["text", "again", "text", "again"]
