"""Engines of the timing card against those in RTL, whatever memory does, cycle for cycle."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from halfdome.hdl.commands import Engine
from halfdome.sim.build.cache import cached, content_key
from halfdome.sim.build.compiler import SIM, compile_objects, find_compiler, included, link
from halfdome.sim.timing.header import header, parameter_array
from tests.bench import get, put, simulate

SOURCE = Path(__file__).with_name("replay.cpp")
READS = {
    Engine.MATMUL: ("x", "w", "params"),
    Engine.VECTOR: ("a", "b"),
    Engine.GATHER: ("lengths", "indices", "weights", "rows"),
}
"""Read ports, in the order of the C++ engines' constructors."""
WRITE = {Engine.MATMUL: "y", Engine.VECTOR: "y", Engine.GATHER: "output"}


@cache
def _library() -> ctypes.CDLL:
    texts = [path.read_text() for path in included(SOURCE)]

    def build(folder: Path) -> None:
        (folder / "card.hpp").write_text(header())
        objects = compile_objects({SOURCE: ("-O1",)}, folder, include=[SIM, folder])
        link(objects, folder / "replay.so")

    key = content_key(find_compiler().identity(), header(), *texts)
    lib = ctypes.CDLL(str(cached("timing-replay", key, build) / "replay.so"))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    lib.replay.argtypes = (
        pointer, ctypes.c_int, pointer, pointer, size, *[pointer] * 4, size, ctypes.c_char_p
    )  # fmt: skip
    return lib


def check(
    config, engine: Engine, dut, memories: dict, commands: list[bytes], background=(), pause=None
) -> int:
    """Runs commands through `dut`, whose ports have these memories, and asserts that the engine of
    the timing card does in every cycle what `dut` did. Returns the cycles.

    `background` are more test benches; `pause` says for how many cycles to wait before a command.
    """
    reads = [getattr(dut, name) for name in READS[engine]]
    write = getattr(dut, WRITE[engine])
    signals = []
    for port in reads:
        request, response = port.request, port.response
        signals += [request.valid, request.ready, request.p.address, request.p.count_minus_1]
        signals += [response.valid, response.p.last]
    request = write.request
    signals += [request.valid, request.ready, request.p.address, request.p.strobe, write.idle]
    signals += [dut.command.valid & dut.command.ready, dut.result.valid]
    signals += [dut.result.valid & dut.result.ready, dut.activity]
    if config.gather_cache_bytes:
        writes = dut.dram_writes
        signals += [writes.valid, writes.address, writes.pending]
        signals += [dut.gather_cache_hits, dut.gather_cache_misses]
    seen = []

    async def host(ctx):
        for command in commands:
            for _ in range(pause() if pause else 0):
                await ctx.tick()
            await put(ctx, dut.command, int.from_bytes(command, "little"))
            await get(ctx, dut.result)

    async def watch(ctx):
        while True:
            _, _, *values = await ctx.tick().sample(*signals)
            seen.append([getattr(value, "value", value) for value in values])

    ports = {name: getattr(dut, name) for name in (*READS[engine], WRITE[engine])}
    serve = [memories[name].read_port(ports[name]) for name in READS[engine]]
    serve.append(memories[WRITE[engine]].write_port(ports[WRITE[engine]]))
    simulate(dut, host, background=[watch, *serve, *background])

    rows = []
    for row in seen:
        for first in range(0, 6 * len(reads), 6):
            row[first + 3] += 1
        address, strobe = 6 * len(reads) + 2, 6 * len(reads) + 3
        row[address] += (row[strobe] & -row[strobe]).bit_length() - 1  # of the first byte written
        row[strobe] = row[strobe].bit_count()
        rows.append(row)
    table = np.array(rows, np.int64)
    ends = np.cumsum([6 * len(reads), 5, 4])
    parts = [np.ascontiguousarray(part) for part in np.split(table, ends, axis=1)]
    message = ctypes.create_string_buffer(200)
    memory = memories[READS[engine][0]].data.ctypes.data
    same = _library().replay(
        parameter_array(config), int(engine), memory, b"".join(commands), len(reads),
        *(part.ctypes.data if part.size else None for part in parts), len(table), message,
    )  # fmt: skip
    assert same, message.value.decode()
    return len(table)
