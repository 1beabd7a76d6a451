"""A compiled design whose pins Python drives and reads: every clock is a pin like the others."""

import ctypes
import os
import re
from collections.abc import Sequence
from pathlib import Path

from amaranth.hdl._ir import Design

from halfdome.hdl.rtlil import design_to_rtlil
from halfdome.sim.build.cache import content_key
from halfdome.sim.build.progress import told
from halfdome.sim.build.verilator import Verilator
from halfdome.sim.rtl.ports import Port

_CELLS = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}
_TAKEN = re.compile(r'(?<=\\)(this|super|randomize)(?=[\s"])')
"""Names in RTLIL that Verilator takes for words of its language, also where they are escaped."""

_GLUE = """\
#include "@PREFIX@.h"
#include "verilated.h"
#if TRACED
#include "verilated_vcd_c.h"
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

struct Model {
  VerilatedContext context;
  @PREFIX@ top{&context};
#if TRACED
  VerilatedVcdC waves;
#endif
};

EXPORT Model* model_create() { return new Model; }
EXPORT void model_destroy(Model* model) { delete model; }
EXPORT void model_eval(Model* model) { model->top.eval(); }
#if TRACED
EXPORT int model_open(Model* model, const char* path) {
  model->context.traceEverOn(true);
  model->waves.set_time_unit("1fs");
  model->waves.set_time_resolution("1fs");
  model->top.trace(&model->waves, 99);
  model->waves.open(path);
  return model->waves.isOpen();
}
EXPORT void model_dump(Model* model, unsigned long long femtoseconds) {
  model->waves.dump(static_cast<uint64_t>(femtoseconds));
}
#endif
EXPORT void* model_pin(Model* model, int index) {
  switch (index) {
@PINS@
    default: return nullptr;
  }
}
"""


def build(design: Design, ports: Sequence[Port], *, traced: bool, name: str) -> Path:
    """The compiled model of a design called `TOP` with these ports: a folder in the cache.

    People call it `name`; what takes long is told to the logger `halfdome`.
    """

    def wrap(folder: Path, prefix: str) -> None:
        pins = "\n".join(
            f"    case {index}: return &model->top.{port.name};" for index, port in enumerate(ports)
        )
        text = _GLUE.replace("@PREFIX@", prefix).replace("@PINS@", pins)
        (folder / "glue.cpp").write_text(f"#define TRACED {int(traced)}\n{text}")

    tools = Verilator.find(traced=traced)
    text = _TAKEN.sub(r"\1$", design_to_rtlil(design))
    key = content_key(text, tools.identity(_GLUE))
    with told(f"building {name}{' with waveforms' if traced else ''}") as progress:
        return tools.compile(key, text, wrap, progress)


class _WidePin:
    """The storage of a port of more than 64 bits, used like an unsigned integer of `ctypes`."""

    def __init__(self, address: int, nbytes: int):
        self._cell = (ctypes.c_uint8 * nbytes).from_address(address)

    @property
    def value(self) -> int:
        return int.from_bytes(self._cell, "little")

    @value.setter
    def value(self, value: int) -> None:
        self._cell[:] = value.to_bytes(len(self._cell), "little")


class Model:
    """One instance of a compiled model; `pins` by name, each with a `value`, unsigned."""

    def __init__(self, folder: Path, ports: Sequence[Port]):
        self._library = ctypes.CDLL(str(folder / "model.so"))
        self._library.model_create.restype = ctypes.c_void_p
        self._library.model_pin.restype = ctypes.c_void_p
        self._model = ctypes.c_void_p(self._library.model_create())
        self._eval = self._library.model_eval
        self._eval.restype = None
        self.pins = {}
        for index, port in enumerate(ports):
            address = self._library.model_pin(self._model, index)
            cell = _CELLS.get(port.storage_bytes)
            self.pins[port.name] = (
                cell.from_address(address) if cell else _WidePin(address, port.storage_bytes)
            )

    def eval(self) -> None:
        """Settles the model and performs the clock edges since the last call."""
        self._eval(self._model)

    def record(self, path: Path) -> None:
        """Opens a VCD; the model must be a traced one. Raises `OSError`."""
        if not self._library.model_open(self._model, os.fsencode(path)):
            raise OSError(f"cannot write {path}")

    def dump(self, femtoseconds: int) -> None:
        """Writes what has changed until now, a time later than the last."""
        self._library.model_dump(self._model, ctypes.c_ulonglong(femtoseconds))

    def close(self) -> None:
        """Frees the model and completes its VCD."""
        self._library.model_destroy(self._model)
        self.pins.clear()
