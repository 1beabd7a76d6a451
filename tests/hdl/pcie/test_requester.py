"""The card's reads survive every bad completion, and each client learns how its own ended."""

from dataclasses import replace

import pytest

from halfdome.hdl.commands import ReadFailure
from halfdome.hdl.pcie.fetch_buffer import FetchBuffer
from halfdome.hdl.pcie.requester import Requester
from tests.bench import put, simulate
from tests.hdl.pcie.endpoint_bench import CONFIGS, Bench
from tests.hdl.pcie.host_model import (
    ABORT,
    BASE,
    COUNT,
    FAULTS,
    LONG,
    POISON,
    SHORT,
    UNSUPPORTED,
)
from tests.hdl.pcie.tlp_model import CA, CPL, CRS, Tlp, completions, memory_request, refusal


def test_completions_without_a_read_are_counted_and_swallowed():
    config = CONFIGS[32]
    bench = Bench(config)
    read = memory_request(BASE, 64)
    strays = [
        completions(Tlp(**vars(read) | {"tag": tag}), bytes(64))[0] for tag in (0, 1, 4, 5, 255)
    ]
    strays.append(refusal(read))
    bench.host.strays.extend(strays)
    outcome = []

    async def go(ctx):
        await bench.until(ctx, lambda: bench.events["unexpected_completion"] == len(strays))
        await bench.load(0, [(BASE, 0, 1000)], outcome)(ctx)

    bench.run(go)
    assert outcome == [0]
    assert bench.card.data[:1000].tobytes() == bench.host.read(BASE, 1000)


def test_a_completion_whose_tag_only_ends_like_an_open_one_is_unexpected():
    config = CONFIGS[32]
    bench = Bench(config)
    host, outcome = bench.host, []
    host.hold_completions = True

    async def confuse(ctx):
        await bench.until(ctx, lambda: host.reads)
        request = host.reads[0]
        alias = Tlp(**vars(request) | {"tag": request.tag + 8})
        host.strays.append(completions(alias, bytes(4 * request.length))[0])
        await bench.until(ctx, lambda: bench.events["unexpected_completion"])
        host.hold_completions = False

    bench.run(bench.load(0, [(BASE, 0, 400)], outcome), confuse)
    assert outcome == [0]
    assert bench.events["unexpected_completion"] == 1
    assert bench.card.data[:400].tobytes() == host.read(BASE, 400)


CAUSES = {
    POISON: ReadFailure.POISONED,
    ABORT: ReadFailure.UNSUCCESSFUL,
    UNSUPPORTED: ReadFailure.UNSUCCESSFUL,
    COUNT: ReadFailure.MALFORMED,
    SHORT: ReadFailure.MALFORMED,
    LONG: ReadFailure.MALFORMED,
}
EVENT = {
    ReadFailure.POISONED: "poisoned_completion",
    ReadFailure.UNSUCCESSFUL: "unsuccessful_completion",
    ReadFailure.MALFORMED: "malformed_completion",
    ReadFailure.TIMED_OUT: "completion_timeout",
}


