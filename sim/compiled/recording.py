"""What has driven a compiled model, so that its waveforms can be written afterwards."""

from collections.abc import Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from halfdome.sim.compiled.model import Model, build
from halfdome.sim.compiled.translation import Translation, design, ports

Step = tuple[int, dict[str, int]]
"""A time in femtoseconds and the pins that change then."""
_time = itemgetter(0)


class Recording:
    """The inputs of a model over time. `last` is the moment of the last change.

    Parameters
    ----------
    name : of the component
    periods : of the clocks that the simulator drives, in seconds, by the name of their pin
    """

    def __init__(self, name: str, translation: Translation, periods: dict[str, float]):
        self._name = name
        self._translation = translation
        self._periods = periods
        self._steps: list[Step] = []
        self.last = 0

    def add(self, time: int, values: dict[str, int]) -> None:
        """Other inputs than periodic clocks have changed."""
        self._steps.append((time, values))

    def write_waves(self, path: Path) -> None:
        """A VCD of everything so far: the design is simulated again, driven as it was.

        Raises `OSError` if the file cannot be written, and `BuildError` of a compilation.
        """
        pins = self._translation.pins()
        top = design(self._translation.top, pins)
        folder = build(top, ports(pins), traced=True, name=self._name)
        model = Model(folder, ports(pins))
        try:
            model.record(path)
            steps = merge(self._clocks(), self._steps, key=_time)
            for time, together in groupby(steps, key=_time):
                for _, values in together:
                    for name, value in values.items():
                        model.pins[name].value = value
                    model.eval()
                model.dump(time)
        finally:
            model.close()

    def _clocks(self) -> Iterator[Step]:
        toggles = merge(*(self._toggles(*clock) for clock in self._periods.items()), key=_time)
        for time, together in groupby(toggles, key=_time):
            yield time, {name: level for _, pin in together for name, level in pin.items()}

    def _toggles(self, name: str, period: float) -> Iterator[Step]:
        """When Amaranth's clock of this period changes."""
        first, step = int(period / 2 * 1e15), int(period * 1e15) // 2
        for count, time in enumerate(range(first, self.last + 1, step)):
            yield time, {name: 1 - count % 2}
