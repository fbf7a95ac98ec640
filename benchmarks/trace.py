"""The functions of the package that one changed field enters: ``python -m benchmarks.trace [--list] [--json]``.

Two processes take part, each with a SQLite file of its own. The source saves an account and delivers it. The target
is an HTTP server of the standard library on loopback, which serves the WSGI application of the test project.

What is measured:

- The source creates an account and delivers it, then changes it and delivers it, twice. These deliveries are not
  counted. After them the statements are compiled, the caches are filled and the source knows the target's digest.
- The source waits for a second, so that nothing counts as part of the change before.
- The source changes one field, calls ``account.save()`` and delivers the kind of accounts to its peer, as the thread of
  a peer does. The source counts from ``save()`` until the answer is read and noted. The target counts from the call of
  the WSGI application until the response is closed, for each request of that time.

What is counted:

- A call is an event ``call`` of ``sys.setprofile`` or of ``threading.setprofile`` whose code is in a file of the
  package ``sdata_sync``. A call of a property or of a lambda is a call. Python reports this event also when a
  generator is resumed, so the second half of a ``@contextmanager`` is a call as well.
- The evaluation of a comprehension, of a generator expression, of a class body or of the body of a module is no call.
  A method that ``dataclasses`` generates has no file and is not counted.
- A function is a file with a qualified name. A module is a file with at least one call.
- ``both`` has the sum of the calls of the two sides and the union of their functions and of their modules.

The delivery backend is the manual one, the heartbeat is off, the log level is WARNING, the hash seed is 0 and the
garbage collector does not run while calls are counted. So every run prints the same numbers.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from urllib.request import urlopen
from wsgiref.simple_server import WSGIRequestHandler, make_server

from testproject.nodes import ROOT, Node

#: The delivery backend of both nodes: it delivers nothing by itself.
MANUAL = "sdata_sync.delivery.backends.manual.ManualDelivery"
#: What the refactoring aims at, for both sides together.
AIMS = {"calls": 500, "functions": 180, "modules": 35}
#: Longer than any pause after which the package does something once more.
PAUSE_SECONDS = 1.0

_PACKAGE = str(ROOT / "sdata_sync") + os.sep
_NOT_FUNCTIONS = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>", "<module>")
_START, _STOP = "/trace/start", "/trace/stop"

#: Calls by module and qualified name.
Calls = Counter[tuple[str, str]]


def deliver() -> None:
    """Deliver the kind of accounts to the one peer, as the delivery thread of that peer does when it is woken.

    This is the one place that names classes of the package that are not part of its public interface.
    """
    from sdata_sync.management.commands.sync_deliver import PeerSession
    from sdata_sync.models import Peer
    from sdata_sync.registry import registry

    if not _sessions:
        _sessions.append(PeerSession(Peer.objects.get()))
    assert _sessions[0].deliver([registry.of_kind("accounts")]) is None, "The account was not delivered."


#: The session to the peer. It lives as long as the process, like the session of a delivery thread.
_sessions: list[Any] = []


class Counting:
    """Counts calls of functions of the package while it is switched on."""

    def __init__(self) -> None:
        self.calls: Calls = Counter()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Count in this thread, and in the threads that are started meanwhile."""
        gc.disable()
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
            gc.enable()

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_PACKAGE) and _is_function(code):
            self.calls[code.co_filename.removeprefix(_PACKAGE), code.co_qualname] += 1


def _is_function(code: CodeType) -> bool:
    # The body of a class is not optimized.
    return code.co_name not in _NOT_FUNCTIONS and bool(code.co_flags & inspect.CO_OPTIMIZED)


def run_source(target: str) -> list[list[Any]]:
    """Make the changes at the source and return the calls of the last one; ``target`` is the URL of the server."""
    from benchmarks.values import account
    from testproject.crm.models import Account

    account(0).save()
    deliver()
    for city in ("Bonn", "Bremen"):
        _change(Account.objects.get(), city).save()
        deliver()
    row = _change(Account.objects.get(), "Hamburg")
    time.sleep(PAUSE_SECONDS)
    counting = Counting()
    urlopen(target + _START).close()
    with counting.on():
        row.save()
        deliver()
    return _as_json(counting.calls)


def _change(row: Any, city: str) -> Any:
    row.city = city
    return row


