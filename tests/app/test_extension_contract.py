"""The contract of a store, through both extensions: what they hand on, they hand on unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from flask import Flask
from quart import Quart

from flask_hashfs import FlaskHashFS, HashFS, QuartHashFS
from flask_hashfs.testing.store_contract import (
    LARGE,
    NewStore,
    StoreContract,
    assert_empty,
    content,
)

KEYS = {"fmode": "FILE_MODE", "dmode": "DIR_MODE", "max_size": "MAX_FILE_SIZE"}


def config_of(root: Path, options: dict[str, Any]) -> dict[str, Any]:
    config = {"HASHFS_ROOT_FOLDER": root, "HASHFS_FSYNC": False}
    config.update({f"HASHFS_{KEYS.get(key, key.upper())}": options[key] for key in options})
    return config


class Store:
    """An extension, in the shape of the store that the contract is written for."""

    def __init__(self, client: HashFS) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)  # of what the extensions do not have

    def __len__(self) -> int:
        return len(self.client)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files())


class FlaskStore(Store):
    def __init__(self, root: Path, **options: Any) -> None:
        self.app = Flask(__name__)
        self.app.config.update(config_of(root, options))
        self.fs = FlaskHashFS(self.app)
        super().__init__(self.app.extensions["hashfs"]["client"])

    def __contains__(self, file: Any) -> bool:
        with self.app.app_context():
            return file in self.fs


class QuartStore(Store):
    def __init__(self, portal: BlockingPortal, root: Path, **options: Any) -> None:
        self.portal = portal
        self.app = Quart(__name__)
        self.app.config.update(config_of(root, options))
        self.fs = QuartHashFS(self.app)
        super().__init__(self.app.extensions["hashfs"]["client"])

    def __contains__(self, file: Any) -> bool:
        return bool(self.exists(file))

    def open(self, *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            async with self.app.app_context():
                return (await self.fs.open(*args, **kwargs))._file

        return self.portal.call(call)


def awaited(name: str) -> Callable[..., Any]:
    def method(store: QuartStore, *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            async with store.app.app_context():
                result = getattr(store.fs, name)(*args, **kwargs)
                if isinstance(result, AsyncIterator):
                    return [item async for item in result]
                return await result

        return store.portal.call(call)

    return method


def in_context(name: str) -> Callable[..., Any]:
    def method(store: FlaskStore, *args: Any, **kwargs: Any) -> Any:
        with store.app.app_context():
            result = getattr(store.fs, name)(*args, **kwargs)
            return list(result) if isinstance(result, Iterator) and name != "open" else result

    return method


LOOK_UP = ("put", "get", "exists", "delete")
LISTING = ("files", "folders", "count", "size", "corrupted", "repair", "verify", "prune")
for name in (*LOOK_UP, *LISTING):
    setattr(QuartStore, name, awaited(name))
    setattr(FlaskStore, name, in_context(name))
FlaskStore.open = in_context("open")  # type: ignore[attr-defined]


@pytest.mark.slow  # `quick` runs the contract over one store, tests/local/test_store.py
class TestFlask(StoreContract):
    @pytest.fixture
    def new_store(self, tmp_path: Path) -> NewStore:
        roots = (tmp_path / f"store{number}" for number in range(100))
        return lambda **options: FlaskStore(next(roots), **options)  # type: ignore[return-value]


@pytest.mark.slow  # `quick` runs the contract over one store, tests/local/test_store.py
class TestQuart(StoreContract):
    @pytest.fixture
    def new_store(self, tmp_path: Path, anyio_backend: str) -> Iterator[NewStore]:
        roots = (tmp_path / f"store{number}" for number in range(100))
        with start_blocking_portal(anyio_backend) as portal:
            yield lambda **options: QuartStore(portal, next(roots), **options)  # type: ignore

    @pytest.mark.parametrize("size", [0, 10_000, LARGE])
    def test_an_iterable_that_breaks_leaves_nothing(self, store: HashFS, size: int) -> None:
        def pieces() -> Iterator[bytes]:
            yield content(size)
            raise ZeroDivisionError  # a KeyboardInterrupt would end the event loop

        with pytest.raises(ZeroDivisionError):
            store.put(pieces())
        assert_empty(store)
