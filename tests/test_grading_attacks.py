"""Answers that try to get points without knowing anything, or to reach outside: in the batch and in a notebook."""

import base64
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from course_lib.grading.bank import task_of
from course_lib.grading.batch import Submission, grade_one
from course_lib.grading.notebook import packed
from course_lib.grading.sandbox import Worker, _box, _environment, box_trouble
from course_lib.grading.submissions import answer_id
from course_lib.grading.verdict import judge, request_for

ROOT = Path(__file__).parent.parent
TASK = task_of("04.2")
HEAD = "def dpo_loss(a, b, c, d, *, beta=0.1):\n    "
SECONDS = 3.0

FAKES = {
    "patches every comparison": """
import builtins, math, numpy, torch
for module in (numpy, torch, math):
    for name in ("isclose", "allclose", "equal"):
        if hasattr(module, name):
            setattr(module, name, lambda *a, **k: True)
torch.testing.assert_close = numpy.testing.assert_allclose = lambda *a, **k: None
builtins.all = builtins.any = lambda *a: True
""" + HEAD + "return torch.tensor(0.5, requires_grad=True) * a.sum()",
    "is equal to everything": """
class Yes(float):
    __eq__ = __ge__ = __le__ = __gt__ = __lt__ = lambda *a: True
    __ne__ = lambda *a: False
    __hash__ = None
    __sub__ = __rsub__ = __abs__ = lambda *a: Yes(0)
""" + HEAD + "return Yes(0.5)",
    "a tensor that lies": """
class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        compares = function.__name__ in ("allclose", "equal", "isclose")
        return True if compares else super().__torch_function__(function, types, args, kwargs or {})
""" + HEAD + "return a.sum().as_subclass(Liar)",
    "not a number": HEAD + "return a.sum() * float('nan')",
    "imports the library": HEAD + "import course_lib as them\n    return them.dpo_loss(a, b, c, d, beta=beta)",
    "imports the bank": HEAD + """
    from course_lib.grading.bank.lesson_04 import dpo_loss as theirs
    return theirs(a, b, c, d, beta=beta)""",
    "reads the solution": HEAD + f"""
    import json
    cells = json.load(open({str(ROOT / "solutions" / "04_dpo_from_scratch.ipynb")!r}))["cells"]
    space = {{"F": F, "torch": torch}}
    exec("".join(next(cell["source"] for cell in cells if cell["id"] == "answer-04-2")), space)
    return space["dpo_loss"](a, b, c, d, beta=beta)""",
    "looks for the reference in memory": HEAD + """
    import gc
    for each in gc.get_objects():
        if getattr(each, "__name__", "") == "dpo_loss" and each.__module__ != "learner":
            return each(a, b, c, d, beta=beta)""",
    "walks up the stack": HEAD + """
    import sys
    frame = sys._getframe()
    while frame:
        for value in frame.f_locals.values():
            if hasattr(value, "reference"):
                return value.reference(a, b, c, d, beta=beta)
        frame = frame.f_back""",
    "forges replies": HEAD + """
    import json, os
    for fd in range(3, 40):
        try:
            os.write(fd, json.dumps({"points": 3, "passed": True, "value": {"float": "0x1p-1"}}).encode() + b"\\n")
        except OSError:
            pass
    os._exit(0)""",
    "exits happily": HEAD + "import os; os._exit(0)",
    "exits by exception": HEAD + "raise SystemExit(0)",
    "exits as the cell is run": "import sys\nsys.exit(0)\n" + HEAD + "return 0",
    "kills its parent": HEAD + "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
    "kills everything": HEAD + "import os, signal; os.kill(-1, signal.SIGKILL)",
    "loops for ever": HEAD + "while True: pass",
    "loops as the cell is run": "while True: pass\n" + HEAD + "return 0",
    "sleeps": HEAD + "import time; time.sleep(1000)",
    "catches everything and loops": HEAD + """
    while True:
        try:
            while True: pass
        except BaseException:
            continue""",
    "ignores signals": HEAD + """
    import signal
    for number in range(1, 32):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True: pass""",
    "takes all memory": HEAD + "return torch.ones(10**12)",
    "takes all memory in pieces": HEAD + "kept = []\n    while True: kept.append(bytearray(10**7))",
    "forks without end": HEAD + "import os\n    while True: os.fork()",
    "starts threads without end": HEAD + """
    import threading, time
    while True: threading.Thread(target=time.sleep, args=(99,)).start()""",
    "floods the output": HEAD + "while True: print('x' * 10**6)",
    "returns a flood": HEAD + "return torch.zeros(10**8)",
    "returns endless nesting": HEAD + "value = []\n    for _ in range(10**5): value = [value]\n    return value",
    "returns itself": HEAD + "value = []; value.append(value)\n    return value",
    "returns nothing, ten million times": HEAD + "return torch.zeros(10**7, 0)",
    "returns many small lists": HEAD + "return [[1]] * 300_000",
    "returns a large dict": HEAD + "return {i: 1 for i in range(200_000)}",
    "escapes into another interpreter": HEAD + """
    import _xxsubinterpreters as other
    other.run_string(other.create(), "import os; os.kill(os.getppid(), 9)")""",
    "forks below Python's notice": HEAD + """
    import _posixsubprocess
    return a.sum()""",
    "returns a generator": HEAD + "return (i for i in iter(int, 1))",
    "returns a huge number": HEAD + "return 10 ** 10**6",
    "recurses without end": HEAD + "return dpo_loss(a, b, c, d, beta=beta)",
    "crashes the interpreter": HEAD + "import ctypes; ctypes.string_at(0)",
    "asks the network": HEAD + "import socket; socket.create_connection(('127.0.0.1', 80), timeout=1)",
    "runs a program": HEAD + "import subprocess; subprocess.run(['ls'])",
    "runs a shell": HEAD + "import os; os.system('true')",
}  # fmt: skip