@pytest.mark.parametrize("bus_bytes", CONFIGS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_read_is_reported_once_and_its_tag_returns(bus_bytes, fault):
    config = CONFIGS[bus_bytes].replace(dma_tags=2)
    bench = Bench(config, faults={0: fault, 1: fault, 2: fault}, split=1.0, timeout=300)
    outcomes = []

    async def go(ctx):
        # One tag: three failures would use up three if they were lost.
        for _ in range(3):
            await bench.load(0, [(BASE, 0, config.max_read_request_bytes)], outcomes)(ctx)
        await bench.load(0, [(BASE, 4096, 700)], outcomes)(ctx)

    bench.run(go)
    assert outcomes == [CAUSES[fault]] * 3 + [ReadFailure.NONE]
    assert bench.events == {EVENT[CAUSES[fault]]: 3}
    assert bench.card.data[4096 : 4096 + 700].tobytes() == bench.host.read(BASE, 700)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_fetch_ends_with_failed_and_the_next_one_succeeds(fault):
    config = CONFIGS[32]
    bench = Bench(config, faults={0: fault})
    received = []
    bench.run(bench.fetch([(BASE + 64, 128), (BASE + 64, 128)], received))
    assert received == [None, bench.host.read(BASE + 64, 128)]


def altered(position, count=1, **changes):
    """A list of completions with `changes` to one of them, and those after `count` left out."""

    def alter(packets):
        changed = replace(packets[position], **changes)
        return [*packets[:position], changed, *packets[position + 1 : position + count]]

    return alter


# What is done to a read of 256 bytes answered in four completions, and the parts still written.
BAD_SEQUENCES = {
    "poison, then the rest": (altered(0, 4, poisoned=True), {1, 2, 3}),
    "no payload, then the rest": (altered(1, 4, payload=b""), {0, 2, 3}),
    "surplus payload, then the rest": (altered(2, 4, payload=bytes(256)), {0, 1, 3}),
    "poison at the end": (altered(3, poisoned=True), {0, 1, 2}),
    "lower address": (altered(1, lower_address=0x20), {0}),
    "byte count low": (altered(1, byte_count=191), {0}),
    "byte count high": (altered(1, byte_count=193), {0}),
    "beyond the end": (altered(3, length=17, payload=bytes(68)), {0, 1, 2}),
    "off the boundary": (altered(1, length=8, payload=bytes(32)), {0}),
    "error with data": (altered(1, status=CA), {0}),
    "success without data": (altered(1, kind=CPL, length=0, payload=b""), {0}),
    "locked": (altered(1, kind=0x4B), {0}),
    "retry": (altered(0, kind=CPL, length=0, payload=b"", status=CRS), set()),
}


@pytest.mark.parametrize("bus_bytes", [32, 128])
@pytest.mark.parametrize("name", BAD_SEQUENCES)
def test_a_read_fails_for_any_bad_completion_and_keeps_the_good_parts(bus_bytes, name):
    alter, parts = BAD_SEQUENCES[name]
    config = CONFIGS[bus_bytes].replace(max_read_request_bytes=256, dma_tags=2)
    bench = Bench(config, split=1.0, alter=alter, timeout=300)
    first, second = [], []

    async def go(ctx):
        await bench.load(0, [(BASE, 0, 256)], first)(ctx)
        await bench.load(0, [(BASE, 4096, 256)], second)(ctx)

    bench.run(go)
    data = bench.host.read(BASE, 256)
    for part in range(4):
        got = bench.card.data[64 * part : 64 * part + 64].tobytes()
        assert got == (data[64 * part : 64 * part + 64] if part in parts else bytes(64))
    assert bool(first[0])
    assert second == [ReadFailure.NONE]
    assert bench.card.data[4096 : 4096 + 256].tobytes() == data
    assert bench.events["unexpected_completion"] == 0
    assert bench.read_bytes == 256 + 64 * len(parts)


@pytest.mark.slow
def test_a_client_becomes_idle_while_another_keeps_the_memory_busy():
    config = CONFIGS[32]
    bench = Bench(config, latency=(40, 40))
    page = 4096
    order = []

    def client(index, transfers, name):
        outcome = []
        inner = bench.load(index, transfers, outcome)

        async def run(ctx):
            await inner(ctx)
            assert outcome == [0]
            order.append(name)
            # Idle means that the data can be seen now.
            for source, destination, size in transfers:
                seen = bench.card.data[destination : destination + size].tobytes()
                assert seen == bench.host.read(source, size)

        return run

    bench.run(
        client(0, [(BASE + i * page, i * page, page) for i in range(6)], "long"),
        client(1, [(BASE, 64 * 1024, 32)], "short"),
    )
    assert order == ["short", "long"]


def test_requests_leave_and_fetched_words_come_in_the_stated_number_of_cycles():
    config = CONFIGS[32]
    dut = Requester(config, clients=2)
    events: dict[str, list[int]] = {"taken": [], "sent": []}

    async def client(ctx):
        size = 3 * config.max_read_request_bytes
        await put(ctx, dut.reads[1].request, {"address": 0x1000, "destination": 0, "bytes": size})

    async def watch(ctx):
        ctx.set(dut.enable, 1)
        ctx.set(dut.requests.ready, 1)
        ctx.set(dut.memory.idle, 1)
        cycle = 0
        request = dut.reads[1].request
        while len(events["sent"]) < 3:
            _, _, taken, sent = await ctx.tick().sample(
                request.valid & request.ready, dut.requests.valid
            )
            events["taken"] += [cycle] * taken
            events["sent"] += [cycle] * sent
            cycle += 1

    simulate(dut, client, watch, cycles=100)
    first = events["taken"][0] + dut.request_latency
    assert events["sent"] == [first, first + 1, first + 2]

    buffer = FetchBuffer(config)
    valid = []

    async def fetch(ctx):
        ctx.set(buffer.request.ready, 1)
        ctx.set(buffer.port.response.ready, 1)
        await put(ctx, buffer.port.request, {"address": 0x40, "bytes": 64})
        ctx.set(buffer.done, 1)
        for _ in range(6):
            _, _, offered = await ctx.tick().sample(buffer.port.response.valid)
            ctx.set(buffer.done, 0)
            valid.append(offered)

    simulate(buffer, fetch, cycles=100)
    assert valid == [0] * buffer.latency + [1, 1] + [0] * (4 - buffer.latency)
