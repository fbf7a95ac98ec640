"""A PostgreSQL and a Redis of our own, on loopback, to be crashed and emptied."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from testproject.nodes import free_port, wait_until


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs, if it is installed here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).parent if program else None


class Postgres:
    """A cluster in a folder of its own."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs, self._directory, self.port = programs, directory / "postgres", free_port()
        # It does not run as root.
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self._directory.mkdir()
        if self._as:
            directory.chmod(0o755)  # ours, made for this run; nothing above it is touched
            shutil.chown(self._directory, "postgres", "postgres")
        self._call("initdb", "-D", self._directory, "-U", "root", "-A", "trust", "-E", "UTF8")

    @property
    def url(self) -> str:
        return f"postgres://root@127.0.0.1:{self.port}"

    def _call(self, program: str, *arguments: object) -> None:
        command = [*self._as, str(self._programs / program), *map(str, arguments)]
        done = subprocess.run(command, text=True, capture_output=True, cwd="/")
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200"
        log = self._directory / "log"
        self._call("pg_ctl", "-D", self._directory, "-w", "-s", "-l", log, "-o", options, "start")

    def crash(self) -> None:
        """Stop it as if the power had gone."""
        self._call("pg_ctl", "-D", self._directory, "-m", "immediate", "-w", "-s", "stop")


class Redis:
    """A broker that keeps nothing on disk: one that stops is emptied."""

    def __init__(self, directory: Path) -> None:
        self._directory, self.port = directory, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [*command, "--dir", str(self._directory)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def crash(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


def wait_for(port: int) -> None:
    """Wait until somebody listens at ``port``."""
    import socket

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, what=f"somebody at port {port}")
