"""The rules of the house."""

import subprocess
import sys

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
