"""What all tests of a process share, in Python and in libraries, and none may leave changed.

`conftest.py` reads it before the fixtures of a test are set up, and again after they are torn down:
what differs is put back, so that no other test sees it, and the test that left it fails. Not here,
because others put it back around every test: warnings filters (pytest), and random numbers, which
`seed_random_numbers` begins anew.
"""

import os
import random
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

SEED = 0
# Variables of the environment that others set for good when they are first used, no test's doing.
THEIR_VARIABLES = (
    "PYTEST_CURRENT_TEST",
    "TORCHINDUCTOR_CACHE_DIR",  # torch's compiler, 2.13
    "KMP_DUPLICATE_LIB_OK",  # scikit-learn and threadpoolctl, when imported
    "KMP_INIT_AT_FORK",  # scikit-learn and joblib, when imported
    "TOKENIZERS_PARALLELISM",  # a pipeline of transformers 5.23
)


@dataclass(frozen=True)
class State:
    """One piece of it, read where its module is loaded.

    Attributes:
        name: for the message.
        module: that holds it, in `sys.modules`.
        read: its value.
        write: sets the value.
    """

    name: str
    module: str
    read: Callable[[Any], Any]
    write: Callable[[Any, Any], None]


def take_snapshot() -> dict[str, Any]:
    """Every piece of state whose module is loaded: name -> value."""
    return {
        state.name: state.read(sys.modules[state.module])
        for state in STATES
        if state.module in sys.modules
    }


def put_back(before: Mapping[str, Any]) -> list[str]:
    """Put back what differs from a snapshot.

    Returns:
        What differed, a line each.
    """
    lines = []
    for state in STATES:
        if state.name not in before:  # its module was loaded in between
            continue
        module, wanted = sys.modules[state.module], before[state.name]
        found = state.read(module)
        if found != wanted:
            lines.append(f"{state.name}: {_describe_change(wanted, found)}")
            state.write(module, wanted)
    return lines


def seed_random_numbers() -> None:
    """The same random numbers from here on, whichever tests ran before."""
    random.seed(SEED)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(SEED)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)


def _describe_change(before: Any, after: Any) -> str:
    if isinstance(before, dict):
        names = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
        return ", ".join(f"{k} {before.get(k)!r} -> {after.get(k)!r}" for k in names)
    return f"{before!r} -> {after!r}"


def _attribute(name: str, module: str, path: str) -> State:
    """State that is an attribute, perhaps of an attribute: "root.manager.disable"."""
    *owners, last = path.split(".")

    def owner(found: Any) -> Any:
        for each in owners:
            found = getattr(found, each)
        return found

    return State(
        name,
        module,
        lambda found: getattr(owner(found), last),
        lambda found, value: setattr(owner(found), last, value),
    )


def _functions(name: str, module: str, getter: str, setter: str) -> State:
    """State that a module reads and sets by a pair of functions."""
    return State(
        name,
        module,
        lambda found: getattr(found, getter)(),
        lambda found, value: getattr(found, setter)(value),
    )


def _read_environment(module: ModuleType) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in THEIR_VARIABLES}


def _write_environment(module: ModuleType, wanted: Mapping[str, str]) -> None:
    for name in _read_environment(module).keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def _read_handlers(logging: Any) -> list[Any]:
    """Handlers of the root logger, pytest's own aside."""
    return [h for h in logging.root.handlers if not type(h).__module__.startswith("_pytest.")]


def _write_handlers(logging: Any, wanted: list[Any]) -> None:
    for handler in _read_handlers(logging):
        if handler not in wanted:
            logging.root.removeHandler(handler)
    for handler in wanted:
        logging.root.addHandler(handler)  # nothing where it is there already


# What `torch.set_float32_matmul_precision` sets, too.
FP32_PRECISIONS = (
    "backends.fp32_precision",
    "backends.mkldnn.fp32_precision",
    "backends.mkldnn.matmul.fp32_precision",
    "backends.mkldnn.conv.fp32_precision",
    "backends.cuda.matmul.fp32_precision",
    "backends.cudnn.fp32_precision",
)

STATES = (
    _functions("working directory", "os", "getcwd", "chdir"),
    State("environment", "os", _read_environment, _write_environment),
    State(
        "sys.argv",
        "sys",
        lambda sys: list(sys.argv),
        lambda sys, value: setattr(sys, "argv", value),
    ),
    State(
        "signal handlers",
        "signal",
        lambda _: {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)},
        lambda _, value: [signal.signal(each, handler) for each, handler in value.items()],
    ),
    State("logging handlers", "logging", _read_handlers, _write_handlers),
    State(
        "logging level",
        "logging",
        lambda logging: logging.root.level,
        lambda logging, value: logging.root.setLevel(value),
    ),
    _attribute("logging switched off", "logging", "root.manager.disable"),
    _functions("torch threads", "torch", "get_num_threads", "set_num_threads"),
    _functions("torch default dtype", "torch", "get_default_dtype", "set_default_dtype"),
    _functions("torch default device", "torch", "get_default_device", "set_default_device"),
    _functions("torch gradients", "torch", "is_grad_enabled", "set_grad_enabled"),
    _functions(
        "torch deterministic algorithms",
        "torch",
        "are_deterministic_algorithms_enabled",
        "use_deterministic_algorithms",
    ),
    *(_attribute(f"torch.{path}", "torch", path) for path in FP32_PRECISIONS),
    State(
        "torch process group",
        "torch.distributed",
        lambda distributed: distributed.is_initialized(),
        lambda distributed, _: distributed.destroy_process_group(),
    ),
    _functions(
        "transformers verbosity", "transformers.utils.logging", "get_verbosity", "set_verbosity"
    ),
    State(
        "transformers progress bars",
        "transformers.utils.logging",
        lambda logging: logging.is_progress_bar_enabled(),
        lambda logging, on: logging.enable_progress_bar() if on else logging.disable_progress_bar(),
    ),
    _functions("datasets verbosity", "datasets.utils.logging", "get_verbosity", "set_verbosity"),
    State(
        "datasets progress bars",
        "datasets.utils.tqdm",
        lambda tqdm: tqdm.are_progress_bars_disabled(),
        lambda tqdm, off: tqdm.disable_progress_bars() if off else tqdm.enable_progress_bars(),
    ),
    State(
        "matplotlib backend",
        "matplotlib",
        lambda matplotlib: matplotlib.get_backend(auto_select=False),
        lambda matplotlib, value: matplotlib.use(value),
    ),
)
