"""One answer in the making.

It touches the conversation once, when it has ended, so that an answer that fails or is refused
leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bot.evidence import Evidence
    from engine import Cancel, Generation, Model, SamplingParams, Step, Usage


@dataclass
class Turn:
    """One answer; iterate `steps` to the end, after which `usage` and `text` are set."""

    model: Model
    ids: list[int]
    params: SamplingParams
    # (text, finish_reason) into the conversation; None leaves the conversation as it is
    commit: Callable[[str, str], None] | None
    stop: tuple[str, ...] = ()  # the user's; params.stop has the template's too
    left_out: range = range(0)  # numbers of the turns that leave the model's view now
    continues: bool = False  # the text goes on in the middle of one: its first space counts
    n_restored: int = 0  # tokens of the prompt that a saved session's cache on disk had,
    restore_s: float = 0.0  # and how long it took to read them back; usage knows neither
    evidence: Evidence | None = None  # what the prompt shows of it
    usage: Usage | None = None
    text: str = ""
    answer_ids: list[int] = field(default_factory=list)

    def steps(
        self, cancel: Cancel, on_progress: Callable[[int, int], None] | None = None
    ) -> Iterator[Step]:
        """Generate; on_progress(done_tokens, total_tokens) is called while the prompt is read."""
        import engine

        generation: Generation = engine.stream(
            self.model,
            self.ids,
            self.params,
            cancel=cancel,
            on_progress=on_progress,
            continues=self.continues,
        )
        yield from generation
        self.usage, self.text = generation.usage, generation.text
        self.answer_ids = generation.token_ids
        if self.commit is not None:
            self.commit(self.text, self.finish_reason)

    @property
    def finish_reason(self) -> str:
        """As in engine.Step; "stop" too when the model began to write the next turn's marker."""
        assert self.usage is not None and self.usage.finish_reason is not None
        reason = self.usage.finish_reason
        return "stop" if reason == "stop_string" and not self.stop else reason

    @property
    def is_kept(self) -> bool:
        """Whether the answer is part of the conversation."""
        return self.commit is not None
