"""The endpoint moves the right bytes each way, whatever the link does, in the stated time."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfdome.hdl.pcie.port import READ_EVENTS
from tests.hdl.pcie.endpoint_bench import CARD_BYTES, CONFIGS, Bench
from tests.hdl.pcie.host_model import BASE, FAULTS, SIZE
from tests.hdl.pcie.tlp_model import completions, memory_request, refusal

STALLS = st.sampled_from([0.0, 0.3, 0.7])


def aligned(rng, size, space, word):
    """A random word-aligned start from which `size` bytes fit in `space`."""
    return rng.randrange((space - size) // word + 1) * word


@pytest.mark.parametrize("bus_bytes", CONFIGS)
@settings(max_examples=max(2, settings().max_examples // 3))
@given(seed=st.integers(0, 2**32), stall=STALLS, faulty=st.booleans())
def test_mixed_traffic_keeps_every_byte(bus_bytes, seed, stall, faulty):
    config = CONFIGS[bus_bytes]
    rng = random.Random(seed)
    faults = {n: rng.choice(FAULTS) for n in range(60) if faulty and rng.random() < 0.15}
    bench = Bench(config, seed=seed, stall=stall, timeout=2500, split=rng.random(), faults=faults)
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
    answers, asked = {}, []
    writes = 0
    for tag in range(rng.randint(1, 8)):
        size = rng.choice([4, rng.randint(1, 100), rng.randint(1, 700)])
        page = rng.randrange(quarter // 4096) * 4096
        start = page + aligned(rng, size, 4096, rng.choice([1, bus_bytes]))
        choice = rng.random()
        if choice < 0.4:
            if any(low < start + size and start < high for low, high in asked):
                continue  # a write may pass the reads before it
            data = rng.randbytes(size)
            host.requests.append((memory_request(2 * quarter + start, size, data=data), 2))
            expected_window[start : start + size] = data
        elif choice < 0.7:
            request = memory_request(2 * quarter + start, size, tag=tag, requester=0x1234)
            host.requests.append((request, 2))
            low = request.address - 2 * quarter
            asked.append((low, low + 4 * request.length))
            answers[tag] = (request, bytes(expected_window[low : low + 4 * request.length]))
        elif choice < 0.85:
            data = rng.randbytes(4)
            host.requests.append((memory_request(8 * tag, 4, data=data), 0))
            writes += 1
        else:
            request = memory_request(6, 3, tag=tag)  # parts of two registers
            host.requests.append((request, 0))
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
            card_quiet = ctx.get(dut.dma_write.idle & dut.window_write.idle & ~dut.tx.valid)
            calm = calm + 1 if host.quiet and card_quiet and not left else 0

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
            hit |= touched(source, size)
            if outcome[0]:
                # What is there is right; what failed, or was not asked for then, was left alone.
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
    failures = sum(bool(outcome[0]) for outcome in outcomes) + sum(w is None for w in fetched)
    assert bool(failures) == bool(host.faulty)
    assert bench.write_bytes == sum(len(data) for transfers in stores for _, data in transfers)

    by_tag = {}
    for answer in host.answers:
        by_tag.setdefault(answer.tag, []).append(answer)
    assert set(by_tag) == set(answers)
    for tag, (request, data) in answers.items():
        check_answer(config, request, data, by_tag[tag])
    assert bench.events["dropped_request"] == sum(data is None for _, data in answers.values())
    assert bench.events["unexpected_completion"] == bench.events["completion_timeout"] == 0
    assert sum(bench.events[name] for name in READ_EVENTS) == len(host.faulty)


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
