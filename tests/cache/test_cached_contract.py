"""The contract of a store, on stores with a cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from object_stores import KINDS, object_store

from flask_hashfs import HashFS
from flask_hashfs._cache.backend import CachedBackend
from flask_hashfs.testing.store_contract import NewStore, StoreContract


class TestCachedStore(StoreContract):
    @pytest.fixture(params=KINDS)
    def new_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewStore]:
        with ExitStack() as stack:
            made: list[HashFS] = []

            def new_store(**given: Any) -> HashFS:
                store = stack.enter_context(object_store(request.param, **given))
                folder = str(tmp_path / f"cache{len(made)}")
                store.backend = CachedBackend(store.backend, folder, 2**30, 2**30, 300)
                made.append(store)
                return store

            yield new_store
