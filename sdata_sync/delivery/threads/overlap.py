"""Overlap a request to a peer with work on the database."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

#: Do both things in the calling thread, one after the other; for tests whose database belongs to a thread.
is_sequential = False

A = TypeVar("A")
B = TypeVar("B")


def overlap(wait: Callable[[], A], work: Callable[[], B]) -> tuple[A, B]:
    """Call ``wait`` in a new thread and ``work`` in this thread; return the results of both.

    ``wait`` must not use the database. An exception of ``work`` is raised rather than one of ``wait``, but only after
    ``wait`` has ended.
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
    """Call ``function`` with each of ``items`` at the same time; return the results in the order of ``items``.

    ``function`` must neither raise nor use the database. A thread pool of the standard library cannot be used here: it
    accepts no work when the process is ending.
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
