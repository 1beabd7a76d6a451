"""Compiling components: any ports, clear errors, no second compilation of the same hardware."""

import ctypes
import sys
import time

import pytest
from amaranth import ClockDomain, ClockSignal, Module, ResetSignal, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.rtlil import to_rtlil
from halfdome.sim.build import compiler, verilator
from halfdome.sim.build.compiler import BuildError
from halfdome.sim.rtl import native, pysim
from halfdome.sim.rtl.ports import component_ports
from halfdome.sim.testbench import simulate

WIDTHS = (1, 7, 8, 9, 16, 17, 32, 33, 64, 65, 96, 260)


class Registers(wiring.Component):
    """One register for each width; `parity` is combinational."""

    def __init__(self):
        ports = {f"i{w}": In(w) for w in WIDTHS} | {f"o{w}": Out(w) for w in WIDTHS}
        inner = wiring.Signature({"nested": Out(data.StructLayout({"a": 3, "b": 70}))})
        tied = stream.Signature(4, always_ready=True)
        super().__init__(
            ports | {"group": Out(inner), "parity": Out(1), "nothing": Out(0), "tied": Out(tied)}
        )

    def elaborate(self, platform):
        m = Module()
        for width in WIDTHS:
            m.d.sync += getattr(self, f"o{width}").eq(getattr(self, f"i{width}"))
        count = Signal(73)
        m.d.sync += count.eq(count + 1)
        m.d.comb += [self.group.nested.eq(count << 2), self.parity.eq(self.i260.xor())]
        return m


def read(pin, nbytes):
    return int.from_bytes(ctypes.string_at(pin.data, nbytes), "little")


def write(pin, value, nbytes):
    ctypes.memmove(pin.data, value.to_bytes(nbytes, "little"), nbytes)


def step(model):
    settle = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(model.settle)
    assert settle(model.context) == 0


def edge(model):
    if model.edge:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(model.edge)(model.context)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [native, pysim], ids=["native", "pysim"])
def test_ports_of_every_width(engine):
    [model] = engine.models(Registers, 1)
    size = {port.name: port.storage_bytes for port in model.ports}
    last = dict.fromkeys(WIDTHS, 0)
    for cycle in range(4):
        value = {w: (0x9E3779B97F4A7C15F39CC0605CEDC834 << 140) >> cycle & (1 << w) - 1
                 for w in WIDTHS}  # fmt: skip
        for width in WIDTHS:
            write(model.pins[f"i{width}"], value[width], size[f"i{width}"])
        step(model)
        for width in WIDTHS:
            assert read(model.pins[f"o{width}"], size[f"o{width}"]) == last[width]
        assert read(model.pins["parity"], 1) == value[260].bit_count() % 2
        assert read(model.pins["group__nested"], size["group__nested"]) == cycle << 2
        edge(model)
        last = value
    model.close()


def test_ports_of_no_width_and_constants_are_left_out():
    names = {port.name for port in native.models(Registers, 1)[0].ports}
    component = Registers()
    assert names == {port.name for port in component_ports(component)}
    to_rtlil(component, "registers")  # Amaranth warns of components that are never elaborated
    assert "tied__valid" in names
    assert not names & {"nothing", "tied__ready"}


def not_called(*_arguments, **_options):
    raise AssertionError("done again")


def test_equal_hardware_is_compiled_once(monkeypatch):
    path = native.build(Registers)
    monkeypatch.setattr(verilator, "rtlil_to_verilog", not_called)
    assert native.build(Registers) == path


def test_fingerprint_spares_the_elaboration():
    path = native.build(Registers, fingerprint="registers of test_native")
    assert native.build(not_called, fingerprint="registers of test_native") == path


def test_failed_build_leaves_nothing_running(monkeypatch):
    compiled = []

    def slow(*_arguments):
        time.sleep(0.3)
        compiled.append("run-time library")

    def make():
        raise ValueError("cannot be made")

    monkeypatch.setattr(verilator.Verilator, "runtime", slow)
    with pytest.raises(ValueError, match="cannot be made"):
        native.build(make)
    assert compiled


def test_error_beside_the_elaboration_is_told(monkeypatch, tmp_path):
    def fail(*_arguments):
        raise BuildError("no room for the run-time library")

    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path))
    monkeypatch.setattr(verilator.Verilator, "runtime", fail)
    with pytest.raises(BuildError, match="no room for the run-time library"):
        native.build(Registers)
    assert not list(tmp_path.glob("model-*[!k]"))


class Wire(wiring.Component):
    """No clock anywhere."""

    i: In(1)
    o: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(self.i)
        return m


@pytest.mark.parametrize("engine", [native, pysim], ids=["native", "pysim"])
def test_component_without_clock_is_refused(engine):
    with pytest.raises(BuildError, match="no clock: nothing in it is in the sync domain"):
        engine.models(Wire, 1)


class TwoDomains(wiring.Component):
    """Uses a second domain; `defined` says whether it brings it along."""

    i: In(1)
    o: Out(2)
    my_clk: In(1)

    def __init__(self, defined):
        self._defined = defined
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        if self._defined:
            m.domains.fast = ClockDomain()
            m.d.comb += [ClockSignal("fast").eq(self.my_clk), ResetSignal("fast").eq(0)]
        m.d.sync += self.o[0].eq(self.i)
        m.d.fast += self.o[1].eq(self.i)
        return m


@pytest.mark.parametrize("engine", [native, pysim], ids=["native", "pysim"])
def test_domain_that_nothing_drives_is_named(engine):
    with pytest.raises(BuildError, match=r"clock domain 'fast': nothing drives it; .* rename"):
        engine.models(lambda: TwoDomains(defined=False), 1)


def test_test_bench_names_the_domain_that_nothing_drives():
    async def bench(ctx):
        await ctx.tick()

    with pytest.raises(ValueError, match=r"TwoDomains: clock domain 'fast': nothing drives it"):
        simulate(TwoDomains(defined=False), bench)


def test_domain_of_its_own_is_accepted():
    [model] = pysim.models(lambda: TwoDomains(defined=True), 1)
    assert "my_clk" in model.pins


@pytest.fixture
def no_tools(monkeypatch):
    compiler.find_compiler.cache_clear()
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    yield
    compiler.find_compiler.cache_clear()


def test_without_compiler_zig_is_used(no_tools, monkeypatch):
    monkeypatch.setattr(compiler, "find_spec", lambda name: name == "ziglang")
    assert compiler.find_compiler().command == (sys.executable, "-m", "ziglang", "c++")


def test_without_any_compiler_the_error_says_what_to_install(no_tools, monkeypatch):
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    with pytest.raises(BuildError, match=r"install g\+\+ .*pip install ziglang"):
        compiler.find_compiler()


def test_compiler_errors_are_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "broken.cpp"
    source.write_text("int main( {")
    with pytest.raises(BuildError, match=r"compiling broken.cpp failed(.|\n)*error"):
        compiler.library(source, "broken")
    assert not list((tmp_path / "cache").glob("broken-*/"))
