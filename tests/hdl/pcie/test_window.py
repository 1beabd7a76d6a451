"""BAR 2 is memory: any bytes are read and written there; a byte array says what there must be."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hdl.pcie.endpoint_bench import CONFIGS, Bench
from tests.hdl.pcie.test_endpoint import check_answer
from tests.hdl.pcie.tlp_model import byte_enables, memory_request


def naturally_aligned(nbytes):
    """(offset, size) of each integer of 1, 2, 4 or 8 bytes at its natural alignment."""
    return [(start, size) for size in (1, 2, 4, 8) for start in range(0, nbytes, size)]


def run(config, requests, memory, **options):
    """Sends requests to the window; returns the answers by tag and what memory then holds."""
    bench = Bench(config, **options)
    bench.card.data[: len(memory)] = np.frombuffer(memory, np.uint8)
    bench.host.requests.extend((request, 2) for request in requests)
    bench.host.requests.append((memory_request(0, 4, tag=255), 2))

    async def watch(ctx):
        last = lambda: bench.host.answers and bench.host.answers[-1].tag == 255  # noqa: E731
        await bench.until(ctx, last)

    bench.run(watch)
    assert not bench.events
    answers = {}
    for answer in bench.host.answers[:-1]:
        answers.setdefault(answer.tag, []).append(answer)
    return answers, bench.card.data[: len(memory)].tobytes()


@pytest.mark.parametrize("bus_bytes", CONFIGS)
def test_a_processor_writes_any_integer_and_no_other_byte_and_reads_it_back(bus_bytes):
    config, rng = CONFIGS[bus_bytes], random.Random(1)
    accesses = naturally_aligned(bus_bytes)
    expected = bytearray(rng.randbytes(len(accesses) * bus_bytes))
    memory, requests = bytes(expected), []
    for tag, (start, size) in enumerate(accesses):
        place, data = tag * bus_bytes + start, rng.randbytes(size)
        requests.append(memory_request(place, size, data=data))
        requests.append(memory_request(place, size, tag=tag))
        expected[place : place + size] = data
    answers, after = run(config, requests, memory)
    assert after == expected
    assert len(answers) == len(accesses)
    for request in requests[1::2]:
        data = bytes(expected[request.address : request.address + 4 * request.length])
        check_answer(config, request, data, answers[request.tag])


def with_gaps(rng, request):
    """One or two doublewords of which any bytes are enabled: of one perhaps none."""
    single = request.length == 1
    first = rng.randrange(16) if single else rng.randrange(1, 16)
    return replace(request, first_be=first, last_be=0 if single else rng.randrange(1, 16))


def random_request(rng, base, nbytes, tag):
    """A read or a write within `nbytes` from `base`, as a processor or a DMA engine would."""
    size = rng.choice([1, 2, 4, 8, rng.randint(1, 64), rng.randint(1, nbytes)])
    start = rng.randrange(nbytes - size + 1)
    if size in (2, 4, 8) and rng.random() < 0.7:
        start &= -size
    if size == nbytes or rng.random() < 0.2:
        start, size = start & -64, max(1, size & -64)
    data = rng.choice([None, bytes(size)])
    request = memory_request(base + start, size, tag=tag, data=data)
    if request.length <= 2 and rng.random() < 0.4:
        request = with_gaps(rng, request)
    if data is None:
        return request
    return replace(request, payload=rng.randbytes(4 * request.length))


@pytest.mark.parametrize("bus_bytes", CONFIGS)
@settings(max_examples=max(2, settings().max_examples // 3))
@given(seed=st.integers(0, 2**32), stall=st.sampled_from([0.0, 0.3, 0.7]))
def test_reads_see_every_byte_written_before_them(bus_bytes, seed, stall):
    """And bursts, byte enables with gaps and back-pressure change nothing."""
    rng = random.Random(seed)
    base, nbytes = rng.choice([0, 4096 - 640]), 640
    history = [[value] for value in rng.randbytes(base + nbytes)]
    memory = bytes(values[0] for values in history)
    requests = [random_request(rng, base, nbytes, tag) for tag in range(24)]
    possible = {}  # of each byte of a read: a write may pass the reads before it
    for request in requests:
        if request.payload:
            for place, value in request.written().items():
                history[place].append(value)
        else:
            span = range(request.address, request.address + 4 * request.length)
            possible[request.tag] = [(history[place], len(history[place]) - 1) for place in span]
    config = CONFIGS[bus_bytes]
    answers, after = run(config, requests, memory, seed=seed, stall=stall)
    assert after == bytes(values[-1] for values in history)
    assert answers.keys() == possible.keys()
    for request in requests:
        if request.payload:
            continue
        told = answers[request.tag]
        data = b"".join(answer.payload for answer in told)
        enables = byte_enables(request)
        check_answer(config, request, data, told)
        for value, enabled, (values, first) in zip(
            data, enables, possible[request.tag], strict=True
        ):
            assert not enabled or value in values[first:]


def test_a_write_of_no_bytes_changes_nothing_and_is_no_error():
    nothing = replace(memory_request(4, 4, data=b"\xff" * 4), first_be=0)
    assert run(CONFIGS[16], [nothing], bytes(64)) == ({}, bytes(64))


@pytest.mark.parametrize("start", [0, 4, 92])
def test_words_follow_each_other_wherever_a_payload_starts(start):
    """One a cycle into memory, and one a cycle out of it behind a header."""
    config, size = CONFIGS[32], 128 - 4
    bench = Bench(config, latency=(1, 1))
    requests = [memory_request(start, size, data=bytes(size)), memory_request(start, size, tag=1)]
    bench.host.requests.extend((request, 2) for request in requests)
    cycles = {"write": [], "answer": []}

    async def watch(ctx):
        write, tx = bench.dut.window_write.request, bench.dut.tx
        cycle = 0
        while sum(answer.length for answer in bench.host.answers) < size // 4:
            _, _, wrote, told = await ctx.tick().sample(
                write.valid & write.ready, tx.valid & tx.ready
            )
            cycles["write"] += [cycle] * wrote
            cycles["answer"] += [cycle] * told
            cycle += 1

    bench.run(watch)
    words = -(-(start + size) // 32) - start // 32
    parts = bench.host.answers
    beats = sum(1 + -(-4 * answer.length // 32) for answer in parts)
    assert [len(numbers) for numbers in cycles.values()] == [words, beats]
    for name, gaps in (("write", 0), ("answer", len(parts) - 1)):
        numbers = cycles[name]
        assert numbers[-1] - numbers[0] + 1 <= len(numbers) + gaps, name
