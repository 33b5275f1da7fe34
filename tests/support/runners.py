"""Running commands as click's own tests do, on every version of click."""

from __future__ import annotations

import inspect
from typing import Any

import click.testing


def make_runner() -> click.testing.CliRunner:
    """Return a runner that keeps what went to stderr apart, as all do since click 8.2."""
    runner: Any = click.testing.CliRunner
    before = "mix_stderr" in inspect.signature(runner).parameters
    made: click.testing.CliRunner = runner(mix_stderr=False) if before else runner()
    return made
