"""Packages import one way only, nobody imports a command, and `data_manifests` loads no torch."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest
from conftest import ROOT
from every_command import ROOMS, find_commands


def imports(path):
    """Dotted names of what a file imports: "a.b" and "a.b.c" for `from a.b import c`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def find_circle(graph):
    """The modules of one circle, each imported by the next; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def imported_packages(path):
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("package", ROOMS)
def test_no_package_imports_a_later_one(package):
    later = {*ROOMS[ROOMS.index(package) + 1 :], "benchmarks", "tests"}
    for path in sorted((ROOT / package).glob("**/*.py")):
        wrong = later & imported_packages(path)
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("package", [*ROOMS, "benchmarks"])
def test_no_module_imports_a_command(package):
    for path in sorted((ROOT / package).glob("**/*.py")):
        wrong = set(find_commands()) & set(imports(path))
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_no_modules_import_each_other_in_a_circle():
    """Neither at the top, nor inside functions, nor for type checking alone."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for package in (*ROOMS, "benchmarks")
        for path in sorted((ROOT / package).glob("**/*.py"))
    }
    graph = {name: modules.keys() & set(imports(path)) for name, path in modules.items()}
    assert not find_circle(graph)
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})


def test_data_manifests_loads_no_torch():
    modules = [
        f"data_manifests.{path.stem}"
        for path in sorted((ROOT / "data_manifests").glob("*.py"))
        # The evaluate library imports torch itself; nothing else of ours may.
        if path.stem not in ("__init__", "error_rate_metric")
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("package", [*ROOMS, "benchmarks"])
def test_every_file_says_what_it_is(package):
    for path in sorted((ROOT / package).glob("**/*.py")):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
