from __future__ import annotations

import signal
from collections.abc import Iterator

import object_stores
import pytest
from blockbuster import blockbuster_ctx

from flask_hashfs._storage import messages

pytest.register_assert_rewrite("pending_contract", "local_stores")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in what a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts servers, and leave out what a face of the store cannot break."""
    left_out = []
    for item in items:
        if "servers" in item.path.parent.parts:
            item.add_marker("servers")
        test = getattr(item, "function", None)
        if getattr(test, "of_the_source", False) and _passes_on_bytes(item):
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _passes_on_bytes(item: pytest.Item) -> bool:
    return getattr(getattr(item, "cls", None), "passes_on_bytes", False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not object_stores.ENDPOINT:
        terminalreporter.write_line(object_stores.LEFT_OUT)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def every_message_is_told() -> None:
    """Forget what was logged by the tests before: each kind of message is told once a minute."""
    messages.forget()


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make a blocking call on the event loop an error in every async test."""
    if "anyio_backend" not in request.fixturenames:
        yield
        return
    with blockbuster_ctx() as guard:
        for function in guard.functions.values():
            # An app is made, and set up, before a loop runs.
            function.can_block_in("flask/sansio/app.py", "__init__")
            function.can_block_in("flask_hashfs/_app/extension.py", "init_app")
        yield