class Traced:
    """A WSGI application that counts the calls of each request between a request to start and one to stop."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._counting: Counting | None = None
        self._requests: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request, or what was counted."""
        path = environ["PATH_INFO"]
        if path == _START:
            self._counting, self._requests = Counting(), []
        elif path == _STOP:
            assert self._counting is not None
            counted = {"requests": self._requests, "calls": _as_json(self._counting.calls)}
            self._counting = None
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(counted).encode()]
        elif self._counting is not None:
            self._requests.append(f"{environ['REQUEST_METHOD']} {path}")
            with self._counting.on():
                return [self._answer(environ, start_response)]
        else:
            return [self._answer(environ, start_response)]
        start_response("204 No Content", [])
        return []

    def _answer(self, environ: dict[str, Any], start_response: Any) -> bytes:
        response = self._application(environ, start_response)
        try:
            return b"".join(response)
        finally:
            response.close()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  the name is the standard library's
        pass


def serve(port: int) -> None:
    """Be the target: serve until the process is ended."""
    from testproject.wsgi import application

    make_server("127.0.0.1", port, Traced(application), handler_class=_Quiet).serve_forever()


def measure(directory: Path) -> tuple[dict[str, Calls], list[str]]:
    """Return the calls of each side, and the requests that the source made."""
    environment = {
        "SDATA_DELIVERY": MANUAL,
        "SDATA_HEARTBEAT": "0",
        "SDATA_LOG_LEVEL": "WARNING",
        "SDATA_SERVER": "",
        "PYTHONHASHSEED": "0",
    }
    here, there = (Node(name, directory, environment=environment) for name in ("here", "there"))
    for node in (here, there):
        node.create()
        node.end_driver()
    here.add_peer(there)
    here.end_driver()
    command = [sys.executable, "-m", "benchmarks.trace", "--serve", str(there.port)]
    server = subprocess.Popen(command, env=there.environment, cwd=ROOT)
    target = f"http://127.0.0.1:{there.port}"
    try:
        there.wait_for_server()
        source = here.run(f"from benchmarks.trace import run_source\nresult = run_source({target!r})")
        with urlopen(target + _STOP) as answer:
            counted = json.load(answer)
        assert there.accounts() == here.accounts(), "The change has not arrived."
    finally:
        server.terminate()
        server.wait(60)
        here.close()
        there.close()
    return {"source": _from_json(source), "target": _from_json(counted["calls"])}, counted["requests"]


def _as_json(calls: Calls) -> list[list[Any]]:
    return [[module, name, count] for (module, name), count in sorted(calls.items())]


def _from_json(rows: list[list[Any]]) -> Calls:
    return Counter({(module, name): count for module, name, count in rows})


def figures_of(calls: Calls) -> dict[str, int]:
    """Return the numbers of calls, functions and modules."""
    return {"calls": calls.total(), "functions": len(calls), "modules": len({module for module, _ in calls})}


def print_table(sides: dict[str, Calls], requests: list[str]) -> None:
    """Print the numbers of each side, and what the refactoring aims at."""
    print(f"One changed field of one account, delivered and answered; {len(requests)} request(s)")
    print("  side        calls  functions  modules")
    for side, numbers in [*((side, figures_of(calls)) for side, calls in sides.items()), ("aim", AIMS)]:
        print(f"  {side:8} {numbers['calls']:8} {numbers['functions']:10} {numbers['modules']:8}")


def print_list(sides: dict[str, Calls]) -> None:
    """Print the functions by module: the modules and the functions of each with most calls come first."""
    source, target, both = sides["source"], sides["target"], sides["both"]
    modules: Counter[str] = Counter()
    for (module, _), count in both.items():
        modules[module] += count
    print("\n  both source target  function")
    for module, total in sorted(modules.items(), key=lambda item: (-item[1], item[0])):
        print(f"{total:6} {'':13}  {module}")
        functions = [(count, key) for key, count in both.items() if key[0] == module]
        for count, key in sorted(functions, key=lambda item: (-item[0], item[1])):
            print(f"{count:6} {source[key]:6} {target[key]:6}      {key[1]}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Count what of the package one changed field enters, at both sides.")
    parser.add_argument("--list", action="store_true", help="print the functions of each module with their calls")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as directory:
        sides, requests = measure(Path(directory))
    sides["both"] = sides["source"] + sides["target"]
    if options.json:
        figures: dict[str, Any] = {side: figures_of(calls) for side, calls in sides.items()}
        if options.list:
            for side, calls in sides.items():
                figures[side]["list"] = _as_json(calls)
        print(json.dumps({"requests": requests, "aim": AIMS, **figures}, indent=None if options.list else 2))
        return
    print_table(sides, requests)
    if options.list:
        print_list(sides)


if __name__ == "__main__":
    main()
