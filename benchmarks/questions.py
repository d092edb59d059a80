"""Which questions with known answers do the leads of Wikipedia answer?

    python -m benchmarks.questions [--show N]

writes three files of questions (see retrieval.evaluation.read_questions) into the folder of the
benchmarks, `tune.jsonl`, `test.jsonl` and `descriptions.jsonl`, and prints how many there are.

Real questions are those of Natural Questions and SQuAD as DPR took them, out of the package
pyserini 0.12.0. One is kept when it names an article (the title, or what stands before its
bracket, of five letters and more) and that article's lead contains an answer that is neither in the
question nor the title itself. Caveats: such questions favour whoever searches words and titles; an
answer may stand in the lead by chance; and leads are less than Wikipedia, so figures compare
systems here, not with papers. The package's other sets (TriviaQA, WebQuestions) are kept for a last
judgement: nothing here opens them.

Descriptions have no such bias: the query is Wikipedia's short description of an article ("1968 film
by Stanley Kubrick") that no other article shares and that does not name it; the article is to be
found among leads without titles (`masked`).
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import random
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import options, peers
from data import files, wheels, wikipedia_leads
from data.catalogue import WheelSource
from data.documents import Document
from retrieval.matching import contains, tokens

JAR = WheelSource(
    "pyserini",
    "0.12.0",
    "pyserini/resources/jars/anserini-0.12.0-fatjar.jar",
    "15832592a972c2006f946f7721fc8bc5ff69822d8b29c853dc701ab7535a5553",
)
_JAR_BYTES = 72_350_068
_JAR_SHA256 = "9897860794da6ea2961716ac19b5a66391800c57ffa6b7f00473db02eb07f874"
# the only files of the package that may be opened
MEMBERS = {
    "NQ dev": "topics-and-qrels/topics.dpr.nq.dev.txt",
    "NQ test": "topics-and-qrels/topics.dpr.nq.test.txt",
    "SQuAD": "topics-and-qrels/topics.dpr.squad.test.txt",
}
_MIN_TITLE = 5  # letters
_TUNED_FIFTHS = 2  # of five questions, so many are there to tune on


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the title that it is linked to, "" before it is; split: "tune" or "test"."""

    question: str
    answers: tuple[str, ...]
    source: str
    title: str = ""

    @property
    def split(self) -> str:
        """By the question's hash: the same whatever else is in the set."""
        digest = hashlib.sha256(self.question.encode()).digest()
        return "tune" if digest[0] % 5 < _TUNED_FIFTHS else "test"


def folder() -> Path:
    """Where the files lie."""
    return peers.bench_dir() / "questions"


def path_of(split: str) -> Path:
    """The file of "tune", "test" or "descriptions", made when it is not there."""
    path = folder() / f"{split}.jsonl"
    if not path.is_file():
        build()
    return path


def build() -> dict[str, list[Asked]]:
    """Make the three files; what is in them."""
    articles = list(wikipedia_leads.leads())
    linked = link(asked(), articles)
    sets = {
        "tune": [each for each in linked if each.split == "tune"],
        "test": [each for each in linked if each.split == "test"],
        "descriptions": described(articles),
    }
    files.private_folder(folder())
    for name, found in sets.items():
        _write(folder() / f"{name}.jsonl", found)
    return sets


def asked() -> Iterator[Asked]:
    """All questions of the allowed files."""
    jar = folder() / Path(JAR.member).name
    if not jar.is_file() or jar.stat().st_size != _JAR_BYTES:
        files.private_folder(folder())
        options.note(f"fetching the questions of {JAR.label}")
        wheels.fetch_member(
            JAR, folder(), jar, size_bytes=_JAR_BYTES, sha256=_JAR_SHA256,
            on_progress=lambda stage, done, total: None,
        )  # fmt: skip
    for source, member in MEMBERS.items():
        for line in read_member(jar, member).splitlines():
            if line.strip():
                yield replace(_parsed(line), source=source)


def read_member(jar: Path, member: str) -> str:
    """A file of the package; ValueError for every one that is not in MEMBERS."""
    if member not in MEMBERS.values():
        raise ValueError(f"{member} is kept for the last judgement; open {list(MEMBERS.values())}")
    with zipfile.ZipFile(jar) as archive:
        return archive.read(member).decode()


def _parsed(line: str) -> Asked:
    """`question\\t['answer', …]`, the list maybe in quotes as in CSV, or JSON."""
    if line.startswith("{"):
        row = json.loads(line)
        question, answers = row["question"], row["answer"]
    else:
        question, _, listed = line.rpartition("\t")
        if listed.startswith('"'):
            listed = listed[1:-1].replace('""', '"')
        answers = ast.literal_eval(listed)
    return Asked(question.strip(), tuple(dict.fromkeys(answers)), "")


def link(questions: Iterable[Asked], articles: Sequence[Document]) -> list[Asked]:
    """The questions that name an article whose lead answers them, each with the longest title."""
    by_first: dict[str, list[tuple[list[str], Document]]] = defaultdict(list)
    for article in articles:
        name = name_of(article.title)
        if len(name) >= _MIN_TITLE and (title := tokens(name)):
            by_first[title[0]].append((title, article))
    leads: dict[str, list[str]] = {}
    found = []
    for each in questions:
        question = tokens(each.question)
        named = [
            (title, article)
            for word in set(question)
            for title, article in by_first.get(word, ())
            if contains(question, title)
        ]
        for title, article in sorted(named, key=lambda pair: (-len(" ".join(pair[0])), pair[0])):
            lead = leads.setdefault(article.uri, tokens(article.text))
            right = tuple(a for a in each.answers if _answers(tokens(a), question, title, lead))
            if right:
                found.append(replace(each, answers=right, title=article.title))
                break
    return found


def name_of(title: str) -> str:
    """The title without its bracket: "Mercury" of "Mercury (planet)"."""
    return re.sub(r"\s*\([^()]*\)$", "", title)


def _answers(answer: list[str], question: list[str], title: list[str], lead: list[str]) -> bool:
    if not answer or answer == title or contains(question, answer):
        return False
    return contains(lead, answer)


def described(articles: Sequence[Document]) -> list[Asked]:
    """The descriptions that belong to one article and do not name it."""
    texts = Counter(_description(article).casefold() for article in articles)
    found = []
    for article in articles:
        text = _description(article)
        title = tokens(name_of(article.title))
        if text and texts[text.casefold()] == 1 and not contains(tokens(text), title):
            found.append(Asked(text, (), "description", article.uri))
    return found


def _description(article: Document) -> str:
    return article.metadata.get("description", "").strip()


def masked(article: Document) -> Document:
    """The article without its title, which its text calls "it" wherever it stands."""
    names = sorted({article.title, name_of(article.title)}, key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names if name)
    text = re.sub(pattern, "it", article.text, flags=re.IGNORECASE)
    return replace(article, title="", text=text, sections=())


def _write(path: Path, found: Sequence[Asked]) -> None:
    lines = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in found]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(lines), "utf-8")
    temporary.replace(path)


def main() -> None:
    """Build the files, say what is in them, show a sample."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.questions", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--show", type=int, default=0, metavar="N", help="questions of each file")
    args = parser.parse_args()
    counts = {}
    for name, found in build().items():
        counts[name] = {"n": len(found), **Counter(each.source for each in found)}
        print(f"{folder() / name}.jsonl: {counts[name]}")
        for each in random.Random(0).sample(found, min(args.show, len(found))):
            print(f"  {each.question} | {each.title} | {', '.join(each.answers)}")
    print(json.dumps({"name": "questions", **counts}))


if __name__ == "__main__":
    main()
