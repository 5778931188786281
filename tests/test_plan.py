"""The plan: what a recipe may say, where its defaults come from, what will not fit."""

import dataclasses
import json

import pytest
import torch
from conftest import ROOT

from commands.errors import InputError
from commands.setting_groups import settings_of
from data_manifests.manifest import Utterance, write_manifest
from pipeline import calibrate, plan
from pipeline.calibrate import START_S, Rates, assume
from pipeline.plan_case import Case
from pipeline.plan_sizes import Memory
from pipeline.plan_steps import PLANNERS, works_of
from pipeline.plan_table import Limits, find_misfits, make_row
from pipeline.recipe import PLANNED, read_recipe
from pipeline.recipe_steps import config_class_of
from pipeline.work import Part, Timed, Work
from tests.attacks.settings import config_class_of as config_class_in

RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ELSEWHERE = ("--no-calibrate", "--tflops", "100")


def write_recipe(tmp_path, text, corpus="hours = 2"):
    path = tmp_path / "recipe.toml"
    path.write_text(f"[corpus]\n{corpus}\n{text}", encoding="utf-8")
    return path


def run_plan(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        plan.main([str(word) for word in words])
    return ended.value.code, capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[stage1_rvq.embed]\nbatch_sise = 8", "embed.: unknown key 'batch_sise'.*'batch_size'"),
        ("[stage1_rvq.embed]\nbatch_size = '8'", "embed.: batch_size"),
        ("[stage1_rvq.embet]", r"\[stage1_rvq.embet\] is no table of a recipe.*stage1_rvq.embed"),
        ("[corpos]\n[stage1_rvq.embed]", r"\[corpos\] is no table"),
        ("[voice]\nours = 1\n[stage1_rvq.embed]", r"\[voice\]"),
        ("[voice]\nhours = 1979-05-27\n[stage1_rvq.embed]", "date or time"),
        ("", "no command in it"),
        ("[stage1_rvq", "not valid TOML"),
        ("[stage3_finetune.train]", r"needs a table \[dialogues\]"),
        ("[stage1_rvq.embed]\ngemma = 'google/gemma-3'", "neither a folder that is here"),
        ("[speech_head.states]\nmimi = 'other/codec'", "--mimi other/codec: neither"),
    ],
)
def test_what_a_recipe_may_not_say(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        plan.main([str(write_recipe(tmp_path, text)), *ELSEWHERE])
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_or_has_no_corpus(tmp_path):
    with pytest.raises(InputError, match=r"absent\.toml"):
        plan.main(["--recipe", str(tmp_path / "absent.toml"), *ELSEWHERE])
    path = tmp_path / "recipe.toml"
    path.write_text("[stage1_rvq.embed]\n")
    with pytest.raises(InputError, match=r"needs a table \[corpus\]"):
        read_recipe(path)
    path.write_text("hours = 3\n")
    with pytest.raises(InputError, match="outside of a table"):
        read_recipe(path)


@pytest.mark.parametrize("command", PLANNED)
def test_defaults_are_those_of_the_command(tmp_path, command):
    assert config_class_of(command) is config_class_in(command)
    settings = read_recipe(write_recipe(tmp_path, f"[{command}]")).settings(command)
    wanted = {
        s.name: s.default
        for s in settings_of(config_class_in(command))
        if s.default is not dataclasses.MISSING
    }
    assert settings == wanted


def test_every_command_that_can_be_planned_has_a_planner():
    assert PLANNERS.keys() == set(PLANNED)


def test_settings_and_gemma_are_taken(tmp_path):
    path = write_recipe(tmp_path, "[stage1_rvq.embed]\nbatch-size = 3\n[stage1_rvq.train]")
    recipe = read_recipe(path, gemma="E2B")
    assert list(recipe.commands) == ["stage1_rvq.embed", "stage1_rvq.train"]
    embed = recipe.settings("stage1_rvq.embed")
    assert (embed["batch_size"], embed["gemma"]) == (3, "E2B")
    assert "gemma" not in recipe.settings("stage1_rvq.train")
    assert recipe.settings("speech_head.train")["steps"] == 50_000  # not in the recipe


def test_hours_are_counted_in_manifests(tmp_path, capsys):
    rows = [
        Utterance(
            id=f"{split}-{i}", audio="a.wav", text="me din de ama", duration_s=9.0, speaker="s",
            dialect="asante", corpus="c", split=split, license="CC0-1.0",
        )
        for split, number in (("train", 400), ("dev", 40))
        for i in range(number)
    ]  # fmt: skip
    manifest = tmp_path / "all.jsonl"
    write_manifest(manifest, rows)
    recipe = read_recipe(
        write_recipe(tmp_path, "[data_manifests.check]"), manifests=(manifest,),
        voice_manifests=(manifest,),
    )  # fmt: skip
    assert (recipe.corpus.hours, recipe.corpus.dev_hours, recipe.corpus.test_hours) == (1, 0.1, 0)
    assert recipe.voice.seconds_an_utterance == 9 and recipe.counted == ("corpus", "voice")
    code, out = run_plan(
        capsys, write_recipe(tmp_path, "[data_manifests.check]"), *ELSEWHERE, "--manifest",
        manifest, "--voice-manifest", manifest, "--out", tmp_path,
    )  # fmt: skip
    assert code == 0 and "1 h, 0.09 M frames" in out
    write_manifest(manifest, rows[400:])
    with pytest.raises(InputError, match="no utterance of the split train"):
        read_recipe(write_recipe(tmp_path, "[stage1_rvq.embed]"), manifests=(manifest,))


def test_operations_and_bytes_grow_with_the_hours(tmp_path):
    def work(hours):
        text = "[stage1_rvq.embed]\n[stage1_rvq.tokenize_corpus]"
        corpus = f"hours = {hours}\ndev_hours = 0\ntest_hours = 0"
        return works_of(Case(read_recipe(write_recipe(tmp_path, text, corpus)), CUDA))

    for small, large in zip(work(10), work(1000), strict=True):
        assert large.flops == pytest.approx(100 * small.flops)
        assert large.disk == pytest.approx(100 * small.disk, rel=0.01)
    embed, tokenize = work(1)
    assert embed.disk == pytest.approx(184e6, rel=0.02)  # as docs/hardware.md says
    assert len(tokenize.parts) == 1  # embeddings are there


TWELVE = "gemma = 'google/gemma-4-12B-it'"


def test_a_gemma_without_a_tower_is_planned_where_it_works(tmp_path):
    """Its head's texts are aligned by a recogniser that hears with another one's tower."""
    text = f"""
        [dialogues]
        number = 1000
        [stage3_finetune.train]
        {TWELVE}
        [stage3_finetune.evaluate]
        {TWELVE}
        [speech_head.states]
        {TWELVE}
        recognizer_gemma = "E2B"
        [speech_head.train]
        {TWELVE}
        [speech_head.evaluate]
        {TWELVE}
    """
    case = Case(read_recipe(write_recipe(tmp_path, text)), CUDA)
    parts = {work.command: [part.name for part in work.parts] for work in works_of(case)}
    hears = [name for name, names in parts.items() if any("tower" in one for one in names)]
    assert hears == ["speech_head.states"]
    path = write_recipe(tmp_path, f"[stage1_rvq.embed]\n{TWELVE}")
    with pytest.raises(InputError, match="12B-it: the Gemma 4 without encoders"):
        works_of(Case(read_recipe(path), CUDA))


def test_a_batch_may_be_limited_by_its_positions(tmp_path):
    def work(setting):
        path = write_recipe(tmp_path, f"[stage2_speechless.train]\n{setting}")
        return works_of(Case(read_recipe(path), CUDA))[0]

    by_rows, by_tokens = work("batch_size = 8"), work("batch_tokens = 1896")  # 8 x 237
    assert "steps of 8 utterances" in by_rows.amount and by_rows.amount == by_tokens.amount
    assert by_rows.flops == by_tokens.flops
    assert by_rows.memory.activations > 1.9 * by_tokens.memory.activations


def test_guidance_is_twice_the_work(tmp_path):
    def speaking(setting):
        text = f"[stage2_speechless.evaluate]\n{setting}"
        path = write_recipe(tmp_path, text, "hours = 2\ntest_hours = 0.5")
        return works_of(Case(read_recipe(path), CUDA))[0].parts[0].flops

    assert speaking("") == speaking("guidance = 2.0") == pytest.approx(2 * speaking("guidance = 1"))


def test_a_codebook_needs_speech(tmp_path, capsys):
    path = write_recipe(tmp_path, "[stage1_rvq.train]", corpus="hours = 0.3")
    code, out = run_plan(capsys, path, *ELSEWHERE, "--out", tmp_path)
    assert code == 1
    assert "stage1_rvq.train: --codebook-size 2048 needs 27 minutes of speech" in out


def one_part(num_shards=1, **more):
    part = Part("product", 3.6e12, lambda device, budget: Timed(1.0, 1.0), launches=10)
    return Work("a.b", "all", (part,), Memory(2**30, 0, 2**30, 2**29), 10**9,
                num_shards=num_shards, **more)  # fmt: skip


def test_time_is_that_of_the_slower_of_cores_and_device():
    rates = Rates(CUDA, {"product": 1e12}, 1e12, 1e12, 100.0, 1e9, 60.0)
    assert rates.seconds_of(one_part()) == pytest.approx(START_S + 3.6 + 1)
    assert rates.seconds_of(one_part(audio_s=1000.0)) == pytest.approx(START_S + 10 + 1)
    on_cpu = dataclasses.replace(rates, device=CPU)
    assert on_cpu.seconds_of(one_part(audio_s=100.0)) >= START_S + 3.6 + 1 + 1 / 64
    there = assume(CUDA, 120.0, 10.0, 0.5)
    assert not there.is_measured
    assert there.seconds_of_part(one_part().parts[0]) == pytest.approx(3.6 / 5)
    slow_start = dataclasses.replace(one_part().parts[0], launches=1e6)
    assert there.seconds_of_part(slow_start) == pytest.approx(400)


def test_what_can_be_divided_is_divided():
    rates = assume(CUDA, 100.0, 10.0, 1.0)
    whole, shared = (make_row(one_part(num_shards=n), rates, 8) for n in (1, 64))
    assert (whole.num_devices, shared.num_devices) == (1, 8)
    assert shared.hours == pytest.approx(whole.hours / 8)
    assert shared.device_hours == pytest.approx(whole.device_hours)
    assert make_row(one_part(num_shards=3), rates, 8).num_devices == 3


def test_what_will_not_fit_is_said():
    rates = assume(CUDA, 100.0, 10.0, 1.0)
    rows = [make_row(one_part(faults=("no",)), rates, 1)]
    enough = Limits(2**32, 2**32, 10**12, 10.0)
    assert find_misfits(rows, enough) == ["a.b: no"]
    for limits, message in (
        (dataclasses.replace(enough, device_bytes=2**30), "2.0 GiB of memory of the device"),
        (dataclasses.replace(enough, host_bytes=2**28), "0.5 GiB of memory of the host"),
        (dataclasses.replace(enough, disk_bytes=10**8), "disk: 1.0 GB, 0.1 free at --out"),
        (dataclasses.replace(enough, hours=1e-6), "--max-hours 1e-06"),
    ):
        assert message in find_misfits(rows, limits)[1]
    unknown = Limits(None, None, 10**12, None)
    assert find_misfits(rows, unknown) == ["a.b: no"]
    on_cpu = make_row(one_part(), dataclasses.replace(rates, device=CPU), 1)
    assert on_cpu.device_bytes == 0 and on_cpu.host_bytes == 2.5 * 2**30


def test_too_little_ends_with_1_and_is_in_the_json(tmp_path, capsys):
    path = write_recipe(tmp_path, "[stage1_rvq.embed]\n[stage1_rvq.train_recognizer]")
    words = (
        path,
        *ELSEWHERE,
        "--tflops-float32",
        20,
        "--utilization",
        0.4,
        "--out",
        tmp_path / "x",
    )
    code, out = run_plan(capsys, *words, "--devices", 4, "--device-gib", 80, "--host-gib", 64)
    assert code == 0 and "all of it fits" in out
    assert "4 devices: --part shares what it can; on one: stage1_rvq.train_recognizer" in out
    assert "nothing was measured" in out
    code, out = run_plan(capsys, *words, "--device-gib", 1, "--max-hours", 0.001, "--json")
    found = json.loads(out)
    assert code == 1 and len(found["will_not_fit"]) == 2
    assert not found["rates_are_measured"] and len(found["rows"]) == 2
    assert found["hours"] == pytest.approx(sum(row["hours"] for row in found["rows"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tflops", "3"), "--tflops needs --no-calibrate"),
        (("--no-calibrate",), "--no-calibrate needs --tflops"),
    ],
)
def test_a_device_is_here_or_described(tmp_path, words, message):
    with pytest.raises(InputError, match=message):
        plan.main([str(write_recipe(tmp_path, "[stage1_rvq.embed]")), *words])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_are_shipped_can_be_planned(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    works = works_of(Case(read_recipe(path), CPU))
    assert len(works) == len(read_recipe(path).commands) > 9
    for work in works:
        assert work.disk >= 0 and work.memory.host > 0
        assert all(part.flops > 0 for part in work.parts)


def test_this_device_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(calibrate, "BUDGET_S", 0.01)
    recipe = ROOT / "recipes" / "demo.toml"
    code, out = run_plan(capsys, recipe, "--device", "cpu", "--out", tmp_path, "--json")
    found = json.loads(out)
    assert code == 0 and found["rates_are_measured"]
    parts = {"audio tower, float32", "recogniser", "Muon", "Speechless, speaking", "Mimi"}
    assert parts <= found["flops_per_s"].keys()
    assert all(rate > 0 for rate in found["flops_per_s"].values())
