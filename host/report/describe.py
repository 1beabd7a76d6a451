"""Commands in words: what they do, how much, from where to where."""

from collections.abc import Callable
from enum import IntEnum

from halfdome.hdl.commands import ElementFormat, Engine, Flag, Function, Opcode, RowFormat
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import NO_COUNTER, offset, unpack, waits
from halfdome.hdl.descriptors import fields as fields_of
from halfdome.hdl.registers import BAR0_BYTES, COUNTER_BASE
from halfdome.host.driver.timeline import peer_counter
from halfdome.host.report.recording import Recording
from halfdome.host.report.size import size

_CORE = offset(Opcode.LOAD, "core")


class Describer:
    """Names places on the bus and in a card as they are in one recording."""

    def __init__(self, recording: Recording):
        self._config: CardConfig = recording.config
        self._cards = recording.cards

    def queue(self, raw: bytes) -> tuple[int, Engine]:
        """Core and engine whose queue a descriptor joins; a bad one joins one, too."""
        core, engine = raw[_CORE], raw[0] >> 4
        return (
            core if core < self._config.cores else 0,
            Engine(engine) if engine < len(Engine) else Engine.LOAD,
        )

    def command(self, card: int, raw: bytes) -> tuple[str, dict]:
        """What a descriptor asks for, as a title and the details."""
        if raw[0] not in set(Opcode):
            return f"opcode {raw[0]:#04x}", {}
        opcode = Opcode(raw[0])
        values = unpack(fields_of(opcode), raw)
        title, arguments = _TITLES.get(opcode, _fence)(self, card, values)
        if awaited := waits(raw):
            texts = (f"{self._counter(counter)} >= {value}" for counter, value in awaited)
            arguments |= {"waits_for": " and ".join(texts)}
        if values["signal_counter"] != NO_COUNTER:
            counter, value = values["signal_counter"], values["signal_value"]
            arguments |= {"then_sets": f"{self._counter(counter)} = {value}"}
        return f"{opcode.name} {title}".rstrip(), arguments

    def bus(self, address: int) -> str:
        """A PCIe bus address: whose memory it is in."""
        for index, record in enumerate(self._cards):
            if 0 <= address - record.bar2 < self._config.window_bytes:
                return self.local(index, address - record.bar2)
            if 0 <= address - record.bar0 < BAR0_BYTES:
                return f"card {index} registers"
        return "host"

    def local(self, card: int, address: int) -> str:
        """A card's own address: DRAM or scratchpad."""
        core, inside = divmod(address - self._config.scratchpad_base, self._config.scratchpad_bytes)
        if inside < 0 or core < 0:
            return f"card {card} DRAM"
        number = f" {core}" if self._config.cores > 1 else ""
        return f"card {card} scratchpad{number}"

    def _counter(self, index: int) -> str:
        """A timeline counter, as the runtime uses them: one of each engine, one of each card."""
        core, engine = divmod(index, len(Engine))
        if core < self._config.cores:
            named = f"core {core} " if self._config.cores > 1 else ""
            return f"counter {index} ({named}{Engine(engine).name.lower()})"
        return f"counter {index} (card {index - peer_counter(self._config, 0)})"

    def load(self, card: int, values: dict[str, int]) -> tuple[str, dict]:
        return self._move(
            self.bus(values["source"]), self.local(card, values["destination"]), values
        )

    def copy(self, card: int, values: dict[str, int]) -> tuple[str, dict]:
        places = (self.local(card, values[name]) for name in ("source", "destination"))
        return self._move(*places, values)

    def transpose(self, card: int, values: dict[str, int]) -> tuple[str, dict]:
        batches, rows, columns = (values[name] for name in ("batches", "rows", "columns"))
        nbytes = batches * rows * columns * values["element_bytes"]
        places = {name: self.local(card, values[name]) for name in ("source", "destination")}
        title = f"{batches}x{rows}x{columns} {places['source']} to {places['destination']}"
        return title, {
            "bytes": nbytes,
            "batches": batches,
            "rows": rows,
            "columns": columns,
            "element_bytes": values["element_bytes"],
            **{name: f"{place} {values[name]:#x}" for name, place in places.items()},
        }

    def store(self, card: int, values: dict[str, int]) -> tuple[str, dict]:
        return self._move(
            self.local(card, values["source"]), self.bus(values["destination"]), values
        )

    def _move(self, source: str, destination: str, values: dict[str, int]) -> tuple[str, dict]:
        rows, row_bytes = values["rows"], values["row_bytes"]
        return f"{size(rows * row_bytes)} {source} to {destination}", {
            "bytes": rows * row_bytes,
            "rows": rows,
            "row_bytes": row_bytes,
            "source": f"{source} {values['source']:#x}",
            "destination": f"{destination} {values['destination']:#x}",
        }

    def signal(self, card: int, values: dict[str, int]) -> tuple[str, dict]:
        place = self.bus(values["address"])
        for index, record in enumerate(self._cards):
            counter, rest = divmod(values["address"] - record.bar0 - COUNTER_BASE, 4)
            if not rest and 0 <= counter < self._config.counters:
                place = f"card {index} {self._counter(counter)}"
        return f"{place} = {values['value']}", {"bytes": 4, "destination": place}

    def gather(self, card: int, values: dict[str, int]) -> tuple[str, dict]:
        bags, rows, dim = values["bags"], values["index_count"], values["dim"]
        nbytes, form = rows * values["row_stride"], values["format"]
        weighted = {"weighted": True} if values["flags"] & Flag.WEIGHTED else {}
        title = f"{bags} bags x {rows / max(1, bags):.3g} rows of {dim}, {size(nbytes)}"
        return title, weighted | {
            "bags": bags,
            "rows_read": rows,
            "dim": dim,
            "format": _name(RowFormat, form),
            "bytes_of_rows": nbytes,
            "table": f"{self.local(card, values['table'])} {values['table']:#x}",
            "table_rows": values["rows"],
            "output": f"{self.local(card, values['output'])} {values['output']:#x}",
        }

    def matmul(self, card: int, values: dict[str, int]) -> tuple[str, dict]:
        m, k, n = (values[name] for name in "mkn")
        return f"{m}x{k}x{n}", {
            "m": m,
            "k": k,
            "n": n,
            "macs": m * k * n,
            "x_bytes": m * k,
            "weight_bytes": k * n,
            "y_bytes": m * n,
            "relu": bool(values["flags"] & Flag.RELU),
            "weights": f"{self.local(card, values['w'])} {values['w']:#x}",
        }

    def vector(self, card: int, values: dict[str, int]) -> tuple[str, dict]:
        rows, columns = values["rows"], values["columns"]
        reduction = values["flags"] & (Flag.SUM | Flag.MAX)
        function = values.get("function", Function.IDENTITY)
        words = [str(_name(Function, function))] if function else []
        words += [{Flag.SUM: "SUM", Flag.MAX: "MAX"}.get(reduction, "SUM MAX")] * bool(reduction)
        formats = {
            name: _name(ElementFormat, values[f"{name}_format"])
            for name in "aby"
            if f"{name}_format" in values
        }
        words.append(f"{rows}x{columns} {formats['a']} to {formats['y']}")
        return " ".join(words), {
            "rows": rows,
            "columns": columns,
            "elements": rows * columns,
            "function": _name(Function, function),
            **{f"{name}_format": form for name, form in formats.items()},
        }

    def lookup(self, card: int, values: dict[str, int]) -> tuple[str, dict]:
        rows, columns = values["rows"], values["columns"]
        return f"{rows}x{columns}", {
            "rows": rows,
            "columns": columns,
            "elements": rows * columns,
            "table": f"{self.local(card, values['table'])} {values['table']:#x}",
        }

    def pair(self, card: int, values: dict[str, int]) -> tuple[str, dict]:
        rows, columns = values["rows"], values["columns"]
        return f"{rows}x{columns}", {
            "rows": rows,
            "columns": columns,
            "elements": rows * columns,
            **{f"{name}_format": _name(ElementFormat, values[f"{name}_format"]) for name in "aby"},
        }

    def pool(self, card: int, values: dict[str, int]) -> tuple[str, dict]:
        sides = {
            name: [values[f"{name}_height"], values[f"{name}_width"]]
            for name in ("out", "kernel", "stride")
        }
        out, kernel = ("x".join(map(str, sides[name])) for name in ("out", "kernel"))
        return f"{kernel} to {out}x{values['k']}", {
            **sides,
            "height": values["height"],
            "width": values["width"],
            "channels": values["k"],
            "x": f"{self.local(card, values['x'])} {values['x']:#x}",
            "y": f"{self.local(card, values['y'])} {values['y']:#x}",
        }


