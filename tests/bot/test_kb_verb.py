"""`sparsechat kb`, in this process, on real bases with an encoder that counts words."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.__main__ import main
from bot.kb.progress import Progress
from bot.kb.work import Work
from data.documents import Document
from retrieval import encoder
from tests.fakes import FakeBase, FakeLibrary, passage
from tests.retrieval.encoders import HashingEncoder


class Kb:
    """Runs `sparsechat kb`; standard input is no terminal unless a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.encoder = HashingEncoder()

    def __call__(self, *words: str, stdin: str = "") -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main(["kb", *words])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def json(self, *words: str) -> dict[str, Any]:
        code, out, _ = self(*words, "--json")
        assert code == 0, out
        record: dict[str, Any] = json.loads(out)
        return record


@pytest.fixture
def kb(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Kb]:
    runs = Kb(monkeypatch, capsys)
    # as items, like FakeLibrary: attributes would be put back before items, and then the wrong ones
    monkeypatch.setitem(vars(encoder), "load_encoder", lambda name: runs.encoder)
    monkeypatch.setitem(vars(encoder), "find_encoder", lambda name: Path(name))
    yield runs


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "zurich.txt").write_text("Zurich lies on a lake. It has trams.\n")
    (folder / "bern.md").write_text("# Bern\n\nBern is the capital. It lies on the Aare.\n")
    return folder


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_create_makes_and_fills_a_base_in_one_command(kb: Kb, notes: Path) -> None:
    code, out, err = kb("create", "docs", str(notes))
    assert (code, out) == (0, "")
    assert lines(err)[0] == "docs: reading"
    assert "docs: documents: 2 added; 2 passages can be found" in lines(err)
    assert lines(err)[-1] == "docs is ready: sparsechat --kb docs"
    info = kb.json("show", "docs")
    assert (info["n_documents"], info["n_chunks"], info["n_embedded"]) == (2, 2, 2)
    assert info["sources"] == [{"path": notes.as_posix(), "documents": 2}]
    assert info["generation"] is not None


def test_progress_counts_files_and_does_not_name_each(kb: Kb, notes: Path) -> None:
    for n in range(50):
        (notes / f"{n:02}.txt").write_text(f"This is number {n}.")
    _, _, err = kb("create", "docs", str(notes))
    assert len(lines(err)) < 30
    assert "docs: reading 100 %, 52 of 52" in lines(err)


def test_json_is_one_object(kb: Kb, notes: Path) -> None:
    record = kb.json("create", "docs", str(notes))
    assert (record["name"], record["added"], record["embedded"]) == ("docs", 2, 2)
    assert record["problem"] is None and record["skipped"] == []
    assert [row["name"] for row in kb.json("list")["bases"]] == ["docs"]


def test_globs_choose_files(kb: Kb, notes: Path) -> None:
    assert kb.json("create", "docs", str(notes), "--glob", "*.md")["added"] == 1
    assert kb.json("create", "rest", str(notes), "--exclude", "*.md")["added"] == 1


def test_a_base_that_is_there_is_not_made_again(kb: Kb, notes: Path) -> None:
    kb("create", "docs", str(notes))
    code, _, err = kb("create", "docs", str(notes))
    assert code == 1
    assert err == (
        "sparsechat: there is a knowledge base 'docs' already; `sparsechat kb add docs PATH` adds "
        "to it, `sparsechat kb rm docs` deletes it\n"
    )


def test_a_path_that_is_not_there_makes_no_base(kb: Kb, tmp_path: Path) -> None:
    code, _, err = kb("create", "docs", str(tmp_path / "nowhere"))
    assert code == 1 and "nowhere does not exist; nothing was made" in err
    assert kb.json("list") == {"bases": []}


@pytest.mark.parametrize("name", ["Docs", "x y", "off", ""])
def test_names_outside_the_rule_are_one_line(kb: Kb, notes: Path, name: str) -> None:
    code, _, err = kb("create", name, str(notes))
    assert code in (1, 2) and err.count("\n") == 1


