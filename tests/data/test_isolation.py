from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from data import isolation
from data.isolation import Ceiling, IsolationError

GENEROUS = Ceiling(max_seconds=60, max_memory_bytes=1_000_000_000, max_answer_bytes=100_000_000)
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
posix = pytest.mark.skipif(os.name != "posix", reason="signals and groups are POSIX's")


def call(name: str, content: bytes = b"", ceiling: Ceiling = GENEROUS, **arguments: Any) -> Any:
    return isolation.call(f"tests.data.isolated_targets:{name}", content, arguments, ceiling)


@pytest.fixture(autouse=True)
def _no_children_left() -> Iterator[None]:
    isolation.close()
    yield
    isolation.close()
    if os.name == "posix":
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)  # neither a running child nor a zombie


def test_values_come_back_in_order_and_large_ones_whole() -> None:
    text = "é中" * 1_000_000
    (value,) = call("echo", text.encode())
    assert value["text"] == text
    assert len(list(call("echo", b"x", times=3_000))) == 3_000


def test_one_child_serves_many_calls() -> None:
    assert len({value["pid"] for _ in range(5) for value in call("echo")}) == 1


def test_two_calls_at_a_time_have_a_child_each() -> None:
    first, second = call("echo"), call("echo")
    assert next(first)["pid"] != next(second)["pid"]
    assert list(first) == list(second) == []


@posix
def test_the_child_inherits_neither_environment_nor_files_nor_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_SECRET_TOKEN", "value")
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), True)
        (found,) = call("surroundings")
    assert not set(found["environment"]) - {"LC_CTYPE", *isolation._ENVIRONMENT}
    assert found["folder"] == "/"
    assert found["group"] != os.getpgid(0)
    # the three of a process, the two pipes, and the folder that is being listed
    assert len(found["open"]) <= 6


def test_the_child_imports_nothing_heavy() -> None:
    (found,) = call("surroundings")
    heavy = {"numpy", "torch", "loguru", "pypdf", "docx", "lxml", "site", "subprocess", "threading"}
    assert not heavy & set(found["modules"])


def test_what_a_library_prints_goes_nowhere() -> None:
    assert list(call("noise")) == [""]


@pytest.mark.parametrize("name", ["spin", "sleep"])
def test_a_call_ends_at_its_limit_of_time(name: str) -> None:
    with pytest.raises(IsolationError, match=r"^it takes longer than 0\.5 s to read$") as caught:
        list(call(name, ceiling=Ceiling(0.5, 1_000_000_000, 100_000_000)))
    assert caught.value.kind == "time"


def test_a_child_that_does_not_even_read_its_request_ends_at_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolation, "_BOOT", "import time; time.sleep(600)")
    with pytest.raises(IsolationError, match=r"^it takes longer than"):
        list(call("echo", bytes(10_000_000), ceiling=Ceiling(0.5, 1_000_000_000, 100_000_000)))


def test_time_that_the_caller_takes_between_values_does_not_count() -> None:
    values = call("echo", b"x" * 300_000, ceiling=Ceiling(2, 1_000_000_000, 10_000_000), times=9)
    for n_values, _ in enumerate(values, 1):
        if n_values == 1:
            time.sleep(2.5)
    assert n_values == 9


@linux
def test_a_call_ends_at_its_limit_of_memory() -> None:
    with pytest.raises(IsolationError, match="it takes more than 200 MB of memory") as caught:
        list(call("gorge", ceiling=Ceiling(60, 200_000_000, 100_000_000)))
    assert caught.value.kind == "memory"


