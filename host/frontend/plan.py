"""A model as a platform runs it: programs of the cards and models of the host, in turn."""

import json
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from halfdome.hdl.commands import RowFormat
from halfdome.host import arguments
from halfdome.host.frontend import weights
from halfdome.host.frontend.bags import Bag, Source
from halfdome.host.frontend.calibration import given
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.partition_report import partition_report
from halfdome.host.frontend.steps import HostStep, Port, Taps, Windows
from halfdome.host.runtime.flights import Response
from halfdome.host.runtime.left_out import LeftOut
from halfdome.host.runtime.program import Program

VERSION = 3
"""Rises whenever the meaning of a saved plan changes; older ones are compiled again."""
SUFFIX = ".halfdome"
"""Of files that hold a compiled model."""
_PLAN = "plan.json"

Request = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Argument:
    """An input or output: `shape` has None where a request decides."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]

    def checked(self, value: object) -> np.ndarray:
        """The array of a request. Raises `ModelError` for another dtype or shape."""
        array = given(f"input {self.name}", value, self.dtype)
        fits = len(array.shape) == len(self.shape) and all(
            wanted in (None, found) for wanted, found in zip(self.shape, array.shape, strict=True)
        )
        if array.dtype != self.dtype or not fits:
            sizes = ", ".join("n" if size is None else str(size) for size in self.shape)
            raise ModelError(
                f"input {self.name}: is {arguments.described(array)}, must be {self.dtype}[{sizes}]"
            )
        return array


@dataclass(frozen=True)
class CardPart:
    """A step of the cards.

    Attributes
    ----------
    program : Program, for `requests` requests of the model at a time
    inputs, outputs : ports of its tensors
    bags : those whose rows it pools itself
    samples : samples of a request
    requests : int
    layers : names of graph nodes by label of the ONNX node that they stand for
    """

    program: Program
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    bags: tuple[Bag, ...]
    samples: int
    requests: int
    layers: Mapping[str, tuple[str, ...]]

    def packed(self, made: Sequence[Request], values: bool) -> list[dict[str, np.ndarray]]:
        """What the program takes for requests with these tensors, as many together as it works on
        at a time. Without `values`, zeros stand for what has none: they take as long."""
        if not values:
            made = [self._made_up(each) for each in made]
        return [
            self._pack(made[place : place + self.requests])
            for place in range(0, len(made), self.requests)
        ]

    def hand_on(
        self, made: Sequence[dict[str, Any]], responses: Iterable[Response], values: bool
    ) -> None:
        """Adds to the tensors of each request what the program answered, or what stands for that
        without `values`."""
        for place, response in enumerate(responses):
            group = made[place * self.requests :][: self.requests]
            found = self._unpack(response.outputs) if values else [self._left_out()] * len(group)
            for tensors, outputs in zip(group, found, strict=True):
                tensors.update(outputs)

    def _pack(self, tensors: Sequence[Request]) -> dict[str, np.ndarray]:
        """What the program takes for some requests, at most `requests`."""
        made = {port.value: port.pack([each[port.tensor] for each in tensors])
                for port in self.inputs}  # fmt: skip
        rooms = {each.indices: each.longest for each in self.program.bags}
        for bag in self.bags:
            operands = [bag.operands(each, rooms[bag.names[0]]) for each in tensors]
            for name in bag.names:
                made[name] = np.concatenate([each[name] for each in operands])
        return made

    def _made_up(self, tensors: Request) -> dict[str, np.ndarray]:
        """Tensors of a request, with zeros for inputs that have no values: they take as long."""
        zeros = {
            port.tensor: np.zeros(port.shape, port.dtype)
            for port in self.inputs
            if isinstance(tensors[port.tensor], LeftOut)
        }
        return {**tensors, **zeros}

    def _left_out(self) -> dict[str, LeftOut]:
        """What stands for the output tensors of a request, if the cards compute no values."""
        return {port.tensor: LeftOut(port.shape, port.dtype) for port in self.outputs}

    def _unpack(self, made: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Tensors of each request."""
        columns = {port.tensor: port.unpack(made[port.value]) for port in self.outputs}
        count = len(next(iter(columns.values())))
        return [{name: arrays[place] for name, arrays in columns.items()} for place in range(count)]


