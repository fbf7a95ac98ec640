"""Two things at once: waiting for a peer, and preparing what comes next."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

#: Do both things in the calling thread, one after the other; for tests whose database belongs to a thread.
is_sequential = False

A = TypeVar("A")
B = TypeVar("B")


def overlap(wait: Callable[[], A], work: Callable[[], B]) -> tuple[A, B]:
    """Call ``wait`` in a thread of its own and ``work`` in this one, and return what both returned.

    ``wait`` must not use the database. What ``work`` raises comes first, but never before ``wait`` has ended.
    """
    if is_sequential:
        return wait(), work()
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


def call_all(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """Call ``function``, which must neither raise nor use the database, with each of ``items``; return all answers.

    Not with a pool of the standard library: that cannot be used any more when a process is ending.
    """
    answers: dict[int, B] = {}

    def call(index: int) -> None:
        answers[index] = function(items[index])

    threads = []
    for index in range(1, len(items)):
        thread = threading.Thread(target=call, args=(index,), name="sdata-sync-exchange", daemon=True)
        with suppress(RuntimeError):  # no new threads: the process is ending
            thread.start()
            threads.append(thread)
    if items:
        call(0)
    for thread in threads:
        thread.join()
    for index in set(range(len(items))) - answers.keys():
        call(index)
    return [answers[index] for index in range(len(items))]
