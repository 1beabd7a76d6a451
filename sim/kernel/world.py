"""The C++ world (cards, DRAM, fabric, host memory) driven through ctypes.

ctypes releases the interpreter lock for the length of every call, so a run of any length enters
Python once, except where a card is simulated by Python.
"""

import ctypes
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Protocol

import numpy as np

from halfdome.sim.build.compiler import SIM, library
from halfdome.sim.dram.presets import DramSettings
from halfdome.sim.fabric.config import Bars, FabricSettings
from halfdome.sim.fabric.faults import Fault, FaultCounts, FaultKind, FaultRecord, records
from halfdome.sim.fabric.packets import RECORD
from halfdome.sim.rtl.ports import CardModel, Idle, Pin, Port
from halfdome.sim.timing.card import TimingModel

READ_DONE = 1
INTERRUPT = 2
STOPPED = 4

_TLP_PINS = (
    "rx__payload", "rx__valid", "rx__ready", "rx_np_ok", "tx__payload", "tx__valid", "tx__ready",
)  # fmt: skip
_AXI_PINS = (
    "awid", "awaddr", "awlen", "awsize", "awburst", "awvalid", "awready",
    "wdata", "wstrb", "wlast", "wvalid", "wready",
    "bid", "bresp", "bvalid", "bready",
    "arid", "araddr", "arlen", "arsize", "arburst", "arvalid", "arready",
    "rid", "rdata", "rresp", "rlast", "rvalid", "rready",
)  # fmt: skip
"""In the order of `TlpPins` and `AxiPins`."""


class Model(Protocol):
    """A simulated card, as an engine makes it."""

    ports: Sequence[Port]
    pins: dict[str, Pin]
    context: int | None
    settle: int | None
    edge: int | None
    idle: Idle | None

    @property
    def error(self) -> BaseException | None: ...
    def close(self) -> None: ...


class _Bars(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("bar0", "bar0_bytes", "bar2", "bar2_bytes")]


