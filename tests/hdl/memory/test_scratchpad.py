"""The scratchpad returns what was written, at its stated latency, to all ports alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import LINE_BYTES, PRESETS
from halfdome.hdl.memory.scratchpad import Scratchpad
from tests.bench import simulate
from tests.hdl.memory.traffic import Client

TINY = PRESETS["tiny"]


@given(
    clients=st.integers(1, 5),
    banks=st.sampled_from([1, 2, 4, 8]),
    bus_bytes=st.sampled_from([16, 32, 128]),
    stall=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 2**16),
)
def test_every_read_returns_what_was_last_written(clients, banks, bus_bytes, stall, seed):
    config = TINY.replace(scratchpad_banks=banks, bus_bytes=bus_bytes, scratchpad_bytes=4096)
    dut = Scratchpad(config, clients, clients)
    line = max(LINE_BYTES, bus_bytes)
    base = config.scratchpad_address(3)
    users = []
    for k in range(clients):
        lines = [base + (i * clients + k) * line for i in range(3)]
        users.append(Client(config, dut.reads[k], dut.writes[k], lines, seed=seed + k, stall=stall))
    simulate(dut, *(user.traffic for user in users), background=[user.collect for user in users])
    for user in users:
        assert user.received == user.expected


def test_the_last_word_is_within_reach():
    config = TINY.replace(scratchpad_bytes=4096)
    dut = Scratchpad(config, 1, 1)
    top = config.scratchpad_base + 4096 - LINE_BYTES
    user = Client(config, dut.reads[0], dut.writes[0], [top, config.scratchpad_base], operations=20)
    simulate(dut, user.traffic, background=[user.collect])
    assert user.received == user.expected
    assert user.expected


@pytest.mark.parametrize("banks", [1, 2, 4])
def test_latency_is_as_stated_and_bursts_follow_back_to_back(banks):
    config = TINY.replace(scratchpad_banks=banks)
    dut = Scratchpad(config, 2, 1)
    port = dut.reads[0]
    taken, words = [], []

    async def bench(ctx):
        ctx.set(port.request.p.count_minus_1, config.burst_words - 1)
        ctx.set(port.request.valid, 1)
        for cycle in range(40):
            _, _, ready, valid, last = await ctx.tick().sample(
                port.request.ready, port.response.valid, port.response.p.last
            )
            if ready:
                taken.append(cycle)
            if valid:
                words.append((cycle, last))

    simulate(dut, bench)
    assert taken[0] == 0
    assert [cycle for cycle, _ in words] == list(range(Scratchpad.latency, 40))
    assert [last for _, last in words] == [int(k % 4 == 3) for k in range(len(words))]


@pytest.mark.parametrize("banks", [2, 4, 8])
def test_ports_in_different_banks_all_run_at_one_word_a_cycle(banks):
    config = TINY.replace(scratchpad_banks=banks)
    dut = Scratchpad(config, banks, banks)
    cycles = 50
    read = [0] * banks
    written = [0] * banks

    async def bench(ctx):
        for bank in range(banks):
            address = config.scratchpad_base + bank * config.bus_bytes
            ctx.set(dut.reads[bank].request.p, {"address": address, "count_minus_1": 0})
            ctx.set(dut.reads[bank].request.valid, 1)
            ctx.set(dut.writes[bank].request.p.address, address)
            ctx.set(dut.writes[bank].request.valid, 1)
        watched = [port.response.valid for port in dut.reads]
        watched += [port.request.ready for port in dut.writes]
        for _ in range(cycles + Scratchpad.latency):
            sampled = (await ctx.tick().sample(*watched))[2:]
            for bank in range(banks):
                read[bank] += sampled[bank]
                written[bank] += sampled[banks + bank]

    simulate(dut, bench)
    assert read == [cycles] * banks
    assert written == [cycles + Scratchpad.latency] * banks


def test_streams_of_bursts_settle_into_disjoint_banks():
    config = TINY.replace(scratchpad_banks=4)
    dut = Scratchpad(config, 4, 1)
    cycles = 200
    words = [0] * 4

    async def bench(ctx):
        for port in dut.reads:
            ctx.set(port.request.p.count_minus_1, 3)
            ctx.set(port.request.valid, 1)
        watched = [port.response.valid for port in dut.reads]
        for _ in range(cycles):
            sampled = (await ctx.tick().sample(*watched))[2:]
            for k in range(4):
                words[k] += sampled[k]

    simulate(dut, bench)
    assert min(words) >= cycles - Scratchpad.latency - 4


def test_ports_that_meet_in_one_bank_share_it_evenly():
    config = TINY.replace(scratchpad_banks=2)
    ports = 5
    dut = Scratchpad(config, ports, ports)
    read = [0] * ports
    written = [0] * ports
    rounds = 20

    async def bench(ctx):
        for port in [*dut.reads, *dut.writes]:
            ctx.set(port.request.valid, 1)
        for _ in range(Scratchpad.latency):
            await ctx.tick()
        watched = [port.response.valid for port in dut.reads]
        watched += [port.request.ready for port in dut.writes]
        for _ in range(rounds * ports):
            sampled = (await ctx.tick().sample(*watched))[2:]
            for k in range(ports):
                read[k] += sampled[k]
                written[k] += sampled[ports + k]

    simulate(dut, bench)
    assert read == [rounds] * ports
    assert written == [rounds] * ports


def test_a_write_is_idle_once_the_next_read_sees_it():
    config = TINY
    dut = Scratchpad(config, 1, 1)
    reads, writes = dut.reads[0], dut.writes[0]

    async def bench(ctx):
        assert ctx.get(writes.idle)
        ctx.set(writes.request.p, {"address": 0x40, "data": 0x1234, "strobe": 0b01})
        ctx.set(writes.request.valid, 1)
        await ctx.tick()
        ctx.set(writes.request.valid, 0)
        assert not ctx.get(writes.idle)
        ctx.set(reads.request.p.address, 0x40)
        ctx.set(reads.request.valid, 1)
        await ctx.tick()
        assert ctx.get(writes.idle)
        ctx.set(reads.request.valid, 0)
        for _ in range(Scratchpad.latency - 1):
            await ctx.tick()
        assert ctx.get(reads.response.valid)
        assert ctx.get(reads.response.p.data) == 0x34

    simulate(dut, bench)