def test_add_takes_over_what_changed_and_sync_what_is_gone(kb: Kb, notes: Path) -> None:
    kb("create", "docs", str(notes))
    (notes / "zurich.txt").write_text("Zurich lies on a lake. It has many trams.\n")
    (notes / "bern.md").unlink()
    record = kb.json("sync", "docs")
    assert (record["updated"], record["removed"]) == (1, 1)
    (notes / "chur.txt").write_text("Chur is old.")
    assert kb.json("add", "docs", str(notes / "chur.txt"))["added"] == 1
    kb.encoder.encoded.clear()
    assert kb.json("sync", "docs")["unchanged"] == 2
    assert kb.encoder.encoded == []


def test_files_that_cannot_be_read_are_named_and_the_rest_is_added(kb: Kb, notes: Path) -> None:
    (notes / "bad.pdf").write_bytes(b"%PDF-1.4 broken")
    code, _, err = kb("create", "docs", str(notes))
    assert code == 0
    assert any(line.startswith("docs: skipped: ") and "bad.pdf" in line for line in lines(err))
    assert "2 added" in err


def test_add_without_anything_is_a_usage_error(kb: Kb, notes: Path) -> None:
    kb("create", "docs", str(notes))
    code, _, err = kb("add", "docs")
    assert code == 2 and "what is to be added is missing" in err


def test_an_unknown_base_names_the_nearest_and_exits_3(kb: Kb, notes: Path) -> None:
    kb("create", "docs", str(notes))
    for words in (["show", "dosc"], ["sync", "dosc"], ["search", "dosc", "x"], ["rm", "dosc"]):
        code, out, err = kb(*words)
        assert (code, out, err.count("\n")) == (3, "", 1)
        assert "'dosc'" in err and "docs" in err


def test_a_base_of_words_alone_has_no_vectors(kb: Kb, notes: Path) -> None:
    kb("create", "docs", str(notes), "--lexical")
    assert kb.encoder.encoded == []
    assert "words alone" in kb("list")[1]


def test_vectors_can_be_left_for_later(kb: Kb, notes: Path) -> None:
    kb("create", "docs", str(notes), "--no-vectors")
    assert kb.encoder.encoded == [] and "0 % vectors" in kb("list")[1]
    record = kb.json("embed", "docs")
    assert record["embedded"] == 2 and record["generation"] is not None
    assert kb("build", "docs")[0] == 0


