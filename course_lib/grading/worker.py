"""Runs a learner's function where it can do no harm: a program of its own that knows neither references nor course.

It reads requests, one JSON line each, and answers each with one JSON line. A request holds a function (or the cell
that defines it) and drawn inputs; the answer holds what the function returned, as plain data. Each request runs in a
fork that has limits on time, memory, files and processes; nothing that it sends back is ever unpickled or run.

This file imports nothing of `course_lib`: inside the sandbox there is none.
"""

from __future__ import annotations

import base64
import json
import math
import os
import pickle
import re
import select
import signal
import struct
import sys
import time
import traceback
import types
from collections.abc import Callable, Sequence

import numpy as np
import torch

try:
    import resource
except ImportError:  # Windows
    resource = None

ANSWER_BYTES = 8_000_000
MEMORY_BYTES = 3_000_000_000  # of address space; torch itself maps 0.6 GB
CHARACTERS = 10_000
DTYPES = {"float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"}
PREAMBLE = "import math\nimport numpy as np\nimport torch\nimport torch.nn.functional as F\n"
PREAMBLE += "from course_lib.grading import check, hint, panel, progress\n"


# ---- plain data


def encode(value) -> object:
    """A value as JSON can hold it, without loss: numbers, texts, arrays, lists and dicts of these.

    Raises:
        TypeError: the value is anything else.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) is bool:
        return value
    if isinstance(value, str):
        return str(value[:CHARACTERS])
    if isinstance(value, np.ndarray):
        if value.dtype.name not in DTYPES:
            raise TypeError(f"an array of {value.dtype}")
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": data, "dtype": value.dtype.name, "shape": list(value.shape)}
    if isinstance(value, int):
        return {"int": str(int(value))}
    if isinstance(value, float):
        return {"float": float(value).hex()}
    if isinstance(value, (list, tuple)):
        return {"list": [encode(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(_key(key)), encode(item)] for key, item in value.items()]}
    raise TypeError(f"an object of type {type(value).__name__}")


def _key(key):
    """A dict's key, which may be a number in a tensor's or an array's clothes."""
    return key.item() if isinstance(key, (torch.Tensor, np.ndarray)) and key.ndim == 0 else key


def decode(plain, array: Callable = lambda values: values):
    """What `encode` was given, arrays as numpy's unless `array` turns them into something else.

    Raises:
        ValueError: `plain` is not what `encode` writes.
    """
    if plain is None or isinstance(plain, (bool, str)):
        return plain
    if not isinstance(plain, dict):
        raise ValueError("not encoded")
    if "array" in plain:
        if plain["dtype"] not in DTYPES:
            raise ValueError("an unknown dtype")
        values = np.frombuffer(base64.b64decode(plain["array"]), dtype=plain["dtype"])
        return array(values.reshape(plain["shape"]).copy())
    if "int" in plain:
        return int(plain["int"])
    if "float" in plain:
        return float.fromhex(plain["float"])
    if "list" in plain:
        return [decode(item, array) for item in plain["list"]]
    return {decode(key, array): decode(item, array) for key, item in plain["dict"]}


# ---- one call


def outcome(
    function: Callable, inputs: dict, keyword_only: Sequence[str] = (), gradient_of: Sequence[str] = ()
) -> dict:
    """What a function does with inputs: {"value", "gradients", "changed"} or {"error"}, as plain data.

    Args:
        inputs: in the order of the parameters; those that `keyword_only` does not name are given by position, so that
            the names of parameters are the learner's own.
        gradient_of: inputs by which the sum of the result is differentiated; no gradient counts as zeros.
    """
    given = {name: _copy(value) for name, value in inputs.items()}
    leaves = {name: _copy(inputs[name]).requires_grad_() for name in gradient_of}
    given |= {name: leaf.clone() for name, leaf in leaves.items()}  # a leaf cannot be changed in place
    try:
        positional = [value for name, value in given.items() if name not in keyword_only]
        value = function(*positional, **{name: given[name] for name in keyword_only})
        found = {"value": encode(value)}
        if gradient_of:
            found["gradients"] = encode(_gradients(value, leaves))
        found["changed"] = [name for name in inputs if not _same(inputs[name], given[name])]
        return found
    except Exception as error:
        return {"error": described(error)}


def _gradients(value, leaves: dict) -> dict:
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)
    return {n: torch.zeros_like(leaf) if g is None else g for (n, leaf), g in zip(leaves.items(), found, strict=True)}


def _copy(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, dict) else value


