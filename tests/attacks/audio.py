"""Recordings that are damaged, lie, or are none, given to the commands that decode them.

Every case is a manifest of four recordings, one of which is bad.
"""

import functools
import io
import json
import os
import random
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from tests.attacks.harness import Case
from tests.attacks.mutations import draw, mutate, rows_there

KIND = "audio"
RATE_HZ = 16_000
SECONDS = 2.0
TEXTS = ("Me din de Ama.", "Wo ho te sɛn?", "Medaase paa.", "Kofi kɔ sukuu.")
FORMATS = {
    "wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "FLOAT"), "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"), "w64": ("W64", "PCM_16"), "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"), "adpcm.wav": ("WAV", "IMA_ADPCM"), "rf64": ("RF64", "PCM_24"),
}  # fmt: skip
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
            (folder / audio).write_bytes(_encoded("wav", number))
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
        (folder / f"{number}.wav").write_bytes(_encoded("wav", number))


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


@functools.cache
def _encoded(extension: str, number: int = 9, rate_hz: int = RATE_HZ) -> bytes:
    """Two seconds of noise; another for every number."""
    if extension == "opus":
        rate_hz = 48_000
    rng = np.random.default_rng(number)
    samples = (0.1 * rng.standard_normal(round(SECONDS * rate_hz))).clip(-0.9, 0.9)
    return _as_file(samples.astype(np.float32), extension, rate_hz)


def _as_file(samples: np.ndarray, extension: str, rate_hz: int = RATE_HZ) -> bytes:
    file = io.BytesIO()
    container, subtype = FORMATS[extension]
    soundfile.write(file, samples, rate_hz, format=container, subtype=subtype)
    return file.getvalue()


def _damaged(extension: str, folder: Path, rng: random.Random) -> str:
    name = f"bad.{extension}"
    (folder / name).write_bytes(mutate(_encoded(extension), rng))
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
        (folder / name).write_bytes(_encoded("wav"))
    return name


def _noise(num_samples: int = 32_000) -> np.ndarray:
    return (0.1 * np.random.default_rng(9).standard_normal(num_samples)).astype(np.float32)


def _with(value: float, *, everywhere: bool = False) -> np.ndarray:
    samples = _noise()
    samples[slice(None) if everywhere else 100] = value
    return samples


ODD_SAMPLES = {
    "one sample": _noise(1), "no sample": _noise(0), "160 samples": _noise(160),
    "a NaN": _with(np.nan), "all NaN": _with(np.nan, everywhere=True), "infinity": _with(np.inf),
    "minus infinity": _with(-np.inf), "huge": _with(3e38), "all huge": _with(3e38, everywhere=True),
    "1e30": _with(1e30), "integers as floats": 32_768 * _noise(), "silent": 0 * _noise(),
    "denormal": 1e-40 * _noise(), "constant": _with(0.5, everywhere=True),
    "64 channels": np.repeat(_noise()[:, None], 64, axis=1),
    "1024 channels": np.repeat(_noise(4_000)[:, None], 1024, axis=1),
}  # fmt: skip


def _sampled(samples: np.ndarray, folder: Path, rng: random.Random) -> str:
    (folder / "bad.wav").write_bytes(_as_file(samples, "float.wav"))
    return "bad.wav"


def _content(make: Callable[[], bytes], folder: Path, rng: random.Random) -> str:
    (folder / "bad.audio").write_bytes(make())
    return "bad.audio"


def _misnamed(extension: str, other: str, folder: Path, rng: random.Random) -> str:
    (folder / f"bad.{other}").write_bytes(_encoded(extension))
    return f"bad.{other}"


def _cut(extension: str, folder: Path, rng: random.Random) -> str:
    content = _encoded(extension)
    (folder / f"bad.{extension}").write_bytes(content[: rng.randrange(len(content))])
    return f"bad.{extension}"


def _patched(extension: str, find: bytes, offset: int, value: bytes) -> bytes:
    """A file with some bytes of its header replaced, at an offset behind a mark."""
    content = bytearray(_encoded(extension))
    place = content.index(find) + offset
    content[place : place + len(value)] = value
    return bytes(content)


def _flac_claiming(
    *, rate_hz: int = RATE_HZ, num_samples: int = 32_000, channels: int = 1
) -> bytes:
    # STREAMINFO: 20 bits of rate, 3 of channels, 5 of bits a sample, 36 of length.
    fields = rate_hz << 44 | (channels - 1) << 41 | 15 << 36 | num_samples
    return _patched("flac", b"fLaC", 18, fields.to_bytes(8, "big"))


