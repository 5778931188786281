"""Recordings that are damaged, lie, or are none, given to the commands that decode them.

Every case is a manifest of four recordings, one of which is bad.
"""

import json
import os
import random
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from tests.attacks.audio_files import (
    FORMATS,
    LIARS,
    ODD_SAMPLES,
    RATE_HZ,
    SECONDS,
    as_file,
    encoded,
)
from tests.attacks.harness import Case
from tests.attacks.mutations import draw, mutate, rows_there

KIND = "audio"
TEXTS = ("Me din de Ama.", "Wo ho te sɛn?", "Medaase paa.", "Kofi kɔ sukuu.")
COMMANDS = (
    ("data_manifests.check", ("--out", "out")),
    ("data_manifests.check", ("--out", "out", "--fix")),
    ("stage1_rvq.embed", ()),
    ("stage1_rvq.embed", ("--skip-bad-audio",)),
)

# Writes the bad recording, and returns its name in the manifest.
MakeBad = Callable[[Path, random.Random], str]


def cases(world: Path, seed: int, count: int) -> list[Case]:
    """Cases of every kind of bad recording, each given to one of the commands."""
    fixed = [
        (name, make, command, flags)
        for number, (name, make) in enumerate(_bad_recordings())
        for command, flags in (COMMANDS[1 + 2 * (number % 2)], COMMANDS[2 * (number % 2)])
    ]

    def make_random(rng: random.Random, number: int) -> tuple[str, MakeBad, str, tuple[str, ...]]:
        extension = rng.choice(sorted(FORMATS))
        name = f"damaged {extension}, {number}"
        return (name, partial(_damaged, extension), *rng.choice(COMMANDS))

    return [
        _case(world, name, make, command, flags)
        for name, make, command, flags in draw(fixed, make_random, seed, count)
    ]


def _case(world: Path, name: str, make: MakeBad, command: str, flags: tuple[str, ...]) -> Case:
    words = ("--manifest", "m.jsonl", *flags)
    if command == "stage1_rvq.embed":
        words += ("--out", "out", "--gemma", str(world / "gemma"), "--device", "cpu")

    return Case(
        kind=KIND,
        name=f"{name}: {' '.join((command, *flags))}",
        command=command,
        words=words,
        make=partial(_write_manifest, make),
        check=_check_embeddings if command == "stage1_rvq.embed" else _check_report,
    )


def _write_manifest(make: MakeBad, folder: Path, rng: random.Random) -> None:
    bad = rng.randrange(len(TEXTS))
    lines = []
    for number, text in enumerate(TEXTS):
        audio = f"{number}.wav"
        if number == bad:
            audio = make(folder, rng)
        else:
            (folder / audio).write_bytes(encoded("wav", number))
        row = {
            "id": f"u{number}", "audio": audio, "text": text, "duration_s": SECONDS,
            "speaker": "s", "dialect": "asante", "corpus": "noise", "split": "train",
            "license": "CC0-1.0",
        }  # fmt: skip
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    (folder / "m.jsonl").write_text("".join(lines), encoding="utf-8")


def write_recordings(folder: Path) -> None:
    """Four sound recordings: 0.wav, 1.wav, ..."""
    for number in range(len(TEXTS)):
        (folder / f"{number}.wav").write_bytes(encoded("wav", number))


def _check_report(folder: Path) -> str:
    """What a check kept must be what it was given, and sound."""
    rows = {row["id"]: row for row in rows_there(folder / "m.jsonl")}
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    if report["num_rows"] != len(rows):
        return f"{report['num_rows']} rows of {len(rows)}"
    cleaned = folder / "out" / "m.jsonl"
    kept = rows_there(cleaned) if cleaned.exists() else list(rows.values())
    num_removed = report["num_problems"]
    if len(kept) + num_removed != len(rows):
        return f"{len(kept)} kept and {num_removed} removed of {len(rows)}"
    if len(rows) - len(kept) > 1:
        return f"{len(rows) - len(kept)} rows removed, and one is bad"
    return next(filter(None, (_what_is_wrong(folder, row, rows[row["id"]]) for row in kept)), "")


def _what_is_wrong(folder: Path, row: dict[str, object], given: dict[str, object]) -> str:
    if row["text"] != given["text"]:
        return f"the text of {row['id']} has changed"
    num_samples = _count_samples(folder / str(row["audio"]))
    if abs(num_samples / RATE_HZ - SECONDS) > 0.2 and num_samples >= 0:
        return f"{row['id']} was kept, and has {num_samples} samples"
    return ""


