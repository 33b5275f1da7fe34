"""The command ``hashfs`` as an app gets it: what carries it out is imported when it is called."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import click

NAME = "hashfs"


class Later(click.Group):
    """Stands for `cli.hashfs`, which only a command line needs, in one app.

    An app may add commands of its own to it, which no other app gets.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        del self.commands  # click's empty one, in whose place stands the one below

    @cached_property
    def commands(self) -> dict[str, click.Command]:  # type: ignore[override]
        """The real commands, and those that the app has added."""
        return {name: _own(command) for name, command in _real().commands.items()}

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Return the context of the real command, which click goes on with."""
        whole = copy.copy(_real())
        whole.commands = self.commands
        return whole.make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Carry out the real command, where this one is called by itself."""
        return ctx.command.invoke(ctx)

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the line of the real command in the list of all commands."""
        return _real().get_short_help_str(limit)


def _own(command: click.Command) -> click.Command:
    """Return a command, or a copy of a group, to which other commands can be added."""
    if isinstance(command, click.Group):
        command = copy.copy(command)
        command.commands = {name: _own(each) for name, each in command.commands.items()}
    return command


def _real() -> click.Group:
    from .cli import hashfs as real

    return real
