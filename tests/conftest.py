from __future__ import annotations

import signal
from collections.abc import Iterator

import object_stores
import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

from flask_hashfs._storage import messages

pytest.register_assert_rewrite("pending_contract", "local_stores")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in what a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


settings.register_profile("quick", max_examples=20)

OTHER_KINDS = {
    *("named", "renamed"),  # folders where a file cannot be without a name
    *("bucket", "cached bucket", "memory", "s3", "BucketFlaskFace", "BucketQuartFace"),
    "postgresql",
}
"""Parameters of tests that run over several kinds of stores: all but a folder as most have it."""

QUART = {"quart", "QuartFace"}
"""Parameters of tests that run over both frameworks."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts servers and what `quick` leaves out; drop what a face cannot break."""
    left_out = []
    for item in items:
        if "servers" in item.path.parent.parts:
            item.add_marker("servers")
        if _is_of_another_kind(item):
            item.add_marker("slow")
        test = getattr(item, "function", None)
        if getattr(test, "of_the_source", False) and _passes_on_bytes(item):
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _is_of_another_kind(item: pytest.Item) -> bool:
    if item.path.parent.name in {"bucket", "cache"}:
        return True
    others = OTHER_KINDS | QUART if item.get_closest_marker("decided_once") else OTHER_KINDS
    params = getattr(getattr(item, "callspec", None), "params", {}).values()
    names = {
        value if isinstance(value, str) else getattr(value, "__name__", "") for value in params
    }
    return not others.isdisjoint(names)


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
