"""Name the thread that holds a lease, by host, process and thread, and tell whether its process has ended."""

import os
import socket
import threading


def holder_name() -> str:
    """Return the name of this thread: the host, the process id and the thread id."""
    return f"{_host()}/{os.getpid()}/{threading.get_ident()}"


def is_gone(holder: str) -> bool:
    """Return True if ``holder`` names a process of this host that has ended.

    For a process of another host the result is False, because its state cannot be known here. If the process is alive
    after all, in a container that has the name of this host, two processes do the same work for a while. That costs
    time and nothing else.
    """
    host, _, rest = holder.partition("/")
    pid = rest.partition("/")[0]
    if host != _host() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # the process belongs to another user, so it is alive
    return False


def _host() -> str:
    return socket.gethostname()[:60]
