"""All clients of a card get the right words from scratchpads and DRAM, whatever AXI4 does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import LINE_BYTES, PRESETS
from halfdome.hdl.memory.axi_arbiter import OUTSTANDING_WRITES, AxiArbiter
from halfdome.hdl.memory.scratchpad import Scratchpad
from halfdome.hdl.memory.switch import OUTSTANDING_BITS, ReadSwitch
from halfdome.hdl.memory.system import MemorySystem
from tests.bench import monitor, simulate
from tests.hdl.memory.traffic import AxiMemory, Client

TINY = PRESETS["tiny"]
DRAM_BYTES = TINY.dram_bytes
STALLS = st.sampled_from([0.0, 0.3, 0.7])
SEEDS = st.integers(0, 2**16)


@given(
    clients=st.integers(1, 4),
    bus_bytes=st.sampled_from([16, 32, 128]),
    stall=STALLS,
    axi_stall=STALLS,
    seed=SEEDS,
)
def test_dram_clients_see_their_own_writes(clients, bus_bytes, stall, axi_stall, seed):
    config = TINY.replace(bus_bytes=bus_bytes)
    dut = AxiArbiter(config, [clients], [clients])
    memory = AxiMemory(config, 1 << 14, range(clients), seed=seed, stall=axi_stall, latency=(1, 20))
    line = max(LINE_BYTES, bus_bytes)
    users = [
        Client(
            config, dut.reads[k], dut.writes[k], [(i * clients + k) * line for i in range(3)],
            seed=seed + k, stall=stall,
        )
        for k in range(clients)
    ]  # fmt: skip
    counted = {"read": 0, "written": 0}

    async def count(ctx):
        while True:
            _, _, read, written = await ctx.tick().sample(dut.read_bytes, dut.write_bytes)
            counted["read"] += read
            counted["written"] += written

    simulate(
        dut,
        *(user.traffic for user in users),
        background=[memory.bench(dut.axi), count, *(user.collect for user in users)],
    )
    for user in users:
        assert user.received == user.expected
    assert counted["read"] == memory.read_words * bus_bytes
    assert counted["written"] == memory.write_bytes


@given(
    cores=st.integers(1, 3),
    core_ports=st.integers(1, 3),
    global_ports=st.integers(1, 2),
    stall=STALLS,
    axi_stall=STALLS,
    seed=SEEDS,
)
def test_every_client_reaches_its_memories(cores, core_ports, global_ports, stall, axi_stall, seed):
    config = TINY.replace(cores=cores, scratchpad_bytes=4096)
    dut = MemorySystem(config, core_ports, core_ports, global_ports, global_ports)
    clients = cores * core_ports + global_ports
    memory = AxiMemory(config, DRAM_BYTES, dut.ids, seed=seed, stall=axi_stall, latency=(1, 20))

    def lines(k, scratchpads):
        """A line of DRAM and one of each scratchpad, at either end."""
        yield (k * LINE_BYTES if k % 2 else DRAM_BYTES - (k + 1) * LINE_BYTES)
        for core in scratchpads:
            base = config.scratchpad_address(core)
            yield base + (k * LINE_BYTES if k % 2 else 4096 - (k + 1) * LINE_BYTES)

    users = []
    for k in range(clients):
        core, port = divmod(k, core_ports)
        if core < cores:
            reads, writes, reach = dut.core_reads[core][port], dut.core_writes[core][port], [core]
        else:
            number = k - cores * core_ports
            reads, writes, reach = dut.global_reads[number], dut.global_writes[number], range(cores)
        users.append(Client(config, reads, writes, lines(k, reach), seed=seed + k, stall=stall))
    watched = [
        monitor(port.request, "scratchpad or DRAM request")
        for port in [*dut.global_reads, *dut.global_writes]
    ]
    simulate(
        dut,
        *(user.traffic for user in users),
        background=[memory.bench(dut.axi), *watched, *(user.collect for user in users)],
    )
    for user in users:
        assert user.received == user.expected


@pytest.mark.parametrize("cores", [1, 3])
def test_what_the_card_writes_a_core_reads(cores):
    config = TINY.replace(cores=cores)
    dut = MemorySystem(config, 1, 1, 1, 1)
    write = dut.global_writes[0]
    words = []

    async def bench(ctx):
        for core in range(cores):
            address = config.scratchpad_address(core) + 0x40
            value = {"address": address, "data": 0xA0 + core, "strobe": 0xFFFF}
            ctx.set(write.request.p, value)
            ctx.set(write.request.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(write.request.ready)
            ctx.set(write.request.valid, 0)
            while not ctx.get(write.idle):
                await ctx.tick()
            read = dut.core_reads[core][0]
            ctx.set(read.request.p, {"address": address, "count_minus_1": 0})
            ctx.set(read.request.valid, 1)
            await ctx.tick()
            ctx.set(read.request.valid, 0)
            for _ in range(Scratchpad.latency - 1):
                await ctx.tick()
            assert ctx.get(read.response.valid)
            words.append(ctx.get(read.response.p.data))

    simulate(dut, bench)
    assert words == [0xA0 + core for core in range(cores)]


def test_addresses_outside_the_memories_neither_hang_nor_corrupt():
    config = TINY.replace(scratchpad_bytes=4096)
    dut = MemorySystem(config, 1, 1, 1, 1)
    user = Client(
        config, dut.global_reads[0], dut.global_writes[0], [config.scratchpad_base], seed=1
    )
    outside = config.scratchpad_base + 4096

    async def stray(ctx):
        user.expected.clear()
        request = dut.global_writes[0].request
        ctx.set(request.p, {"address": outside, "data": 0xFF, "strobe": 0xFFFF})
        ctx.set(request.valid, 1)
        _, _, ready = await ctx.tick().sample(request.ready)
        assert ready
        ctx.set(request.valid, 0)
        assert ctx.get(dut.global_writes[0].idle)
        request = dut.global_reads[0].request
        ctx.set(request.p, {"address": outside, "count_minus_1": 0})
        ctx.set(request.valid, 1)
        _, _, ready = await ctx.tick().sample(request.ready)
        assert ready
        ctx.set(request.valid, 0)
        while not user.received:
            await ctx.tick()
        user.received.clear()
        await user.traffic(ctx)

    simulate(dut, stray, background=[user.collect])
    assert user.received == user.expected
    assert user.expected


def test_axi_takes_a_burst_and_a_write_every_cycle_at_the_stated_latency():
    dut = AxiArbiter(TINY, [3], [3])
    cycles = 30
    seen = {"ar": [], "aw": [], "response": []}

    async def bench(ctx):
        for port in [*dut.reads, *dut.writes]:
            ctx.set(port.request.valid, 1)
        ctx.set(dut.axi.arready, 1)
        ctx.set(dut.axi.awready, 1)
        ctx.set(dut.axi.wready, 1)
        for cycle in range(cycles):
            # The answer to whatever was asked last, one word a cycle.
            ctx.set(dut.axi.rvalid, 1)
            ctx.set(dut.axi.rid, cycle % 3)
            sampled = await ctx.tick().sample(
                dut.axi.arvalid, dut.axi.arid, dut.axi.awvalid, dut.axi.wvalid, dut.axi.awid,
                *(port.response.valid for port in dut.reads),
            )  # fmt: skip
            arvalid, arid, awvalid, wvalid, awid, *responses = sampled[2:]
            assert awvalid == wvalid
            seen["ar"] += [arid] if arvalid else []
            seen["aw"] += [awid] if awvalid else []
            seen["response"].append(responses)

    simulate(dut, bench)
    busy = cycles - dut.request_latency
    assert dut.request_latency == 1
    assert seen["ar"] == [k % 3 for k in range(busy)]
    assert seen["aw"] == [k % 3 for k in range(busy)]
    for cycle, responses in enumerate(seen["response"][AxiArbiter.response_latency :]):
        assert responses == [int(cycle % 3 == k) for k in range(3)]


def test_a_port_stops_at_its_limit_of_unanswered_writes():
    dut = AxiArbiter(TINY, [1], [2])
    accepted = [0, 0]

    async def bench(ctx):
        ctx.set(dut.axi.awready, 1)
        ctx.set(dut.axi.wready, 1)
        for port in dut.writes:
            ctx.set(port.request.valid, 1)
        for _ in range(3 * OUTSTANDING_WRITES):
            sampled = await ctx.tick().sample(*(port.request.ready for port in dut.writes))
            for k in range(2):
                accepted[k] += sampled[2 + k]
        assert accepted == [OUTSTANDING_WRITES] * 2
        for port in dut.writes:
            ctx.set(port.request.valid, 0)
        ctx.set(dut.axi.bvalid, 1)
        ctx.set(dut.axi.bid, 1)
        for _ in range(OUTSTANDING_WRITES):
            assert not ctx.get(dut.writes[1].idle)
            await ctx.tick()
        assert ctx.get(dut.writes[1].idle)
        assert not ctx.get(dut.writes[0].idle)

    simulate(dut, bench)


def test_a_port_stops_at_its_limit_of_unanswered_reads():
    dut = ReadSwitch(TINY, range(1))
    accepted = []

    async def bench(ctx):
        ctx.set(dut.dram.request.ready, 1)
        ctx.set(dut.client.request.valid, 1)
        limit = (1 << OUTSTANDING_BITS) - 1
        for _ in range(limit + 20):
            _, _, ready = await ctx.tick().sample(dut.client.request.ready)
            accepted.append(ready)
        assert sum(accepted) == limit
        ctx.set(dut.dram.response.p.last, 1)
        ctx.set(dut.dram.response.valid, 1)
        await ctx.tick()
        assert ctx.get(dut.client.request.ready)

    simulate(dut, bench)


def test_a_read_of_the_other_memory_waits_for_the_answers():
    dut = ReadSwitch(TINY, range(1))
    request = dut.client.request

    async def bench(ctx):
        ctx.set(dut.dram.request.ready, 1)
        ctx.set(dut.scratchpads[0].request.ready, 1)
        ctx.set(request.valid, 1)
        await ctx.tick()
        ctx.set(request.p.address, TINY.scratchpad_base)
        for _ in range(5):
            assert not ctx.get(request.ready)
            assert not ctx.get(dut.scratchpads[0].request.valid)
            await ctx.tick()
        ctx.set(dut.dram.response.p, {"data": 7, "last": 1})
        ctx.set(dut.dram.response.valid, 1)
        assert ctx.get(dut.client.response.p.data) == 7
        await ctx.tick()
        ctx.set(dut.dram.response.valid, 0)
        assert ctx.get(dut.scratchpads[0].request.valid)
        assert ctx.get(request.ready)

    simulate(dut, bench)