def _ogg_claiming(extension: str, num_samples: int) -> bytes:
    """The last page says that so many samples came before its end; its checksum is right."""
    content = bytearray(_encoded(extension))
    last = content.rindex(b"OggS")
    content[last + 6 : last + 14] = struct.pack("<q", num_samples)
    content[last + 22 : last + 26] = bytes(4)
    content[last + 22 : last + 26] = struct.pack("<I", _ogg_checksum(content[last:]))
    return bytes(content)


def _ogg_checksum(page: bytes) -> int:
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum & 0x80000000 else 0)) & 0xFFFFFFFF
    return checksum


def _u32(number: int) -> bytes:
    return struct.pack("<I", number)


LIARS: dict[str, Callable[[], bytes]] = {
    **{
        f"flac of {number} samples": partial(_flac_claiming, num_samples=number)
        for number in (0, 1, 2**16, 2**31, 2**35, 2**36 - 1)
    },
    **{
        f"flac of {rate_hz} Hz": partial(_flac_claiming, rate_hz=rate_hz)
        for rate_hz in (0, 1, 100, 8_000, 655_350, 2**20 - 1)
    },
    "flac of 8 channels": partial(_flac_claiming, channels=8),
    "flac of 1 Hz and 2^35 samples": partial(_flac_claiming, rate_hz=1, num_samples=2**35),
    **{
        f"{extension} of {number} samples": partial(_ogg_claiming, extension, number)
        for extension in ("ogg", "opus")
        for number in (0, -1, 1000, 2**35, 2**62, 2**63 - 1)
    },
    "opus of 255 channels": partial(_patched, "opus", b"OpusHead", 9, b"\xff"),
    "opus that skips everything": partial(_patched, "opus", b"OpusHead", 10, b"\xff\xff"),
    "opus at +128 dB": partial(_patched, "opus", b"OpusHead", 16, b"\xff\x7f"),
    **{
        f"wav of {number} bytes": partial(_patched, "wav", b"data", 4, _u32(number))
        for number in (0, 1, 3, 32_000, 64_001, 80_000, 2**31 - 1, 2**31, 2**32 - 1)
    },
    **{
        f"wav of {number} Hz": partial(_patched, "wav", b"fmt ", 12, _u32(number))
        for number in (0, 1, 100, 8_000, 96_000, 2**31 - 1, 2**31, 2**32 - 1)
    },
    **{
        f"wav of {number} channels": partial(
            _patched, "wav", b"fmt ", 10, struct.pack("<H", number)
        )
        for number in (0, 2, 64, 1024, 1025, 65_535)
    },
    **{
        f"wav of {number} bits": partial(_patched, "wav", b"fmt ", 22, struct.pack("<H", number))
        for number in (0, 1, 8, 24, 32, 64, 65_535)
    },
    **{
        f"wav of format {number:#x}": partial(
            _patched, "wav", b"fmt ", 8, struct.pack("<H", number)
        )
        for number in (0, 2, 3, 6, 0x11, 0x31, 0x55, 0xFFFE)
    },
    "wav of blocks of 0": partial(_patched, "wav", b"fmt ", 20, b"\0\0"),
    "wav of a RIFF of 0": partial(_patched, "wav", b"RIFF", 4, bytes(4)),
    "wav of a huge fmt": partial(_patched, "wav", b"fmt ", 4, _u32(2**31)),
    "aiff of 2^31 samples": partial(_patched, "aiff", b"COMM", 10, struct.pack(">I", 2**31)),
    "96 kHz": lambda: _encoded("wav", rate_hz=96_000),
    "384 kHz": lambda: _encoded("wav", rate_hz=384_000),
    "mp3 behind a huge tag": lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + _encoded("mp3"),
    "mp3 twice": lambda: 2 * _encoded("mp3"),
    "flac twice": lambda: 2 * _encoded("flac"),
    "ogg twice": lambda: 2 * _encoded("ogg"),
    "wav and noise": lambda: _encoded("wav") + random.Random(0).randbytes(5000),
    "an hour and more": lambda: _as_file(np.tile([0.1, -0.1], 3_700 * 2_000), "flac", 4_000),
}
