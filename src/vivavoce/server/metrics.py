"""Counters, gauges and histograms, and the text in which Prometheus reads them (exposition format 0.0.4).

Our own, since it is a page of code and a dependency would bring a registry that is global. Used from the event loop
alone, so nothing is locked. Invariant: one family has at most `SERIES_MAX` series; label values that come when it is
full count as `other`, so whoever chooses them cannot fill the memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence

TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of what `exposition` gives."""

SERIES_MAX = 512
OTHER = "other"

Labels = tuple[str, ...]


class _Family(ABC):
    """Series of one name, one for each combination of label values."""

    kind = ""

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help
        self.labels = tuple(labels)

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """The series as they stand."""

    def text(self) -> Iterator[str]:
        """With what Prometheus wants to know of the family."""
        yield f"# HELP {self.name} {_escaped(self.help)}"
        yield f"# TYPE {self.name} {self.kind}"
        yield from self.lines()

    def _series(self, name: str, values: Labels, value: float, **more: str) -> str:
        pairs = [*zip(self.labels, values, strict=True), *more.items()]
        shown = ",".join(f'{label}="{_escaped(text, quotes=True)}"' for label, text in pairs)
        return f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}"

    def _bounded(self, known: Mapping[Labels, object], values: Labels) -> Labels:
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name}: expected values of {self.labels}, got {values}")
        return values if values in known or len(known) < SERIES_MAX else (OTHER,) * len(values)


class Counter(_Family):
    """What only grows."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help, labels)
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, amount: float, *values: str) -> None:
        """So much more, for these label values."""
        known = self._bounded(self._values, values)
        self._values[known] = self._values.get(known, 0.0) + amount

    def read(self) -> Mapping[Labels, float]:
        """The values as they stand, by label values; from any thread."""
        return dict(self._values)

    def lines(self) -> Iterator[str]:
        """One line a series."""
        return (self._series(self.name, values, value) for values, value in self._values.items())


class Gauge(_Family):
    """What is as it is when it is read: `read` gives the value for each combination of label values, to any thread."""

    kind = "gauge"

    def __init__(self, name: str, help: str, labels: Sequence[str], read: Callable[[], Mapping[Labels, float]]) -> None:
        super().__init__(name, help, labels)
        self.read = read

    def lines(self) -> Iterator[str]:
        """One line a series."""
        return (self._series(self.name, values, value) for values, value in self.read().items())


class Histogram(_Family):
    """How often values lay below each of the `bounds`, which rise."""

    kind = "histogram"

    def __init__(self, name: str, help: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        super().__init__(name, help, labels)
        self._bounds = tuple(bounds)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, *values: str) -> None:
        """One value more."""
        known = self._bounded(self._counts, values)
        counts = self._counts.setdefault(known, [0] * (len(self._bounds) + 1))
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[known] = self._sums.get(known, 0.0) + value

    def lines(self) -> Iterator[str]:
        """Cumulative buckets, sum and count."""
        for values, counts in self._counts.items():
            total = 0
            for bound, count in zip((*map(_number, self._bounds), "+Inf"), counts, strict=True):
                total += count
                yield self._series(f"{self.name}_bucket", values, total, le=bound)
            yield self._series(f"{self.name}_sum", values, self._sums[values])
            yield self._series(f"{self.name}_count", values, total)


def exposition(families: Sequence[_Family]) -> str:
    """All of them, as Prometheus reads them."""
    return "".join(f"{line}\n" for family in families for line in family.text())


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escaped(text: str, *, quotes: bool = False) -> str:
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if quotes else escaped
