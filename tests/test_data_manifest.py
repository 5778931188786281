"""Manifests and audio: what is read is what was written, and every defect names file and line."""

import json

import numpy as np
import pytest
import soundfile
from miniature_corpora import common_voice_folder, tone

from commands.errors import InputError
from data_manifests import build, check
from data_manifests.audio import decode_audio, read_audio, write_wav
from data_manifests.manifest import Utterance, read_manifest, read_utterance_audio, write_manifest


def row(**changes):
    values = {
        "id": "a", "audio": "a.wav", "text": "Ɛte sɛn?", "duration_s": 1.0, "speaker": "s",
        "dialect": "asante", "corpus": "c", "split": "train", "license": "CC0-1.0",
    }  # fmt: skip
    return {**values, **changes}


def write_rows(path, *rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    return path


def test_round_trip(tmp_path):
    utterances = [Utterance(**row(id=str(i), start_s=0.5)) for i in range(3)]
    assert write_manifest(tmp_path / "m.jsonl", utterances) == 3
    read = list(read_manifest(tmp_path / "m.jsonl"))
    assert [u.id for u in read] == ["0", "1", "2"]
    assert read[0].audio == str(tmp_path / "a.wav")
    assert read[2].origin.endswith("m.jsonl:3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "  "}, "'text' is empty"),
        ({"duration_s": -1}, "'duration_s' must be greater than 0, got -1"),
        ({"duration_s": "long"}, "'duration_s' must be a valid number, got 'long'"),
        ({"dialect": "twi"}, "'dialect' must be one of"),
        ({"split": "valid"}, "'split' must be one of"),
        ({"speker": "x"}, "did you mean 'speaker'"),
        ({"text": None}, "'text' is null"),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path, changes, message):
    path = write_rows(tmp_path / "m.jsonl", row(), row(**changes))
    with pytest.raises(InputError) as caught:
        list(read_manifest(path))
    assert f"{path}:2:" in str(caught.value) and message in str(caught.value)


def test_missing_key_broken_json_and_empty_file(tmp_path):
    without_text = row()
    del without_text["text"]
    path = write_rows(tmp_path / "m.jsonl", without_text)
    with pytest.raises(InputError, match=r"m.jsonl:1: has no 'text'"):
        list(read_manifest(path))
    path.write_text("{not json\n")
    with pytest.raises(InputError, match=r"m.jsonl:1: not valid JSON"):
        list(read_manifest(path))
    path.write_text("")
    with pytest.raises(InputError, match="no utterances in it"):
        list(read_manifest(path))
    with pytest.raises(InputError, match="No such file"):
        list(read_manifest(tmp_path / "absent.jsonl"))


def test_manifest_of_an_unfinished_folder_is_refused(tmp_path):
    write_rows(tmp_path / "m.jsonl", row())
    (tmp_path / "provenance.json").write_text("{}")
    with pytest.raises(InputError, match="unfinished"):
        list(read_manifest(tmp_path / "m.jsonl"))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_formats_rates_and_channels(tmp_path, name, rate):
    stereo = np.stack([tone(1.0, rate), tone(1.0, rate)], axis=1)
    soundfile.write(tmp_path / name, stereo, rate)
    for wanted in (16_000, 24_000):
        samples = read_audio(tmp_path / name, wanted)
        assert samples.dtype == np.float32 and samples.ndim == 1
        assert abs(len(samples) - wanted) < 0.06 * wanted
        spectrum = np.abs(np.fft.rfft(samples[wanted // 8 : wanted // 8 * 7]))
        peak_hz = spectrum.argmax() * wanted / (2 * (len(spectrum) - 1))
        assert abs(peak_hz - 440) < 5


def test_opus_is_read(tmp_path):
    soundfile.write(tmp_path / "a.ogg", tone(1.0, 48_000), 48_000, format="OGG", subtype="OPUS")
    assert abs(len(read_audio(tmp_path / "a.ogg", 16_000)) - 16_000) < 500


def test_slices(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2.0), 16_000)
    whole = read_audio(tmp_path / "a.wav", 16_000)
    part = read_audio(tmp_path / "a.wav", 16_000, start_s=0.5, duration_s=1.0)
    assert np.array_equal(part, whole[8_000:24_000])
    with pytest.raises(InputError, match="cut short"):
        read_audio(tmp_path / "a.wav", 16_000, start_s=1.5, duration_s=1.0)


def test_write_wav_scales_down_what_would_clip(tmp_path):
    write_wav(tmp_path / "x" / "a.wav", 2 * tone(), 16_000)
    assert abs(read_audio(tmp_path / "x" / "a.wav", 16_000)).max() <= 1.0
    assert decode_audio(tmp_path / "x" / "a.wav").sample_rate_hz == 16_000


def spoil(path, kind):
    """Write an audio file with one defect."""
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("This is no audio at all.")
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0, dtype=np.float32), 16_000, format="WAV")
    elif kind == "silent":
        soundfile.write(path, np.zeros(16_000, dtype=np.float32), 16_000, format="WAV")
    elif kind == "nan":
        samples = tone()
        samples[100] = np.nan
        soundfile.write(path, samples, 16_000, format="WAV", subtype="FLOAT")
    elif kind == "truncated mp3":
        soundfile.write(path, tone(4.0), 16_000, format="MP3")
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 3])
    elif kind == "other rate":
        soundfile.write(path, tone(1.0, 8_000), 8_000, format="WAV")
    elif kind == "other length":
        soundfile.write(path, tone(3.0), 16_000, format="WAV")


