"""What is read from files: equal to what was written, or refused in one line; never something else.

Properties, each over many damaged files (hypothesis, derandomised: the same ones every time).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.errors import InputError
from commands.finished_folder import open_input
from commands.json_files import read_json_as
from commands.parquet_files import CodeFormat
from commands.run_folder import run_folder
from commands.setting_types import FiniteFloat, PositiveInt
from commands.tensor_files import (
    TensorKind,
    read_tensors,
    refuse_non_finite_weights,
    save_tensors,
)
from stage1_rvq.codes import CodedUtterance, read_codes, write_codes

FAST = settings(
    max_examples=30, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


FIELDS = ("id", "count", "inner", "is_spoken")


@dataclass(frozen=True)
class Inner:
    """A part of what a file may hold."""

    share: FiniteFloat
    names: list[str]


@dataclass(frozen=True)
class Content:
    """What a file may hold."""

    id: str
    count: PositiveInt
    inner: Inner
    is_spoken: bool = False


@st.composite
def damages(draw):
    """A function that changes the bytes of a file."""
    place, value = draw(st.floats(0, 1)), draw(st.integers(1, 255))
    kind = draw(st.sampled_from(["flip", "cut", "insert", "swap"]))
    more = draw(st.binary(min_size=1, max_size=20))

    def damage(content: bytes) -> bytes:
        at = min(int(place * len(content)), len(content) - 1)
        if kind == "flip":
            return content[:at] + bytes([content[at] ^ value]) + content[at + 1 :]
        if kind == "cut":
            return content[:at]
        if kind == "insert":
            return content[:at] + more + content[at:]
        return content[:at] + more + content[at + len(more) :]

    return damage


def read_or_none(read):
    """What a reader gives; None where it refuses in one line, and nothing else may happen."""
    try:
        return read()
    except InputError as error:
        assert "\n" not in str(error)
        return None


contents = st.builds(
    Content,
    id=st.text(st.characters(exclude_categories=["Cs"])),
    count=st.integers(1, 10**9),
    inner=st.builds(
        Inner, st.floats(allow_nan=False, allow_infinity=False),
        st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
    ),
    is_spoken=st.booleans(),
)  # fmt: skip


@FAST
@given(content=contents)
def test_json_reads_back_as_it_was_written(tmp_path, content):
    path = tmp_path / "content.json"
    path.write_text(json.dumps(asdict(content)), encoding="utf-8")
    assert read_json_as(path, Content) == content


@FAST
@given(
    content=contents, key=st.sampled_from(["id", "count", "inner", "is_spoken"]), odd=JSON_VALUES
)
def test_json_of_other_types_is_refused(tmp_path, content, key, odd):
    path = tmp_path / "content.json"
    path.write_text(json.dumps({**asdict(content), key: odd}), encoding="utf-8")
    found = read_or_none(lambda: read_json_as(path, Content))
    if found is not None:  # then it is exactly what stands there
        assert json.loads(json.dumps(asdict(found)))[key] == odd
        assert type(getattr(found, key)) is type(getattr(content, key))


@FAST
@given(content=contents, damage=damages())
def test_damaged_json_is_refused_or_still_of_its_type(tmp_path, content, damage):
    path = tmp_path / "content.json"
    path.write_bytes(damage(json.dumps(asdict(content)).encode()))
    found = read_or_none(lambda: read_json_as(path, Content))
    assert found is None or (type(found.count) is int and 1 <= found.count <= 10**9)


KINDS = {
    "frames": TensorKind(torch.float32, (None, 3)),
    "codes": TensorKind(torch.int16, (None,)),
}


@FAST
@given(num_rows=st.integers(0, 5), seed=st.integers(0, 100), damage=damages())
def test_tensors_read_back_or_are_refused(tmp_path, num_rows, seed, damage):
    path = tmp_path / "x.safetensors"
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        "frames": torch.randn(num_rows, 3, generator=generator),
        "codes": torch.randint(9, (num_rows,), generator=generator).short(),
    }
    save_tensors(path, tensors)
    found = read_tensors(path, KINDS)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    del found
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(damage(path.read_bytes()))
    found = read_or_none(lambda: read_tensors(damaged, KINDS))
    if found is not None:  # safetensors has no checksum: numbers may differ, kinds may not
        assert all(KINDS[name].fits(tensor) for name, tensor in found.items())


@FAST
@given(
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    odd=st.sampled_from([float("nan"), float("inf"), -float("inf"), None]),
    num=st.integers(1, 2000), place=st.floats(0, 1),
)  # fmt: skip
def test_one_spoilt_weight_is_found(dtype, odd, num, place):
    # As large as they get: a sum of them would overflow.
    tensor = torch.full((num,), torch.finfo(dtype).max, dtype=dtype)
    if odd is not None:
        tensor[min(int(place * num), num - 1)] = odd
    found = read_or_none(lambda: refuse_non_finite_weights([("w", tensor)], where="x") or "fine")
    assert found == ("fine" if odd is None else None)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@FAST
@given(data=st.data(), num_codebooks=st.integers(1, 4), size=st.integers(2, 40_000))
def test_codes_read_back_or_are_refused(tmp_path, data, num_codebooks, size):
    rows = data.draw(
        st.lists(
            st.tuples(texts, texts, st.lists(
                st.lists(st.integers(0, size - 1), min_size=num_codebooks, max_size=num_codebooks),
                max_size=4)),
            max_size=4, unique_by=lambda row: row[0],
        )
    )  # fmt: skip
    fmt = CodeFormat(num_codebooks, size, 25.0)
    written = [
        CodedUtterance(
            id_, text, "s", "asante",
            torch.tensor(codes, dtype=torch.int64).reshape(-1, num_codebooks),
        )
        for id_, text, codes in rows
    ]  # fmt: skip
    path = tmp_path / "codes.parquet"
    write_codes(path, written, fmt)
    read = list(read_codes(path))
    assert [facts(u) for u in read] == [facts(u) for u in written]
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(data.draw(damages())(path.read_bytes()))
    for utterance in read_or_none(lambda: list(read_codes(damaged))) or []:
        codes_TK = utterance.codes_TK
        assert codes_TK.ndim == 2 and codes_TK.dtype == torch.int64
        assert codes_TK.numel() == 0 or codes_TK.min() >= 0


def facts(utterance):
    return utterance.id, utterance.text, utterance.codes_TK.tolist()


@dataclass(frozen=True)
class NoSettings:
    """Of a command that has none."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("run") / "run"
    with run_folder(folder, NoSettings(), "some.command"):
        (folder / "model").mkdir()
        (folder / "model" / "weights.bin").write_bytes(bytes(range(200)))
    return folder


@FAST
@given(data=st.data())
def test_a_changed_run_folder_is_refused(finished, data):
    def read() -> str:
        open_input(finished, made_by="some.command", flag="--run")
        return "read"

    assert read() == "read"
    paths = sorted(path for path in finished.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(paths))
    content = path.read_bytes()
    changed = data.draw(damages())(content)
    try:
        if data.draw(st.booleans()):
            path.write_bytes(changed)
        else:
            path.unlink()
            changed = None
        # In `done`, as in any JSON, blanks mean nothing.
        is_same = changed is not None and (
            changed == content or (path.name == "done" and changed.split() == content.split())
        )
        assert read_or_none(read) == ("read" if is_same else None)
    finally:
        path.write_bytes(content)
