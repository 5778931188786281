"""`data_manifests.build` over miniature corpora in their exact layouts, mixed."""

import json
import re

import pytest
from conftest import ROOT, run
from miniature_corpora import (
    bibletts_tgz,
    common_voice_folder,
    encoded_speech,
    fisd_zip,
    saved_dataset,
    ugspeechdata_folder,
    waxal_folder,
)

from commands.errors import InputError
from commands.json_files import read_json
from data_manifests import build, check, split_manifests
from data_manifests.manifest import format_row, read_manifest, read_utterance_audio

PROMPTS = [f"Kɔ sika korabea {number}" for number in ("baako", "mmienu", "mmiɛnsa", "ɛnan")]
SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Of each corpus its name and a miniature of it."""
    folder = tmp_path_factory.mktemp("corpora")
    speakers = [f"Ama{i:02d}" for i in range(24)]
    fisd = fisd_zip(folder / "fisd-asanti-twi-90p.zip", "asante", speakers, [*PROMPTS, "Aane (ka)"])
    verses = {"train": {"RUT": ["Na Rut kae sɛ", "Na ɔkɔeɛ"]}, "test": {"EZR": ["Na Esra baeɛ"]}}
    spoken = {
        "train": [(f"ak_{i}", f"u{i}", f"Mehunu nnipa {i} bi") for i in range(6)],
        "validation": [("ak_dev", "u90", "Ɔbaa bi te hɔ")],
        "test": [("ak_test", "u91", PROMPTS[0]), ("ak_test2", "u92", "Abɔfra no redi agorɔ")],
    }
    return {
        "fisd_asante": fisd,
        "bibletts_asante": bibletts_tgz(folder / "asante-twi.tgz", "asante", verses),
        "waxal_aka_asr": waxal_folder(folder / "waxal", "aka_asr", spoken),
        "common_voice": common_voice_folder(folder / "tw", ["Me din de Ama.", "Wo ho te s3n?"]),
    }


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def words_of(corpora):
    return ["--corpus", *(f"{name}={path}" for name, path in corpora.items())]


def rows_of(out, name):
    path = out / f"{name}.jsonl"
    return list(read_manifest(path)) if path.exists() and path.read_text() else []


def test_all_corpora_together(corpora, tmp_path, capsys):
    out = tmp_path / "mixed"
    run(build.main, *words_of(corpora), "--test-fraction", 0.2, "--out", out)
    summary = capsys.readouterr().err
    rows = {name: rows_of(out, name) for name in (*SPLITS, "test_seen_prompts")}
    assert {u.corpus for u in rows["train"]} == {
        "fisd_asante", "bibletts_asante", "waxal_aka_asr", "common_voice",
    }  # fmt: skip
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not {u.speaker for u in rows[one]} & {u.speaker for u in rows[other]}
        assert not {u.text for u in rows[one]} & {u.text for u in rows[other]}
    # WAXAL's own test set is whole, so nobody trains on a prompt that is in it.
    assert {"ak_test", "ak_test2"} <= {u.id for u in rows["test"]}
    assert PROMPTS[0] not in {u.text for u in rows["train"]}
    seen = rows["test_seen_prompts"]
    assert seen and {u.text for u in seen} <= {u.text for u in rows["train"]}
    assert not {u.speaker for u in seen} & {u.speaker for u in rows["train"]}
    assert "never mixed with it" in summary and "its own splits are kept" in summary
    assert "bibletts_asante: 1 speaker(s)" in summary
    rewritten = [json.loads(line) for line in (out / "rewritten.jsonl").open()]
    assert len(rewritten) == 24 and {r["text"] for r in rewritten} == {"Aane"}
    assert "fisd_asante: 24 transcripts rewritten" in summary
    guesses = {u.dialect_guess for u in rows["train"] if u.dialect != "unknown"}
    assert guesses == {None}
    for name in (*SPLITS, "test_seen_prompts"):
        if rows[name]:
            assert "problems: none" in run(check.main, "--manifest", out / f"{name}.jsonl")


def test_the_folder_can_be_moved_and_the_same_seed_gives_the_same(corpora, tmp_path):
    """In whatever order the corpora are named."""
    fisd, bible = (f"{name}={corpora[name]}" for name in ("fisd_asante", "bibletts_asante"))
    run(build.main, "--corpus", fisd, bible, "--out", tmp_path / "a")
    run(build.main, "--corpus", bible, "--corpus", fisd, "--out", tmp_path / "b")
    assert all(
        (tmp_path / "a" / f"{split}.jsonl").read_bytes()
        == (tmp_path / "b" / f"{split}.jsonl").read_bytes()
        for split in SPLITS
    )
    (tmp_path / "a").rename(tmp_path / "moved")
    rows = rows_of(tmp_path / "moved", "train")
    assert len(rows) > 10 and all(len(read_utterance_audio(u, 16_000)) for u in rows)


def test_only_what_is_allowed_is_kept(corpora, tmp_path, capsys):
    out = tmp_path / "free"
    free = ("--allow-licenses", "cc0-1.0", "CC-BY-4.0")
    bible = "bibletts_asante=CC-BY-4.0"
    chosen = words_of({name: corpora[name] for name in ("bibletts_asante", "common_voice")})
    run(build.main, *chosen, *free, "--out", out)
    summary = capsys.readouterr().err
    assert {u.license for name in SPLITS for u in rows_of(out, name)} == {"CC0-1.0"}
    assert "3 bibletts_asante: its licence, CC-BY-SA-4.0, is not allowed" in summary
    assert read_json(out / "provenance.json")["corpora"].keys() == {"common_voice"}
    run(build.main, *chosen, *free, "--license-of", bible, "--out", tmp_path / "mine")
    rows = [u for name in SPLITS for u in rows_of(tmp_path / "mine", name)]
    assert {(u.corpus, u.license) for u in rows} == {
        ("bibletts_asante", "CC-BY-4.0"), ("common_voice", "CC0-1.0"),
    }  # fmt: skip
    with pytest.raises(InputError, match="no utterance is under one of these licences"):
        run(build.main, *chosen, "--allow-licenses", "MIT", "--out", tmp_path / "none")
    with pytest.raises(InputError, match=r"--resume .*made with allow_licenses = .* now \[\]"):
        run(build.main, *chosen, "--out", out, "--resume")


def test_a_licence_that_was_not_settled_is_unknown(tmp_path):
    spoken = {"train": [(f"tw_{i}", "one", f"Mehunu nnipa {i} bi") for i in range(3)]}
    source = waxal_folder(tmp_path / "waxal", "twi_tts", spoken)
    words = ("--corpus", f"waxal_twi_tts={source}")
    run(build.main, *words, "--out", tmp_path / "a")
    assert {u.license for u in rows_of(tmp_path / "a", "train")} == {"unknown"}
    run(build.main, *words, "--allow-licenses", "Unknown", "--out", tmp_path / "b")
    assert len(rows_of(tmp_path / "b", "train")) == 3
    with pytest.raises(InputError, match="no utterance is under one of these licences"):
        run(build.main, *words, "--allow-licenses", "CC-BY-4.0", "--out", tmp_path / "c")


def test_only_what_is_in_a_manifest_is_extracted(corpora, tmp_path):
    out = tmp_path / "fisd"
    hours = f"fisd_asante={20 / 3600}"
    chosen = {"fisd_asante": corpora["fisd_asante"]}
    run(build.main, *words_of(chosen), "--max-hours", hours, "--out", out)
    rows = [u for name in (*SPLITS, "test_seen_prompts") for u in rows_of(out, name)]
    assert 10 < sum(u.duration_s for u in rows if u.split == "train") <= 20
    extracted = {path.name for path in (out / "audio").rglob("*.ogg")}
    assert extracted == {u.audio.rpartition("/")[2] for u in rows}
    reasons = {json.loads(line)["reason"] for line in (out / "dropped.jsonl").open()}
    assert "more than --max-hours" in reasons


def test_a_build_cut_off_is_resumed(corpora, tmp_path, monkeypatch):
    out, straight = tmp_path / "cut", tmp_path / "straight"
    words = words_of({name: corpora[name] for name in ("fisd_asante", "bibletts_asante")})
    run(build.main, *words, "--out", straight)

    rows_before_it = iter(range(40))

    def no_space(utterance):
        if next(rows_before_it, None) is None:
            raise OSError("no space left on device")
        return format_row(utterance)

    with monkeypatch.context() as patch:
        patch.setattr(split_manifests, "format_row", no_space)
        with pytest.raises(OSError, match="no space"):
            run(build.main, *words, "--out", out)
    assert not [*out.rglob("*.tmp"), *out.glob("*.jsonl")]
    with pytest.raises(InputError, match="unfinished: --resume continues it"):
        run(build.main, *words, "--out", out)
    run(build.main, *words, "--out", out, "--resume")
    assert {path.name for path in out.iterdir()} == {path.name for path in straight.iterdir()}
    for path in straight.glob("*.jsonl"):
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_any_dataset_and_ugspeechdata(tmp_path):
    rows = [
        {"audio": encoded_speech("wav", text), "sentence": text, "who": f"p{i}", "lang": "Fante"}
        for i, text in enumerate(("Yɛrekɔ fie", "Yɛreba", "Yɛwɔ ha"))
    ]
    source = saved_dataset(tmp_path / "saved", {"train": rows})
    columns = ["audio=audio", "text=sentence", "speaker=who", "dialect=lang"]
    out = tmp_path / "mine"
    run(
        build.main, "--corpus", f"dataset={source}", "--dataset-columns", *columns,
        "--dataset-name", "mine", "--dataset-license", "CC-BY-4.0", "--out", out,
    )  # fmt: skip
    (first, *_) = rows_of(out, "train")
    assert (first.speaker, first.dialect, first.corpus) == ("mine/p0", "fante", "mine")
    folder = ugspeechdata_folder(
        tmp_path / "ug", {"ak_gh_image_0001_u7_1_1682163241022_0": "Ɔbarima bi gyina hɔ"}
    )
    run(build.main, "--corpus", f"ugspeechdata={folder}", "--out", tmp_path / "ugs")
    assert [u.speaker for u in rows_of(tmp_path / "ugs", "train")] == ["ugspeech/u7"]
    for name in ("mine", "ugs"):
        assert "problems: none" in run(check.main, "--manifest", tmp_path / name / "train.jsonl")


def test_several_datasets_and_tables_each_with_its_own_columns(tmp_path):
    def rows(*texts, **columns):
        return [
            {
                "audio": encoded_speech("wav", text),
                **{c: v.format(text) for c, v in columns.items()},
            }
            for text in texts
        ]

    one = saved_dataset(tmp_path / "one", {"train": rows("Yɛrekɔ fie", "Yɛreba", said="{}")})
    other = saved_dataset(tmp_path / "other", {"train": rows("Yɛwɔ ha", text="{}", who="Ama")})
    (tmp_path / "a.wav").write_bytes(encoded_speech("wav", "Da yie"))
    table = tmp_path / "a,b.csv"
    table.write_text("file,text,lang\na.wav,Da yie,Fante\n", encoding="utf-8")
    out = tmp_path / "mixed"
    run(
        build.main, "--corpus", f"dataset={one},name=one,text=said,license=CC-BY-4.0",
        f"dataset={other},name=other,speaker=who,dialect=akuapem",
        f"table={table},name=own,audio=file,dialect_column=lang",
        "--hold-out", "one=sentence", "--dataset-license", "CC0-1.0", "--out", out,
    )  # fmt: skip
    found = {u.text: u for name in SPLITS for u in rows_of(out, name)}
    assert {text: (u.corpus, u.speaker, u.dialect, u.license) for text, u in found.items()} == {
        "Yɛrekɔ fie": ("one", "one/unknown", "unknown", "CC-BY-4.0"),
        "Yɛreba": ("one", "one/unknown", "unknown", "CC-BY-4.0"),
        "Yɛwɔ ha": ("other", "other/Ama", "akuapem", "CC0-1.0"),
        "Da yie": ("own", "own/unknown", "fante", "CC0-1.0"),
    }


def test_no_recipe_and_no_document_trains_on_clips_that_were_voted_down():
    for path in [*(ROOT / "recipes").glob("*.toml"), *(ROOT / "docs").glob("*.md")]:
        chosen = re.findall(r"--common-voice-tables ([a-z ]+)", path.read_text(encoding="utf-8"))
        assert all("invalidated" not in tables for tables in chosen), path


@pytest.mark.parametrize("config", ["twi_tts", "fat_tts"])
def test_studio_voices_are_training_data(config, tmp_path):
    rows = {s: [(f"{s}1", "7", f"Yɛkan nwoma {s}")] for s in ("train", "validation", "test")}
    source = waxal_folder(tmp_path / "waxal", config, rows, text_column="text")
    out = tmp_path / "tts"
    run(build.main, "--corpus", f"waxal_{config}={source}", "--out", out)
    assert [u.speaker for u in rows_of(out, "train")] == ["waxal/7"] * 3
    assert "problems: none" in run(check.main, "--manifest", out / "train.jsonl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no corpus given"),
        (["--corpus", "ugspeechdata=x", "waxal_aka_asr=y"], "was made from UGSpeechData"),
        (["--corpus", "fisd_asanti=x"], "did you mean 'fisd_asante'"),
        (["--corpus", "fisd.zip"], "unknown corpus 'fisd.zip': known: fisd_asante, "),
        (["--corpus", "fisd_asante"], "--corpus 'fisd_asante' is not like fisd_asante=PATH"),
        (["--corpus", "fisd_asante="], "--corpus 'fisd_asante=' is not like fisd_asante=PATH"),
        (["--fisd-asante", "x"], "unknown flag --fisd-asante"),
        (["--corpus", "common_voice=x", "--max-hours", "common_voice"], "is not like fisd_asante"),
        (["--corpus", "common_voice=x", "--max-hours", "common_voice=-1"], "must be above 0"),
        (["--corpus", "common_voice=x", "--license-of", "common_voice"], "is not like waxal_twi"),
        (["--corpus", "common_voice=x", "--license-of", "cv=MIT"], "'cv' is none of the corpora"),
        (
            ["--corpus", "common_voice=x", "--license-of", "a=b", "a=c"],
            "--license-of: 'a' is repea",
        ),
        (["--corpus", "common_voice=x", "--allow-licenses", " "], "must be a licence's SPDX name"),
        (
            ["--corpus", "common_voice=x", "--max-hours", "cv=3"],
            "none of the corpora given: common_",
        ),
        (["--corpus", "common_voice=x", "--common-voice-tables", "best"], "is none of validated"),
        (["--corpus", "dataset=x", "--dataset-columns", "text=t"], "are both needed"),
        (["--corpus", "dataset=x", "--dataset-columns", "audio=a", "sound=t"], "expected NAME=COL"),
        (["--corpus", "dataset=x", "dataset=y"], "name their column of ids too"),
        (["--corpus", "common_voice=x", "--hold-out", "speakers"], "is not like sentence or commo"),
        (["--corpus", "common_voice=x", "--hold-out", "cv=speaker"], "'cv' is none of the corpora"),
        (["--corpus", "common_voice=x", "--hold-out", "speaker", "sentence"], "another one of all"),
        (["--corpus", "common_voice=x", "--hold-out", "=speaker"], "is not like sentence or commo"),
        (
            ["--corpus", "common_voice=x", "--test-speakers", "a", "--dev-speakers", "a"],
            "--test-speakers and --dev-speakers both name 'a'",
        ),
        (["--corpus", "fisd_asante=absent.zip"], "no such file"),
        (["--corpus", "bibletts_akuapem=asante-twi.tgz"], "says asante, expected akuapem"),
        (
            ["--corpus", "bibletts_asante=a/x.tgz", "bibletts_asante=b/x.tgz"],
            "two archives named x",
        ),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        run(build.main, *words, "--out", "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
