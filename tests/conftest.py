"""Shared by all tests: offline, one thread, tiny real models and a small corpus made once.

Every test and every fixture begins with the same random numbers, so that their order does not
matter; a test that leaves global state changed fails (see `global_state.py`).
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models gain nothing by a second
os.environ.setdefault("MPLBACKEND", "agg")  # no window, where there is a display

import contextlib
import fcntl
import io
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from global_state import put_back, seed_random_numbers, take_snapshot

import data_manifests  # noqa: F401 - before torch is loaded: how its threads wait

if TYPE_CHECKING:
    from finetune_run import Camera
    from fork_server import Forks

    from speech_head.talker import Talker

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = ROOT.parent / "shared" / "data"
BEFORE = pytest.StashKey[dict[str, Any]]()
MakeOnce = Callable[[str, Callable[[Path], object]], Path]
# Files with half a minute or more to set up, or to run: first, so that where two processes share
# the files (`make test`) neither waits for the other at the end.
LONG_FILES = ("test_walk", "test_demo", "test_demo_gemma", "test_attacks_models", "test_demo_mimi",
              "test_head_evaluate")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the order within a file, and of the others, stays."""
    items.sort(key=lambda item: item.path.stem not in LONG_FILES)


def pytest_collection_finish() -> None:
    from fork_server import look_seldom_for_garbage

    look_seldom_for_garbage()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    item.stash[BEFORE] = take_snapshot()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    try:
        return (yield)
    finally:
        left = put_back(item.stash[BEFORE])
        if left:
            pytest.fail("left global state changed:\n" + "\n".join(left), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, object, object]:
    seed_random_numbers()
    return (yield)


def pytest_runtest_call() -> None:
    seed_random_numbers()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for what is made once, though several processes of pytest share the tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all processes
    (folder / "shared").mkdir(exist_ok=True)
    return folder / "shared"


@pytest.fixture(scope="session")
def forks(shared_folder: Path) -> Iterator["Forks"]:
    """Where what needs a process of its own is forked, rather than begun with five seconds of
    imports."""
    from fork_server import forks as connect

    with connect(shared_folder) as connected:
        yield connected


@pytest.fixture(scope="session")
def made_once(shared_folder: Path) -> MakeOnce:
    """Makes a folder, unless another process of pytest has: `made_once(name, make)`."""

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        out = shared_folder / name
        with out.with_name(f"{name}.done").open("a") as done:
            fcntl.flock(done, fcntl.LOCK_EX)  # and wait while another one makes it
            if not os.fstat(done.fileno()).st_size:
                shutil.rmtree(out, ignore_errors=True)  # what one that failed has left
                make(out)
                done.write("done")
        return out

    return make_once


@pytest.fixture(scope="session")
def tiny_models(made_once: MakeOnce) -> Path:
    """Folder with `gemma/` and `mimi/`: real classes, random weights, saved as checkpoints are."""
    from demo import tiny_models as command

    return made_once("tiny_models", lambda out: run(command.main, "--out", out))


@pytest.fixture(scope="session")
def espeak() -> None:
    """Skips where espeak-ng, which speaks the demo's sentences, is not installed."""
    from commands.errors import InputError
    from demo.voice.synthesizer import Synthesizer

    try:
        Synthesizer()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def corpus(espeak: None, made_once: MakeOnce) -> Path:
    """The demo's corpus, a little of it: manifests, dialogues and recordings."""
    from demo.world import make_corpus as command

    words = ("--num-questions", 20, "--num-held-out", 4)
    return made_once("corpus", lambda out: run(command.main, "--out", out, *words))


@pytest.fixture(scope="session")
def head_world(tiny_models: Path, corpus: Path, made_once: MakeOnce) -> Path:
    """Folder of tiny models that belong together, a speech head among them."""
    from head_world import build_head_world

    return made_once("head_world", lambda out: build_head_world(out, tiny_models, corpus))


@pytest.fixture(scope="session")
def calling_gemma(corpus: Path, made_once: MakeOnce) -> Path:
    """A tiny Gemma that calls functions."""
    from calling_world import build_calling_gemma

    recording = corpus / "audio" / "train_question_0000.wav"
    return made_once("calling_gemma", lambda out: build_calling_gemma(out, recording))


@pytest.fixture(scope="session")
def whole_world(tiny_models: Path, made_once: MakeOnce) -> Path:
    """Folder with what every stage leaves, of data with several licences; only to be read."""
    from whole_world import build_whole_world

    return made_once("whole_world", lambda out: build_whole_world(out, tiny_models))


@pytest.fixture(scope="session")
def talker(head_world: Path) -> "Talker":
    """What speaks with the models of `head_world`."""
    import torch

    from speech_head.talker import load_talker

    return load_talker(
        str(head_world / "gemma"), None, str(head_world / "mimi"), str(head_world / "head"),
        device=torch.device("cpu"), dtype=torch.float32,
    )  # fmt: skip


@pytest.fixture(scope="session")
def finetune_flags(
    tiny_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[object, ...]:
    """Flags of a short fine-tuning."""
    from finetune_run import write_dialogues

    return write_dialogues(tmp_path_factory.mktemp("training"), tiny_models)


@pytest.fixture(scope="session")
def straight(
    finetune_flags: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory
) -> "tuple[Path, Camera]":
    """That run, left alone, and what killed ones would have left."""
    from finetune_run import train_before_a_camera

    return train_before_a_camera(finetune_flags, tmp_path_factory.mktemp("straight"))


@pytest.fixture(scope="module")
def small_gemma_steps() -> Iterator[None]:
    """A step of a training of the demo's Gemma has one or two sentences."""
    from demo.gemma import decoder, ear, tower_speech, train

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ear, "SECONDS_PER_STEP", 4.5)
        for module in (decoder, tower_speech):
            patch.setattr(module, "SPEECH_SECONDS_PER_STEP", 4.5)
        patch.setattr(train, "TYPED_PER_STEP", {"tower": 2, "patches": 2})
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real Twi data beside the project; skips where there is none."""
    if not REAL_DATA.is_dir():
        pytest.skip("no real Twi data beside the project (../shared/data)")
    return REAL_DATA


@pytest.fixture(scope="session")
def bitsandbytes() -> Iterator[None]:
    """Skips where bitsandbytes is not installed. Its kernel for CPUs with AVX512-bf16 refuses
    layers narrower than 32, of which the tiny Gemma has some, so it does without."""
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules, "has_avx512bf16", lambda: False)
        yield


def run(main: Callable[[list[str]], None], *words: object) -> str:
    """Run a command in this process; returns what it wrote to stdout."""
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        main([str(word) for word in words])
    return stdout.getvalue()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Address of S3, imitated on this machine; skips where that cannot be had."""
    from store_world import imitating_s3

    with imitating_s3() as address:
        yield address


@pytest.fixture(params=["memory", "file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder on a store, as a user writes it."""
    from store_world import bucket_of, in_memory

    if request.param == "s3":
        return f"{bucket_of(request.getfixturevalue('s3'), monkeypatch)}/data"
    return f"file://{tmp_path}/store" if request.param == "file" else in_memory()
