"""The rules of the house."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sdata_sync


def test_public_names_are_there():
    assert sdata_sync.__all__ == sorted(sdata_sync.__all__)
    for name in sdata_sync.__all__:
        assert getattr(sdata_sync, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = sdata_sync.nothing


@pytest.mark.parametrize("package", ["core", "atom"])
def test_the_algorithm_and_the_wire_work_without_django(package):
    """In an interpreter that has no Django, nor what belongs to it."""
    code = (
        "import sys, pkgutil, importlib\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('django', 'rest_framework', 'httpx2'):\n"
        "            raise ImportError(f'{name} is absent')\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"import sdata_sync.{package} as package\n"
        "for module in pkgutil.iter_modules(package.__path__):\n"
        "    importlib.import_module(f'{package.__name__}.{module.name}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_app_imports_no_models():
    done = subprocess.run(
        [sys.executable, "-c", "import sdata_sync, sys; print('sdata_sync.models' in sys.modules)"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "False"


def _folders():
    root = Path(sdata_sync.__file__).parent
    return [init.parent for init in root.rglob("__init__.py") if init.parent.name not in _WITHOUT_LIST]


_WITHOUT_LIST = ("sdata_sync", "migrations", "management", "commands")


@pytest.mark.parametrize("folder", _folders(), ids=lambda folder: folder.name)
def test_each_folder_lists_its_modules(folder):
    """The docstring of each ``__init__`` names every module and folder beside it once, and nothing else."""
    doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    named = re.findall(r"^``(\w+)``  +", doc, re.MULTILINE)
    present = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert sorted(named) == sorted(present - {"__init__"})


def test_the_code_map_names_files():
    root = Path(sdata_sync.__file__).parent.parent
    named = re.findall(r"`(sdata_sync/[\w/]+\.py)`", (root / "docs/explanation/code-map.md").read_text())
    assert len(named) >= 21
    assert [name for name in named if not (root / name).is_file()] == []


def test_each_promise_of_the_readme_has_a_test_of_its_name():
    root = Path(sdata_sync.__file__).parent.parent
    section = re.search(r"^## What it promises\n(.*?)^## ", (root / "README.md").read_text(), re.M | re.S)
    assert section is not None
    promises = {
        "test_" + re.sub(r"\W+", "_", sentence.lower()) for sentence in re.findall(r"^- (.*)\.$", section[1], re.M)
    }
    assert len(promises) == section[1].count("\n- ")
    tests = {
        name
        for path in (root / "tests").rglob("test_promises.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.M)
    }
    assert promises == tests


def test_scripts_in_strings_import_modules_that_exist():
    """Servers, benchmarks and the fault injection run scripts that stand in strings, where no import is checked."""
    root = Path(sdata_sync.__file__).parent.parent
    missing = []
    for folder in ("tests", "benchmarks", "testproject", "sdata_sync"):
        for path in (root / folder).rglob("*.py"):
            for name in re.findall(r"\bfrom (sdata_sync(?:\.\w+)+) import", path.read_text()):
                if importlib.util.find_spec(name) is None:
                    missing.append((str(path.relative_to(root)), name))
    assert missing == []


@pytest.mark.parametrize(("column", "writer"), [("is_deferred", "deferred.py"), ("is_incomplete", "pending.py")])
def test_one_module_writes_the_status_column(column, writer):
    """The column is an argument of ``update()``, or is assigned, in one module."""
    found = set()
    for path in (Path(sdata_sync.__file__).parent).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
                found |= {path.name for keyword in node.keywords if keyword.arg == column}
            if isinstance(node, ast.Attribute) and node.attr == column and isinstance(node.ctx, ast.Store):
                found.add(path.name)
    assert found == {writer}


def test_tests_use_no_private_names():
    """No test imports, calls or replaces a name of the app that begins with an underscore."""
    found = []
    for path in Path(__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        imports = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and f"{node.module}".startswith("sdata_sync")
        ]
        names = {alias.asname or alias.name for node in imports for alias in node.names}
        found += [
            f"{path.name}: import {alias.name}" for node in imports for alias in node.names if _is_private(alias.name)
        ]
        for node in ast.walk(tree):
            is_member = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if is_member and node.value.id in names and _is_private(node.attr):
                found.append(f"{path.name}:{node.lineno}: {node.value.id}.{node.attr}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
                texts = [str(each.value) for each in node.args[:2] if isinstance(each, ast.Constant)]
                found += [f"{path.name}:{node.lineno}: {t}" for t in texts if _is_private(t.rpartition(".")[2])]
    assert found == []


def _is_private(name):
    return (
        name.startswith("_") and not name.endswith("__") and name not in ("_meta", "_default_manager", "_base_manager")
    )