@linux
@pytest.mark.slow
def test_processor_time_is_limited_in_the_child_itself() -> None:
    # a parent that was killed cannot watch the clock any more
    code = (
        "from tests.data.test_isolation import call, Ceiling\n"
        "import os\n"
        "values = call('spin', ceiling=Ceiling(1, 10**9, 10**8))\n"
        "next(values)\n"
        "from data import isolation\n"
        "import gc; child = next(o for o in gc.get_objects() if type(o).__name__ == '_Child')\n"
        "print(child._process.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    pid = int(done.stdout)
    for _ in range(600):
        if not os.path.exists(f"/proc/{pid}") or _state(pid) == "Z":
            return
        time.sleep(0.05)
    os.kill(pid, 9)
    pytest.fail("the orphan goes on for ever")


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize(
    ("name", "how"), [("crash", "exit code 7"), pytest.param("abort", "signal 6", marks=posix)]
)
def test_a_crash_is_an_error_and_the_next_call_works(name: str, how: str) -> None:
    with pytest.raises(IsolationError, match=rf"^it crashes its reader \({how}\)$") as caught:
        list(call(name))
    assert caught.value.kind == "crash"
    assert [value["text"] for value in call("echo", b"x")] == ["x"]


def test_a_refusal_comes_in_its_own_words_after_the_values_before_it() -> None:
    values = call("refuse")
    assert next(values) == 1
    with pytest.raises(IsolationError, match=r"^/a\.txt: not this one$") as caught:
        next(values)
    assert caught.value.kind == "refused"


def test_a_failure_is_one_short_line() -> None:
    with pytest.raises(IsolationError, match=r"^KeyError: ") as caught:
        list(call("fail"))
    assert caught.value.kind == "failed"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400


def test_a_package_that_lacks_is_named() -> None:
    with pytest.raises(IsolationError, match=r"^a_package_that_is_not_there$") as caught:
        list(call("lack"))
    assert caught.value.kind == "lacking"


def test_an_answer_beyond_its_limit_is_not_even_received() -> None:
    with pytest.raises(IsolationError, match="it becomes 3 MB of text"):
        list(call("flood", ceiling=Ceiling(60, 1_000_000_000, 1_000_000)))


def test_lone_surrogates_become_question_marks() -> None:
    assert list(call("surrogates")) == ["a?b"]


@pytest.mark.parametrize("frame", [b"nonsense", b"[1]", b'{"values": 3}', b"\xff", b""])
def test_a_child_that_talks_nonsense_is_an_error(
    monkeypatch: pytest.MonkeyPatch, frame: bytes
) -> None:
    answer = len(frame).to_bytes(4, "little") + frame
    monkeypatch.setattr(isolation, "_BOOT", f"import os; os.write(1, {answer!r})")
    with pytest.raises(IsolationError, match=r"nonsense|crashes") as caught:
        list(call("echo"))
    assert caught.value.kind == "crash"


def test_a_caller_that_loses_interest_ends_the_child() -> None:
    values = call("echo", b"x" * 300_000, times=1000)
    pid = next(values)["pid"]
    values.close()
    assert next(call("echo"))["pid"] != pid


@posix
def test_ctrl_c_ends_the_child_and_goes_on_to_the_caller() -> None:
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        list(call("sleep"))
    timer.join()
    assert isolation._idle == []


@posix
def test_a_child_that_died_while_idle_is_replaced() -> None:
    (value,) = call("echo")
    os.kill(value["pid"], 9)
    time.sleep(0.1)
    assert [value["text"] for value in call("echo", b"again")] == ["again"]


@posix
def test_an_idle_child_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "IDLE_S", 0.05)
    list(call("echo"))
    assert isolation._timer is not None
    isolation._timer.join()
    assert isolation._idle == []


def test_threads_can_call_at_the_same_time() -> None:
    found: list[str] = []
    threads = [
        threading.Thread(
            target=lambda n=n: found.extend(v["text"] for v in call("echo", b"%d" % n, times=20))
        )
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(str(n) for n in range(6) for _ in range(20))


@posix
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_children_of_its_own() -> None:
    (mine,) = call("echo")
    receive, send = os.pipe()
    pid = os.fork()
    if not pid:  # pragma: no cover
        try:
            os.write(send, b"%d" % next(call("echo"))["pid"])
            isolation.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    theirs = int(os.read(receive, 100))
    os.close(receive)
    os.close(send)
    assert theirs != mine["pid"]
    assert next(call("echo"))["pid"] == mine["pid"]


def test_nothing_is_left_when_the_program_ends() -> None:
    code = (
        "from tests.data.test_isolation import call\nprint(next(iter(list(call('echo'))))['pid'])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0
    assert done.stderr == ""
    if os.name == "posix":
        with pytest.raises(ProcessLookupError):
            os.kill(int(done.stdout), 0)
