"""Recordings of one's own: a table of them, and manifests, as corpora among others."""

import csv
import io
import json
import sys

import numpy as np
import pytest
from conftest import run
from mirrors import AV_FORMATS, encode

from commands.errors import InputError
from commands.json_files import read_json_lines
from data_manifests import audio_files, build, check
from data_manifests.audio import decode_encoded, read_audio, resample, write_wav
from data_manifests.audio_defects import AudioDefect
from data_manifests.corpora import own_table
from data_manifests.manifest import SPLITS, read_manifest, read_utterance_audio

RATE_HZ = 16_000


def tone(seconds=1.0):
    return 0.3 * np.sin(np.arange(int(RATE_HZ * seconds)) / 9).astype(np.float32)


def as_aac(samples):
    """AAC as it is streamed, without a file around it."""
    import av

    file = io.BytesIO()
    encoded = io.BytesIO(encode(samples, RATE_HZ, "m4a"))
    with av.open(encoded) as source, av.open(file, "w", format="adts") as output:
        stream = output.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    return file.getvalue()


def own_recordings(folder, rows, *, delimiter=",", name="recordings.csv", header=("audio", "text")):
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for audio, *_ in rows:
        path = folder / audio
        if path.suffix == ".m4a":
            path.write_bytes(encode(tone(), RATE_HZ, "m4a"))
        elif path.suffix:
            write_wav(path, tone(), RATE_HZ)
    table = folder / name
    with table.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return table


def sentences(number):
    return [(f"clips/{i}.wav", f"Me din de Ama {i}.") for i in range(number)]


def rows_of(out, split):
    path = out / f"{split}.jsonl"
    return list(read_manifest(path)) if path.read_text() else []


@pytest.mark.parametrize("seed", range(6))
def test_twenty_recordings_are_in_every_split(seed, tmp_path):
    table = own_recordings(tmp_path, sentences(20), delimiter=";")
    out = tmp_path / "out"
    words = ("--hold-out", "sentence", "--seed", seed, "--dataset-name", "own")
    run(build.main, "--corpus", f"table={table}", *words, "--out", out)
    found = {split: rows_of(out, split) for split in SPLITS}
    assert all(found.values()) and sum(map(len, found.values())) == 20
    first = found["train"][0]
    assert (first.corpus, first.speaker) == ("own", "own/unknown")
    assert len(read_utterance_audio(first, RATE_HZ)) == RATE_HZ


def test_too_few_recordings_are_said_to_be_too_few(tmp_path, capsys):
    table = own_recordings(tmp_path, sentences(2))
    words = ("--hold-out", "sentence", "--test-fraction", 0, "--dev-fraction", 0)
    run(build.main, "--corpus", f"table={table}", *words, "--out", tmp_path / "out")
    summary = capsys.readouterr().err
    assert "dataset: 2 sentence(s), too few to be in train, dev and test" in summary
    assert "warning: dev.jsonl is empty" in summary


def test_what_a_phone_records_is_copied_as_flac(tmp_path):
    rows = [("clips/a.m4a", "Maakye.", "Ama"), ("clips/b.wav", "Da yie.", "Yaw")]
    table = own_recordings(
        tmp_path, rows, delimiter="\t", name="r.tsv", header=("file", "said", "who")
    )
    out = tmp_path / "out"
    columns = ("--dataset-columns", "audio=file", "text=said", "speaker=who")
    run(build.main, "--corpus", f"table={table}", *columns, "--out", out)
    first, second = rows_of(out, "train")
    assert first.audio.endswith("audio/dataset/a.flac") and first.speaker == "dataset/Ama"
    assert abs(first.duration_s - 1) < 0.15 and second.audio == str(tmp_path / "clips" / "b.wav")
    assert "problems: none" in run(check.main, "--manifest", out / "train.jsonl")


@pytest.mark.parametrize("kind", [*AV_FORMATS, "aac"])
def test_what_phones_record_is_the_same_for_every_command(kind, tmp_path, monkeypatch):
    """Told by its content: it is named .ogg. Copied by build, left where it is, in a table, read by
    a chat: always the same samples, and build decodes it once."""
    table = own_recordings(tmp_path, [("clips/b.wav", "Da yie.")])
    encoded = as_aac(tone()) if kind == "aac" else encode(tone(), RATE_HZ, kind)
    path = tmp_path / "clips" / "a.ogg"
    path.write_bytes(encoded)
    with table.open("a", encoding="utf-8") as file:
        file.write("clips/a.ogg,Maakye.\n")
    decode, names = own_table.decode_phone_audio, []

    def decode_and_count(file, name):
        names.append(name)
        return decode(file, name)

    monkeypatch.setattr(own_table, "decode_phone_audio", decode_and_count)
    monkeypatch.setattr(audio_files, "decode_phone_audio", decode_and_count)
    run(build.main, "--corpus", f"table={table}", "--out", tmp_path / "copied")
    assert len(names) == 1
    run(build.main, "--corpus", f"table={table}", "--no-copy-audio", "--out", tmp_path / "kept")
    [copied] = [u for u in rows_of(tmp_path / "copied", "train") if u.text == "Maakye."]
    [kept] = [u for u in rows_of(tmp_path / "kept", "train") if u.text == "Maakye."]
    assert copied.audio.endswith(".flac") and kept.audio == str(path)
    expected = read_audio(path, RATE_HZ)
    assert abs(len(expected) / RATE_HZ - 1) < 0.15 and copied.duration_s == kept.duration_s
    decoded = decode_encoded(encoded, "a")
    for samples in (
        read_utterance_audio(copied, RATE_HZ),
        read_utterance_audio(kept, RATE_HZ),
        resample(decoded.samples, decoded.sample_rate_hz, RATE_HZ),
    ):
        np.testing.assert_array_equal(samples, expected)


