"""The contract of a store, on a local disk: with unnamed files, with named ones, by renaming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_stores import WAYS, local_stores

from flask_hashfs.testing.store_contract import NewStore, StoreContract


class TestLocalStore(StoreContract):
    @pytest.fixture(params=WAYS)
    def way(self, request: pytest.FixtureRequest) -> str:
        way: str = request.param
        return way

    @pytest.fixture
    def new_store(
        self, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[NewStore]:
        with local_stores(way, tmp_path / "stores", monkeypatch) as new:
            yield new

    @pytest.fixture
    def may_overwrite(self, way: str) -> bool:
        return way == "renamed"
