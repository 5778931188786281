"""Run every test under other conditions; all of these, or those that are named.

    python -m tests.variants one_thread no_shared

    plain        as `make test` does
    one_thread, two_threads, four_threads       OMP_NUM_THREADS; last bits depend on it
    avx2         oneDNN without the newer instructions of this CPU; last bits depend on them, too
    random_1, random_2, random_3                three random orders
    one_process  all tests in one process; everywhere else two share the files (xdist)
    busy         another process for each core multiplies matrices meanwhile
    other_user   a user without a home, in a folder with a space and ɛɔ in its name; as root only
    no_espeak    without espeak-ng, which then skips what needs the demo's recordings
    no_shared    a copy of the project alone, without the Twi data beside it
    ci           what .ci/run adds to the plain tests: another random order, on two threads

Prints what pytest prints, and at the end a line for each. Fails where a test fails, or where `git
status` is not what it was before.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OTHER_USER = "nobody"
SHARED_FILES = ("--dist", "loadfile", "--no-loadscope-reorder")  # as in the Makefile
NO_ESPEAK = "raise ModuleNotFoundError('hidden by tests/variants.py', name='espeakng_loader')\n"
BUSY = """
import os
import torch
torch.set_num_threads(1)
parent, square = os.getppid(), torch.randn(512, 512)
while os.getppid() == parent:
    square @ square
"""


@dataclass(frozen=True)
class Variant:
    """Other conditions.

    Attributes:
        words: more words for pytest.
        environment: more variables.
        is_copy: in a copy of the project, elsewhere.
        is_busy: beside processes that keep every core busy.
        hides_espeak: `import espeakng_loader` fails.
        user: who runs the copy, where it is another one.
        num_processes: how many share the files of tests.
    """

    words: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    is_copy: bool = False
    is_busy: bool = False
    hides_espeak: bool = False
    user: str | None = None
    num_processes: int = 2


def _random_order(seed: int) -> tuple[str, ...]:
    # Random numbers begin with our own seed, whatever the order.
    return ("-p", "randomly", f"--randomly-seed={seed}", "--randomly-dont-reset-seed")


VARIANTS = {
    "plain": Variant(),
    "one_thread": Variant(environment={"OMP_NUM_THREADS": "1"}),
    "two_threads": Variant(environment={"OMP_NUM_THREADS": "2"}),
    "four_threads": Variant(environment={"OMP_NUM_THREADS": "4"}),
    "avx2": Variant(environment={"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "random_1": Variant(_random_order(1)),
    "random_2": Variant(_random_order(2)),
    "random_3": Variant(_random_order(3)),
    "one_process": Variant(num_processes=1),
    "busy": Variant(is_busy=True),
    "other_user": Variant(is_copy=True, user=OTHER_USER),
    "no_espeak": Variant(hides_espeak=True),
    "no_shared": Variant(is_copy=True),
    "ci": Variant(_random_order(17), {"OMP_NUM_THREADS": "2"}),
}


def main() -> None:
    """Run the variants named on the command line, or all; exits with 1 where one fails."""
    words = sys.argv[1:]
    names = [word for word in words if word in VARIANTS] or list(VARIANTS)
    # What is left goes to pytest: a file, say, or -x.
    rest = [word for word in words if word not in VARIANTS]
    lines, is_good = [], True
    for name in names:
        print(f"\n== {name}", flush=True)
        started = time.monotonic()
        before = _git_status()
        code, closing = run_variant(VARIANTS[name], rest)
        if _git_status() != before:
            code, closing = 1, f"{closing}; it changed files of the project (git status)"
        is_good = is_good and code == 0
        lines.append(f"{name:<14}{time.monotonic() - started:>6.0f} s  {closing}")
    print("\n" + "\n".join(lines))
    sys.exit(not is_good)


def run_variant(variant: Variant, words: list[str]) -> tuple[int, str]:
    """Run the tests so; returns pytest's exit code and its closing line."""
    if variant.user and os.geteuid() != 0:
        return 0, "left out: only root can become another user"
    with ExitStack() as stack:
        # Not in pytest's way, and reachable by any user.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="variant-")))
        folder.chmod(0o755)
        root, python = ROOT, sys.executable
        environment = {**os.environ, **variant.environment, "PYTHONDONTWRITEBYTECODE": "1"}
        if variant.hides_espeak:
            (folder / "hidden").mkdir()
            (folder / "hidden" / "espeakng_loader.py").write_text(NO_ESPEAK)
            environment["PYTHONPATH"] = str(folder / "hidden")
        if variant.is_copy:
            root = folder / "spoken twi ɛɔ"
            _copy_project(root)
        if variant.user:
            python = str(_python_for_all(folder))
            environment |= {"HOME": str(folder / "no home"), "USER": variant.user}
            environment["LD_LIBRARY_PATH"] = str(folder / "python" / "lib")
            subprocess.run(["chown", "-R", variant.user, str(folder)], check=True)
        if variant.is_busy:
            stack.enter_context(_busy_cores())
        line = [python, "-m", "pytest", "-p", "no:cacheprovider", *variant.words]
        if variant.num_processes > 1:
            line += ["-n", str(variant.num_processes), *SHARED_FILES]
        line += words
        return _run_and_show(line, root, environment, variant.user)


def _run_and_show(
    line: list[str], root: Path, environment: dict[str, str], user: str | None
) -> tuple[int, str]:
    closing = "pytest said nothing"
    with subprocess.Popen(
        line, cwd=root, env=environment, user=user, group=None if user is None else _group_of(user),
        extra_groups=None if user is None else [], stdout=subprocess.PIPE, encoding="utf-8",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for text in process.stdout:
            print(text, end="", flush=True)
            closing = text.strip(" =\n") or closing
    if process.returncode < 0:
        closing = f"ended by {signal.Signals(-process.returncode).name} after: {closing}"
    return process.returncode, closing


def _copy_project(target: Path) -> None:
    """Every file that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, encoding="utf-8",
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def _python_for_all(folder: Path) -> Path:
    """An environment like this one whose Python any user may run, though root's own home be closed
    to them."""
    home, environment = folder / "python", folder / "venv"
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (home / "bin").mkdir(parents=True)
    shutil.copy(base / "bin" / version, home / "bin" / "python3")
    leave_out = shutil.ignore_patterns("site-packages", "test", "__pycache__")
    shutil.copytree(base / "lib" / version, home / "lib" / version, ignore=leave_out)
    for library in sorted((base / "lib").glob("libpython*.so*")):
        shutil.copy(library, home / "lib" / library.name)
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(home / "bin" / "python3")
    (environment / "pyvenv.cfg").write_text(f"home = {home / 'bin'}\n")
    (environment / "lib" / version).mkdir(parents=True)
    packages = Path(sys.prefix).resolve() / "lib" / version / "site-packages"
    (environment / "lib" / version / "site-packages").symlink_to(packages)
    return environment / "bin" / "python"


@contextmanager
def _busy_cores() -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _git_status() -> str:
    return subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout


if __name__ == "__main__":
    main()