def _same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, (list, dict)):
        try:
            return json.dumps(encode(one)) == json.dumps(encode(other))
        except (TypeError, RecursionError):
            return False
    return True  # numbers and texts cannot be changed in place


def described(error: BaseException) -> dict:
    """An error's type, its message, and the line of the learner's own code that it came from."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    libraries = (sys.prefix, sys.base_prefix, "<frozen", __file__)
    own = [line for name, line in frames if not name.startswith(libraries)]
    try:
        message = str(error)[:300]
    except Exception:
        message = ""
    return {"type": type(error).__name__[:60], "message": message, "line": own[-1] if own else None}


# ---- a request, inside its fork


def answer(request: dict, send: Callable[[dict], None]) -> None:
    """Define the function, call it on each input, and send one outcome after the other."""
    try:
        function = _function(request)
    except BaseException as error:
        send({"undefined": described(error)})
        return
    for call in request["calls"]:
        inputs = decode(call, array=torch.from_numpy)
        send(outcome(function, inputs, request["keyword_only"], request["gradient_of"]))


def _function(request: dict) -> Callable:
    if "pickle" in request:
        return pickle.loads(base64.b64decode(request["pickle"]))
    module = sys.modules["learner"] = types.ModuleType("learner")
    space = vars(module)
    exec(PREAMBLE, space)
    try:
        exec(_compiled(request["cell"]), space)
    except Exception:
        if not callable(space.get(request["name"])):  # what fails after the definition is another matter
            raise
    if not callable(space.get(request["name"])):
        raise NameError(f"the cell defines no function {request['name']}")
    return space[request["name"]]


def _compiled(cell: str):
    """A cell as code; if it is not Python as it stands, without IPython's own lines."""
    try:
        return compile(cell, "<your cell>", "exec")
    except SyntaxError:
        plain = re.sub(r"^([ \t]*)(?:[%!?].*|.*\?|.*=[ ]*%.*)$", r"\1pass", cell, flags=re.M)
        return compile(plain, "<your cell>", "exec")


def inert_course() -> dict[str, types.ModuleType]:
    """What an answer's cell may import of the course: checks that do nothing, since this is one."""
    course, grading = types.ModuleType("course_lib"), types.ModuleType("course_lib.grading")
    course.grading = grading
    for name in ("check", "hint", "panel", "progress"):
        setattr(grading, name, lambda *_, **__: None)
    return {"course_lib": course, "course_lib.grading": grading}


# ---- limits


def fence() -> Callable[[str, tuple], None]:
    """An audit hook that refuses what an answer never needs: files, network, processes, foreign code, the course."""
    packages = [path for path in sys.path if path.rstrip(os.sep).endswith("-packages")]
    libraries = tuple(os.path.realpath(path) + os.sep for path in (sys.prefix, sys.base_prefix, *packages))
    refused = ("socket.", "subprocess.", "ctypes.", "shutil.", "os.", "pty.", "signal.", "tempfile.", "fcntl.", "mmap.",
               "glob.", "pathlib.", "urllib.", "http.", "gc.", "winreg.", "_winapi.", "resource.",
               "cpython.PyInterpreterState")  # fmt: skip
    real, decoded, refusal = os.path.realpath, os.fsdecode, PermissionError
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    course = f"{os.sep}course_lib"

    def readable(path) -> bool:
        if not isinstance(path, (str, bytes)):
            return False
        path = real(decoded(path))
        return path.startswith(libraries) and course not in path

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            path, mode, flags = args
            if flags & writing or set(mode or "") & set("wax+") or not readable(path):
                raise refusal("an answer may not open files")
        elif event == "import":
            if args[0] in ("_posixsubprocess", "_xxsubinterpreters", "_interpreters"):
                raise refusal(f"an answer may not use {args[0]}")
            if args[0].partition(".")[0] == "course_lib":
                raise refusal("write it yourself: an answer may not import course_lib")
        elif event in ("os.listdir", "os.scandir"):  # `import` looks into folders
            if not readable(args[0]):
                raise refusal("an answer may not look into folders")
        elif event.startswith(refused) or (event == "object.__setattr__" and args[1] == "__code__"):
            raise refusal(f"an answer may not use {event}")

    return hook


def limit(seconds: float) -> None:
    """Limits on the processor, memory, files and processes; where the system has none, the clock alone decides."""
    if resource is None:
        return
    processor = math.ceil(seconds)
    wanted = {
        "RLIMIT_CPU": (processor, processor + 1),
        "RLIMIT_AS": (MEMORY_BYTES, MEMORY_BYTES),
        "RLIMIT_FSIZE": (0, 0),
        "RLIMIT_NPROC": (0, 0),
        "RLIMIT_CORE": (0, 0),
    }
    for name, soft_and_hard in wanted.items():
        if hasattr(resource, name):
            try:
                resource.setrlimit(getattr(resource, name), soft_and_hard)
            except (ValueError, OSError):
                continue  # macOS refuses some


