"""The endpoint moves the right bytes each way, in the right order, whatever the link does."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdl.config import PRESETS
from hdl.pcie.endpoint import PcieEndpoint
from tests.bench import Memory, get, monitor, put, simulate
from tests.hdl.pcie.host_model import BASE, FAULTS, SIZE, Host, Registers
from tests.hdl.pcie.tlp_model import SC, UR, Tlp, completions, memory_request, refusal

TINY = PRESETS["tiny"]
CONFIGS = {
    16: TINY,
    32: TINY.replace(bus_bytes=32, cores=2, max_read_request_bytes=512, dma_tags=5),
    128: TINY.replace(bus_bytes=128, cores=2, max_payload_bytes=256, max_read_request_bytes=256),
}
CARD_BYTES = 128 * 1024
STALLS = st.sampled_from([0.0, 0.3, 0.7])


class Bench:
    """An endpoint between a host, card memory and registers."""

    def __init__(self, config, *, seed=0, stall=0.0, latency=(1, 8), **host):
        self.config = config
        self.dut = PcieEndpoint(config)
        self.host = Host(config, seed=seed, stall=stall, **host)
        self.card = Memory(config, CARD_BYTES, seed=seed, stall=stall, latency=latency)
        self.registers = Registers()
        self.dropped = self.unexpected = self.read_bytes = self.write_bytes = 0

    def run(self, *benches, cycles=60_000):
        dut = self.dut

        async def events(ctx):
            while True:
                _, _, *events = await ctx.tick().sample(
                    dut.dropped_request, dut.unexpected_completion, dut.read_bytes, dut.write_bytes
                )
                self.dropped += events[0]
                self.unexpected += events[1]
                self.read_bytes += events[2]
                self.write_bytes += events[3]

        simulate(
            dut,
            *benches,
            background=[
                *self.host.link(dut.rx, dut.tx),
                self.card.read_port(dut.window_read),
                self.card.write_port(dut.window_write),
                self.card.write_port(dut.dma_write),
                self.registers.serve(dut.registers),
                events,
                monitor(dut.tx, "tx"),
                monitor(dut.window_read.request, "window_read"),
                monitor(dut.window_write.request, "window_write"),
                monitor(dut.dma_write.request, "dma_write"),
                monitor(dut.fetch.response, "fetch"),
            ],
            cycles=cycles,
        )

    async def until(self, ctx, condition):
        while not condition():
            await ctx.tick()

    def load(self, index, transfers, outcome):
        """A client that reads (host address, card address, bytes), then waits for idle."""
        port = self.dut.dma_reads[index]

        async def bench(ctx):
            for source, destination, size in transfers:
                await put(
                    ctx,
                    port.request,
                    {"address": source, "destination": destination, "bytes": size},
                )
            while not ctx.get(port.idle):
                await ctx.tick()
            outcome.append(ctx.get(port.failed))

        return bench

    def store(self, index, transfers):
        """A client that writes (host address, bytes), then waits for idle."""
        port = self.dut.posted[index]
        word = self.config.bus_bytes

        async def bench(ctx):
            for address, data in transfers:
                await put(ctx, port.request, {"address": address, "bytes": len(data)})
                for i in range(0, len(data), word):
                    await put(ctx, port.data, int.from_bytes(data[i : i + word], "little"))
            while not ctx.get(port.idle):
                await ctx.tick()

        return bench

    def fetch(self, transfers, received):
        """A client that fetches (host address, bytes) one after the other."""
        port = self.dut.fetch

        async def bench(ctx):
            for address, size in transfers:
                await put(ctx, port.request, {"address": address, "bytes": size})
                words, last = [], False
                while not last:
                    beat = await get(ctx, port.response)
                    last = beat.last
                    words.append(int(beat.data).to_bytes(self.config.bus_bytes, "little"))
                received.append(None if beat.failed else b"".join(words))

        return bench


def aligned(rng, size, space, word):
    """A random word-aligned start from which `size` bytes fit in `space`."""
    return rng.randrange((space - size) // word + 1) * word


@pytest.mark.parametrize("bus_bytes", CONFIGS)
@settings(max_examples=max(5, settings().max_examples // 3))
@given(seed=st.integers(0, 2**32), stall=STALLS, faulty=st.booleans())
def test_mixed_traffic_keeps_every_byte(bus_bytes, seed, stall, faulty):
    config = CONFIGS[bus_bytes]
    rng = random.Random(seed)
    faults = {n: rng.choice(FAULTS) for n in range(60) if faulty and rng.random() < 0.15}
    bench = Bench(config, seed=seed, stall=stall, split=rng.random(), faults=faults)
    host, dut = bench.host, bench.dut
    original = bytes(host.memory)
    half, quarter = SIZE // 2, CARD_BYTES // 4

    # Card memory: quarters 0 and 1 for the loads of two cores, 2 for the window.
    loads, outcomes = [], []
    for core in range(config.cores):
        transfers, position = [], core * quarter
        for _ in range(rng.randint(1, 3)):
            size = rng.choice([1, rng.randint(1, 200), rng.randint(1, 1500)])
            source = BASE + aligned(rng, size, half, bus_bytes)
            transfers.append((source, position, size))
            position += -(-size // bus_bytes) * bus_bytes
        loads.append(transfers)
        outcomes.append([])

    # Host memory: the lower half is only read, each writer has a part of the upper half.
    stores, expected_host = [], bytearray(original)
    part = half // (config.cores + 1) // 64 * 64
    for index in range(config.cores + 1):
        transfers = []
        for _ in range(rng.randint(1, 3)):
            size = rng.choice([4, rng.randint(1, 64), rng.randint(1, 900)])
            start = half + index * part + aligned(rng, size, part - 64, rng.choice([4, 64]))
            data = rng.randbytes(size)
            transfers.append((BASE + start, data))
            expected_host[start : start + size] = data
        stores.append(transfers)

    limit = config.max_read_request_bytes
    fetches, fetched = [], []
    for _ in range(rng.randint(0, 3)):
        size = rng.randint(1, limit // bus_bytes) * bus_bytes
        start = rng.randrange(half // limit) * limit
        fetches.append((BASE + start + aligned(rng, size, limit, bus_bytes), size))

    expected_window = bytearray(quarter)
    answers = {}
    writes = 0
    for tag in range(rng.randint(1, 8)):
        size = rng.choice([4, rng.randint(1, 100), rng.randint(1, 700)])
        page = rng.randrange(quarter // 4096) * 4096
        start = page + aligned(rng, size, 4096, bus_bytes)
        choice = rng.random()
        if choice < 0.4:
            data = rng.randbytes(size)
            host.requests.append((memory_request(2 * quarter + start, size, data=data), 2))
            expected_window[start : start + size] = data
        elif choice < 0.7:
            request = memory_request(2 * quarter + start, size, tag=tag, requester=0x1234)
            host.requests.append((request, 2))
            length = 4 * request.length
            answers[tag] = (request, bytes(expected_window[start : start + length]))
        elif choice < 0.85:
            data = rng.randbytes(4)
            host.requests.append((memory_request(8 * tag, 4, data=data), 0))
            writes += 1
        else:
            request = memory_request(6, 3, tag=tag)
            host.requests.append((request, 2))
            answers[tag] = (request, None)

    clients = [bench.load(i, t, o) for i, (t, o) in enumerate(zip(loads, outcomes, strict=True))]
    clients += [bench.store(i, t) for i, t in enumerate(stores)]
    clients.append(bench.fetch(fetches, fetched))

    left = set(range(len(clients)))

    def counted(index, client):
        async def run(ctx):
            await client(ctx)
            left.discard(index)

        return run

    async def finish(ctx):
        calm = 0
        while calm < 100:
            await ctx.tick()
            memory_idle = ctx.get(dut.dma_write.idle & dut.window_write.idle)
            calm = calm + 1 if host.quiet and memory_idle and not left else 0

    bench.run(*(counted(index, client) for index, client in enumerate(clients)), finish)

    assert host.memory == expected_host
    assert bench.card.data[2 * quarter : 3 * quarter].tobytes() == expected_window
    assert len(bench.registers.writes) == writes
    spans = [(read.address, read.address + 4 * read.length) for read in host.faulty]

    def touched(start, size):
        return any(low < start + size and start < high for low, high in spans)

    card = bench.card.data
    for transfers, outcome in zip(loads, outcomes, strict=True):
        hit = False
        for source, destination, size in transfers:
            want = original[source - BASE : source - BASE + size]
            got = card[destination : destination + size].tobytes()
            tail = card[destination + size : destination + -(-size // bus_bytes) * bus_bytes]
            assert not tail.any(), "bytes beyond the transfer were written"
            if touched(source, size):
                hit = True
                # What is there is right; what failed was left alone.
                assert all(g in (0, w) for g, w in zip(got, want, strict=True))
            else:
                assert got == want
        # A fault of another client may lie on the same host bytes, so one way only.
        assert hit or outcome == [0]
    assert len(fetched) == len(fetches)
    for (address, size), words in zip(fetches, fetched, strict=True):
        assert words == original[address - BASE : address - BASE + size] or (
            words is None and touched(address, size)
        )
    failures = sum(outcome[0] for outcome in outcomes) + sum(w is None for w in fetched)
    assert bool(failures) == bool(host.faulty)
    assert bench.write_bytes == sum(len(data) for transfers in stores for _, data in transfers)

    by_tag = {}
    for answer in host.answers:
        by_tag.setdefault(answer.tag, []).append(answer)
    assert set(by_tag) == set(answers)
    for tag, (request, data) in answers.items():
        check_answer(config, request, data, by_tag[tag])
    assert bench.dropped == sum(data is None for _, data in answers.values())
    assert bench.unexpected == 0


def check_answer(config, request, data, answers):
    """`answers` are the completions of a read of `data` (None: refused)."""
    if data is None:
        assert answers == [refusal(request)]
        return
    end = request.address + 4 * request.length
    step = config.max_payload_bytes
    cuts = list(range(-(-request.address // step) * step, end, step))
    assert answers == completions(request, data, cuts)


@pytest.mark.parametrize("bus_bytes", CONFIGS)
def test_a_register_write_waits_for_the_window_writes_before_it(bus_bytes):
    config = CONFIGS[bus_bytes]
    bench = Bench(config, latency=(200, 200))
    data = random.Random(1).randbytes(128)
    bench.host.requests.append((memory_request(0x1000, 128, data=data), 2))
    bench.host.requests.append((memory_request(0x40, 4, data=b"\1\2\3\4"), 0))
    seen = []

    async def watch(ctx):
        while not bench.registers.writes:
            await ctx.tick()
        seen.append(bench.card.data[0x1000:0x1080].tobytes())

    bench.run(watch)
    assert bench.registers.writes[0][1:] == (0x40, 0x04030201)
    assert bench.registers.writes[0][0] > 200
    assert seen == [data]


def test_reads_wait_for_the_writes_before_them():
    bench = Bench(CONFIGS[32], latency=(100, 100))
    data = random.Random(1).randbytes(64)
    bench.host.requests.append((memory_request(0x2000, 64, data=data), 2))
    bench.host.requests.append((memory_request(0x2000, 64, tag=7), 2))
    bench.host.requests.append((memory_request(0x2000, 64, data=data[::-1]), 2))
    bench.host.requests.append((Tlp(kind=0, length=1, address=0x2004, tag=8), 2))

    async def watch(ctx):
        await bench.until(ctx, lambda: len(bench.host.answers) == 2)
        assert bench.card.data[0x2000:0x2040].tobytes() == data[::-1]

    bench.run(watch)
    first, flush = bench.host.answers
    assert first.payload == data
    assert (flush.length, flush.byte_count, flush.lower_address, flush.status) == (1, 1, 4, SC)


@pytest.mark.parametrize("bus_bytes", CONFIGS)
def test_a_register_is_read_in_the_stated_number_of_cycles(bus_bytes):
    bench = Bench(CONFIGS[bus_bytes])
    bench.registers.values = {0x10: 0x11223344, 0x14: 0x55667788}
    dut = bench.dut
    request = memory_request(0x10, 4, tag=3)
    bench.host.requests += [(request, 0), (memory_request(0x10, 8, tag=4), 0)]
    cycles = []

    async def watch(ctx):
        cycle, taken = 0, None
        while len(bench.host.answers) < 2:
            _, _, rx, tx = await ctx.tick().sample(dut.rx.valid & dut.rx.ready, dut.tx.valid)
            if rx and taken is None:
                taken = cycle
            if tx and not cycles:
                cycles.append(cycle - taken)
            cycle += 1

    bench.run(watch)
    assert cycles == [dut.register_read_latency]
    assert [a.payload for a in bench.host.answers] == [
        bytes.fromhex("44332211"),
        bytes.fromhex("4433221188776655"),
    ]
    assert [(a.tag, a.byte_count, a.lower_address) for a in bench.host.answers] == [
        (3, 4, 0x10),
        (4, 8, 0x10),
    ]


@pytest.mark.parametrize("bus_bytes", CONFIGS)
def test_a_page_moves_at_one_word_a_cycle_plus_headers(bus_bytes):
    config = CONFIGS[bus_bytes].replace(dma_tags=33)
    bench = Bench(config, split=0.0, latency=(1, 1))
    dut, host = bench.dut, bench.host
    host.hold_completions = True
    data = random.Random(2).randbytes(4096)
    busy = {"rx": [], "tx": []}
    outcome = []
    written = BASE + SIZE // 2

    original = host.read(BASE, 4096)

    async def store(ctx):
        await bench.until(ctx, lambda: len(host.reads) == 4096 // config.max_read_request_bytes)
        host.hold_completions = False
        await bench.store(0, [(written, data)])(ctx)

    async def watch(ctx):
        cycle = 0
        while not outcome or len(host.writes) * config.max_payload_bytes != 4096:
            _, _, rx, tx = await ctx.tick().sample(
                dut.rx.valid & dut.rx.ready, dut.tx.valid & dut.tx.ready
            )
            busy["rx"] += [cycle] * rx
            busy["tx"] += [cycle] * (tx and not host.hold_completions)
            cycle += 1

    bench.run(bench.load(0, [(BASE, 0, 4096)], outcome), store, watch)
    words = 4096 // config.bus_bytes
    assert bench.card.data[:4096].tobytes() == original
    assert host.read(written, 4096) == data
    assert outcome == [0]
    reads = words + 4096 // config.max_read_request_bytes
    writes = words + 4096 // config.max_payload_bytes
    assert len(busy["rx"]) == reads
    assert busy["rx"][-1] - busy["rx"][0] + 1 == reads
    assert len(busy["tx"]) == writes
    assert bench.read_bytes == bench.write_bytes == 4096


def test_refused_requests_are_counted_and_the_next_one_is_served():
    config = CONFIGS[32]
    bench = Bench(config)
    good = memory_request(0x80, 96, data=bytes(range(96)))
    end = config.scratchpad_address(config.cores)
    page = memory_request(0x80, 4, data=bytes(4))
    posted = [
        (memory_request(0x84, 4, data=b"\xff" * 4), 2),  # not at a word
        (memory_request(0x81, 4, data=b"\xff" * 4), 2),  # not at a doubleword
        (memory_request(end, 32, data=b"\xff" * 32), 2),  # beyond card memory
        (memory_request(0x80, 4, data=b"\xff" * 4), 1),  # unknown BAR
        (memory_request(0x80, 12, data=b"\xff" * 12), 0),  # three registers
        (memory_request(0x80, 2, data=b"\xff" * 2), 0),  # half a register
        (Tlp(**vars(good) | {"poisoned": True}), 2),
        (Tlp(**vars(good) | {"payload": good.payload[:32]}), 2),  # too short
        (Tlp(**vars(good) | {"payload": good.payload * 90}), 2),  # too long, for the buffer too
        (Tlp(**vars(good) | {"payload": b""}), 2),
        (Tlp(**vars(page) | {"first_be": 0b1011}), 2),  # a gap
        (Tlp(**vars(memory_request(0xFC0, 64, data=bytes(64))) | {"length": 32}), 2),
        (memory_request(0xFC0, 128, data=bytes(128)), 2),  # crosses 4 KiB
        (Tlp(kind=0x34), 0),  # message without data
        (Tlp(kind=0x74, length=1, payload=b"\xff" * 4), 0),  # message with data
        (Tlp(kind=0x9F), 0),  # prefix
    ]
    refused = [
        (memory_request(0x84, 4, tag=1), 2),
        (memory_request(0x83, 40, tag=2), 2),
        (memory_request(end, 32, tag=3), 2),
        (memory_request(0x80, 4, tag=4), 5),
        (memory_request(0x80, 12, tag=5), 0),
        (memory_request(0x81, 1, tag=6, attributes=2, traffic_class=3), 0),
        (memory_request(0xFC0, 128, tag=7), 2),
        (Tlp(**vars(memory_request(0x80, 4, tag=8)) | {"length": 2}), 0),  # last_be 0
    ]
    other = [
        (Tlp(kind=0x02, length=1, first_be=15, tag=20), 0),  # I/O read
        (Tlp(kind=0x42, length=1, first_be=15, tag=21, payload=bytes(4)), 0),  # I/O write
        (Tlp(kind=0x04, length=1, first_be=15, tag=22), 0),  # configuration read
        (Tlp(kind=0x4C, length=1, tag=23, payload=bytes(4)), 2),  # fetch and add
        (Tlp(kind=0x00, length=1, first_be=15, tag=24, payload=bytes(64)), 0),  # read with payload
    ]
    mixed = posted + refused + other
    random.Random(3).shuffle(mixed)
    for item in mixed:
        bench.host.requests.append(item)
    bench.host.requests.append((good, 2))
    bench.host.requests.append((memory_request(0x80, 96, tag=99), 2))

    async def watch(ctx):
        await bench.until(ctx, lambda: bench.host.answers and bench.host.answers[-1].tag == 99)

    bench.run(watch)
    answers = {a.tag: a for a in bench.host.answers}
    assert len(answers) == len(bench.host.answers) == len(refused) + len(other) + 1
    for request, _ in refused[:-1]:
        assert answers[request.tag] == refusal(request), request
    for request, _ in [*other, refused[-1]]:
        assert (answers[request.tag].kind, answers[request.tag].status) == (0x0A, UR)
    assert [answers[t].byte_count for t in (20, 21, 22, 23)] == [4] * 4
    assert bench.dropped == len(mixed)
    assert answers[99].payload == good.payload
    assert not bench.registers.writes
    assert {address for address, _ in bench.card.writes} == {0x80, 0xA0, 0xC0}


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
        await bench.until(ctx, lambda: bench.unexpected == len(strays))
        await bench.load(0, [(BASE, 0, 1000)], outcome)(ctx)

    bench.run(go)
    assert outcome == [0]
    assert bench.card.data[:1000].tobytes() == bench.host.read(BASE, 1000)


@pytest.mark.parametrize("bus_bytes", CONFIGS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_read_is_reported_once_and_its_tag_returns(bus_bytes, fault):
    config = CONFIGS[bus_bytes].replace(dma_tags=2)
    bench = Bench(config, faults={0: fault, 1: fault, 2: fault}, split=1.0)
    first, second = [], []

    async def go(ctx):
        # One tag: three failures would use up three if they were lost.
        await bench.load(0, [(BASE, 0, 3 * config.max_read_request_bytes)], first)(ctx)
        await bench.load(0, [(BASE, 4096, 700)], second)(ctx)

    bench.run(go)
    assert first == [1]
    assert second == [0]
    assert bench.card.data[4096 : 4096 + 700].tobytes() == bench.host.read(BASE, 700)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_fetch_ends_with_failed_and_the_next_one_succeeds(fault):
    config = CONFIGS[32]
    bench = Bench(config, faults={0: fault})
    received = []
    bench.run(bench.fetch([(BASE + 64, 128), (BASE + 64, 128)], received))
    assert received == [None, bench.host.read(BASE + 64, 128)]


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
