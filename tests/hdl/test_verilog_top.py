"""The module that engineers place has plain names, and a simulator that knows no more runs it."""

import json
import re
import shutil
import subprocess

import pytest

from halfdome.hdl import registers
from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import fields
from halfdome.hdl.verilog import TOP, card_verilog, interface_markdown
from halfdome.hdl.verilog_top import BENCH, NAME, bench_verilog, ports, ports_json, top_verilog

TINY = PRESETS["tiny"]


@pytest.mark.parametrize("name", PRESETS)
def test_ports_have_plain_names_and_every_bit_of_the_card_once(name):
    config = PRESETS[name]
    found = ports(config)
    assert all(re.fullmatch(r"(rx|tx|m_axi)_[a-z_]+", port.name) for port in found)
    assert len({port.name for port in found}) == len(found)
    bits = [(port.inner, port.low + bit) for port in found for bit in range(port.width)]
    assert len(set(bits)) == len(bits)
    assert {"rx_data", "rx_last", "rx_bar", "tx_valid", "m_axi_awaddr", "m_axi_rdata"} <= {
        port.name for port in found
    }
    assert next(port for port in found if port.name == "rx_data").width == 8 * config.bus_bytes


def test_ports_are_listed_for_programs_as_the_module_has_them():
    listed = json.loads(ports_json(TINY))
    declared = re.findall(
        r"(input|output) wire (?:\[(\d+):0\] )?(\w+)[,\n]", top_verilog(TINY, TOP)
    )
    assert listed["module"] == NAME
    assert listed["config_hash"] == TINY.hash
    assert [(p["direction"], p["width"], p["name"]) for p in listed["ports"]] == [
        (direction, int(high or 0) + 1, name) for direction, high, name in declared
    ]


def test_every_register_and_field_is_in_the_tables():
    text = interface_markdown(TINY)
    for name, offset in registers.register_names(TINY).items():
        assert f"| `{offset:#06x}` | {name} |" in text
    for opcode in Opcode:
        if not opcode.is_fence:
            section = text.split(f"## {opcode.name}, opcode")[1].split("\n## ")[0]
            assert [f.name for f in fields(opcode)] == re.findall(
                r"^\| \d+ \| \d+ \| (\w+) ", section, re.MULTILINE
            )


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("iverilog"), reason="needs Icarus Verilog (iverilog)")
def test_the_bench_passes_under_a_simulator_of_events(tmp_path):
    texts = {TOP: card_verilog(TINY), NAME: top_verilog(TINY, TOP), BENCH: bench_verilog(TINY)}
    for name, text in texts.items():
        (tmp_path / f"{name}.v").write_text(text)

    def run(*command):
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        )  # fmt: skip

    compiled = run("iverilog", "-g2005", "-o", "bench", *(f"{name}.v" for name in texts))
    assert "no sensitivities" not in compiled.stderr  # a process that would never run
    assert run("vvp", "bench").stdout.splitlines()[0] == "PASS"
    # And it can fail.
    broken = texts[BENCH].replace(f"{registers.IDENTIFICATION:08x}", "00000000")
    (tmp_path / f"{BENCH}.v").write_text(broken)
    run("iverilog", "-g2005", "-o", "bench", *(f"{name}.v" for name in texts))
    assert run("vvp", "bench").stdout.startswith("FAIL: 2 beats")
