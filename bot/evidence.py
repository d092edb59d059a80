"""Evidence: passages of a knowledge base as the model reads them, in a turn of their own.

The form is what a model of 135 million weights answers best from. Of 120 questions it got right
(greedy, ±.045): without passages .26; numbered passages with titles before the question .38; bare
texts in a turn behind the question .53, in the question's own turn .51. After two other turns of
conversation it was .58, against .45 for passages before the question (60 questions, ±.06). So
numbers stand in the citations alone.

Documents are written by anyone. Marks of roles, special tokens and characters that nobody sees are
taken out of them. (The tokenizer besides keeps every content from spelling its template's control
tokens.)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.search import Search

MIN_TOKENS = 24  # of a passage that was cut; less says nothing
# of the best score: what is further behind only leads a small model astray (it told of the garden
# when it was asked for the bicycle, and had the right passage first)
NEAR_BEST = 0.6
SEPARATOR_TOKENS = 4  # a blank line, which may be counted otherwise beside a text than alone
_FIRST_LINE = "Use this:"

# what marks roles and turns in templates, ours and those of others
_ANGLED = re.compile(
    r"<(?=[|｜][^<>]{1,48}[|｜]>|/?(?:s|human|bot|user|assistant|system)>|(?:start|end)_of_turn>"
    r"|</?SYS>>)",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"\[(/?INST)\]")
_LABELLED = re.compile(
    r"^([ \t#*>\-]*(?:human|user|assistant|system|bot|ai|instruction|response))[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_BLANK_LINES = re.compile(r"\n\s*\n\s*")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|\n+")


@dataclass(frozen=True, slots=True)
class Source:
    """One numbered passage. `text` is the stored document's text[start:end].

    hit   offsets into `text` of the part that was found; around it stand its neighbours
    used  whether the answer drew on it; None where that cannot be told
    """

    number: int
    title: str
    uri: str
    text: str
    score: float
    url: str = ""
    page: int | None = None
    line: int | None = None
    headings: tuple[str, ...] = ()
    start: int = 0
    end: int = 0
    chunk_id: int = 0
    document_id: int = 0
    hit: tuple[int, int] = (0, 0)
    dense: float | None = None  # what each leg of the search said: cosine and BM25, and the ranks
    lexical: float | None = None
    dense_rank: int | None = None
    lexical_rank: int | None = None
    used: bool | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one question found. `mode` is how the base was searched, `why` why not better.

    threshold   scores below it count as nothing found
    n_left_out  passages for which the prompt had no room
    """

    base: str
    query: str
    mode: str
    why: str = ""
    sources: tuple[Source, ...] = ()
    threshold: float = 0.0
    n_left_out: int = 0


def evidence_of(base: str, search: Search) -> Evidence:
    """A search's passages, numbered from 1."""
    sources = []
    for number, passage in enumerate(search.passages, start=1):
        sources.append(
            Source(
                number=number,
                title=passage.title,
                uri=passage.uri,
                text=passage.text,
                score=passage.score,
                url=passage.url,
                page=passage.page,
                line=passage.line,
                headings=tuple(passage.headings),
                start=passage.start,
                end=passage.end,
                chunk_id=passage.chunk_id,
                document_id=passage.document_id,
                hit=(passage.hit_start - passage.start, passage.hit_end - passage.start),
                dense=passage.dense,
                lexical=passage.lexical,
                dense_rank=passage.dense_rank,
                lexical_rank=passage.lexical_rank,
            )
        )
    return Evidence(base, search.query, search.mode, search.why, tuple(sources), search.threshold)


def near_best(evidence: Evidence) -> Evidence:
    """Without the sources that are far behind the best one."""
    least = NEAR_BEST * max((source.score for source in evidence.sources), default=0.0)
    sources = tuple(source for source in evidence.sources if source.score >= least)
    return replace(evidence, sources=sources)


def block_of(sources: Sequence[Source]) -> str:
    """The text of the turn that shows `sources` to the model; "" for none."""
    if not sources:
        return ""
    return f"{_FIRST_LINE}\n" + "\n\n".join(map(_shown, sources))


def fitting(
    sources: Sequence[Source], count: Callable[[str], int], n_tokens: int
) -> tuple[Source, ...]:
    """The sources whose block has at most n_tokens; cut to their share where they are too long.

    count  tokens of a text. Each source may take its share of what those before it left; cut to it,
    the part that was found is kept longest. What is cut leaves `text`, `start` and `end` in accord.
    """
    kept: list[Source] = []
    for place, source in enumerate(sources):
        left = n_tokens - (count(block_of(kept)) if kept else count(block_of([_empty(source)])))
        share = left // (len(sources) - place) - SEPARATOR_TOKENS
        cut = _cut(source, count, share)
        if cut is not None and count(block_of([*kept, cut])) <= n_tokens:
            kept.append(replace(cut, number=len(kept) + 1))
    return tuple(kept)


def neutral(text: str) -> str:
    """`text` without what could pass for a turn, or is not seen at all."""
    text = _LINE_END.sub("\n", text)
    text = "".join(char for char in text if char in "\n\t" or _is_seen(char))
    text = _ANGLED.sub("< ", text)
    text = _BRACKETED.sub(r"(\1)", text)
    return _LABELLED.sub(r"\1 -", text)


def _is_seen(char: str) -> bool:
    """False for control characters and those that only steer others (bidi, zero width, tags)."""
    category = unicodedata.category(char)
    if category == "Cf":
        return char in "\u200c\u200d"  # some scripts are not read without these joiners
    return category not in ("Cc", "Cs", "Co", "Cn")


def _shown(source: Source) -> str:
    """A blank line parts two passages, so there is none in one."""
    return _BLANK_LINES.sub("\n", neutral(source.text)).strip()


def _empty(source: Source) -> Source:
    return replace(source, text="", end=source.start)


def _cut(source: Source, count: Callable[[str], int], n_tokens: int) -> Source | None:
    """`source` with the text around its hit that n_tokens hold; None when that is too little."""
    n_all = count(_shown(source))
    if n_all <= n_tokens:
        return source
    if n_tokens < MIN_TOKENS:
        return None
    n_chars = len(source.text) * n_tokens // n_all
    while n_chars > 0:
        first, last = _window(source.text, source.hit, n_chars)
        cut = replace(
            source,
            text=source.text[first:last],
            start=source.start + first,
            end=source.start + last,
            hit=(max(0, source.hit[0] - first), min(source.hit[1], last) - first),
            line=None if source.line is None else source.line + source.text[:first].count("\n"),
        )
        if cut.text and count(_shown(cut)) <= n_tokens:
            return cut
        n_chars = n_chars * 9 // 10
    return None


def _window(text: str, hit: tuple[int, int], n_chars: int) -> tuple[int, int]:
    """The n_chars around the hit, or its beginning, in whole sentences where that is possible."""
    spare = n_chars - (hit[1] - hit[0])
    first = hit[0] if spare <= 0 else max(0, min(hit[0] - spare // 3, len(text) - n_chars))
    last = min(len(text), first + n_chars)
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    if first and first != hit[0]:
        first = next((end for end in ends if first <= end <= hit[0]), hit[0])
    if last < len(text):
        whole = [end for end in ends if first < end <= last]
        last = whole[-1] if whole else _last_blank(text, first, last)
    while last > first and text[last - 1].isspace():
        last -= 1
    return first, last


def _last_blank(text: str, first: int, last: int) -> int:
    """Where the last whole word in text[first:last] ends."""
    at = max(text.rfind(blank, first, last) for blank in " \n\t")
    return at if at > first else last
