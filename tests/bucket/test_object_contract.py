"""The contract of a store, on object stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from object_stores import KINDS, object_store

from flask_hashfs.testing.store_contract import NewStore, StoreContract


class TestObjectStore(StoreContract):
    @pytest.fixture(params=KINDS)
    def new_store(self, request: pytest.FixtureRequest) -> Iterator[NewStore]:
        with ExitStack() as stack:
            yield lambda **given: stack.enter_context(object_store(request.param, **given))
