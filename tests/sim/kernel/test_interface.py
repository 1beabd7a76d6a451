"""The C interface of the simulation: Python says of it what C++ does."""

import ctypes
import re
import subprocess

import pytest

from halfdome.sim.build.compiler import SIM, find_compiler
from halfdome.sim.dram.presets import DramSettings
from halfdome.sim.fabric.config import CreditLimits, FabricSettings
from halfdome.sim.fabric.faults import FaultRecord
from halfdome.sim.fabric.packets import RECORD
from halfdome.sim.kernel import world
from halfdome.sim.rtl.ports import CardModel, Pin
from halfdome.sim.timing import card
from halfdome.sim.timing.header import header

STRUCTURES = {
    "kernel/world.cpp": {
        "WorldSettings": world._Settings, "FabricSettings": FabricSettings,
        "DramSettings": DramSettings, "CreditLimits": CreditLimits, "Fault": FaultRecord,
        "Message": world._Message, "CardModel": CardModel, "Pin": Pin,
        "CardMaker": card.CardMaker,
    },
    "timing/timing.cpp": {
        "TimingSettings": card._Settings, "timing::SemanticsCalls": card.SemanticsCalls,
    },
}  # fmt: skip
SIZES = {
    "Bars": ctypes.sizeof(world._Bars),
    "PacketRecord": RECORD.itemsize,
    "CardTraffic": 8 * len(world._CARD_TRAFFIC),
    "HostTraffic": 8 * len(world._HOST_TRAFFIC),
    "FaultCounters": 8 * len(world.fields(world.FaultCounts)),
}
"""Of what Python takes apart by itself, number after number."""
WHOLE = {
    "int": ctypes.c_int, "unsigned": ctypes.c_uint, "size_t": ctypes.c_size_t,
    "int64_t": ctypes.c_int64, "uint32_t": ctypes.c_uint32, "uint64_t": ctypes.c_uint64,
}  # fmt: skip


def refused(source, claims, folder):
    """What the compiler says of claims about what a source defines."""
    (folder / "card.hpp").write_text(header())
    checked = folder / "claims.cpp"
    checked.write_text("\n".join([f'#include "{source}"', "#include <cstddef>", *claims]))
    command = (*find_compiler().command, "-std=c++17", "-fsyntax-only", f"-I{SIM}", f"-I{folder}")
    return subprocess.run([*command, checked], capture_output=True, text=True).stderr


def claims_of(structure, name):
    """That a structure of C++ is as large as that of Python, and its fields lie where those do."""
    yield f'static_assert(sizeof({name}) == {ctypes.sizeof(structure)}, "{name}");'
    for field, *_ in structure._fields_:
        place = getattr(structure, field).offset
        yield f'static_assert(offsetof({name}, {field}) == {place}, "{name}.{field}");'


@pytest.mark.parametrize("source", STRUCTURES)
def test_structures_are_alike(source, tmp_path):
    claims = [claim for name, each in STRUCTURES[source].items() for claim in claims_of(each, name)]
    if source.startswith("kernel"):
        claims += [f'static_assert(sizeof({n}) == {size}, "{n}");' for n, size in SIZES.items()]
    assert refused(source, claims, tmp_path) == ""


def test_a_structure_that_differs_is_noticed(tmp_path):
    class Message(ctypes.Structure):
        _fields_ = tuple(reversed(world._Message._fields_))

    said = refused("kernel/world.cpp", claims_of(Message, "Message"), tmp_path)
    assert set(re.findall(r"static assertion failed: (\S+)", said)) == {
        f"Message.{field[0]}" for field in Message._fields_
    }


def kind_of(text):
    """What ctypes calls a type of C, all pointers alike."""
    return ctypes.c_void_p if "*" in text else WHOLE[text.removeprefix("const ").split()[0]]


def test_functions_are_declared_as_they_are_defined():
    lib = world.load_library()
    text = (SIM / "kernel" / "world.cpp").read_text()
    text = text[text.index('extern "C" {') :]
    found = re.findall(r"^(\w[^\n(]*?)(world_\w+)\(([^)]*)\)", text, re.MULTILINE)
    assert len(found) == text.count("\n}\n") + text.count(") { ")
    for result, name, arguments in found:
        function = getattr(lib, name)
        declared = [ctypes.c_void_p if t is ctypes.c_char_p else t for t in function.argtypes]
        assert declared == [kind_of(each.strip()) for each in arguments.split(",")], name
        returned = None if result.strip() == "void" else kind_of(result)
        assert function.restype is returned, name
