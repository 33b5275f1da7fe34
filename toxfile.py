"""What tox.ini cannot say: Ctrl-C ends the demo, and tox waits for that as for any command."""

from __future__ import annotations

import signal

from tox.config.sets import ConfigSet
from tox.plugin import impl
from tox.session.state import State

DEMOS = {"demo", "demo-quart"}


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:
    """Leave Ctrl-C to the demo, which gets it from the terminal itself and ends with 0.

    tox would call a run failed that it has interrupted, whatever the command has ended with.
    """
    chosen = set(getattr(state.conf.options, "env", None) or ())
    if chosen and chosen <= DEMOS:
        signal.signal(signal.SIGINT, _leave_it)  # a command does not inherit a function


def _leave_it(*_: object) -> None:
    """Do nothing."""