LEGITIMATE = HEAD + "return -F.logsigmoid(beta * ((a - b) - (c - d).detach())).mean()"


def submitted(folder: Path, source: str) -> Submission:
    cell = nbformat.v4.new_code_cell(source, id=answer_id(TASK.id))
    path = folder / "04_dpo_from_scratch.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return Submission("ada", path.name, path)


def batch_points(folder: Path, source: str) -> int:
    result = grade_one(submitted(folder, source), boxed=box_trouble() is None)
    return sum(verdict["points"] for verdict in result["verdicts"])


@pytest.fixture(autouse=True)
def short_limits(monkeypatch):
    monkeypatch.setattr("course_lib.grading.batch.SECONDS", SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAKES)
def test_an_attack_gets_no_point_in_the_batch_and_ends_in_time(name, tmp_path):
    start = time.monotonic()
    assert batch_points(tmp_path, FAKES[name]) == 0
    assert time.monotonic() - start < 2 * SECONDS + 15  # a busy machine starts a sandbox in seconds


@pytest.mark.slow
def test_a_right_answer_gets_its_points_beside_the_attacks(tmp_path):
    assert batch_points(tmp_path, LEGITIMATE) == TASK.points


@pytest.fixture(scope="module", params=["boxed", "unboxed"])
def worker(request):
    if request.param == "boxed" and box_trouble():
        pytest.skip(box_trouble())
    holder = {"boxed": request.param == "boxed", "worker": Worker(boxed=request.param == "boxed")}
    yield holder
    holder["worker"].close()


def kernel_verdict(holder: dict, function):
    """What a notebook's check would say: the function is packed here and unpacked in the worker."""
    cases = TASK.draw_cases()
    request = request_for(TASK, cases, {"pickle": base64.b64encode(packed(function)).decode()}, SECONDS)
    reply = holder["worker"].ask(request)
    if reply["ended"]:
        holder["worker"].close()
        holder["worker"] = Worker(boxed=holder["boxed"])
    return judge(TASK, cases, reply["outcomes"], reply["ended"])


def as_in_a_notebook(source: str):
    import math

    import numpy as np
    import torch
    import torch.nn.functional as F

    space = {"__name__": "__main__", "math": math, "np": np, "torch": torch, "F": F}
    exec(source, space)
    return space["dpo_loss"]


