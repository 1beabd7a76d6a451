"""Whatever a host sends, each read is answered once and the next good request is served."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.hdl.pcie.endpoint_bench import TINY, Bench
from tests.hdl.pcie.tlp_model import CPL, CPLD, MRD32, MRD64, MWR32, MWR64, SC, memory_request

CONFIG = TINY.replace(dram_bytes=1 << 16, bus_bytes=32)
TOP = CONFIG.scratchpad_address(CONFIG.cores)
IO_READ, IO_WRITE, CONFIG_READ, CONFIG_WRITE, FETCH_ADD, SWAP, READ_LOCKED = (
    0x02, 0x42, 0x04, 0x44, 0x4C, 0x4D, 0x01,
)  # fmt: skip
NON_POSTED = (
    MRD32, MRD64, IO_READ, IO_WRITE, CONFIG_READ, CONFIG_WRITE, FETCH_ADD, SWAP, READ_LOCKED,
)  # fmt: skip
POSTED = (MWR32, MWR64, 0x34, 0x74, 0x30)
UNKNOWN = (0x1F, 0x5B, 0x80, 0x9E, 0xFF)
"""Reserved types and prefixes: nobody can say whether they expect an answer."""


def hostile(rng, tag):
    """A good request with a few fields changed, or hardly anything right at all; its BAR."""
    size = rng.choice([1, 4, 8, 12, rng.randint(1, 600)])
    address = rng.choice([0, 32, 4096 - size, TOP - 32, TOP, rng.randrange(2 * TOP)])
    data = rng.choice([None, rng.randbytes(size)])
    request = memory_request(address, size, data=data, tag=tag, requester=7)
    changes = {
        "kind": rng.choice(NON_POSTED + POSTED + UNKNOWN),
        "length": rng.choice([1, 2, 3, 33, 1024]),
        "first_be": rng.randrange(16),
        "last_be": rng.randrange(16),
        "address": 4 * rng.randrange(1 << 28),
        "poisoned": True,
        "attributes": rng.randrange(4),
        "traffic_class": rng.randrange(8),
        "payload": rng.randbytes(4 * rng.choice([0, 1, 5, 40, 1200])),
    }
    chosen = rng.sample(list(changes), rng.choice([0, 1, 1, 2, 5]))
    return replace(request, **{name: changes[name] for name in chosen}), rng.choice([0, 2, 2, 3, 7])


def touches(request, place):
    """Whether 32 bytes at `place` of the window may be written by `request`."""
    start = request.address % CONFIG.window_bytes
    return (
        request.kind in (MWR32, MWR64)
        and start < place + 32
        and place < start + 4 * request.length
    )  # fmt: skip


@given(seed=st.integers(0, 2**32), stall=st.sampled_from([0.0, 0.4]))
def test_the_next_good_request_is_served(seed, stall):
    rng = random.Random(seed)
    bench = Bench(CONFIG, seed=seed, stall=stall)
    sent, good = {}, {}
    places = [32 * place for place in rng.sample(range(TOP // 32), 12)]
    for number, place in enumerate(places):
        request, bar = hostile(rng, 2 * number)
        while any(touches(request, earlier) for earlier in places[:number]):
            request, bar = hostile(rng, 2 * number)  # it may pass the reads before it
        sent[request.tag] = request
        data = rng.randbytes(32)
        read = memory_request(place, 32, tag=2 * number + 1)
        good[read.tag] = data
        bench.host.requests.append((request, bar))
        bench.host.requests.append((memory_request(place, 32, data=data), 2))
        bench.host.requests.append((read, 2))

    async def watch(ctx):
        await bench.until(ctx, lambda: any(a.tag == 23 for a in bench.host.answers))

    bench.run(watch)
    answers = {}
    for answer in bench.host.answers:
        answers.setdefault(answer.tag, []).append(answer)
    for tag, data in good.items():
        assert [a.payload for a in answers.pop(tag)] == [data]
    for tag, request in sent.items():
        told = answers.pop(tag, [])
        if request.kind in POSTED:
            assert not told, request
        elif request.kind in NON_POSTED:
            check_answered(request, told)
    assert not answers, "an answer that nobody asked for"


def check_answered(request, told):
    """One error, or data to the last byte."""
    assert told, request
    if told[0].status != SC:
        assert len(told) == 1
        assert told[0].kind == CPL
        return
    assert request.kind in (MRD32, MRD64)
    assert all(a.kind == CPLD and a.status == SC for a in told)
    left = told[0].byte_count
    for answer in told:
        assert answer.byte_count == left
        left -= 4 * answer.length - answer.lower_address % 4
    assert left <= 0
    assert sum(a.length for a in told) == request.length
