"""Who holds something: a thread of a process of a host. And whether it is still there."""

import os
import socket
import threading


def holder_name() -> str:
    """Return the name of this thread among all threads of all processes."""
    return f"{_host()}/{os.getpid()}/{threading.get_ident()}"


def is_gone(holder: str) -> bool:
    """Tell whether ``holder`` was a process of this host, and that process is no more.

    Of other hosts nobody can tell. Were it alive after all, in a container with our host's name, two would do
    the same for a while, which costs time and nothing else.
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
        pass  # somebody else's process: alive
    return False


def _host() -> str:
    return socket.gethostname()[:60]
