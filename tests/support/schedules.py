"""Threads that take turns at every call of the file system, in an order drawn by lot.

A race that needs a thread to stand still between two system calls is rare in real time. Here
every such call of an actor is a point where any other one may go on, for as long as it likes.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CALLS = (
    *("link", "lstat", "mkdir", "open", "rename", "replace"),
    *("rmdir", "scandir", "stat", "unlink", "utime"),
)


class Actor(threading.Thread):
    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.go = threading.Semaphore(0)
        self.paused = threading.Semaphore(0)
        self.finished = False
        self.error: BaseException | None = None

    def run(self) -> None:
        self.go.acquire()
        try:
            self.work()
        except BaseException as error:
            self.error = error
        finally:
            self.finished = True
            self.paused.release()

    def pause(self) -> None:
        self.paused.release()
        self.go.acquire()

    def step(self) -> None:
        """Let the actor run to its next call, or to its end."""
        self.go.release()
        assert self.paused.acquire(timeout=60)


class Stage:
    """Where actors perform; made by `stage`."""

    def play(self, seed: int, *works: Callable[[], object]) -> None:
        """Run `works` beside each other, in the order that belongs to `seed`."""
        lot = random.Random(seed)
        actors = [Actor(work) for work in works]
        for actor in actors:
            actor.start()
        playing = list(actors)
        while playing:
            actor = lot.choice(playing)
            for _ in range(lot.choice((1, 1, 2, 4, 8, 30))):
                actor.step()
                if actor.finished:
                    playing.remove(actor)
                    break
        for actor in actors:
            if actor.error is not None:
                raise AssertionError(f"in the order of seed {seed}") from actor.error


@contextmanager
def stage() -> Iterator[Stage]:
    """Make every call of the file system by an actor a point where it can be overtaken."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, _pausing(getattr(os, name)))
        patch.setattr(os, "utime", _in_two_steps(os.open, os.utime, os.close))
        yield Stage()


def _pausing(call: Callable[..., Any]) -> Callable[..., Any]:
    def paused(*args: Any, **kwargs: Any) -> Any:
        actor = threading.current_thread()
        if isinstance(actor, Actor):
            actor.pause()
        return call(*args, **kwargs)

    return paused


def _in_two_steps(
    open: Callable[..., int], utime: Callable[..., None], close: Callable[[int], None]
) -> Callable[..., None]:
    """Return a ``utime`` that can be overtaken between finding a file and dating it.

    The kernel's can be too: it may end well though the name is gone.
    """

    def utime_slowly(path: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(threading.current_thread(), Actor) or isinstance(path, int):
            utime(path, *args, **kwargs)
            return
        kwargs.pop("follow_symlinks", None)  # nor is it followed below
        fd = open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            utime(fd, *args, **kwargs)
        finally:
            close(fd)

    return utime_slowly
