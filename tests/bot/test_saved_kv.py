"""A saved conversation is read back, not computed again; what nobody saved is not on the disk."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.interrupts import Interrupts
from bot.saved_kv import SavedKV
from bot.sessions import load as load_session
from bot.worker import Worker
from tests.bot.conftest import Session, Talk, press_ctrl_c
from tests.engine.decoders import save_talker
from tests.fakes import FakeCancel, FakeEngine, FakeModel, FakeTokenizer

ROOT = Path(__file__).parents[2]
LONG = "x" * 100  # a token a character


def restarted(talk: Talk, keys: str, *texts: str, **fields: object) -> Session:
    """As talk(), by a model whose cache is empty."""
    model = FakeModel(**fields)  # type: ignore[arg-type]
    talk.engine.models["tiny"] = model
    return talk(keys, *texts, model=model)


def kept_text(talk: Talk, name: str = "s") -> str:
    """What the file on the disk would tell whoever reads it."""
    return FakeTokenizer().decode(talk.engine.kept[name][1], skip_special=False)


def computed(session: Session) -> list[int]:
    return [usage.prompt_tokens - usage.cached_tokens for usage in session.state.usages]


def test_a_loaded_conversation_is_read_back_before_its_first_answer(talk: Talk) -> None:
    first = talk(f"{LONG}\rWhy?\r/save s\r", "Hi.", "So.")
    session = restarted(talk, "/load s\rAnd?\rWell?\r", "Yes.", "No.")
    usage = first.state.usages[-1]
    n_kept = usage.prompt_tokens + len("So.")
    assert session.lines[1:5] == [
        "loaded s: 2 turns",
        ">>> And?",
        f"[{n_kept} tokens were read back from the disk in 0.00 s]",
        "Yes.",
    ]
    asked = "<|im_end|>\n<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n"
    n_frame = len(asked.replace("<|im_end|>", "E").replace("<|im_start|>", "S"))
    assert computed(session) == [n_frame + len("And"), n_frame + len("Well")]


def test_a_short_conversation_is_computed_again(talk: Talk) -> None:
    talk("Hello\r/save s\r", "Hi.")
    assert talk.engine.kept == {}
    session = restarted(talk, "/load s\rAnd?\r", "Yes.")
    assert session.state.usages[0].cached_tokens == 0
    assert "read back" not in session.text


def test_turns_that_were_not_saved_leave_nothing_on_the_disk(talk: Talk) -> None:
    talk(f"{LONG}\r/save s\rA secret {LONG}\r/undo\rMore {LONG}\r", "Hi.", "Hush.", "Yes.")
    assert LONG in kept_text(talk) and "Hi." in kept_text(talk)
    assert "secret" not in kept_text(talk) and "More" not in kept_text(talk)


def test_what_was_taken_back_before_saving_again_leaves_the_disk(talk: Talk) -> None:
    talk(f"{LONG}\rA secret\r/save s\r/undo\r/save s\r", "Hi.", "Hush.")
    assert talk.engine.kept == {}
    session = restarted(talk, "/load s\rAnd?\r", "Yes.")
    assert "secret" not in kept_text(talk) and "Hi." in kept_text(talk)
    assert session.lines[-3:] == [">>> And?", "Yes.", ">>> ^D"]


def test_a_loaded_conversation_that_had_to_be_computed_is_kept_from_then_on(talk: Talk) -> None:
    talk(f"{LONG}\r/save s\r", "Hi.")
    talk.engine.kept.clear()  # displaced by others
    restarted(talk, "/load s\rA secret\r", "Hush.")
    assert "Hi." in kept_text(talk) and "secret" not in kept_text(talk)
    session = restarted(talk, "/load s\rAnd?\r", "Yes.")
    assert session.state.usages[0].cached_tokens == len(talk.engine.kept["s"][1])


def test_a_conversation_is_kept_though_the_cache_held_something_else_when_it_was_saved(
    talk: Talk,
) -> None:
    talk(f"{LONG}\r/raw_say Once\r/save s\r", "Hi.", " upon")
    assert talk.engine.kept == {}
    talk.engine.models.clear()
    session = talk(f"{LONG}\r/raw_say Once\r/save s --force\rAnd?\r", "Hi.", " upon", "Yes.")
    assert "Hi." in kept_text(talk) and "And?" not in kept_text(talk)
    assert session.state.chat.exchanges[-1].answer == "Yes."


def test_a_raw_prompt_in_between_costs_reading_back_only(talk: Talk) -> None:
    session = talk(f"{LONG}\r/save s\r/raw_say Once\rAnd?\r", "Hi.", " upon", "Yes.")
    assert session.state.usages[2].cached_tokens == len(talk.engine.kept["s"][1])


def test_another_session_or_a_new_conversation_gets_nothing_of_it(talk: Talk) -> None:
    talk(f"{LONG}\r/save s\r/new\r{LONG}{LONG}\r/save t\r", "Hi.", "Yo.")
    session = restarted(talk, f"/load t\r/new\r{LONG}\r", "Hi.")
    assert session.state.usages[0].cached_tokens == 0
    assert sorted(talk.engine.kept) == ["s", "t"]


def test_a_session_that_is_replaced_takes_its_cache_with_it(talk: Talk) -> None:
    talk(f"A secret {LONG}\r/save s\r/new\rHello\r/save s --force\r", "Hush.", "Hi.")
    assert talk.engine.kept == {}


def test_a_session_replaced_while_no_model_is_there_takes_its_cache_with_it(talk: Talk) -> None:
    talk(f"A secret {LONG}\r/save s\r", "Hush.")
    talk("Hello\r/save t\r", "Hi.")
    talk.engine.models["tiny"] = ValueError("damaged")
    session = talk("/load t\r/save s --force\r")
    assert [e.question for e in load_session("s").exchanges] == ["Hello"]
    assert talk.engine.kept == {}
    assert session.code == 0


def test_another_model_computes_and_keeps_its_own(talk: Talk) -> None:
    talk(f"{LONG}\r/save s\r", "Hi.")
    session = restarted(talk, "/model\r/load s\rAnd?\r", "Yes.", fingerprint="e" * 64)
    assert session.state.usages[0].cached_tokens == 0
    assert talk.engine.kept["s"][0] == "e" * 64


def test_the_limit_is_in_megabytes_and_0_keeps_nothing(talk: Talk) -> None:
    talk(f"{LONG}\r/save s\r", "Hi.")
    assert talk.engine.limits == [2_000_000_000]
    talk.flags["saved_kv_mb"] = 0
    session = restarted(talk, "/load s\rAnd?\r", "Yes.")
    assert session.state.usages[0].cached_tokens == 0
    talk.flags["saved_kv_mb"] = 3
    restarted(talk, "/load s\rAnd?\r/set saved_kv_mb=0\r/save t\r", "Yes.")
    assert talk.engine.kept == {}
    assert set(talk.engine.limits) == {2_000_000_000, 3_000_000}


def test_a_conversation_longer_than_the_context_is_resumed_in_the_view_it_had(talk: Talk) -> None:
    talk.flags["max_tokens"] = 50
    turns = "".join(f"{n} {LONG}\r" for n in range(6))
    first = talk(f"{turns}/save s\r", "Hi.", model=FakeModel(max_seq_len=600))
    view = first.state.chat.view
    assert 0 < view.n_dropped < 5
    session = restarted(talk, "/load s\rAnd?\r", "Yes.", max_seq_len=600)
    assert session.state.chat.view == view
    assert session.state.usages[0].cached_tokens == len(talk.engine.kept["s"][1]) > 200
    wider = restarted(talk, "/load s\rAnd?\r", "Yes.", max_seq_len=6000)
    assert wider.state.chat.view.n_dropped == 0


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    assert worker.close(10)


def test_caches_of_deleted_sessions_are_removed(
    home: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine({}, kept={"there": ("f", [1]), "deleted": ("f", [1])})
    engine.install_in(monkeypatch.setitem)
    (home / "data" / "sessions").mkdir(parents=True)
    (home / "data" / "sessions" / "there.json").write_text("{}")
    saved_kv = SavedKV(worker)
    saved_kv.remove_orphans()
    saved_kv.finish(Interrupts())
    assert list(engine.kept) == ["there"]


def test_leaving_waits_for_what_is_being_written(worker: Worker) -> None:
    written = []
    saved_kv = SavedKV(worker)
    saved_kv.finish(Interrupts())  # nothing to wait for
    saved_kv._submit(lambda: (time.sleep(0.2), written.append(1)))
    saved_kv.finish(Interrupts())
    assert written == [1]


def test_ctrl_c_gives_up_waiting_for_it(worker: Worker) -> None:
    release, pressed = threading.Event(), FakeCancel()
    saved_kv, interrupts = SavedKV(worker), Interrupts()
    saved_kv._submit(lambda: release.wait(60))

    def press() -> None:
        while interrupts._flag is None:
            time.sleep(0.01)
        pressed.set()
        press_ctrl_c(pressed)

    typist = threading.Thread(target=press)
    with interrupts:
        typist.start()
        saved_kv.finish(interrupts)
        typist.join()
    assert not release.is_set()
    release.set()


def test_a_bug_while_writing_is_told_in_the_log_alone(worker: Worker) -> None:
    from loguru import logger

    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="ERROR")
    saved_kv = SavedKV(worker)
    saved_kv._submit(lambda: 1 / 0)
    saved_kv.finish(Interrupts())
    logger.remove(sink)
    assert len(lines) == 1 and "ZeroDivisionError" in lines[0]


def run_shell(folder: Path, *lines: str) -> str:
    """A process of its own with the real engine; what it showed, times and seeds masked."""
    done = subprocess.run(
        [sys.executable, "-m", "bot", "--model", str(folder), "--seed", "1", "--max-tokens", "8"],
        input="".join(f"{line}\n" for line in lines),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    masked = re.sub(r" · first token .*", "", done.stdout)
    return re.sub(r"in \d\.\d\d s", "in T", masked)


def test_a_long_conversation_is_resumed_by_another_process_at_once(
    home: Path, tmp_path: Path
) -> None:
    folder = save_talker(tmp_path / "talker", 4096)
    first = run_shell(folder, "y" * 2000, "Why?", "/save talk", "And then?")
    answers = re.findall(r"^(?!\[|saved)(.+)$", first, re.MULTILINE)
    file = home / "cache" / "kv" / "talk.kv"
    assert file.stat().st_size > 1_000_000
    second = run_shell(folder, "/load talk", "And then?", "/retry seed=1", "/undo", "And then?")
    told = "[length: 8 tokens; /continue goes on]\n"
    # <|im_start|>user\n, the question, what leads to the answer, 8 tokens of it; and so on
    n = 6 + 2000 + 13 + 8 + 8 + len("Why?") + 13 + 8
    asked = n + 8 + len("And then?") + 13
    assert second == (
        "loaded talk: 2 turns\n"
        f"[{n - 1:,} tokens were read back from the disk in T]\n"
        f"{answers[2]}\n{told}[prompt {asked} ({n - 1} cached, {asked - n + 1} new)\n"
        f"{answers[2]}\n{told}[prompt {asked} ({asked - 1} cached, 1 new)\n"
        "taken back: And then?\n"
        f"{answers[2]}\n{told}[prompt {asked} ({asked - 1} cached, 1 new)\n"
    )
    file.write_bytes(file.read_bytes()[:-1000])
    third = run_shell(folder, "/load talk", "And then?")
    assert third.endswith(f"\n{told}[prompt {asked} (0 cached, {asked} new)\n")
    assert "read back" not in third
    # computed as part of a prompt, the answer's last token and its end are kept too
    fourth = run_shell(folder, "/load talk", "And then?").splitlines()
    assert fourth[1] == f"[{n + 2:,} tokens were read back from the disk in T]"