def _count_samples(path: Path) -> float:
    """At 16 kHz; counted by decoding. NaN among them counts as none."""
    with path.open("rb") as file, soundfile.SoundFile(file.fileno(), closefd=False) as sound:
        num_samples = 0
        while len(block := sound.read(2**16, dtype="float32")):
            if not np.isfinite(block).all():
                return 0
            num_samples += len(block)
        return num_samples * RATE_HZ / sound.samplerate


def _check_embeddings(folder: Path) -> str:
    """Of every recording that was not skipped there are 25 frames a second, its text with them."""
    given = {row["id"]: row for row in rows_there(folder / "m.jsonl")}
    index = rows_there(folder / "out" / "shard_00000.jsonl")
    skipped = folder / "out" / "skipped.jsonl"
    num_skipped = len(rows_there(skipped)) if skipped.exists() else 0
    if len(index) + num_skipped != len(given) or num_skipped > 1:
        return f"{len(index)} embedded and {num_skipped} skipped of {len(given)}"
    for entry in index:
        if entry["text"] != given[entry["id"]]["text"]:
            return f"the text of {entry['id']} has changed"
        if abs(entry["num_frames"] - 25 * SECONDS) > 5:
            return f"{entry['id']} has {entry['num_frames']} frames"
    content = (folder / "out" / "shard_00000.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    frames = np.frombuffer(content[8 + length :], dtype=np.uint16)
    # An exponent of ones alone: NaN or infinity, in bfloat16.
    return "NaN among the embeddings" if ((frames & 0x7F80) == 0x7F80).any() else ""


def _damaged(extension: str, folder: Path, rng: random.Random) -> str:
    name = f"bad.{extension}"
    (folder / name).write_bytes(mutate(encoded(extension), rng))
    return name


def _bad_recordings() -> list[tuple[str, MakeBad]]:
    """Name of what is bad, and how it is made."""
    bad = [(name, partial(_special_file, name)) for name in SPECIAL_FILES]
    bad += [(f"named {name[:20]!r}", partial(_named, name)) for name in ODD_NAMES]
    bad += [(name, partial(_sampled, samples)) for name, samples in ODD_SAMPLES.items()]
    bad += [(name, partial(_content, make)) for name, make in LIARS.items()]
    bad += [(f"cut {extension}", partial(_cut, extension)) for extension in FORMATS]
    bad += [
        (f"{extension} named .{other}", partial(_misnamed, extension, other))
        for extension, other in (("wav", "mp3"), ("mp3", "wav"), ("opus", "raw"), ("wav", "raw"))
    ]
    return bad


SPECIAL_FILES = (
    "nothing", "empty", "folder", "pipe", "loop of links", "link to nothing", "link to /dev/zero",
    "text", "text named .au", "text named .gsm", "text named .vox", "text named .raw", "a device",
)  # fmt: skip


def _special_file(what: str, folder: Path, rng: random.Random) -> str:
    name = "bad." + (what.rpartition(".")[2] if "named" in what else "wav")
    path = folder / name
    if what == "empty":
        path.touch()
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "loop of links":
        path.symlink_to("other.wav")
        (folder / "other.wav").symlink_to(name)
    elif what.startswith("link"):
        path.symlink_to("/dev/zero" if "zero" in what else "no such file")
    elif what.startswith("text"):
        path.write_text("This is no audio, whatever its name says. " * 1000)
    elif what == "a device":
        return "/dev/zero"
    return name


ODD_NAMES = (
    "a\nb.wav", "-rf.wav", "x" * 251 + ".wav", "x" * 300 + ".wav", "ɛ" * 127 + ".wav", " .wav",
    "a\u2028b\u0085.wav", "..", ".", "~", "$(touch x).wav", "%s%n.wav", "a\\b.wav", "a\x1b[2J.wav",
)  # fmt: skip


def _named(name: str, folder: Path, rng: random.Random) -> str:
    if name not in (".", "..") and len(name.encode()) <= 255:
        (folder / name).write_bytes(encoded("wav"))
    return name


def _sampled(samples: np.ndarray, folder: Path, rng: random.Random) -> str:
    (folder / "bad.wav").write_bytes(as_file(samples, "float.wav"))
    return "bad.wav"


def _content(make: Callable[[], bytes], folder: Path, rng: random.Random) -> str:
    (folder / "bad.audio").write_bytes(make())
    return "bad.audio"


def _misnamed(extension: str, other: str, folder: Path, rng: random.Random) -> str:
    (folder / f"bad.{other}").write_bytes(encoded(extension))
    return f"bad.{other}"


def _cut(extension: str, folder: Path, rng: random.Random) -> str:
    content = encoded(extension)
    (folder / f"bad.{extension}").write_bytes(content[: rng.randrange(len(content))])
    return f"bad.{extension}"
