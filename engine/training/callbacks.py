"""What `model.train` asks at the ends of epochs, as BOLT's callbacks are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

History = Mapping[str, Sequence[float]]


class Callback(Protocol):
    """A subclass needs neither method of Nothing."""

    def learning_rate(self, epoch: int, rate: float) -> float:
        """The rate of epoch `epoch`, from 0; `rate` is what it would be."""

    def on_epoch_end(self, epoch: int, history: History) -> str:
        """Why the training ends with this epoch, in one line; "" when it does not.

        history  what `model.train` will return, so far
        """


class Nothing:
    """A callback that changes nothing."""

    def learning_rate(self, epoch: int, rate: float) -> float:
        """See Callback."""
        return rate

    def on_epoch_end(self, epoch: int, history: History) -> str:
        """See Callback."""
        return ""


class LearningRateSchedule(Nothing):
    """schedule(epoch, rate) -> the epoch's learning rate; epochs count from 0."""

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        self._schedule = schedule

    def learning_rate(self, epoch: int, rate: float) -> float:
        """See Callback."""
        return self._schedule(epoch, rate)


class EarlyStopping(Nothing):
    """Ends the training when a metric did not get better for `patience` epochs.

    metric     a key of the history, such as "val_loss"; accuracies are better the higher they are
    min_delta  what counts as better
    """

    def __init__(self, metric: str = "val_loss", patience: int = 2, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        self._metric, self._patience, self._min_delta = metric, patience, min_delta

    def on_epoch_end(self, epoch: int, history: History) -> str:
        """See Callback. ValueError when the metric is not computed."""
        if self._metric not in history:
            known = ", ".join(history)
            raise ValueError(f"EarlyStopping watches {self._metric!r}, but there are {known}")
        sign = 1 if self._metric.endswith("accuracy") else -1
        values = [sign * value for value in history[self._metric]]
        best, since = values[0], 0
        for value in values[1:]:
            is_better = value > best + self._min_delta
            best, since = (value, 0) if is_better else (best, since + 1)
        if since >= self._patience:
            return f"{self._metric} did not get better for {since} epochs"
        return ""