READ_FILE, READ_FOLDER, RUN = 1 << 2, 1 << 3, 1 << 0  # Landlock's rights, linux/landlock.h
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture


def _handled(edition: int) -> tuple[int, int, int]:
    """All rights that this edition of Landlock can take away: on files, on TCP, and beyond the process."""
    files = (1 << 13) - 1 | (edition >= 2) << 13 | (edition >= 3) << 14 | (edition >= 5) << 15
    return files, 3 * (edition >= 4), 3 * (edition >= 6)


def lock_files() -> None:
    """Let this process read libraries and nothing else, C++ code included: by Landlock, which Linux 5.13 has."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: end with the worker
    edition = libc.syscall(CREATE_RULESET, None, 0, 1)
    if edition < 1:
        return
    handled = struct.pack("<QQQ", *_handled(edition))[: 8 if edition < 4 else 16 if edition < 6 else 24]
    rules = libc.syscall(CREATE_RULESET, handled, len(handled), 0)
    packages = [path for path in sys.path if path.endswith("-packages")]
    for path in ("/usr", "/lib", "/lib64", "/dev/null", "/dev/urandom", sys.prefix, sys.base_prefix, *packages):
        if os.path.exists(path):
            folder = os.open(path, os.O_PATH)
            rights = READ_FILE | READ_FOLDER | RUN if os.path.isdir(path) else READ_FILE
            rule = struct.pack("<Qi", rights, folder)  # struct landlock_path_beneath_attr, packed
            libc.syscall(ADD_RULE, rules, 1, rule, 0)
            os.close(folder)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which an ordinary user may not restrict
    libc.syscall(RESTRICT_SELF, rules, 0)
    os.close(rules)


# ---- the program


def serve() -> None:
    """Answer requests until there are no more."""
    requests, replies = sys.stdin, os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    torch.set_num_threads(1)
    import cloudpickle  # noqa: F401  what `pickle.loads` will ask for

    torch.ones(1).half()  # asks for the processor's kind, which the fence would refuse
    sys.modules.update(inert_course())

    print("ready", file=replies, flush=True)
    run = _in_fork if hasattr(os, "fork") else _here
    for line in requests:
        print(json.dumps(run(json.loads(line))), file=replies, flush=True)


def _here(request: dict) -> dict:
    outcomes: list[dict] = []
    answer(request, outcomes.append)
    return {"outcomes": outcomes, "ended": None}


def _in_fork(request: dict) -> dict:
    """The outcomes of a request, and how its process ended if not well: "time", "output" or "exit"."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_child(request, reader, writer)
    os.close(writer)
    lines, ended = _read(reader, time.monotonic() + request["clock"])
    os.close(reader)
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    _, status = os.waitpid(child, 0)
    if ended is None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        ended = "time"
    outcomes = [found for found in map(_parsed, lines) if found is not None]
    if ended is None and len(outcomes) < len(request["calls"]) and not any("undefined" in o for o in outcomes):
        ended = "exit"
    return {"outcomes": outcomes, "ended": ended}


def _be_the_child(request: dict, reader: int, writer: int) -> None:
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        os.dup2(writer, 3)
        os.closerange(4, 256)
        if _uses_optimisers(request):
            import torch._dynamo  # noqa: F401  torch's optimisers load it, with files and threads that the fence refuses
        limit(request["seconds"])
        lock_files()
        sys.addaudithook(fence())
        answer(request, lambda found: _write(3, json.dumps(found).encode() + b"\n"))
    finally:
        os._exit(0)


def _uses_optimisers(request: dict) -> bool:
    source = request["cell"].encode() if "cell" in request else base64.b64decode(request["pickle"])
    return b"optim" in source


def _write(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]


def _read(pipe: int, deadline: float) -> tuple[list[bytes], str | None]:
    data = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([pipe], [], [], left)[0]:
            break
        piece = os.read(pipe, 1 << 16)
        if not piece:
            return data.split(b"\n"), None
        data += piece
        if len(data) > ANSWER_BYTES:
            return data.split(b"\n"), "output"
    return data.split(b"\n"), "time"


def _parsed(line: bytes) -> dict | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


if __name__ == "__main__":
    serve()
