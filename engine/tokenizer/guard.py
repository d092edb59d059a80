"""Text from users stays text: it cannot become control tokens or role markers of a chat.

Contents are searched before they are rendered. Where a control token's spelling stands in one, a
noncharacter is put into it (`BREAK`), so that the rendered chat shows which occurrences the
template wrote: those without. The breaks are taken out again after the control tokens were found,
and never reach the model. A role marker that is no token of its own ("[INST]" in Llama 2) could not
be told apart in the ids; such a marker gets a zero-width space that stays.

What a content and the template around it, or two contents, would spell only together is broken
in the same way: a break goes to every edge that could be part of such a spelling.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

BREAK = "\ufdd0"
PRIVATE = "\ufdd1"  # begins and ends the spelling that control tokens have in `_blind`
ZERO_WIDTH_SPACE = "\u200b"
OURS = dict.fromkeys(map(ord, "\ufdd0\ufdd1\ufdd2"))
# normalizers that make no control token out of anything else, and those that make none of ASCII
HARMLESS = {"Prepend", "Replace", "Sequence", "Strip"}
FORMS = {"NFC", "NFD", "NFKC", "NFKD"}


class Guard:
    """Protects one tokenizer with one template.

    backend  recognises control tokens in text
    control  id: spelling of the tokens that no content may forge
    markers  other spellings that no content may forge; one that begins with a letter counts only
             at the start of a line
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, control: Mapping[int, str], markers: Iterable[str]
    ) -> None:
        self._backend = backend
        self._id_of = {spelling: i for i, spelling in control.items()}
        marking = {m for m in markers if len(m) > 1 and m not in self._id_of}
        self._control = _alternatives(map(re.escape, _longest_first(self._id_of)))
        self._markers = _alternatives(
            ("(?m:^)" if m[0].isalpha() else "") + re.escape(m) for m in _longest_first(marking)
        )
        self._spellings = marking.union(self._id_of)
        self._beginnings = {s[:n] for s in self._spellings for n in range(1, len(s))}
        self._endings = {s[n:] for s in self._spellings for n in range(1, len(s))}
        self._longest = max(map(len, self._beginnings), default=0)
        self._normalizers = _kinds(backend.normalizer) - HARMLESS

    def encode(self, text: str) -> list[int]:
        """`text` as ordinary text, whatever it spells."""
        if not self._control.search(text) and not self._has_lookalikes(text):
            return _ids(self._backend, text)
        return _ids(self._blind, text.replace(PRIVATE, "\ufffd"))

    def marked(self, content: str) -> str:
        """`content` for rendering, broken wherever it spells something that it may not."""
        content = content.translate(OURS)
        content = _inserted(content, ZERO_WIDTH_SPACE, _second_characters(self._markers, content))
        breaks = set(_second_characters(self._control, content))
        return _inserted(content, BREAK, sorted(breaks.union(self._edges(content))))

    def encode_rendered(self, rendered: str) -> list[int]:
        """Ids of a chat that was rendered from `marked` contents."""
        settled = self._settle_markers(rendered)
        text = settled.replace(BREAK, "")
        written = self._respelled(settled).replace(BREAK, "")
        if written == self._respelled(text) and not self._has_lookalikes(text):
            return _ids(self._backend, text)  # without breaks nothing else would be read
        return _ids(self._blind, written)

    def _respelled(self, text: str) -> str:
        """`text` with its control tokens in the spelling of `_blind`."""
        return self._control.sub(lambda match: _private(self._id_of[match[0]]), text)

    def _has_lookalikes(self, text: str) -> bool:
        """Whether the normalizer makes more control tokens out of `text` than it spells."""
        kinds = self._normalizers - FORMS if text.isascii() else self._normalizers
        if not kinds:
            return False
        normalized = self._backend.normalizer.normalize_str(text)
        return len(self._control.findall(normalized)) > len(self._control.findall(text))

    def _edges(self, content: str) -> Iterable[int]:
        """Places near both ends where what stands beside `content` could complete a spelling.

        Templates may trim contents, so the ends without their spaces are looked at as well.
        """
        for end in {len(content), len(content.rstrip())}:
            for n in range(1, min(self._longest, end) + 1):
                if content[end - n : end] in self._beginnings:
                    yield end - n + 1
        for start in {0, len(content) - len(content.lstrip())}:
            if any(
                content[start : start + n] in self._endings for n in range(1, self._longest + 1)
            ):
                yield start
        middle = content.strip()
        if middle and any(middle in spelling for spelling in self._spellings):
            yield content.index(middle)

    def _settle_markers(self, rendered: str) -> str:
        """Breaks inside of a marker, half of it content, half surroundings, become permanent."""
        pieces = rendered.split(BREAK)
        text = "".join(pieces)
        cuts: list[int] = []
        for piece in pieces[:-1]:
            cuts.append((cuts[-1] if cuts else 0) + len(piece))
        permanent = set()
        for start, end in _overlapping(self._markers, text) if cuts else ():
            first = bisect_right(cuts, start)
            if first < len(cuts) and cuts[first] < end:
                permanent.add(cuts[first])
        joined = [pieces[0]]
        for cut, piece in zip(cuts, pieces[1:], strict=True):
            joined += [ZERO_WIDTH_SPACE if cut in permanent else BREAK, piece]
        return "".join(joined)

    @cached_property
    def _blind(self) -> tokenizers.Tokenizer:
        """The tokenizer with control tokens spelled as no text is: ids equal, text harmless."""
        from tokenizers import Tokenizer

        description = json.loads(self._backend.to_str())
        respelled = {spelling: _private(i) for spelling, i in self._id_of.items()}
        for token in description["added_tokens"]:
            if token["content"] in respelled:
                token.update(content=respelled[token["content"]], normalized=False)
        description["post_processor"] = None
        model = description["model"]
        vocabulary = model["vocab"]
        if isinstance(vocabulary, dict):
            model["vocab"] = {respelled.get(piece, piece): i for piece, i in vocabulary.items()}
        else:
            model["vocab"] = [[respelled.get(piece, piece), score] for piece, score in vocabulary]
        if model.get("unk_token") in respelled:
            model["unk_token"] = respelled[model["unk_token"]]
        merges = (m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or ())
        kept = [[a, b] for a, b in merges if not {a, b, a + b} & respelled.keys()]
        if "merges" in model:
            model["merges"] = kept
        return Tokenizer.from_str(json.dumps(description))


