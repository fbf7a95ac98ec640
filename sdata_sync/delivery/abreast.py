"""Two things at once: waiting for a peer, and preparing what comes next."""

import threading
from collections.abc import Callable
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def meanwhile(wait: Callable[[], A], work: Callable[[], B]) -> tuple[A, B]:
    """Call ``wait`` in a thread of its own and ``work`` in this one, and return what both returned.

    ``wait`` must not use the database. What ``work`` raises comes first, but never before ``wait`` has ended.
    """
    answers: list[A] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(wait())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="sdata-sync-exchange", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no new threads: the process is ending
        return wait(), work()
    try:
        done = work()
    finally:
        thread.join()
    if errors:
        raise errors[0]
    return answers[0], done
