"""A worker in a box: bubblewrap where there is one, so that an answer sees neither network, home nor course.

with Worker() as worker:
    replies = worker.ask({"cell": "def dpo_loss...", "name": "dpo_loss", "calls": [...], ...})
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

WORKER = Path(__file__).with_name("worker.py")
START_SECONDS = 60.0
GRACE_SECONDS = 5.0  # what a worker may take over a request's own limit, on a busy machine
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")


class SandboxError(RuntimeError):
    """No worker starts: nothing can be checked."""


class Worker:
    """One process that runs answers; give each learner a worker of their own."""

    def __init__(self, *, boxed: bool | None = None):
        """Start it; `ask` waits until it is ready. `boxed=None` takes bubblewrap if it works here."""
        self.boxed = box_trouble() is None if boxed is None else boxed
        self.folder = tempfile.TemporaryDirectory(prefix="answer-")
        command = [sys.executable, "-I", str(WORKER)]
        if self.boxed:
            command = [*_box(), sys.executable, "-I", "/worker.py"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=self.folder.name, env=_environment(), start_new_session=True,
        )  # fmt: skip
        self.unread = b""
        self.ready = False

    def ask(self, request: dict) -> dict:
        """{"outcomes", "ended"}; a worker that an answer has ended or silenced is closed, and that is an outcome too.

        Raises:
            SandboxError: the worker never started.
        """
        try:
            if not self.ready:
                self.ready = self._line(START_SECONDS) == b"ready"
            limit = request["clock"] + GRACE_SECONDS
            _write_within(self.process.stdin.fileno(), json.dumps(request).encode() + b"\n", limit)
            return json.loads(self._line(limit))
        except (OSError, ValueError, RecursionError) as error:
            self.close()
            if not self.ready:
                raise SandboxError(f"the sandbox does not start: {error}") from error
            return {"outcomes": [], "ended": "exit"}

    def _line(self, seconds: float) -> bytes:
        deadline, pipe = time.monotonic() + seconds, self.process.stdout.fileno()
        while b"\n" not in self.unread:
            piece = _read_within(pipe, deadline - time.monotonic())
            if not piece:
                raise OSError("the worker ended or did not answer in time")
            self.unread += piece
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                continue
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _write_within(pipe: int, data: bytes, seconds: float) -> None:
    """Write to a worker that may have been stopped, and then reads no more."""
    deadline = time.monotonic() + seconds
    if os.name == "posix":
        os.set_blocking(pipe, False)
    while data:
        if os.name == "posix" and not select.select([], [pipe], [], max(deadline - time.monotonic(), 0))[1]:
            raise OSError("the worker does not read")
        data = data[os.write(pipe, data) :]


def _read_within(pipe: int, seconds: float) -> bytes:
    if os.name == "posix" and not select.select([pipe], [], [], max(seconds, 0))[0]:
        return b""
    return os.read(pipe, 1 << 20)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    return kept | threads | {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1"}


def _box() -> list[str]:
    """The bubblewrap command: Python and its packages to read, an empty /tmp, nothing else."""
    command = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
    command += ["--hostname", "sandbox", "--cap-drop", "ALL"]
    for path in SYSTEM:
        command += ["--ro-bind-try", path, path]
    command += ["--proc", "/proc", "--dev", "/dev", "--size", "16000000", "--tmpfs", "/tmp"]
    for path in _libraries():
        command += ["--ro-bind", path, path]
    for hidden in (Path(path) / "course_lib" for path in sys.path):
        if hidden.is_dir() and any(hidden.is_relative_to(path) for path in (*_libraries(), "/usr")):
            command += ["--tmpfs", str(hidden)]
    return [*command, "--ro-bind", str(WORKER), "/worker.py", "--chdir", "/tmp"]


@cache
def _libraries() -> tuple[str, ...]:
    """Folders that Python needs: the environment, the Python it was made from, and packages outside both."""
    roots = [os.path.abspath(sys.prefix), os.path.abspath(sys.base_prefix), os.path.realpath(sys.base_prefix)]
    packages = [os.path.abspath(path) for path in sys.path if path.rstrip(os.sep).endswith("-packages")]
    kept = [path for path in dict.fromkeys([*roots, *packages]) if path != "/usr"]
    return tuple(sorted(kept, key=len))


@cache
def box_trouble() -> str | None:
    """Why bubblewrap cannot be used here; None if it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (Debian, Ubuntu: apt install bubblewrap)"
    tried = subprocess.run(
        [*_box(), sys.executable, "-I", "-c", "pass"], capture_output=True, text=True, env=_environment()
    )
    if tried.returncode:
        return f"bubblewrap does not work here: {tried.stderr.strip().splitlines()[-1:] or tried.returncode}"
    return None
