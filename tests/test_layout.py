"""What holds of the tree as a whole."""

from __future__ import annotations

import ast
from collections import defaultdict
from itertools import chain
from pathlib import Path

import pytest

import rootstock.adapters as adapters

ROOT = Path(__file__).parents[1]
PACKAGES = ("adapters", "service", "training", "loadtest")
MOST_FILES = 16


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_adapters_is_our_package_and_not_adapterhub_s() -> None:
    assert Path(adapters.__file__).resolve().parent == ROOT / "adapters"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_the_folder_of_its_name(package: str) -> None:
    assert (ROOT / "src" / "rootstock" / package).resolve() == ROOT / package


def test_no_folder_of_code_holds_more_files_than_a_reader_takes_in() -> None:
    files: dict[Path, int] = defaultdict(int)
    for path in chain.from_iterable((ROOT / package).rglob("*") for package in PACKAGES):
        files[path.parent] += path.is_file() and path.suffix != ".pyc"
    assert {str(folder.relative_to(ROOT)): n for folder, n in files.items() if n > MOST_FILES} == {}


def test_every_folder_of_code_says_what_it_holds() -> None:
    folders = {path.parent for path in sources()}
    silent = [
        str(folder.relative_to(ROOT))
        for folder in sorted(folders)
        if not (folder / "__init__.py").is_file() or not ast.get_docstring(_parsed(folder / "__init__.py"))
    ]
    assert silent == []


def test_a_class_name_means_one_class() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sources():
        for node in ast.walk(_parsed(path)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_only_home_writes_the_paths_in_a_home() -> None:
    inside = {"registry.db", "store", "foundations", "lock"}
    writers = {
        str(path.relative_to(ROOT))
        for path in sources()
        for node in ast.walk(_parsed(path))
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.right, ast.Constant)
        and node.right.value in inside
    }
    assert writers == {"adapters/home_folder.py"}


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