DEFECTS = {
    "absent": "no such audio file",
    "empty": "empty file",
    "text": "not readable as audio",
    "no samples": "empty audio",
    "silent": "silent",
    "nan": "NaN",
    "truncated mp3": "cut short|lasts",
    "other rate": "sample rate is 8000 Hz, the manifest says 16000",
    "other length": "lasts 3.00 s, the manifest says 1.00 s",
}


@pytest.mark.parametrize("kind", DEFECTS)
def test_defects_name_manifest_and_line(tmp_path, kind, capsys):
    duration_s = 4.0 if kind == "truncated mp3" else 1.0
    soundfile.write(tmp_path / "good.wav", tone(), 16_000)
    spoil(tmp_path / "bad.audio", kind)
    path = write_rows(
        tmp_path / "m.jsonl",
        row(id="good", audio="good.wav"),
        row(id="bad", audio="bad.audio", duration_s=duration_s, sample_rate_hz=16_000),
    )
    good, bad = read_manifest(path)
    assert len(read_utterance_audio(good, 16_000)) == 16_000
    with pytest.raises(InputError, match=DEFECTS[kind]) as caught:
        read_utterance_audio(bad, 16_000)
    assert str(caught.value).startswith(f"{path}:2: ")
    with pytest.raises(InputError, match="1 problem"):
        check.main(["--manifest", str(path)])
    assert "asante" in capsys.readouterr().out


def test_check_finds_what_rows_hide(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    path = write_rows(tmp_path / "m.jsonl", row(), row(), row(id="b", text="..."))
    with pytest.raises(InputError, match="2 problem") as caught:
        check.main(["--manifest", str(path)])
    assert "used twice" in str(caught.value) and "no speakable character" in str(caught.value)


def test_common_voice_recipe(tmp_path, capsys):
    sentences = ['• "Me din de Ama', "Wo ho te s3n?", "...", *(f"Kasa {i} bi" for i in range(30))]
    folder = common_voice_folder(tmp_path / "tw", sentences)
    (folder / "clips" / "cv_5.mp3").unlink()
    words = ["--hold-out", "sentence", "--out", str(tmp_path / "cv")]
    build.main(["--corpus", f"common_voice={folder}", *words])
    summary = capsys.readouterr().err
    assert "splits made here" in summary and "not by speaker" in summary
    rows = [
        u for s in ("train", "dev", "test") for u in read_manifest(tmp_path / "cv" / f"{s}.jsonl")
    ]
    assert len(rows) == 31
    texts = {u.id: u.text for u in rows}
    assert texts["cv_0"] == '• "Me din de Ama' and texts["cv_1"] == "Wo ho te sɛn?"
    assert {u.license for u in rows} == {"CC0-1.0"} and {u.dialect for u in rows} == {"unknown"}
    dropped = [json.loads(line) for line in (tmp_path / "cv" / "dropped.jsonl").open()]
    assert {d["id"] for d in dropped} == {"cv_2.mp3", "cv_5.mp3"}
    with pytest.raises(InputError, match="exists already and is finished"):
        build.main(["--corpus", f"common_voice={folder}", *words])
    with pytest.raises(InputError, match="not a Common Voice folder"):
        build.main(["--corpus", f"common_voice={tmp_path}", "--out", str(tmp_path / "cv2")])


def test_the_real_common_voice_folder(real_data, tmp_path):
    folder = real_data / "common_voice_tw"
    tables = ["--common-voice-tables", "validated", "other", "invalidated"]
    tables += ["--hold-out", "sentence"]
    build.main(["--corpus", f"common_voice={folder}", *tables, "--out", str(tmp_path / "cv")])
    counts = {
        split: len(list(read_manifest(tmp_path / "cv" / f"{split}.jsonl")))
        for split in ("train", "dev", "test")
    }
    assert sum(counts.values()) == 221 and min(counts.values()) > 5
    check.main(["--manifest", str(tmp_path / "cv" / "test.jsonl")])


def test_a_speaker_of_common_voice_who_is_held_out_by_name(tmp_path, capsys):
    """One man recorded nearly all of it; others are held out, and their names are in manifests."""
    folder = common_voice_folder(tmp_path / "tw", [f"Kasa {i} bi" for i in range(30)])
    table = folder / "validated.tsv"
    lines = table.read_text().split("\n")
    lines[1:5] = [line.replace("one\t", f"other{i}\t", 1) for i, line in enumerate(lines[1:5])]
    table.write_text("\n".join(lines))

    def speakers(*words):
        out = tmp_path / "-".join(words)
        build.main(["--corpus", f"common_voice={folder}", *words, "--out", str(out)])
        paths = {name: out / f"{name}.jsonl" for name in ("train", "dev", "test")}
        return {
            name: {u.speaker for u in read_manifest(path)} if path.stat().st_size else set()
            for name, path in paths.items()
        }

    assert speakers("--hold-out", "speaker")["test"] == set()
    assert "common_voice=speaker some of its speakers" in capsys.readouterr().err
    found = speakers("--hold-out", "common_voice=speaker")
    assert found["dev"] and found["test"] and "one" in found["train"]
    found = speakers("--test-speakers", "other1", "--dev-speakers", "other0", "other2")
    assert found == {"train": {"one", "other3"}, "dev": {"other0", "other2"}, "test": {"other1"}}
    with pytest.raises(
        InputError, match="--test-speakers: nobody is called 'Yaw' in these corpora"
    ):
        speakers("--test-speakers", "Yaw")
