"""The same recording in two corpora, under other names and in other formats, is used once."""

import itertools

import mirrors
import numpy as np
import pytest
from conftest import run
from mirrors import FORMATS, REAL_CLIPS, encode

from commands.errors import InputError
from commands.json_files import read_json, read_json_lines
from data_manifests import build, check
from data_manifests.audio import DecodedAudio, decode_audio, decode_encoded, write_wav
from data_manifests.audio_fingerprint import (
    MAX_DIFFERENT,
    Fingerprint,
    fingerprint,
    is_same_recording,
    share_different,
)
from data_manifests.manifest import Utterance, format_row, read_manifest

RATE_HZ = 16_000


def voice(seed, seconds=1.5):
    """Noise whose spectrum changes ten times a second, unlike that of any other seed."""
    generator = np.random.default_rng(seed)
    samples = generator.standard_normal(int(seconds * RATE_HZ)).astype(np.float32)
    spectrum = np.fft.rfft(samples.reshape(-1, RATE_HZ // 10))
    envelope = np.repeat(generator.random((len(spectrum), 90)) ** 4, 9, axis=1)
    spectrum *= envelope[:, : spectrum.shape[1]]
    return (0.2 * np.fft.irfft(spectrum).reshape(-1)).astype(np.float32)


def manifest(path, rows):
    """Rows of (id, samples, text, speaker)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for name, samples, text, speaker in rows:
            write_wav(path.parent / f"{name}.wav", samples, RATE_HZ)
            utterance = Utterance(
                id=name, audio=f"{name}.wav", text=text, duration_s=len(samples) / RATE_HZ,
                speaker=speaker, dialect="unknown", corpus=path.parent.name, split="train",
                license="CC0-1.0",
            )  # fmt: skip
            file.write(format_row(utterance))
    return path


def kept(out):
    names = ("train", "dev", "test", "test_seen_prompts")
    paths = [path for path in out.glob("*.jsonl") if path.stem in names and path.stat().st_size]
    return {u.id: path.stem for path in paths for u in read_manifest(path)}


@pytest.mark.parametrize("name", FORMATS)
def test_a_recording_is_known_again_in_every_format(name):
    samples = voice(0)
    own = fingerprint(DecodedAudio(samples, RATE_HZ))
    other = fingerprint(decode_encoded(encode(samples, RATE_HZ, name), name))
    assert is_same_recording(own, other) and is_same_recording(other, own)
    assert Fingerprint.from_bytes(own.to_bytes()).to_bytes() == own.to_bytes()


def test_loudness_and_silence_around_it_do_not_matter_and_another_reading_does():
    samples = voice(0)
    own = fingerprint(DecodedAudio(samples, RATE_HZ))
    silence = np.zeros(RATE_HZ, dtype=np.float32)
    padded = np.concatenate([silence, 0.05 * samples, silence[:777]])
    assert is_same_recording(own, fingerprint(DecodedAudio(padded, RATE_HZ)))
    for seed in range(1, 9):
        assert share_different(own, fingerprint(DecodedAudio(voice(seed), RATE_HZ))) > 0.4
    assert share_different(own, fingerprint(DecodedAudio(samples[: RATE_HZ // 2], RATE_HZ))) == 1.0


@pytest.mark.skipif(not REAL_CLIPS.exists(), reason="no ../shared/data/common_voice_tw")
def test_no_two_real_recordings_of_one_man_are_taken_for_one():
    prints = [fingerprint(decode_audio(path)) for path in sorted(REAL_CLIPS.glob("*.mp3"))[::4]]
    shares = [share_different(*pair) for pair in itertools.combinations(prints, 2)]
    assert len(shares) > 1000 and min(shares) > MAX_DIFFERENT + 0.05


def test_a_mirror_that_lost_its_speakers_is_left_out(tmp_path):
    said = list(itertools.product(range(24), range(2)))
    rows = [(f"a{s}{t}", voice(10 * s + t), f"asɛm {t}", f"s{s}") for s, t in said]
    mirror = [
        (f"m{i}", samples, text.replace("ɛ", "e").upper(), "unknown")
        for i, (_, samples, text, _) in enumerate(rows)
    ]
    mirror.append(("new", voice(999), "asɛm 0", "unknown"))  # another reading of a prompt
    paths = manifest(tmp_path / "a" / "x.jsonl", rows), manifest(tmp_path / "m" / "x.jsonl", mirror)
    out = tmp_path / "out"
    run(build.main, "--corpus", *(f"manifest={path}" for path in paths), "--out", out)
    dropped = {row["id"]: row for row in read_json_lines(out / "dropped.jsonl")}
    copies = {name: row["same_as"] for name, row in dropped.items() if "same_as" in row}
    assert copies == {f"m{i}": row[0] for i, row in enumerate(rows)}
    assert dropped["m0"]["reason"] == "the same recording as one of a"
    assert "new" in kept(out) and set(kept(out).values()) >= {"test_seen_prompts", "train"}
    # Named in the other order, the other one's stay; a corpus whose own splits are kept is first.
    for words, stays in (((), "m"), (("--keep-splits", "a"), "a")):
        out = tmp_path / f"other{stays}"
        run(build.main, "--corpus", *(f"manifest={p}" for p in paths[::-1]), *words, "--out", out)
        assert {name[0] for name in kept(out)} - {"n"} == {stays}


def test_copies_of_a_named_speaker_are_theirs(tmp_path):
    rows = [(f"a{i}", voice(i), f"asɛm {i}", "Ama" if i < 4 else "Yaw") for i in range(12)]
    paths = [
        manifest(tmp_path / "m" / "x.jsonl", [(f"m{n}", x, t, "?") for n, x, t, _ in rows]),
        manifest(tmp_path / "a" / "x.jsonl", rows),
    ]
    words = ("--test-speakers", "Ama", "--out", tmp_path / "out")
    run(build.main, "--corpus", *(f"manifest={path}" for path in paths), *words)
    found = kept(tmp_path / "out")
    assert {name for name, split in found.items() if split == "test"} == {f"a{i}" for i in range(4)}
    trained = {name for name, split in found.items() if split == "train"}
    assert trained == {f"ma{i}" for i in range(4, 12)}


def test_what_cannot_be_decoded_is_counted(tmp_path, capsys):
    rows = [("a0", voice(0), "asɛm", "Ama")]
    paths = [manifest(tmp_path / name / "x.jsonl", rows) for name in "ab"]
    paths[1].write_text(paths[1].read_text().replace('"id": "a0"', '"id": "b0"'))
    (tmp_path / "b" / "a0.wav").write_bytes(b"no sound")
    run(build.main, "--corpus", *(f"manifest={p}" for p in paths), "--out", tmp_path / "out")
    assert "warning: 1 of them cannot be decoded, and may be copies" in capsys.readouterr().err


def test_the_same_command_said_twice_stays_in_one_split(tmp_path, capsys):
    """By recording: what is one recording must not be in two splits under two names."""
    rows = [(f"a{i}", voice(i % 30, 0.5), f"bue {i % 2}", "Ama") for i in range(60)]
    path = manifest(tmp_path / "own" / "x.jsonl", rows)
    run(build.main, "--corpus", f"manifest={path}", "--out", tmp_path / "few")
    summary = capsys.readouterr().err
    assert "own: all of it is training data: 2 sentence(s), too few" in summary
    assert "hold out recordings of each: --hold-out own=recording" in summary
    out = tmp_path / "out"
    run(build.main, "--corpus", f"manifest={path}", "--hold-out", "own=recording", "--out", out)
    assert set(kept(out)) == {f"a{i}" for i in range(30)}
    assert {*kept(out).values()} >= {"train", "test"}
    assert all(read_manifest(out / f"{split}.jsonl") for split in ("train", "dev", "test"))


def test_no_leak_in_a_random_mixture_with_mirrors(tmp_path, monkeypatch):
    """`python -m tests.mirrors` does it four hundred times, with more voices."""
    monkeypatch.setattr(mirrors, "NUM_SPEAKERS", 8)
    found = mirrors.try_mixture(tmp_path, 1, mirrors.Recordings(tmp_path / "recordings"))
    assert found["copies left out (right)"] and found["rows kept"]
    wrong = {kind: number for kind, number in found.items() if number and "split" in kind}
    assert not wrong and not found["a named test speaker in train or dev"]


def test_what_two_manifests_share(tmp_path):
    mine = manifest(tmp_path / "mine" / "train.jsonl", [
        ("copy", voice(0), "Maakye", "Ama"), ("speaker", voice(1), "Maaha", "Yaw"),
        ("sentence", voice(2), "Maadwo!", "Ama"), ("clean", voice(3), "Da yie", "Ama"),
    ])  # fmt: skip
    theirs = manifest(tmp_path / "theirs" / "test.jsonl", [
        ("x", 0.1 * voice(0), "maakye.", "unknown"), ("y", voice(5), "Aane", "Yaw"),
        ("z", voice(6), "maadwo", "unknown"),
    ])  # fmt: skip
    words = ("--manifest", mine, "--against", theirs)
    with pytest.raises(InputError, match=r"1 recording of .*, 1 sentence of .*, 1 speaker of"):
        run(check.main, *words)
    out = tmp_path / "out"
    printed = run(check.main, *words, "--fix", "--out", out)
    assert f"           1           1           2  {theirs}" in printed
    assert [u.id for u in read_manifest(out / "train.jsonl")] == ["clean"]
    assert read_json(out / "report.json")["shared"] == {
        str(theirs): {"recording": 1, "speaker": 1, "sentence": 2}
    }
    assert "1 of 4 rows kept" in printed
    with pytest.raises(InputError, match=r"2 problems in 4 rows \(2 sentence of"):
        run(check.main, *words, "--against-by", "sentence")
    clean = manifest(tmp_path / "clean" / "x.jsonl", [("q", voice(9), "Ɛyɛ", "Esi")])
    assert "problems: none" in run(check.main, *words[:2], "--against", clean)
