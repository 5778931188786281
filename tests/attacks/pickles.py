"""Pickles that would run something, wherever a command might read one.

A bomb creates the canary file when it is unpickled. It lies where our commands read a file of
`torch.save` (a published quantiser, a checkpoint's optimizer), and where transformers and peft
would read one if it stood in place of safetensors.
"""

import io
import os
import pickle
import pickletools
import random
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from commands.run_folder import OutputFolder
from tests.attacks.harness import CANARY, Case
from tests.attacks.readers import (
    ASK,
    CPU,
    EMBEDDINGS,
    GEMMA,
    HEAD,
    JUDGE_HEAD,
    MANIFEST,
    MIMI,
    OUT,
    SAY,
    TRAIN_HEAD,
    TRAIN_RECOGNIZER,
    TRAIN_RVQ,
    Reader,
    are_there,
)

KIND = "pickles"
TOUCH = f'touch "${CANARY}"'
WRITE = f"open(__import__('os').environ['{CANARY}'], 'w').close()"


@dataclass(frozen=True)
class Place:
    """Where a pickle is read, or might be: file of a folder of the world, and the command."""

    folder: str
    file: str
    reader: Reader
    # What is taken away, so that the pickle stands alone.
    instead_of: str = ""


class _Calls:
    """Unpickled, calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


class _Builds:
    """Unpickled, sets the state of an object, of which a part is a bomb."""

    def __init__(self, part: object) -> None:
        self.part = part

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (), None, None, iter([("rvq", self.part)])


def _by_hand(module: str, name: str, argument: str) -> bytes:
    """A pickle that calls a function that is not imported here."""
    return f"c{module}\n{name}\n(S{argument!r}\ntR.".encode()


PICKLES: dict[str, Callable[[], bytes]] = {
    "os.system": lambda: pickle.dumps(_Calls(os.system, TOUCH)),
    "os.system, protocol 0": lambda: pickle.dumps(_Calls(os.system, TOUCH), protocol=0),
    "eval": lambda: pickle.dumps({"rvq": _Calls(eval, WRITE)}),
    "exec among tensors": lambda: pickle.dumps({"optimizer": {}, "schedule": _Calls(exec, WRITE)}),
    "subprocess": lambda: _by_hand("subprocess", "getoutput", TOUCH),
    "builtins of Python 2": lambda: _by_hand("__builtin__", "eval", WRITE),
    "pty": lambda: _by_hand("pty", "spawn", TOUCH),
    "a part of a dict": lambda: pickle.dumps(_Builds(_Calls(os.system, TOUCH))),
    "torch's own loader": lambda: _by_hand("torch.serialization", "load", "/dev/zero"),
    "torch._utils": lambda: _by_hand("torch._utils", "_rebuild_tensor_v2", "x"),
    "numpy's scalar": lambda: _by_hand("numpy.core.multiarray", "scalar", "x"),
    "much memory": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "a long int": lambda: b"\x80\x04\x8b" + struct.pack("<i", 2**30) + b"\xff" * 64 + b".",
    "deep": lambda: b"\x80\x04" + b"(" * 200_000 + b"l" * 200_000 + b".",
    "itself": lambda: b"\x80\x04}\x94\x8c\x03rvqh\x00s.",
    "no end": lambda: pickletools.optimize(pickle.dumps({"rvq": {"a": 1}}))[:-1],
    "nothing": lambda: b"",
    "no dict": lambda: pickle.dumps([1, 2, 3]),
    "no state": lambda: pickle.dumps({"rvq": 3, "optimizer": 4, "schedule": None}),
    "odd names": lambda: pickle.dumps({"rvq": {1: 2, None: []}, "optimizer": {"state": 1}}),
}


def _as_zip(data: bytes) -> bytes:
    """As `torch.save` writes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def _as_packed_zip(data: bytes) -> bytes:
    """A zip that unpacks to a gigabyte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", data + b"\0" * 2**28)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def _as_tar(data: bytes) -> bytes:
    """As torch wrote before 0.1.10."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "bare": lambda data: data,
    "in a zip": _as_zip,
    "in a packed zip": _as_packed_zip,
    "in a tar": _as_tar,
    # A magic number, a protocol, the system, then the object: torch's first own format.
    "after torch's old header": lambda data: pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    + pickle.dumps(1001, protocol=2) + pickle.dumps({"little_endian": True}, protocol=2) + data,
}  # fmt: skip

