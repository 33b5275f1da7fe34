"""Tests for a store of your own; they need pytest, and nothing else imports them.

A backend is right if a store over it passes `StoreContract`::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def new_store(self):
            return lambda **options: MyStore(**options)
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(f"{__name__}.store_contract")

from .store_contract import (  # noqa: E402 (rewritten only if registered before)
    NewStore,
    StoreContract,
    assert_empty,
    assert_holds,
)

__all__ = ["NewStore", "StoreContract", "assert_empty", "assert_holds"]
