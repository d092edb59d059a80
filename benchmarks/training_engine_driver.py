"""Our side of training: `engine.training.train`, the whole of it, as the command line calls it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.training_side import Loop, TrainingSide

_ENDLESS = 1 << 20  # steps


class Engine(TrainingSide):
    """The run that this process makes."""

    def open(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Begin a run, and wait before its first step; `steps` goes on."""
        from engine.training.events import Event, Started, Step
        from engine.training.settings import settings_from
        from engine.training.train import train

        made = settings_from(settings)
        _remove(made.name)
        started = time.perf_counter()
        begun: dict[str, Any] = {}

        def work(loop: Loop) -> None:
            def hear(event: Event) -> None:
                if isinstance(event, Started):
                    begun.update(base=event.base, cosine=event.cosine, expected=event.memory_bytes)
                    loop.wait()
                elif isinstance(event, Step):
                    loop.made(event.n_tokens, event.loss)

            def go_on() -> bool:
                loop.wait()
                return False

            train(made, on_event=hear, should_stop=go_on)

        self._loop = Loop(work)
        self._loop.ready()
        return begun | {"load_s": time.perf_counter() - started}

    def run(
        self, settings: dict[str, Any], stop_after: int | None = None, die_after: int | None = None
    ) -> dict[str, Any]:
        """A run to its end, or stopped after a step as Ctrl-C does, or killed behind a step."""
        from engine.training.settings import settings_from
        from engine.training.train import train

        made = settings_from(settings)
        _remove(made.name)
        return _told(
            lambda hear, should_stop: train(made, on_event=hear, should_stop=should_stop),
            stop_after,
            die_after,
        )

    def resume(self, name: str) -> dict[str, Any]:
        """The rest of a run."""
        from engine.training.run import runs_dir
        from engine.training.train import resume

        return _told(
            lambda hear, should_stop: resume(
                runs_dir() / name, on_event=hear, should_stop=should_stop
            )
        )

    def losses(self, name: str) -> dict[str, Any]:
        """Of all steps of a run, as it wrote them down."""
        from engine.training.run import Run, runs_dir

        lines = Run(runs_dir() / name).history()
        return {"losses": [line["loss"] for line in lines if line["event"] == "step"]}

    def optimizers(self, model: str, names: Sequence[str], threads: int) -> dict[str, Any]:
        """Seconds of a step over all weights of a model, of each of the optimizers."""
        from benchmarks.training_optimizers import Steps

        if not hasattr(self, "_steps"):
            self._steps = Steps(Path(model), threads)
        return {name: self._steps.seconds(name) for name in names}

    def answers(
        self, model: str, adapter: str | None, questions: Sequence[str], max_tokens: int
    ) -> dict[str, Any]:
        """Greedy answers to questions that are asked alone."""
        import engine

        loaded = engine.load(Path(model))
        loaded.set_adapter(adapter)
        assert loaded.tokenizer is not None, model
        params = engine.SamplingParams(temperature=0, max_tokens=max_tokens)
        texts = []
        for question in questions:
            prompt = loaded.tokenizer.encode_chat([{"role": "user", "content": question}])
            texts.append("".join(step.text for step in engine.stream(loaded, prompt, params)))
        loaded.close()
        return {"texts": texts}


def _told(
    run: Callable[[Callable[..., None], Callable[[], bool]], Any],
    stop_after: int | None = None,
    die_after: int | None = None,
) -> dict[str, Any]:
    """Run, and what there was to hear of it."""
    from engine.training.events import Evaluated, Event, Started, Step

    losses: list[float] = []
    evaluated: list[list[float]] = []
    begun: dict[str, Any] = {}

    def hear(event: Event) -> None:
        if isinstance(event, Started):
            begun.update(base=event.base, cosine=event.cosine)
        elif isinstance(event, Evaluated):
            evaluated.append([event.step, event.loss, event.accuracy])
        elif isinstance(event, Step):
            losses.append(event.loss)
            if event.step == die_after:
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    result = run(hear, lambda: len(losses) == stop_after)
    return begun | {
        "losses": losses,
        "evaluated": evaluated,
        "path": str(result.path),
        "seconds": result.seconds,
        "finished": result.finished,
    }


def _remove(name: str) -> None:
    """What another benchmark left under this name."""
    from data.paths import data_dir
    from engine.training.run import runs_dir

    for folder in (runs_dir() / name, data_dir() / "adapters" / name):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    Engine().serve("open", "run", "resume", "losses", "optimizers", "answers")