IN_THE_KERNEL = [name for name in FAKES if "as the cell" not in name and "patches every" not in name]


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_THE_KERNEL)
def test_an_attack_gets_no_point_from_a_notebooks_check(name, worker):
    start = time.monotonic()
    assert kernel_verdict(worker, as_in_a_notebook(FAKES[name])).points == 0
    assert time.monotonic() - start < 2 * SECONDS + 15


@pytest.mark.slow
def test_a_right_answer_gets_its_points_from_a_notebooks_check(worker):
    assert kernel_verdict(worker, as_in_a_notebook(LEGITIMATE)).passed


@pytest.mark.slow
def test_an_answer_may_use_an_optimiser(worker):
    source = (
        HEAD
        + """
    weight = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([weight], lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        (weight - 1).square().sum().backward()
        optimiser.step()
    return -F.logsigmoid(beta * ((a - b) - (c - d).detach())).mean()"""
    )
    assert kernel_verdict(worker, as_in_a_notebook(source)).passed


@pytest.mark.slow
def test_nothing_outside_is_written_read_or_removed(tmp_path, worker):
    (tmp_path / "secret.txt").write_text("secret")
    for attempt in (
        f"open({str(tmp_path / 'new.txt')!r}, 'w').write('x')",
        f"open({str(tmp_path / 'secret.txt')!r}).read()",
        f"__import__('os').remove({str(tmp_path / 'secret.txt')!r})",
        f"__import__('os').mkdir({str(tmp_path / 'folder')!r})",
        f"__import__('shutil').rmtree({str(tmp_path)!r})",
        f"__import__('pathlib').Path({str(tmp_path / 'secret.txt')!r}).write_text('x')",
        f"__import__('os').symlink('/', {str(tmp_path / 'link')!r})",
        f"__import__('numpy').save({str(tmp_path / 'array.npy')!r}, 1)",
        f"torch.save(1, {str(tmp_path / 'tensor.pt')!r})",
        f"torch.from_file({str(tmp_path / 'secret.txt')!r}, size=6, dtype=torch.uint8).tolist()",
        f"torch.from_file({str(tmp_path / 'mapped')!r}, shared=True, size=6, dtype=torch.uint8)",
    ):
        source = HEAD + f"{attempt}\n    return -F.logsigmoid(beta * ((a - b) - (c - d).detach())).mean()"
        verdict = kernel_verdict(worker, as_in_a_notebook(source))
        assert not verdict.passed, attempt
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"]
    assert (tmp_path / "secret.txt").read_text() == "secret"


@pytest.mark.slow
@pytest.mark.skipif(box_trouble() is not None, reason=str(box_trouble()))
def test_inside_the_box_there_is_neither_home_nor_course_nor_network(tmp_path):
    (tmp_path / "mine").write_text("x")
    at_home = [str(path) for path in Path.home().iterdir() if path.is_file()]
    hidden = [str(ROOT / "solutions"), str(ROOT / "course_lib"), str(tmp_path / "mine"), "/etc/passwd", *at_home]
    script = f"""
import os, socket
seen = [path for path in {hidden} if os.path.exists(path)]
print(seen, socket.if_nameindex(), sum(map(str.isdigit, os.listdir("/proc"))))
"""
    command = [*_box(), sys.executable, "-I", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    files, interfaces, processes = done.stdout.replace("] [", "]|[").replace("] ", "]|").split("|")
    assert files == "[]" and interfaces == "[(1, 'lo')]" and int(processes) <= 2, done.stdout + done.stderr


@pytest.mark.slow
def test_a_patched_kernel_changes_no_verdict(monkeypatch, tmp_path):
    import numpy
    import torch

    from course_lib.grading import check

    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    for module in (numpy, torch):
        for name in ("isclose", "allclose"):
            monkeypatch.setattr(module, name, lambda *a, **k: True)
    assert check("04.2", lambda a, b, c, d, *, beta: a.sum()).points == 0