@dataclass(frozen=True)
class Plan:
    """A compiled model.

    Attributes
    ----------
    inputs, outputs : Argument of each, in order
    steps : HostStep and CardPart, in the order in which they run
    cards : int
    config : str, what its programs are for: hash of the cards' configuration
    about : for reports: name of the model, and operators of its nodes by label
    report : what is where, why, and its bytes over the links; see `partition_report`
    """

    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    steps: tuple[HostStep | CardPart, ...]
    cards: int
    config: str
    about: Mapping[str, object]

    @property
    def parts(self) -> list[CardPart]:
        """The steps of the cards."""
        return [step for step in self.steps if isinstance(step, CardPart)]

    @property
    def report(self) -> dict:
        return partition_report(self)

    def checked(self, request: object) -> dict[str, np.ndarray]:
        """The arrays of a request. Raises `ModelError` naming what is missing, unknown or wrong."""
        names = ", ".join(each.name for each in self.inputs)
        if not isinstance(request, Mapping):
            raise ModelError(f"request: is a {type(request).__name__}, must map names to arrays")
        if unknown := set(request) - {each.name for each in self.inputs}:
            raise ModelError(f"input {min(map(str, unknown))}: unknown; inputs are {names}")
        for each in self.inputs:
            if each.name not in request:
                raise ModelError(f"input {each.name}: missing from the request; inputs are {names}")
        return {each.name: each.checked(request[each.name]) for each in self.inputs}

    def split(self, where: str, arrays: Request) -> list[dict[str, np.ndarray]]:
        """The requests that arrays hold: one, or many along an extra first axis of each.

        `where` is what errors call them. Raises `ModelError` as `checked` does, and for inputs that
        differ in how many requests they hold.
        """
        many = {
            each.name: each.name in arrays and np.ndim(arrays[each.name]) > len(each.shape)
            for each in self.inputs
        }
        counts = {name: len(arrays[name]) if many[name] else 1 for name in arrays if name in many}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ModelError(f"{where}: inputs differ in how many requests they hold: {told}")
        made = []
        for place in range(max(counts.values(), default=1)):
            request = {
                name: array[place] if many.get(name) else array for name, array in arrays.items()
            }
            try:
                made.append(self.checked(request))
            except ModelError as error:
                raise ModelError(f"{where}: {error}") from None
        if not made:
            raise ModelError(f"{where}: holds no request; give one or more")
        return made

    def save(self, path: str | Path) -> None:
        """Writes it as one archive: models of the host, programs, and what binds them.

        Raises `ValueError` for a path that cannot be written.
        """
        path = arguments.output_file(path)
        about: dict[str, object] = {
            "version": VERSION, "cards": self.cards, "config": self.config, "about": self.about,
            "inputs": [_argument(each) for each in self.inputs],
            "outputs": [_argument(each) for each in self.outputs],
        }  # fmt: skip
        with zipfile.ZipFile(path, "w") as archive, tempfile.TemporaryDirectory() as folder:
            steps = []
            for number, step in enumerate(self.steps):
                if isinstance(step, HostStep):
                    for file in weights.save(step.model, Path(folder) / f"{number}.onnx"):
                        archive.write(file, file.name)
                    steps.append({"host": [step.inputs, step.outputs, dict(step.reasons)]})
                    continue
                file = Path(folder) / f"{number}.safetensors"
                step.program.save(file)
                archive.write(file, file.name)
                steps.append({
                    "inputs": [_port(port) for port in step.inputs],
                    "outputs": [_port(port) for port in step.outputs],
                    "bags": [_bag(bag) for bag in step.bags],
                    "samples": step.samples, "requests": step.requests,
                    "layers": dict(step.layers),
                })  # fmt: skip
            archive.writestr(_PLAN, json.dumps(about | {"steps": steps}))

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        """Reads what `save` wrote.

        Raises `ModelError` for a file that is missing, damaged, no plan or of another version.
        """
        try:
            with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
                archive.extractall(folder)
                about = json.loads((Path(folder) / _PLAN).read_text())
                if about["version"] != VERSION:
                    raise ModelError(
                        f"{path}: version {about['version']}, this release reads version "
                        f"{VERSION}; compile the model again"
                    )
                steps = tuple(
                    _step(step, Path(folder), number) for number, step in enumerate(about["steps"])
                )
        except FileNotFoundError:
            raise ModelError(f"{path}: there is no such file") from None
        except (zipfile.BadZipFile, KeyError, TypeError, OSError, NotImplementedError) as error:
            raise ModelError(f"{path}: is no compiled model, or damaged ({error})") from None
        ends = {
            side: tuple(
                Argument(each["name"], np.dtype(each["dtype"]), tuple(each["shape"]))
                for each in about[side]
            )
            for side in ("inputs", "outputs")
        }
        return cls(ends["inputs"], ends["outputs"], steps, about["cards"], about["config"],
                   about["about"])  # fmt: skip


def _argument(each: Argument) -> dict[str, object]:
    return {"name": each.name, "dtype": each.dtype.name, "shape": each.shape}


def _port(port: Port) -> Mapping[str, object]:
    return asdict(port) | {"dtype": port.dtype.name}


def _bag(bag: Bag) -> Mapping[str, object]:
    """Without its table, which is in the program; its rows are counted."""
    return {name: value for name, value in asdict(bag).items() if name != "table"} | {
        "table": bag.table.shape
    }


def _step(step: dict, folder: Path, number: int) -> HostStep | CardPart:
    if "host" in step:
        inputs, outputs, reasons = step["host"]
        model = onnx.load(folder / f"{number}.onnx")
        return HostStep(model, tuple(inputs), tuple(outputs), reasons)
    ports = {side: tuple(_as_port(port) for port in step[side]) for side in ("inputs", "outputs")}
    return CardPart(
        Program.load(folder / f"{number}.safetensors"), ports["inputs"], ports["outputs"],
        tuple(_as_bag(bag) for bag in step["bags"]), step["samples"], step["requests"],
        {label: tuple(names) for label, names in step["layers"].items()},
    )  # fmt: skip


def _as_port(port: dict) -> Port:
    lists = {name: tuple(port[name]) for name in ("shape", "order", "dims")}
    windows = port["windows"]
    if windows:
        windows = Windows(tuple(Taps(**each) for each in windows["axes"]), windows["fill"])
    return Port(port["tensor"], port["value"], np.dtype(port["dtype"]), **lists, windows=windows)


def _as_bag(bag: dict) -> Bag:
    def source(name: str) -> Source | None:
        given = bag[name]
        return given and Source(given["input"], tuple(given["places"]))

    sources = {name: source(name) for name in ("indices", "offsets", "weights")}
    table = np.broadcast_to(np.uint8(0), bag["table"])
    row_format = RowFormat(bag["row_format"])
    return Bag(**{**bag, **sources, "table": table, "row_format": row_format})