STEP = "checkpoints/step_000002/trainer.pt"
PLACES = (
    Place("published", "rvq_averaged.pt", Reader(
        "stage1_rvq.tokenize_corpus", (*EMBEDDINGS, "--rvq", "input", *OUT, *CPU), ()),
        instead_of="model.safetensors"),
    Place("published", "rvq_best.pt", Reader(
        "stage1_rvq.export", ("--rvq", "input/rvq_best.pt", *OUT), ())),
    Place("unfinished-reader", STEP, Reader(
        "stage1_rvq.train_recognizer",
        (*EMBEDDINGS, *TRAIN_RECOGNIZER, "--out", "input", "--resume"), ())),
    Place("unfinished-rvq", STEP, Reader(
        "stage1_rvq.train", (*EMBEDDINGS, *TRAIN_RVQ, "--out", "input", "--resume"), ())),
    Place("unfinished-head", STEP, Reader(
        "speech_head.train", ("--states", "{world}/states", "--dev-states", "{world}/states",
                              *TRAIN_HEAD, "--out", "input", "--resume"), ())),
    Place("gemma", "pytorch_model.bin", Reader(
        "stage3_finetune.chat", ("--gemma", "input", *ASK), ()), instead_of="model.safetensors"),
    Place("gemma", "pytorch_model.bin", Reader(
        "stage1_rvq.embed", (*MANIFEST, "--gemma", "input", *OUT, *CPU), ()),
        instead_of="model.safetensors"),
    Place("mimi", "pytorch_model.bin", Reader(
        "speech_head.speak", (*HEAD, *GEMMA, "--mimi", "input", *SAY), ()),
        instead_of="model.safetensors"),
    Place("llama", "pytorch_model.bin", Reader(
        "stage2_speechless.train",
        ("--codes", "{world}/codes", "--init-from", "input", "--depth-width", "32", *OUT, *CPU),
        ()), instead_of="model.safetensors"),
    Place("asr", "pytorch_model.bin", Reader(
        "speech_head.evaluate", (*JUDGE_HEAD, "--asr", "input"), ()),
        instead_of="model.safetensors"),
    Place("voices", "pytorch_model.bin", Reader(
        "speech_head.evaluate",
        (*JUDGE_HEAD, "--recognizer", "{world}/recognizer", "--speaker-model", "input"), ()),
        instead_of="model.safetensors"),
    Place("head", "model/pytorch_model.bin", Reader(
        "speech_head.speak", ("--head", "input/model", *GEMMA, *MIMI, *SAY), ()),
        instead_of="model/model.safetensors"),
    Place("finetune", "adapter/adapter_model.bin", Reader(
        "stage3_finetune.chat", (*GEMMA, "--finetune", "input", *ASK), ()),
        instead_of="adapter/adapter_model.safetensors"),
)  # fmt: skip


def cases(world: Path, seed: int, count: int) -> list[Case]:
    """Cases drawn over all pickles, wrappings and places.

    Args:
        world: made by `world.py`.
        seed: of what is drawn.
        count: how many.
    """
    places = [
        place
        for place in PLACES
        if (world / place.folder).exists() and are_there(world, place.reader.words)
    ]
    drawn = list(product(places, PICKLES, WRAPPINGS))
    random.Random(f"{seed} {KIND}").shuffle(drawn)
    # In turn from each place, so that all come early.
    drawn = [combination for _, combination in sorted(enumerate(drawn), key=_round_of(drawn))]
    return [_case(world, *combination) for combination in drawn[:count]]


def _round_of(drawn: list[tuple[Place, str, str]]) -> Callable[[tuple[int, Any]], tuple[int, int]]:
    seen: dict[int, int] = {}
    rounds = []
    for place, _, _ in drawn:
        seen[id(place)] = seen.get(id(place), -1) + 1
        rounds.append(seen[id(place)])
    return lambda numbered: (rounds[numbered[0]], numbered[0])


def _case(world: Path, place: Place, bomb: str, wrapping: str) -> Case:
    def make(folder: Path, rng: random.Random) -> None:
        shutil.copytree(world / place.folder, folder / "input")
        if place.instead_of:
            (folder / "input" / place.instead_of).unlink()
        (folder / "input" / place.file).write_bytes(WRAPPINGS[wrapping](PICKLES[bomb]()))
        # `done` would answer for the reader.
        if (folder / "input" / "done").exists():
            (folder / "input" / "done").unlink()
            OutputFolder(folder / "input", is_done=True).finish()

    words = tuple(word.replace("{world}", str(world)) for word in place.reader.words)
    name = f"{bomb}, {wrapping}, as {place.folder}/{place.file} for {place.reader.command}"
    return Case(
        KIND, name, place.reader.command, words, make, lambda folder: "was accepted", "input|--"
    )
