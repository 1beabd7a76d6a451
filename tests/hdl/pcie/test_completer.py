"""Requests take effect in order, or are refused without any effect."""

import random

import numpy as np
import pytest

from halfdome.hdl.pcie.replier import READ_QUEUE
from tests.hdl.pcie.endpoint_bench import CONFIGS, Bench
from tests.hdl.pcie.host_model import BASE
from tests.hdl.pcie.tlp_model import SC, UR, Tlp, memory_request, refusal


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
    bench.host.requests.append((memory_request(0x3000, 64, data=data[::-1]), 2))
    bench.host.requests.append((Tlp(kind=0, length=1, address=0x2004, tag=8), 2))

    async def watch(ctx):
        await bench.until(ctx, lambda: len(bench.host.answers) == 2)
        assert bench.card.data[0x3000:0x3040].tobytes() == data[::-1]

    bench.run(watch)
    first, flush = bench.host.answers
    assert first.payload == data
    assert (flush.length, flush.byte_count, flush.lower_address, flush.status) == (1, 1, 4, SC)


@pytest.mark.parametrize("bus_bytes", CONFIGS)
@pytest.mark.parametrize("reads", [3, 4 * READ_QUEUE])
def test_writes_pass_reads_whose_answers_are_refused(bus_bytes, reads):
    """Two peers that read and write each other would otherwise wait for each other for ever."""
    config = CONFIGS[bus_bytes]
    bench = Bench(config)
    host = bench.host
    host.deaf = True
    rng = random.Random(2)
    bench.card.data[:8192] = np.frombuffer(rng.randbytes(8192), np.uint8)
    original, data, outcome = bench.card.data[:8192].tobytes(), rng.randbytes(128), []
    spans = []
    for tag in range(reads):
        size = rng.choice([4, 64, 128, rng.randint(1, 500)])
        spans.append((rng.randrange(4096 // 512) * 512, size))
        host.requests.append((memory_request(*spans[-1], tag=tag), 2))
    host.requests.append((memory_request(8, 4, tag=200), 0))
    host.requests.append((memory_request(0x3000, 128, data=data), 2))
    host.requests.append((memory_request(0x40, 4, data=b"\1\2\3\4"), 0))

    async def watch(ctx):
        await bench.until(ctx, lambda: bench.registers.writes)
        assert bench.card.data[0x3000:0x3080].tobytes() == data
        assert not host.answers
        host.deaf = False
        last = lambda: host.answers and host.answers[-1].tag == 200  # noqa: E731
        await bench.until(ctx, last)

    bench.run(watch, bench.load(0, [(BASE, 0x4000, 100)], outcome))
    assert outcome == [0]
    order = list(dict.fromkeys(answer.tag for answer in host.answers))
    assert order == [*range(reads), 200]
    for tag, (start, size) in enumerate(spans):
        answers = [answer for answer in host.answers if answer.tag == tag]
        got = b"".join(answer.payload for answer in answers)
        assert got[:size] == original[start : start + size]
        assert answers[0].byte_count == size


@pytest.mark.parametrize("bus_bytes", CONFIGS)
def test_memory_is_read_ahead_of_the_answers(bus_bytes):
    """Between completions one cycle is lost, however long the memory takes for each."""
    config, count, size = CONFIGS[bus_bytes], 24, 128
    bench = Bench(config, latency=(25, 25))
    for tag in range(count):
        bench.host.requests.append((memory_request(128 * tag, size, tag=tag), 2))
    sent = []

    async def watch(ctx):
        cycle = 0
        while len(bench.host.answers) < count:
            _, _, beat = await ctx.tick().sample(bench.dut.tx.valid & bench.dut.tx.ready)
            sent.extend([cycle] * beat)
            cycle += 1

    bench.run(watch)
    words = size // config.bus_bytes
    assert len(sent) == count * (1 + words)
    assert sent[-1] - sent[0] + 1 <= count * max(2 + words, 5)


def test_refused_requests_are_counted_and_the_next_one_is_served():
    config = CONFIGS[32]
    bench = Bench(config)
    good = memory_request(0x80, 96, data=bytes(range(96)))
    end = config.scratchpad_address(config.cores)
    single = memory_request(0x80, 4, data=bytes(4))
    posted = [
        (memory_request(end, 32, data=b"\xff" * 32), 2),  # beyond card memory
        (memory_request(0x80, 4, data=b"\xff" * 4), 1),  # unknown BAR
        (memory_request(0x80, 12, data=b"\xff" * 12), 0),  # three registers
        (memory_request(0x80, 2, data=b"\xff" * 2), 0),  # half a register
        (Tlp(**vars(good) | {"poisoned": True}), 2),
        (Tlp(**vars(good) | {"payload": good.payload[:32]}), 2),  # too short
        (Tlp(**vars(good) | {"payload": good.payload * 90}), 2),  # too long, for the buffer too
        (Tlp(**vars(good) | {"payload": b""}), 2),
        (Tlp(**vars(single) | {"first_be": 0b1011}), 0),  # three bytes of a register
        (Tlp(**vars(good) | {"last_be": 0}), 2),  # against the rules of byte enables
        (Tlp(**vars(good) | {"first_be": 0}), 2),
        (Tlp(**vars(single) | {"last_be": 1}), 2),
        (Tlp(**vars(memory_request(0xFC0, 64, data=bytes(64))) | {"length": 32}), 2),
        (memory_request(0xFC0, 128, data=bytes(128)), 2),  # crosses 4 KiB
        (Tlp(kind=0x34), 0),  # message without data
        (Tlp(kind=0x74, length=1, payload=b"\xff" * 4), 0),  # message with data
        (Tlp(kind=0x9F), 0),  # prefix
    ]
    refused = [
        (memory_request(0x84, 2, tag=1), 0),
        (memory_request(0x83, 5, tag=2), 0),
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
    assert bench.events["dropped_request"] == len(mixed)
    assert answers[99].payload == good.payload
    assert not bench.registers.writes
    assert {address for address, _ in bench.card.writes} == {0x80, 0xA0, 0xC0}
