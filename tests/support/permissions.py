"""Permissions that hold for the tests too, where root runs them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_VERSION = 0x20080522  # of the structures: two words for each set of capabilities
_OVERRIDE = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextmanager
def permissions_hold() -> Iterator[None]:
    """Let this thread, and those that it starts, read and enter only what modes allow."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, words = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, words) != 0:
        pytest.skip("root's capabilities cannot be read here")
    effective = words[0]
    words[0] = effective & ~_OVERRIDE
    if libc.capset(header, words) != 0:
        pytest.skip("root cannot give up capabilities here")
    try:
        yield
    finally:
        words[0] = effective
        libc.capset(header, words)
