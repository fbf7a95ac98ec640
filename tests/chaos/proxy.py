"""A proxy before a node that breaks what passes: requests and responses, now and then, in every way there is."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = (
    "request cut in the middle",
    "response cut in the middle",
    "slow",
    "response lost after it was applied",
    "request delivered twice",
    "response never comes",
)
#: Longer than a client waits.
SILENCE_SECONDS = 6.0


class Proxy:
    """Listens at ``port``, at any if that is 0, for the node at ``target``; ``rate`` of the requests meet a fault. Counts each of them."""

    def __init__(self, port: int, target: int, *, seed: int) -> None:
        self.port, self.target = port, target
        self.rate = 0.0
        self.is_silent = False
        self.counts: Counter[str] = Counter()
        self.dice = random.Random(seed)
        self._server: ThreadingHTTPServer | None = None

    def open(self) -> None:
        """Begin to listen."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self.port), _handler(self))
            self.port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop listening: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def fault(self) -> str:
        """Return what is to happen to a request, and count it."""
        if self.is_silent:
            fault = "one-way silence"
        elif self.dice.random() < self.rate:
            fault = self.dice.choice(FAULTS)
        else:
            return ""
        self.counts[fault] += 1
        return fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: that is what it is for."""


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.proxy = proxy
    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding"):
            raise AssertionError("Our client does not send chunks.")
        fault = self.proxy.fault()
        if fault == "one-way silence":
            time.sleep(SILENCE_SECONDS)
            return self._break_off()
        if fault == "request cut in the middle":
            self._send_half(body)
            return self._break_off()
        if fault == "request delivered twice":
            self._ask(body)
        if fault == "slow":
            time.sleep(self.proxy.dice.uniform(0.1, 2.0))
        status, headers, content = self._ask(body)
        if fault == "response never comes":
            time.sleep(SILENCE_SECONDS)
        if fault in ("response never comes", "response lost after it was applied"):
            return self._break_off()
        self._answer(status, headers, content, is_cut=fault == "response cut in the middle")
        return None

    do_GET = do_POST = do_PUT = do_DELETE = pass_on

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.target, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _send_half(self, body: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.proxy.target), timeout=10) as connection:
            head = f"{self.command} {self.path} HTTP/1.1\r\n" + "".join(
                f"{k}: {v}\r\n" for k, v in self.headers.items()
            )
            connection.sendall(f"{head}\r\n".encode("latin-1") + body[: len(body) // 2])

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, is_cut: bool) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if is_cut:
            self.wfile.write(content[: len(content) // 2])
            return self._break_off()
        self.wfile.write(content)
        return None

    def _break_off(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
