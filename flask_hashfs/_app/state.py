"""The state that an app keeps of each of its stores, typed, under one rule of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, cast

from .._store.store import HashFS
from .config import StoreConfig
from .health import Health

if TYPE_CHECKING:
    from flask.sansio.app import App

    from .metrics import Metrics


class StoreState(TypedDict):
    """One store of an app, as ``app.extensions["hashfs"]`` holds it."""

    client: HashFS
    config: StoreConfig
    extension: Any
    health: Health
    metrics: Metrics | None


def key(name: str | None) -> str:
    """Return what the store `name`, or the default one, is called in ``app.extensions``.

    The endpoints and template functions of the store begin with it too.
    """
    return f"hashfs_{name}" if name else "hashfs"


def states(app: App) -> dict[str | None, StoreState]:
    """Return every store of `app` by its name, in the order of their ``init_app``.

    The default store has the name None. What another extension keeps under a key that looks
    like one of ours is left out.
    """
    return {
        state["extension"].name: cast(StoreState, state)
        for name, state in app.extensions.items()
        if isinstance(state, dict)
        and isinstance(state.get("config"), StoreConfig)
        and name == key(state["extension"].name)
    }