class _Settings(ctypes.Structure):
    _fields_ = (
        ("fabric", FabricSettings),
        ("dram", DramSettings),
        ("cards", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("window_cycles", ctypes.c_int64),
    )


class _Message(ctypes.Structure):
    _fields_ = (
        ("time", ctypes.c_int64),
        ("requester", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("data", ctypes.c_uint64),
    )


_LINK = ("tlps", "payload_bytes", "wire_bytes")
_CARD_TRAFFIC = (
    *(f"to_card_{name}" for name in _LINK),
    *(f"from_card_{name}" for name in _LINK),
    "dram_reads", "dram_writes", "dram_row_hits", "dram_activates", "dram_refreshes",
    "dram_stall_cycles", "malformed_packets",
)  # fmt: skip
_HOST_TRAFFIC = (
    *(f"to_cards_{name}" for name in _LINK),
    *(f"to_host_{name}" for name in _LINK),
    "unsupported_reads", "unsupported_requests", "poisoned_requests", "unexpected_completions",
    "links_lost",
)  # fmt: skip


@dataclass(frozen=True)
class Interrupt:
    """A message that reached the root complex."""

    time_ns: float
    requester: int
    address: int
    data: int


@cache
def load_library() -> ctypes.CDLL:
    """The compiled world; the first call on a machine compiles it."""
    lib = ctypes.CDLL(str(library(SIM / "kernel" / "world.cpp", "world")))
    handle, number = ctypes.c_void_p, ctypes.c_uint64
    signatures: dict[str, tuple[object, tuple]] = {
        "world_create": (handle, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)),
        "world_destroy": (None, (handle,)),
        "world_add_card": (None, (handle, *[ctypes.c_void_p] * 2, number, *[ctypes.c_void_p] * 3,
                                  ctypes.c_size_t)),
        "world_add_made_card": (None, (handle, ctypes.c_void_p)),
        "world_run": (ctypes.c_int, (handle, ctypes.c_int64, ctypes.c_uint, number)),
        "world_cycle": (ctypes.c_int64, (handle,)),
        "world_time_fs": (ctypes.c_int64, (handle,)),
        "world_write": (None, (handle, number, ctypes.c_char_p, number)),
        "world_read": (None, (handle, number, number)),
        "world_read_data": (ctypes.c_void_p, (handle,)),
        "world_abandon_reads": (None, (handle,)),
        "world_keep_messages": (None, (handle, ctypes.c_size_t)),
        "world_message_count": (ctypes.c_size_t, (handle,)),
        "world_message": (None, (handle, ctypes.c_size_t, ctypes.c_void_p)),
        "world_card_traffic": (None, (handle, ctypes.c_size_t, ctypes.c_void_p)),
        "world_host_traffic": (None, (handle, ctypes.c_void_p)),
        "world_host_errors": (number, (handle,)),
        "world_card_state": (None, (handle, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)),
        "world_time": (None, (handle, ctypes.c_int)),
        "world_card_evaluated": (ctypes.c_int64, (handle, ctypes.c_size_t)),
        "world_card_time": (None, (handle, ctypes.c_size_t, ctypes.c_void_p)),
        "world_record": (None, (handle, ctypes.c_size_t, ctypes.c_int)),
        "world_inject": (None, (handle, ctypes.c_void_p, ctypes.c_size_t)),
        "world_struck": (
            ctypes.c_uint64, (handle, ctypes.c_size_t, ctypes.c_int, ctypes.c_size_t)
        ),
        "world_faults": (None, (handle, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)),
        "world_log_packets": (None, (handle, ctypes.c_size_t)),
        "world_packets": (ctypes.c_size_t, (handle, ctypes.c_size_t, ctypes.c_int,
                                            ctypes.c_void_p, ctypes.c_void_p)),
        "world_card_id": (ctypes.c_uint32, (ctypes.c_size_t,)),
        "world_card_cycle": (ctypes.c_int64, (handle, ctypes.c_size_t)),
        "world_keep_inputs": (None, (handle, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t,
                                     ctypes.c_size_t)),
        "world_repeat": (ctypes.c_int, (handle, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p,
                                        ctypes.c_int64)),
        "world_trace": (ctypes.c_size_t, (handle, ctypes.c_size_t, ctypes.c_void_p)),
    }  # fmt: skip
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class World:
    """Cards in their fabric. `close` frees it; the arrays stay with the caller.

    Parameters
    ----------
    fabric, dram : settings of everything around a card
    host_memory : uint8 array
    bars : the BARs of each card
    models : one model for each card; they must outlive the world
    memories : one uint8 array for each card, its DRAM; of a `TimingModel` with its scratchpads
    threads : threads that step cards
    window_cycles : longest run of a card between two synchronisations; 0 for as long as is exact
    skip_idle : whether cards that wait pass over cycles that repeat
    """

    def __init__(
        self,
        *,
        fabric: FabricSettings,
        dram: DramSettings,
        host_memory: np.ndarray,
        bars: Sequence[Bars],
        models: Sequence[Model | TimingModel],
        memories: Sequence[np.ndarray],
        threads: int,
        window_cycles: int = 0,
        skip_idle: bool = True,
    ):
        self._lib = load_library()
        self._models = list(models)
        self._skip_idle = skip_idle
        self._timing = False
        self._planned: Counter[tuple[int, int]] = Counter()
        self._injected: list[tuple[Fault, int, int, int]] = []
        self._run_seconds = 0.0
        self._arrays = [host_memory, *memories]
        settings = _Settings(fabric, dram, len(models), threads, window_cycles)
        windows = (_Bars * len(bars))(
            *(_Bars(b.bar0, b.bar0_bytes, b.bar2, b.bar2_bytes) for b in bars)
        )
        self._world = self._lib.world_create(
            ctypes.byref(settings), host_memory.ctypes.data, windows
        )
        for model, memory in zip(models, memories, strict=True):
            self._add_card(model, memory)

    def _add_card(self, model: Model | TimingModel, memory: np.ndarray) -> None:
        if isinstance(model, TimingModel):
            self._lib.world_add_made_card(self._handle, ctypes.byref(model.maker))
            return
        missing = [
            n for n in (*_TLP_PINS, *map("axi__{}".format, _AXI_PINS)) if n not in model.pins
        ]
        if missing:
            raise ValueError(f"the card has no port {missing[0]!r}; it needs rx, tx and axi")
        tlp = (Pin * len(_TLP_PINS))(*(model.pins[name] for name in _TLP_PINS))
        axi = (Pin * len(_AXI_PINS))(*(model.pins[f"axi__{name}"] for name in _AXI_PINS))
        idle = model.idle if self._skip_idle and model.idle is not None else (None, None, None, 0)
        outputs = [model.pins[port.name] for port in model.ports if not port.is_input]
        self._lib.world_add_card(
            self._handle,
            ctypes.byref(CardModel(model.context, model.settle, model.edge, *idle)),
            memory.ctypes.data, memory.nbytes,
            tlp, axi, (Pin * len(outputs))(*outputs), len(outputs),
        )  # fmt: skip

    @property
    def _handle(self) -> int:
        if self._world is None:
            raise RuntimeError("the platform is closed")
        return self._world

    def run(self, target_cycle: int, stop: int = 0, message: int = 0) -> int:
        """Advances to `target_cycle`; returns 0, or the notice of `stop` that came first.

        `INTERRUPT` is noticed of messages to the address `message`, of any if that is 0. Raises
        what a card model raised, and `RuntimeError` if one stopped without a reason.
        """
        start = time.perf_counter() if self._timing else 0.0
        reason = self._lib.world_run(self._handle, target_cycle, stop, message)
        if self._timing:
            self._run_seconds += time.perf_counter() - start
        if reason == STOPPED:
            for model in self._models:
                if model.error is not None:
                    raise model.error
            raise RuntimeError("a card model stopped the simulation")
        return reason

    @property
    def cycle(self) -> int:
        """Host time, in card clock cycles rounded up."""
        return self._lib.world_cycle(self._handle)

    @property
    def time_ns(self) -> float:
        """Host time in nanoseconds."""
        return self._lib.world_time_fs(self._handle) / 1e6

    def write(self, address: int, data: bytes) -> None:
        """Hands a posted write to the root complex."""
        self._lib.world_write(self._handle, address, data, len(data))

    def start_read(self, address: int, nbytes: int) -> None:
        """Starts a read; `run` with `READ_DONE` returns when it is complete."""
        self._lib.world_read(self._handle, address, nbytes)

    def read_data(self, nbytes: int) -> bytes:
        """What the last read brought; all-ones where it failed."""
        return ctypes.string_at(self._lib.world_read_data(self._handle), nbytes)

    def abandon_reads(self) -> None:
        """Gives up on a read; its tags are never used again."""
        self._lib.world_abandon_reads(self._handle)

    def keep_interrupts(self, most: int) -> None:
        """Keeps the latest `most` messages from now on, and forgets those before."""
        self._lib.world_keep_messages(self._handle, most)

    def interrupts(self) -> list[Interrupt]:
        """Every message that was kept."""
        found = []
        message = _Message()
        for index in range(self._lib.world_message_count(self._handle)):
            self._lib.world_message(self._handle, index, ctypes.byref(message))
            found.append(
                Interrupt(message.time / 1e6, message.requester, message.address, message.data)
            )
        return found

    def card_traffic(self, index: int) -> dict[str, int]:
        """Link, DRAM and error counts of one card."""
        raw = (ctypes.c_uint64 * len(_CARD_TRAFFIC))()
        self._lib.world_card_traffic(self._handle, index, raw)
        return dict(zip(_CARD_TRAFFIC, raw, strict=True))

    def host_traffic(self) -> dict[str, int]:
        """Uplink and error counts of the root complex."""
        raw = (ctypes.c_uint64 * len(_HOST_TRAFFIC))()
        self._lib.world_host_traffic(self._handle, raw)
        return dict(zip(_HOST_TRAFFIC, raw, strict=True))

    @property
    def host_errors(self) -> int:
        """Errors that the root port has noticed: bad requests of cards, links lost."""
        return self._lib.world_host_errors(self._handle)

    def card_state(self, index: int) -> str:
        """Where a card is and what it waits for, in words."""
        text = ctypes.create_string_buffer(256)
        self._lib.world_card_state(self._handle, index, text, len(text))
        return text.value.decode()

    def states(self) -> str:
        """`card_state` of every card, a line each."""
        return "\n".join(f"card {i}: {self.card_state(i)}" for i in range(len(self._models)))

    def measure_time(self, on: bool = True) -> None:
        """Starts or stops measuring where wall time goes; costs about 0.1 us a card cycle."""
        self._timing = on
        self._lib.world_time(self._handle, int(on))

    def time_spent(self) -> dict[str, float]:
        """Wall time measured so far, in seconds, the cards' summed over cards.

        `evaluation_seconds`: compiled models; `dram_and_link_seconds`: what surrounds each of
        them; `run_seconds`: from entering to leaving `run`, on the thread that calls it.
        """
        evaluation = around = 0
        raw = (ctypes.c_int64 * 2)()
        for index in range(len(self._models)):
            self._lib.world_card_time(self._handle, index, raw)
            evaluation += raw[0]
            around += raw[1] - raw[0]
        return {
            "evaluation_seconds": evaluation / 1e9,
            "dram_and_link_seconds": around / 1e9,
            "run_seconds": self._run_seconds,
        }

    def evaluated_cycles(self, index: int) -> int:
        """Cycles of a card whose model was evaluated; the others were passed over."""
        return self._lib.world_card_evaluated(self._handle, index)

    def record(self, index: int, on: bool = True) -> None:
        """Starts or stops recording every output port of a card in every cycle."""
        self._lib.world_record(self._handle, index, int(on))

    def trace(self, index: int) -> np.ndarray:
        """What was recorded: a structured array, a row a cycle, a field of uint8 for each port."""
        row = np.dtype(
            [(p.name, np.uint8, (-(-p.width // 8),)) for p in self._models[index].ports
             if not p.is_input]
        )  # fmt: skip
        data = ctypes.c_void_p()
        nbytes = self._lib.world_trace(self._handle, index, ctypes.byref(data))
        raw = ctypes.string_at(data, nbytes) if nbytes else b""
        return np.frombuffer(raw, row)

    def inject(self, faults: Sequence[Fault]) -> None:
        """Plans faults from now on. Raises `ValueError` for one that does not fit."""
        planned = records(faults, len(self._models))
        for fault in faults:
            for record in records([fault], len(self._models)):
                line = record.link, record.down
                place = self._planned[line]
                self._planned[line] += 1
            self._injected.append((fault, *line, place))
        array = (FaultRecord * len(planned))(*planned)
        self._lib.world_inject(self._handle, array, len(planned))

    def strikes(self) -> list[tuple[Fault, int]]:
        """Every fault planned so far, and the packets that it hit; a link that went down hit 1."""
        return [
            (fault, int(self.time_ns >= fault.after_ns))
            if fault.kind is FaultKind.LINK_DOWN
            else (fault, self._lib.world_struck(self._handle, link, down, place))
            for fault, link, down, place in self._injected
        ]

    def faults(self, link: int, down: bool) -> FaultCounts:
        """What faults did to one direction of a link, the uplink after the cards."""
        names = [field.name for field in fields(FaultCounts)]
        raw = (ctypes.c_uint64 * len(names))()
        self._lib.world_faults(self._handle, link, int(down), raw)
        return FaultCounts(*raw)

    def log_packets(self, most: int) -> None:
        """Keeps up to `most` packets of each direction of each link from now on; 0 keeps none."""
        self._lib.world_log_packets(self._handle, most)

    def packets(self, link: int, down: bool) -> tuple[np.ndarray, int]:
        """What was kept of a link, the uplink after the cards, and how many packets were not."""
        data, left_out = ctypes.c_void_p(), ctypes.c_uint64()
        count = self._lib.world_packets(
            self._handle, link, int(down), ctypes.byref(data), ctypes.byref(left_out)
        )
        raw = ctypes.string_at(data, count * RECORD.itemsize) if count else b""
        return np.frombuffer(raw, RECORD), left_out.value

    def card_id(self, index: int) -> int:
        """The requester ID of a card."""
        return self._lib.world_card_id(index)

    def card_cycle(self, index: int) -> int:
        """Cycles a card has simulated; it may be ahead of the host."""
        return self._lib.world_card_cycle(self._handle, index)

    def keep_inputs(self, index: int, most: int) -> None:
        """Keeps up to `most` bytes of what the inputs of a card are, so that it can be repeated."""
        pins = _inputs(self._models[index])
        self._lib.world_keep_inputs(self._handle, index, pins, len(pins), most)

    def repeat(self, index: int, model: Model, end: int) -> bool:
        """Drives a fresh model of a card as that card was driven, up to cycle `end`.

        A model that raises something, as the card may have, ends there. False if not all inputs
        were kept. Raises `OSError` if the model cannot write its waveforms.
        """
        card = CardModel(model.context, model.settle, model.edge)
        outcome = self._lib.world_repeat(
            self._handle, index, ctypes.byref(card), _inputs(model), end
        )
        if outcome == 1 and model.error is None:
            raise OSError("waves: cannot write the file")
        return outcome != 2

    def close(self) -> None:
        """Ends the threads and frees everything but the arrays and models."""
        if self._world is not None:
            self._lib.world_destroy(self._world)
            self._world = None


def _inputs(model: Model) -> ctypes.Array:
    """The input pins of a card, in the order of its ports."""
    pins = [model.pins[port.name] for port in model.ports if port.is_input]
    return (Pin * len(pins))(*pins)
