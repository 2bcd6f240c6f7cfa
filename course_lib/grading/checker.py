"""The trusted process beside a notebook: it holds the references, so that nothing a kernel does can change a verdict.

kernel --(a packed function)--> checker --(function and drawn inputs)--> worker, in its sandbox
       <-------(verdict)-------         <---------(plain data)----------
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path


class CheckerError(RuntimeError):
    """The checker could not answer."""


class Checker:
    """The kernel's end: starts the process, asks it, and starts it anew if it was interrupted."""

    def __init__(self):
        self.process: subprocess.Popen | None = None
        self.lock = threading.Lock()

    def start(self) -> None:
        """Begin to start it, without waiting."""
        if self.process is None or self.process.poll() is not None:
            package = str(Path(__file__).resolve().parents[2])
            paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
            environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-P", "-m", "course_lib.grading.checker"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self.process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)

    def ask(self, question: dict) -> dict:
        """The answer to a question.

        Raises:
            ValueError: it names a task that there is not.
            CheckerError: there was none.
        """
        with self.lock:
            self.start()
            try:
                self.process.stdin.write(json.dumps(question).encode() + b"\n")
                self.process.stdin.flush()
                reply = json.loads(self.process.stdout.readline() or b"null")
            except BaseException as error:  # an interrupted answer would be taken for the next one's
                self.stop()
                if isinstance(error, (OSError, ValueError)):
                    raise CheckerError("the checker ended: run the check again") from error
                raise
        if reply is None:
            self.stop()
            raise CheckerError("the checker ended: run the check again")
        if "unknown" in reply:
            raise ValueError(reply["unknown"])
        if "error" in reply:
            raise CheckerError(reply["error"])
        return reply

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


THE_CHECKER = Checker()
atexit.register(THE_CHECKER.stop)


# ---- the process itself


def serve() -> None:
    """Answer questions, one JSON line each, until there are no more."""
    from course_lib.grading.sandbox import Worker

    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()  # it loads torch while this process does
    from course_lib.grading.desk import Desk, UnknownTask

    desk = Desk(worker)
    for line in sys.stdin:
        try:
            reply = desk.answer(json.loads(line))
        except UnknownTask as error:
            reply = {"unknown": str(error)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)
    desk.worker.close()


if __name__ == "__main__":
    serve()
