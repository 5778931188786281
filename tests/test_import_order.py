"""Packages import one way only, and `data_manifests` loads no torch."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

ORDER = (
    "data_manifests",
    "stage1_rvq",
    "stage2_speechless",
    "stage3_finetune",
    "speech_head",
    "demo",
)


def imported_packages(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", ORDER)
def test_no_package_imports_a_later_one(package):
    later = {*ORDER[ORDER.index(package) + 1 :], "benchmarks", "tests"}
    for path in sorted((ROOT / package).glob("**/*.py")):
        wrong = later & set(imported_packages(path))
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_data_manifests_loads_no_torch():
    modules = [
        f"data_manifests.{path.stem}"
        for path in sorted((ROOT / "data_manifests").glob("*.py"))
        # The evaluate library imports torch itself; nothing else of ours may.
        if path.stem not in ("__init__", "error_rate_metric")
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("package", [*ORDER, "benchmarks"])
def test_every_file_says_what_it_is(package):
    for path in sorted((ROOT / package).glob("**/*.py")):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
