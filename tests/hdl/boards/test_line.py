"""What goes over two wires comes out as it went in, or not at all; every question is done once."""

import random

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.boards.exchange import Exchange
from halfdome.hdl.boards.framing import Framer, Unframer
from halfdome.hdl.boards.uart import LEAST_DIVISOR, UartReceiver, UartTransmitter
from halfdome.hdl.serial import FRAME_BYTES, LINE_VERSION
from halfdome.host.driver.serial_line import frame, messages
from tests.bench import get, monitor, put, simulate

bodies = st.lists(
    st.one_of(st.binary(min_size=1, max_size=20), st.just(b"\x7e\x7d\x5e\x5d" * 3)), max_size=4
)


class Wires(wiring.Component):
    """A transmitter, a wire that a test may disturb, a receiver."""

    def __init__(self, divisor):
        self.transmitter, self.receiver = UartTransmitter(divisor), UartReceiver(divisor)
        super().__init__({"disturb": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules += [self.transmitter, self.receiver]
        m.d.comb += self.receiver.rx.eq(self.transmitter.tx ^ self.disturb)
        return m


@pytest.mark.parametrize("divisor", [LEAST_DIVISOR, 5, 25])
def test_bytes_cross_the_wire_at_ten_bits_each(divisor):
    dut = Wires(divisor)
    sent, came = [0x00, 0xFF, 0x55, 0xA7, 0x80], []

    async def send(ctx):
        for byte in sent:
            await put(ctx, dut.transmitter.i, byte)

    async def receive(ctx):
        cycle = 0
        while len(came) < len(sent):
            *_, valid, byte = await ctx.tick().sample(dut.receiver.o.valid, dut.receiver.o.p)
            cycle += 1
            if valid:
                came.append(int(byte))
        assert cycle <= 10 * divisor * len(sent) + 10

    simulate(dut, send, receive)
    assert came == sent


def test_a_glitch_is_no_byte_and_a_byte_without_stop_bit_is_dropped():
    dut = Wires(8)
    came = []

    async def listen(ctx):
        while True:
            *_, valid, byte = await ctx.tick().sample(dut.receiver.o.valid, dut.receiver.o.p)
            if valid:
                came.append(int(byte))

    async def disturb(ctx):
        ctx.set(dut.disturb, 1)
        await ctx.tick().repeat(2)
        ctx.set(dut.disturb, 0)
        await ctx.tick().repeat(100)
        ctx.set(dut.disturb, 1)  # a break
        await ctx.tick().repeat(200)
        ctx.set(dut.disturb, 0)
        await ctx.tick().repeat(10)
        await put(ctx, dut.transmitter.i, 0x42)
        await ctx.tick().repeat(100)

    simulate(dut, disturb, background=[listen])
    assert came == [0x42]


def test_a_bit_that_is_too_short_is_refused():
    for part in (UartReceiver, UartTransmitter):
        with pytest.raises(ValueError, match="divisor=3: a bit takes 4 cycles at least"):
            part(3)


async def feed(ctx, unframer, raw):
    for byte in raw:
        await put_always(ctx, unframer.i, byte)


async def put_always(ctx, stream, byte):
    """A byte of a line, with the time that a line takes."""
    ctx.set(stream.p, byte)
    ctx.set(stream.valid, 1)
    await ctx.tick()
    ctx.set(stream.valid, 0)
    await ctx.tick().repeat(3)


async def message(ctx, stream):
    """The next message of a stream of pieces."""
    came = bytearray()
    last = False
    while not last:
        piece = await get(ctx, stream)
        came.append(piece.byte)
        last = bool(piece.last)
    return bytes(came)


async def send(ctx, stream, raw):
    for place, byte in enumerate(raw):
        await put(ctx, stream, {"byte": byte, "last": place == len(raw) - 1})


@given(sent=bodies)
def test_the_host_reads_what_the_framer_writes(sent):
    dut = Framer()
    came = bytearray()

    async def line(ctx):
        while True:
            came.append(await get(ctx, dut.o))

    async def bench(ctx):
        for body in sent:
            await send(ctx, dut.i, body)
        await ctx.tick().repeat(20)

    simulate(dut, bench, background=[line, monitor(dut.o)])
    assert bytes(came) == b"".join(map(frame, sent))
    assert list(messages(bytes(came).split(b"\x7e"))) == sent


@given(sent=bodies, noise=st.lists(st.binary(max_size=12), min_size=5, max_size=5))
def test_whole_messages_come_out_of_noise(sent, noise):
    dut = Unframer()
    came = []

    async def bench(ctx):
        for body, before in zip(sent, noise, strict=False):
            await feed(ctx, dut, before + frame(body))
            await ctx.tick().repeat(2 * FRAME_BYTES)
        await feed(ctx, dut, noise[-1])

    async def listen(ctx):
        while True:
            came.append(await message(ctx, dut.o))

    simulate(dut, bench, background=[listen, monitor(dut.o)])
    assert came == sent


def test_a_message_is_as_long_as_it_may_be_and_no_longer():
    dut = Unframer()
    longest = bytes(range(FRAME_BYTES - 4))
    sent = [longest + b"!", longest, b"", longest * 3, b"short"]
    came = []

    async def bench(ctx):
        for body in sent:
            await feed(ctx, dut, frame(body))
            await ctx.tick().repeat(2 * FRAME_BYTES)

    async def listen(ctx):
        while True:
            came.append(await message(ctx, dut.o))

    simulate(dut, bench, background=[listen])
    assert came == [longest, b"short"]


@given(seed=st.integers(0, 2**16), bits=st.integers(1, 3))
def test_a_message_with_a_wrong_bit_is_dropped(seed, bits):
    rng = random.Random(seed)
    raw = bytearray(frame(bytes(rng.randrange(256) for _ in range(12))))
    for place in rng.sample(range(8, 8 * len(raw) - 8), bits):
        raw[place // 8] ^= 1 << place % 8
    assert list(messages(bytes(raw).split(b"\x7e"))) == []
    dut = Unframer()
    came = []

    async def bench(ctx):
        await feed(ctx, dut, bytes(raw) + frame(b"next"))
        await ctx.tick().repeat(40)

    async def listen(ctx):
        while True:
            came.append(await message(ctx, dut.o))

    simulate(dut, bench, background=[listen])
    assert came == [b"next"]


def test_a_question_that_comes_again_is_answered_again_and_not_done_again():
    dut = Exchange()
    asked, resets = [], []

    async def answerer(ctx):
        while True:
            asked.append(await message(ctx, dut.question))
            await send(ctx, dut.answer, b"%d" % len(asked) + asked[-1])

    async def count(ctx):
        while True:
            *_, reset = await ctx.tick().sample(dut.reset)
            if reset:
                resets.append(1)

    async def bench(ctx):
        async def exchange(raw):
            await send(ctx, dut.i, raw)
            return await message(ctx, dut.o)

        hello = bytes([0, LINE_VERSION])
        assert await exchange(b"\x00") == hello
        assert await exchange(b"\x00") == hello
        for _ in range(3):
            assert await exchange(b"\x01abc") == b"\x011abc"
        assert await exchange(b"\x02abc") == b"\x022abc"
        await send(ctx, dut.i, b"\x00abc")
        await send(ctx, dut.i, b"\x03")
        assert await exchange(b"\x02abc") == b"\x022abc"
        assert await exchange(b"\x00") == hello
        assert await exchange(b"\x02abc") == b"\x023abc"

    simulate(dut, bench, background=[answerer, count, monitor(dut.o)])
    assert asked == [b"abc"] * 3
    assert len(resets) == 3