def test_without_the_encoder_words_are_searched_and_the_way_out_is_named(
    kb: Kb, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.encoder import EncoderMissingError

    def missing(name: str) -> Path:
        raise EncoderMissingError("the encoder x is not installed; `sparsechat models pull x`")

    monkeypatch.setattr("retrieval.encoder.find_encoder", missing)
    code, _, err = kb("create", "docs", str(notes), "--encoder", "x")
    assert code == 0
    assert lines(err)[-1] == (
        "docs: words are searched, meanings are not: the encoder x is not installed; "
        "`sparsechat models pull x`"
    )
    code, _, err = kb("embed", "docs")
    assert (code, err.count("\n")) == (3, 1)


def test_an_encoder_of_the_catalogue_is_fetched(
    kb: Kb, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.encoder import EncoderMissingError

    pulled: list[str] = []

    def missing(name: str) -> Path:
        raise EncoderMissingError(name)

    monkeypatch.setattr("retrieval.encoder.find_encoder", missing)
    monkeypatch.setattr("bot.verbs.models.pull_with_progress", pulled.append)
    assert kb.json("create", "docs", str(notes))["embedded"] == 2
    assert pulled == ["minilm"]


def test_another_encoder_is_refused_until_all_is_embedded_anew(kb: Kb, notes: Path) -> None:
    kb("create", "docs", str(notes))
    kb.encoder = HashingEncoder(name="other")
    code, _, err = kb("search", "docs", "lake")
    assert (code, err.count("\n")) == (1, 1) and "kb embed docs" in err
    assert kb.json("embed", "docs", "--encoder", "other")["embedded"] == 2


def test_shares_are_encoded_apart_and_merged(kb: Kb, notes: Path, tmp_path: Path) -> None:
    kb("create", "docs", str(notes), "--no-vectors")
    files = [tmp_path / "1.shard", tmp_path / "2.shard"]
    made = [
        kb.json("build", "docs", "--shard", f"{i}/2", "--out", str(path))
        for i, path in enumerate(files, 1)
    ]
    assert sum(record["embedded"] for record in made) == 2
    assert made[0]["file"] == str(files[0])
    assert "0 % vectors" in kb("list")[1]
    record = kb.json("merge", "docs", *map(str, files))
    assert (record["n_new"], record["n_pending"], record["generation"]) == (2, 0, 1)
    assert "with vectors" in kb("list")[1]


def test_a_share_says_what_takes_it_in(
    kb: Kb, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb("create", "docs", str(notes), "--no-vectors")
    monkeypatch.chdir(tmp_path)
    code, _, err = kb("build", "docs", "--shard", "1/2")
    assert code == 0 and (tmp_path / "docs-1-of-2.shard").is_file()
    assert lines(err)[-1].endswith(
        "in docs-1-of-2.shard; `sparsechat kb merge docs docs-1-of-2.shard …` takes them in "
        "(with the files of 2/2)"
    )
    code, _, err = kb("merge", "docs", "docs-1-of-2.shard")
    assert code == 0 and ("still without a vector" in err) == (
        kb.json("show", "docs")["n_embedded"] < 2
    )


@pytest.mark.parametrize("share", ["3/2", "0/2", "2", "a/b", "1/0"])
def test_shares_that_cannot_be_are_one_line(kb: Kb, notes: Path, share: str) -> None:
    kb("create", "docs", str(notes), "--no-vectors")
    code, out, err = kb("build", "docs", "--shard", share)
    assert code in (1, 2) and out == "" and share in lines(err)[-1]
    assert "Traceback" not in err


def test_what_is_no_whole_share_is_not_taken(kb: Kb, notes: Path, tmp_path: Path) -> None:
    kb("create", "docs", str(notes), "--no-vectors")
    (tmp_path / "x.shard").write_bytes(b"no shard")
    for path in (tmp_path / "x.shard", tmp_path / "gone.shard"):
        code, _, err = kb("merge", "docs", str(path))
        assert (code, lines(err)[-1].count(path.name)) == (1, 1), err
        assert kb.json("show", "docs")["n_embedded"] == 0


def test_a_backend_is_chosen_when_a_base_is_made_or_its_index_built(kb: Kb, notes: Path) -> None:
    assert kb("create", "docs", str(notes), "--backend", "faiss")[0] == 0
    assert kb("build", "docs", "--backend", "faiss")[0] == 0
    code, _, err = kb("build", "docs", "--backend", "pinecone")
    assert (code, err.count("\n")) == (1, 1) and "'pinecone'" in err and "milvus" in err


@pytest.mark.parametrize(
    "flags", [["--backend", "x"], ["--backend", "faiss", "--backend-url", "http://x:1"]]
)
def test_a_backend_that_cannot_be_makes_no_base(kb: Kb, notes: Path, flags: list[str]) -> None:
    assert kb("create", "docs", str(notes), *flags)[0] == 1
    assert kb.json("list")["bases"] == []


def test_rm_asks_and_deletes(kb: Kb, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kb("create", "docs", str(notes))
    assert kb("rm", "docs")[::2] == (
        2,
        "sparsechat: deleting docs needs --yes when nobody can be asked\n",
    )
    monkeypatch.setattr("bot.terminal.is_terminal", lambda stream: True)
    assert kb("rm", "docs", stdin="n\n")[0] == 1
    assert kb("rm", "docs", stdin="y\n")[0] == 0
    assert kb.json("list") == {"bases": []}


def test_rm_with_a_pattern_takes_documents_out(kb: Kb, notes: Path) -> None:
    kb("create", "docs", str(notes))
    code, out, err = kb("rm", "docs", "*.md", "--dry-run")
    assert (code, out) == (0, f"{notes.as_posix()}/bern.md\n")
    assert "1 document would be taken out" in err
    assert kb.json("rm", "docs", "*.md")["documents"] == [f"{notes.as_posix()}/bern.md"]
    assert kb.json("show", "docs")["n_documents"] == 1
    assert (notes / "bern.md").exists()


def test_verify_and_compact(kb: Kb, notes: Path) -> None:
    kb("create", "docs", str(notes))
    assert kb("verify", "docs")[::2] == (0, "docs is whole\n")
    assert kb.json("compact", "docs")["freed"] >= 0
    index = next((Path(kb.json("show", "docs")["folder"])).glob("gen-*/*.faiss"))
    index.write_bytes(b"x" + index.read_bytes()[1:])
    code, out, _ = kb("verify", "docs")
    assert code == 1 and out.count("\n") == 1
    assert kb("verify", "docs", "--repair")[0] == 0
    assert kb("verify", "docs")[0] == 0


def test_a_second_writer_is_told_at_once(kb: Kb, notes: Path) -> None:
    from retrieval.writer_lock import WriterLock

    kb("create", "docs", str(notes))
    lock = WriterLock(Path(kb.json("show", "docs")["folder"]))
    try:
        code, _, err = kb("sync", "docs")
    finally:
        lock.release()
    assert (code, err.count("\n")) == (1, 1)
    assert "docs is being written to by process" in err


def pressed_at(stage: str) -> Callable[[Work, str], Any]:
    """Work.stage with a Ctrl-C at the first report of `stage`."""
    usual = Work.stage

    def pressing(self: Work, name: str) -> Any:
        report = usual(self, name)

        def heard(done: int, total: int | None, what: str) -> None:
            report(done, total, what)
            if name == stage:
                self.cancel.set()

        return heard

    return pressing


def test_ctrl_c_keeps_what_was_added_and_says_how_to_go_on(
    kb: Kb, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(20):
        (notes / f"{n}.txt").write_text(f"This is number {n}.")
    monkeypatch.setattr(Work, "stage", pressed_at("reading"))
    code, _, err = kb("create", "docs", str(notes))
    assert code == 130
    assert lines(err)[-1] == (
        f"docs: interrupted: what was added is kept; `sparsechat kb add docs {notes}` goes on from "
        "there"
    )
    monkeypatch.undo()


def test_ctrl_c_while_vectors_are_made_keeps_them(
    kb: Kb, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Work, "stage", pressed_at("loading the encoder"))
        code, _, err = kb("create", "docs", str(notes))
    assert code == 130
    assert lines(err)[-1].endswith("`sparsechat kb embed docs` goes on from there")
    assert kb.json("embed", "docs")["embedded"] == 2


def test_the_default_base_is_made_of_the_leads_and_its_creation_goes_on(
    kb: Kb, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leads() -> Iterator[Document]:
        for title in ("Zurich", "Bern"):
            url = f"https://en.wikipedia.org/wiki/{title}"
            yield Document(url, title, f"{title} is a city.", (), {"url": url})

    monkeypatch.setattr("data.wikipedia_leads.leads", leads)
    monkeypatch.setattr("data.wikipedia_leads.fetch", lambda on_progress: Path("leads.json"))
    with monkeypatch.context() as patch:
        patch.setattr(Work, "stage", pressed_at("reading"))
        code, _, err = kb("create", "wikipedia")
    assert code == 130 and "`sparsechat kb create wikipedia` goes on" in err
    assert kb("create", "wikipedia")[0] == 0
    assert kb.json("show", "wikipedia")["n_embedded"] == 2


def test_search_prints_passages_with_places(kb: Kb, monkeypatch: pytest.MonkeyPatch) -> None:
    found = passage("Zurich lies\non a lake.\n")
    FakeLibrary({"docs": FakeBase({"Zurich": [found]})}).install_in(monkeypatch.setitem)
    code, out, err = kb("search", "docs", "Zurich", "--k", "2")
    assert code == 0
    assert lines(out) == [
        "[1] Zurich · /docs/zurich.txt:3 · score 0.90",
        "    Zurich lies",
        "    on a lake.",
    ]
    assert err == "[1 passage from docs, hybrid · lexical 2.0 ms, dense 1.0 ms]\n"
    assert kb("search", "docs", "Basel")[1:] == (
        "",
        "nothing found in docs (a score of 0.50 is needed)\n"
        "[0 passages from docs, hybrid · lexical 2.0 ms, dense 1.0 ms]\n",
    )


def test_search_as_json_has_spans_scores_and_mode(kb: Kb, monkeypatch: pytest.MonkeyPatch) -> None:
    found = passage("Zurich lies on a lake.")
    FakeLibrary({"docs": FakeBase({"Zurich": [found]})}).install_in(monkeypatch.setitem)
    record = kb.json("search", "docs", "Zurich", "--mode", "lexical")
    assert (record["mode"], record["threshold"], record["base"]) == ("lexical", 0.5, "docs")
    (first,) = record["passages"]
    assert first["text"] == found.text and first["end"] - first["start"] == len(found.text)
    assert (first["dense"], first["lexical_rank"], first["chunk_id"]) == (0.8, 2, 1)


@pytest.mark.parametrize(
    "words",
    [["search", "docs"], ["search", "docs", "x", "--k", "0"], ["create"],
     ["search", "docs", "x", "--mode", "m"], ["nosuch"], ["rm", "docs", "--dry-run"]],
)  # fmt: skip
def test_usage_errors_exit_2(kb: Kb, words: list[str]) -> None:
    code, out, err = kb(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_an_empty_list_says_what_makes_a_base(kb: Kb) -> None:
    assert kb("list") == (
        0,
        "",
        "no knowledge base yet: `sparsechat kb create NAME PATH…` makes one\n",
    )
    assert kb()[0] == 0


def test_a_damaged_base_is_in_the_list_with_the_way_out(kb: Kb, notes: Path) -> None:
    kb("create", "docs", str(notes), "--no-vectors")
    database = Path(kb.json("show", "docs")["folder"]) / "knowledge.sqlite"
    database.write_bytes(b"not a database" * 1000)
    code, out, err = kb("list")
    assert (code, err) == (0, "") and "kb verify docs --repair" in out
    code, _, err = kb("show", "docs")
    assert (code, err.count("\n")) == (1, 1)


def test_the_bar_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("bot.terminal.is_terminal", lambda stream: True)
    monkeypatch.setattr("bot.render.Status.show", lambda self, text: shown.append(text))
    monkeypatch.setenv("COLUMNS", "40")
    progress = Progress("a-base-with-a-long-name")
    for done in range(0, 101, 10):
        progress.report(done, 100, "reading")
    assert shown and max(map(len, shown)) <= 39


def test_eval_measures_what_is_found(kb: Kb, notes: Path, tmp_path: Path) -> None:
    kb("create", "docs", str(notes))
    questions = tmp_path / "questions.jsonl"
    questions.write_text(
        '{"question": "Where does Zurich lie?", "answers": ["lake"], "title": "zurich"}\n'
        '{"question": "What is Bern?", "answers": "the moon"}\n'
    )
    record = kb.json("eval", "docs", str(questions), "--mode", "lexical", "--ks", "1", "3")
    assert (record["n_questions"], record["mode"]) == (2, "lexical")
    assert record["passage"]["recall@1"][0] == 1.0
    assert record["any"]["recall@3"][0] == 0.5
    code, out, err = kb("eval", "docs", str(questions))
    assert code == 0 and "passage recall@1" in out and "asking 100 %, 2 of 2" in err
    questions.write_text("nonsense")
    code, _, err = kb("eval", "docs", str(questions))
    assert (code, err.count("\n")) == (1, 1) and "line 1" in err
