"""The command ``hashfs`` as an app gets it: what carries it out is imported when it is called."""

from __future__ import annotations

from typing import Any

import click


class _Later(click.Group):
    """Stands for `cli.hashfs`, which only a command line needs."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Return the context of the real command, which click goes on with."""
        return _real().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Carry out the real command, where this one is called by itself."""
        return ctx.command.invoke(ctx)

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the line of the real command in the list of all commands."""
        return _real().get_short_help_str(limit)


def _real() -> click.Group:
    from .cli import hashfs as real

    return real


hashfs = _Later("hashfs")
