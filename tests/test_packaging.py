"""The package as it is shipped: its public names, its layers, its archives."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import flask_hashfs

PROJECT = Path(__file__).parents[1]
PACKAGE = Path(flask_hashfs.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each room may import of the package. The rooms on the ground floor know nobody.
GROUND = {"exceptions", "signals", "_units"}
FLOORS = {
    "_units": set(),
    "exceptions": {"_units"},
    "signals": set(),
    "_http": GROUND,
    "_storage": GROUND,
    "_local": {"_storage", *GROUND},
    "_bucket": {"_storage", *GROUND},
    "_cache": {"_storage", *GROUND},
    "_store": {"_http", "_storage", "_local", "_bucket", "_cache", *GROUND},
    "sqlalchemy": {"_storage"},  # public, and imported only by who uses it
    "wtforms": {"_http", "_store"},  # the same
    "backends": {"_storage"},  # the same
    "testing": {"_storage", "_store", *GROUND},  # the same
    "_app": {"sqlalchemy", "_http", "_storage", "_store", *GROUND},
    "_flask": {"_http", "_storage", "_store", "_app", *GROUND},
    "_quart": {"_http", "_storage", "_store", "_app", *GROUND},
    "__init__": {"_app", "_flask", "_quart", "_storage", "_store", *GROUND},
}
NO_FRAMEWORK = {"exceptions", "_http", "_storage", "_local", "_bucket", "_cache", "_store"}
NO_FRAMEWORK |= {"backends", "testing"}

PUBLIC = {
    "CacheStats",
    "ConfigError",
    "DigestMismatchError",
    "FileTooLargeError",
    "Finding",
    "FlaskHashFS",
    "HashAddress",
    "HashFS",
    "HashFSError",
    "IncompleteUploadError",
    "InvalidExtensionError",
    "NotStoredError",
    "StoreFullError",
    "StoreUnavailableError",
    "Upload",
    "UploadStats",
    "StoredFile",
    "file_damaged",
    "file_deleted",
    "file_served",
    "file_stored",
}


def pyproject() -> dict[str, Any]:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def module_name(path: Path) -> str:
    """The dotted name of a module below the package: ``_http.plan``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room(module: str) -> str:
    return module.partition(".")[0]


NAMES = {module_name(module) for module in MODULES}


@functools.cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports when it runs, wherever the statement stands."""
    package = ["flask_hashfs", *path.relative_to(PACKAGE).parent.parts]
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
        children = ast.iter_child_nodes(node)
        if is_type_checking(node):
            children = iter(node.orelse)  # type: ignore[attr-defined]
        todo.extend(children)
    return found


def own_modules(path: Path) -> set[str]:
    """The package's own modules among a file's imports."""
    own = {name.partition(".")[2] for name in imports(path) if name.startswith("flask_hashfs.")}
    return own & NAMES


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_tox_tests_the_installed_wheel() -> None:
    if "TOX_ENV_DIR" not in os.environ:
        pytest.skip("run by tox only: elsewhere the source tree may be what is tested")
    assert PACKAGE.parent != PROJECT
    assert "site-packages" in PACKAGE.parts


# -- the public face ---------------------------------------------------------------------------


def test_public_names_are_there() -> None:
    assert set(flask_hashfs.__all__) >= PUBLIC
    for name in flask_hashfs.__all__:
        assert getattr(flask_hashfs, name) is not None
        assert name in dir(flask_hashfs)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = flask_hashfs.no_such_name


def test_hash_address_is_that_of_hashfs() -> None:
    import hashfs

    assert flask_hashfs.HashAddress is hashfs.HashAddress
    assert issubclass(flask_hashfs.HashFS, hashfs.HashFS)


@pytest.mark.slow
def test_importing_the_package_imports_no_quart() -> None:
    assert run_python("import sys, flask_hashfs; print('quart' in sys.modules)") == "False"


# -- the house ---------------------------------------------------------------------------------


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module_name(path): own_modules(path) for path in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_import_runs_upwards(path: Path) -> None:
    here = room(module_name(path))
    assert here in FLOORS, "give this room its place in FLOORS"
    assert {room(module) for module in own_modules(path)} - {here} <= FLOORS[here]


# Private names of other libraries, for which they have no public one.
FOREIGN = {"_Hash", "_get_current_object", "_get_file_stream", "_parse_multipart"}
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}


def private_names(path: Path) -> tuple[set[str], set[str]]:
    """The private names that a module asks other objects for, and those that it defines itself."""
    asked: set[str] = set()
    own: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and not node.attr.startswith("__"):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            (own if is_own else asked).add(node.attr)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            own.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            own.add(node.target.id)
    return {name for name in asked if name.startswith("_")}, own


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_module_reaches_into_what_another_keeps_to_itself(path: Path) -> None:
    asked, own = private_names(path)
    assert asked - own - FOREIGN - NAMED_TUPLE == set()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_frameworks_are_imported_only_where_they_belong(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    here = room(module_name(path))
    if here in NO_FRAMEWORK:
        assert not tops & {"flask", "quart"}
    if here != "_quart":
        assert "quart" not in tops


@pytest.mark.slow
def test_everything_imported_is_a_declared_dependency() -> None:
    tops = {name.split(".")[0] for path in MODULES for name in imports(path)}
    tops -= {"flask_hashfs", *sys.stdlib_module_names}
    project = pyproject()["project"]
    declared = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        declared += extra
    names = {normalized(re.split(r"[<>=!~;\[ ]", line)[0]) for line in declared}
    distributions = importlib.metadata.packages_distributions()
    undeclared = {
        top
        for top in tops
        if not names & {normalized(name) for name in distributions.get(top, [top])}
    }
    assert not undeclared


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# -- the archives ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from that sdist."""
    for needed in ("build", "flit_core"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed (dependency group: tests)")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(PROJECT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(archives: Path) -> None:
    [wheel] = archives.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "flask_hashfs/py.typed" in names
    assert {path.relative_to(PACKAGE.parent).as_posix() for path in MODULES} <= set(names)
    assert all(name.startswith(("flask_hashfs/", "flask_hashfs-")) for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_sdist_can_be_tested_and_documented_from(archives: Path) -> None:
    [sdist] = archives.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    here = {"CHANGES.md", "CONTRIBUTING.md", "LICENSE", "README.md", "pyproject.toml"}
    assert here | {"tox.ini", "toxfile.py"} <= names
    folders = [PROJECT / name for name in ("benchmarks", "docs", "tests")]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    assert {path.relative_to(PROJECT).as_posix() for path in sources} <= names
    assert not [name for name in names if "__pycache__" in name or "_build" in name]


@pytest.mark.slow
def test_the_classifiers_name_the_pythons_that_tox_tests(archives: Path) -> None:
    [wheel] = archives.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    [metadata] = [name for name in archive.namelist() if name.endswith("dist-info/METADATA")]
    lines = archive.read(metadata).decode().partition("\n\n")[0].splitlines()
    [minors] = re.findall(r"py\{([\d,]+)\}", (PROJECT / "tox.ini").read_text(encoding="utf-8"))
    assert "Name: Flask-HashFS" in lines
    assert {line for line in lines if "Python :: 3." in line} == {
        f"Classifier: Programming Language :: Python :: 3.{minor[1:]}"
        for minor in minors.split(",")
    }
