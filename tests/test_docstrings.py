"""What an IDE shows of each public name: its docstring is complete by itself."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

MODULES = ("", ".backends", ".exceptions", ".signals", ".sqlalchemy", ".testing", ".wtforms")

FOR_APPS = tuple(
    f"flask_hashfs.{module}."
    for module in ("_flask.extension", "_quart.extension", "_store.store", "sqlalchemy", "wtforms")
)
"""Where the names are that an app uses, rather than a backend or its tests."""

# What begins a first line that says what a call returns, so that no section has to.
SAYS_RESULT = ("Return ", "Tell whether ", "Iterate over ", "Yield ", "Open ", "Register ")
NO_VERBS = {"A", "An", "Each", "How", "It", "None", "The", "This", "What", "Whether", "Which"}


def is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith("flask_hashfs")


def public_classes_and_functions() -> dict[str, Any]:
    """Every class and function that a public module offers, by its name there."""
    found: dict[str, Any] = {}
    for suffix in MODULES:
        module = importlib.import_module(f"flask_hashfs{suffix}")
        for name in module.__all__:
            value = getattr(module, name)
            if is_ours(value) and (inspect.isclass(value) or inspect.isfunction(value)):
                found.setdefault(f"{value.__module__}.{value.__qualname__}", value)
    return found


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The methods and properties that a class offers, inherited from this package or its own."""
    for name in dir(kind):
        value = inspect.getattr_static(kind, name)
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        plain = value.fget if isinstance(value, property) else value
        foreign = any(name in vars(base) for base in kind.__mro__ if not is_ours(base))
        called_by_others = foreign and kind.__module__ == "flask_hashfs.sqlalchemy"
        if name.startswith("_") or called_by_others:
            continue
        if inspect.isfunction(plain) and is_ours(plain):
            yield name, value


def all_public() -> dict[str, Any]:
    found = public_classes_and_functions()
    for name, value in list(found.items()):
        if inspect.isclass(value) and not name.startswith("flask_hashfs.testing."):
            for member, function in members(value):
                found[f"{name}.{member}"] = function
    return found


PUBLIC = all_public()
CALLABLES = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}


def section(docstring: str, name: str) -> str:
    """The text below a heading such as ``Args:``, or nothing."""
    match = re.search(rf"^{name}:\n((?:[ ]+.*\n?|\n)+)", docstring, re.MULTILINE)
    return match[1] if match else ""


def entries(text: str) -> list[str]:
    """The names that the entries of a section begin with."""
    return re.findall(r"^ {4}\*{0,2}(\w+):", text, re.MULTILINE)


def parameters(function: Callable[..., Any]) -> list[str]:
    return [each for each in inspect.signature(function).parameters if each not in ("self", "cls")]


def described(value: Any) -> str:
    return inspect.getdoc(value.fget if isinstance(value, property) else value) or ""


def first_line(name: str) -> str:
    return described(PUBLIC[name]).partition("\n")[0]


def test_the_first_line_is_a_sentence_of_its_own() -> None:
    for name, value in PUBLIC.items():
        first, _, rest = described(value).partition("\n")
        assert first[:1].isupper(), name
        assert first.endswith("."), name
        assert rest == "" or rest.startswith("\n"), name


def test_the_first_line_of_what_is_called_begins_with_an_imperative() -> None:
    verbs = {name: first_line(name).partition(" ")[0] for name in CALLABLES}
    wrong = {name: verb for name, verb in verbs.items() if verb in NO_VERBS or verb.endswith("s")}
    assert wrong == {}


def test_each_parameter_is_explained() -> None:
    wrong = {}
    for name, function in CALLABLES.items():
        docstring, given = described(function), parameters(function)
        told = entries(section(docstring, "Args"))
        if not told and not name.startswith(FOR_APPS):
            # Who writes a backend may find a sentence enough that names it.
            told = [each for each in given if f"`{each}`" in docstring]
        if told != given:
            wrong[name] = given, told
    assert wrong == {}


def test_the_result_is_told() -> None:
    wrong = []
    for name, function in CALLABLES.items():
        annotation = inspect.signature(function).return_annotation
        if annotation in ("None", None, inspect.Signature.empty):
            continue
        docstring = described(function)
        if not (docstring.startswith(SAYS_RESULT) or section(docstring, "(?:Returns|Yields)")):
            wrong.append(name)
    assert wrong == []


def raised(function: Callable[..., Any]) -> list[type[BaseException]]:
    """The exceptions that the body of a function itself raises by name."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raising = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    kinds = (each.func if isinstance(each, ast.Call) else each for each in raising)
    names = {each.id for each in kinds if isinstance(each, ast.Name)}
    known = {**vars(builtins), **function.__globals__}
    return [known[name] for name in names if isinstance(known.get(name), type)]


def test_what_is_raised_is_told() -> None:
    wrong = []
    for name, value in CALLABLES.items():
        function = inspect.unwrap(value)
        told = set(entries(section(described(function), "Raises")))
        for kind in raised(function):
            if told.isdisjoint(each.__name__ for each in kind.__mro__):
                wrong.append((name, kind))
    assert wrong == []


def is_made(kind: Any) -> bool:
    """Whether there is a rule of its own by which one is made: not an error, which is caught."""
    if not inspect.isclass(kind) or issubclass(kind, Exception):
        return False
    is_protocol = getattr(kind, "_is_protocol", False)
    return not is_protocol and (dataclasses.is_dataclass(kind) or "__init__" in vars(kind))


def explained_fields(kind: type) -> list[str]:
    """The fields of a dataclass below which a string explains them."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return [
        before.target.id
        for before, after in itertools.pairwise(tree.body)
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    ]


def test_a_class_explains_what_it_is_made_of() -> None:
    wrong = []
    for name, kind in PUBLIC.items():
        if is_made(kind):
            told = entries(section(described(kind), "(?:Args|Attributes)"))
            if parameters(kind.__init__) not in (told, explained_fields(kind)):
                wrong.append(name)
    assert wrong == []