def _ids(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


def _kinds(normalizer: Any) -> set[str]:
    """The kinds of normalizer that a chain consists of."""
    if normalizer is None:
        return set()
    return set(re.findall(r'"type":"(\w+)"', normalizer.__getstate__().decode()))


def _private(token_id: int) -> str:
    return f"{PRIVATE}{token_id}{PRIVATE}"


def _longest_first(spellings: Iterable[str]) -> list[str]:
    return sorted(spellings, key=lambda s: (-len(s), s))


def _alternatives(patterns: Iterable[str]) -> re.Pattern[str]:
    """The first that matches; of spellings given longest first, the longest."""
    return re.compile("|".join(patterns) or "(?!)")


def _overlapping(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of every match, also of those that begin within another."""
    match = pattern.search(text)
    while match:
        yield match.span()
        match = pattern.search(text, match.start() + 1)


def _second_characters(pattern: re.Pattern[str], text: str) -> list[int]:
    return [start + 1 for start, _ in _overlapping(pattern, text)]


def _inserted(text: str, character: str, places: list[int]) -> str:
    """`text` with `character` before each of the places, which ascend."""
    if not places:
        return text
    starts, ends = [0, *places], [*places, len(text)]
    return character.join(text[a:b] for a, b in zip(starts, ends, strict=True))