def _name(names: type[IntEnum], value: int) -> str | int:
    """The name of a value, or the value of a descriptor that will be refused."""
    return names(value).name if value in set(names) else value


def _fence(describer: Describer, card: int, values: dict[str, int]) -> tuple[str, dict]:
    return "", {}


_TITLES: dict[Opcode, Callable[[Describer, int, dict[str, int]], tuple[str, dict]]] = {
    Opcode.LOAD: Describer.load,
    Opcode.COPY: Describer.copy,
    Opcode.TRANSPOSE: Describer.transpose,
    Opcode.STORE: Describer.store,
    Opcode.SIGNAL: Describer.signal,
    Opcode.GATHER: Describer.gather,
    Opcode.MATMUL: Describer.matmul,
    Opcode.AFFINE: Describer.vector,
    Opcode.ADD: Describer.vector,
    Opcode.MULTIPLY: Describer.vector,
    Opcode.CLAMP: Describer.vector,
    Opcode.QUANTISE: Describer.vector,
    Opcode.LOOKUP: Describer.lookup,
    Opcode.ADD_QUANTISED: Describer.pair,
    Opcode.MULTIPLY_QUANTISED: Describer.pair,
    Opcode.POOL: Describer.pool,
    Opcode.AVERAGE: Describer.pool,
    Opcode.DEPTHWISE: Describer.pool,
}
