"""Which texts mark roles and turns in a template: found by looking at what it writes.

Its code would not do: many templates put their markers together from pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

# what role and turn markers look like, special tokens or not
MARKER = re.compile(
    r"<[|｜][^<>|｜\s]{1,48}[|｜]>"  # <|user|>, <｜User｜>
    r"|<</?[A-Z]{2,16}>>"  # <<SYS>>
    r"|\[/?[A-Z_]{3,32}\]"  # [INST]
    r"|</?[A-Za-z_]{1,32}>:?"  # <human>:, <start_of_turn>, </s>
    r"|#{2,4} ?[A-Z][A-Za-z ]{1,30}:"  # ### Instruction:
    r"|(?<![A-Za-z])(?:[A-Za-z0-9]+ ){0,2}"  # GPT4 Correct User:, USER:
    r"(?:[Uu]ser|USER|[Aa]ssistant|ASSISTANT|[Ss]ystem|SYSTEM|[Hh]uman|HUMAN|[Bb]ot|BOT|AI|Q|A):"
)
# markers that a template writes only in some conversations, or not at all in a probe
KNOWN = (
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<|user|>", "<|assistant|>", "<|system|>"),
    *("<|end|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "<human>:", "<bot>:"),
    *("### Instruction:", "### Response:", "### Human:", "### Assistant:"),
)


@dataclass(frozen=True, slots=True)
class Scaffold:
    """What a template writes around contents.

    markers       every marker in it
    stop_strings  those with which another turn begins, as they end a generated text
    after_answer  the text between an answer and the next message
    """

    markers: tuple[str, ...] = ()
    stop_strings: tuple[str, ...] = ()
    after_answer: str = ""


def known_markers(source: str) -> tuple[str, ...]:
    """The usual markers that stand in a template's source."""
    return tuple(marker for marker in KNOWN if marker in source)


def scaffold_of(render: Callable[..., str]) -> Scaffold:
    """Render probe conversations and look between their contents; what raises is left out."""
    between: list[str] = []
    turns: list[str] = []
    after_answer: str | None = None
    for roles in (["user", "assistant", "user"], ["system", "user", "assistant", "user"]):
        probes = [f"\ue000{chr(0xE100 + i)}\ue001" for i in range(len(roles))]
        messages = [{"role": r, "content": c} for r, c in zip(roles, probes, strict=True)]
        try:
            text = render(messages)
        except ValueError:
            continue
        pieces = re.split("(" + "|".join(map(re.escape, probes)) + ")", text)
        between += pieces[::2]
        if probes[-2] in pieces:
            at = pieces.index(probes[-2])  # the answer's; a template may move system text
            turns += [pieces[at - 1], pieces[at + 1], pieces[-1]]
            after_answer = pieces[at + 1] if after_answer is None else after_answer
    return Scaffold(_unique(between), _stops(turns), after_answer or "")


def _unique(pieces: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(m.strip() for piece in pieces for m in MARKER.findall(piece)))


def _stops(pieces: list[str]) -> tuple[str, ...]:
    # "User:" within a sentence ends nothing; at the start of a line it does
    return tuple(f"\n{m}" if m[0].isalnum() else m for m in _unique(pieces))