def test_without_pyav_a_line_says_what_to_do(tmp_path, monkeypatch):
    """And no recording counts as damaged."""
    table = own_recordings(tmp_path, [("clips/a.m4a", "Maakye."), ("clips/b.wav", "Da yie.")])
    run(build.main, "--corpus", f"table={table}", "--no-copy-audio", "--out", tmp_path / "kept")
    monkeypatch.setitem(sys.modules, "av", None)
    manifest = tmp_path / "kept" / "train.jsonl"
    for main, words in (
        (build.main, ("--corpus", f"table={table}")),
        (check.main, ("--manifest", manifest)),
    ):
        with pytest.raises(InputError, match=r"need PyAV: pip install .*\.\[phone\]"):
            run(main, *words, "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_an_m4a_that_is_cut_short(tmp_path):
    encoded = encode(tone(4), RATE_HZ, "m4a")
    table = encoded.index(b"moov")
    if table > len(encoded) // 2:  # its table of contents is at the end
        with pytest.raises(AudioDefect, match="not readable as audio"):
            decode_encoded(encoded[: table - 100], "a.m4a")
    with pytest.raises(AudioDefect, match="not readable as audio"):
        decode_encoded(b"\x1aE\xdf\xa3 no WebM", "a.webm")


def test_rows_that_cannot_be_used_are_listed(tmp_path):
    rows = [*sentences(1), ("absent.wav", "Maaha."), ("", "Maadwo."), ("clips/0.wav", "?")]
    table = own_recordings(tmp_path, sentences(1))
    lines = [json.dumps(dict(zip(("audio", "text"), row, strict=True))) for row in rows]
    table = tmp_path / "recordings.jsonl"
    table.write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "bad.m4a").write_bytes(b"no sound")
    with table.open("a", encoding="utf-8") as file:
        file.write('\n{"audio": "bad.m4a", "text": "Maaha."}\n{"audio": "gone.m4a", "text": "Ao."}')
    out = tmp_path / "out"
    run(build.main, "--corpus", f"table={table}", "--out", out)
    assert len(rows_of(out, "train")) == 1
    reasons = [row["reason"] for row in read_json_lines(out / "dropped.jsonl")]
    for reason, part in zip(
        reasons,
        ("no such audio file", "no audio", "nothing to say", "not readable", "no such audio"),
        strict=True,
    ):
        assert part in reason


def test_manifests_keep_their_rows_and_their_splits(tmp_path):
    table = own_recordings(tmp_path, sentences(20))
    words = ("--hold-out", "sentence", "--dataset-license", "CC0-1.0", "--dataset-name", "own")
    run(build.main, "--corpus", f"table={table}", *words, "--out", tmp_path / "own")
    corpora = [f"manifest={tmp_path / 'own' / f'{split}.jsonl'}" for split in SPLITS]
    kept = ("--keep-splits", "own", "--seed", 5, "--hold-out", "sentence")
    run(build.main, "--corpus", *corpora, *kept, "--out", tmp_path / "again")
    for split in SPLITS:
        assert rows_of(tmp_path / "again", split) == rows_of(tmp_path / "own", split)
    run(build.main, "--corpus", *corpora, "--seed", 5, "--out", tmp_path / "anew")
    assert len(rows_of(tmp_path / "anew", "train")) == 20  # one speaker
    (tmp_path / "clips" / "3.wav").unlink()
    run(build.main, "--corpus", *corpora, "--out", tmp_path / "fewer")
    [dropped] = read_json_lines(tmp_path / "fewer" / "dropped.jsonl")
    assert dropped["id"] == "own-clips_3" and "no such audio file" in dropped["reason"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table=absent.csv"], "absent.csv: no such file"),
        (["table=a.xlsx"], r"save a spreadsheet as CSV \(UTF-8\)"),
        (["table=a.csv,nam=b"], "unknown option 'nam': did you mean 'name'"),
        (["table=a.csv,dialect=lang"], "a column that tells it is dialect_column="),
        (["table=a.csv,name="], "name= is empty"),
        (["table=a.csv,name=../x"], "it names a folder; got '../x'"),
        (["table=a.csv", "--dataset-columns", "audio=f", "text=text"], "no column 'f'; its col"),
        (["table=a.csv", "--keep-splits", "demo"], "--keep-splits: 'demo' is none of the corpora"),
        (["table=b.jsonl"], "b.jsonl:1: no key 'audio'"),
        (["manifest=absent.jsonl"], "absent.jsonl: No such file"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_recordings(tmp_path, sentences(1), name="a.csv")
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")
    (tmp_path / "b.jsonl").write_text('{"sound": "a.wav"}\n')
    with pytest.raises(InputError, match=message) as caught:
        run(build.main, "--corpus", *words, "--out", "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
