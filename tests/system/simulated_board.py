"""A board's RTL, down to its two wires, behind a pseudo-terminal: what a host takes for a port."""

import os
import random
import threading
import time
import tty
from contextlib import contextmanager

from halfdome.hdl.boards.serial_pico import SerialPico
from halfdome.hdl.commands import Engine
from halfdome.hdl.config import PICO
from halfdome.sim.testbench import simulate

DIVISOR = 4
_IDLE_SECONDS = 0.001


class Wires:
    """What is on both wires of a board, as bytes at the far end; bits of `noise` are wrong."""

    def __init__(self, descriptor, noise, seed):
        self._descriptor, self._noise = descriptor, noise
        self._rng = random.Random(seed)
        self.ended = threading.Event()
        self.wrong = 0

    def _disturbed(self, bit):
        wrong = self._rng.random() < self._noise
        self.wrong += wrong
        return bit ^ wrong

    def _bits(self):
        """Bits of what the host has sent, for ever."""
        while True:
            try:
                came = os.read(self._descriptor, 256)
            except BlockingIOError:
                yield 1
                continue
            for byte in came:
                yield from (0, *(self._disturbed(byte >> bit & 1) for bit in range(8)), 1)

    async def bench(self, ctx, dut):
        bits = self._bits()
        arriving, quiet = None, 0
        while not self.ended.is_set():
            ctx.set(dut.rx, next(bits))
            for _ in range(DIVISOR):
                *_, tx = await ctx.tick().sample(dut.tx)
                if arriving is None and not tx:
                    arriving, left = [], DIVISOR + DIVISOR // 2
                elif arriving is not None:
                    left -= 1
                    if left == 0:
                        arriving.append(self._disturbed(tx) if len(arriving) < 8 else tx)
                        left = DIVISOR
                    if len(arriving) == 9:
                        byte = sum(bit << place for place, bit in enumerate(arriving[:8]))
                        os.write(self._descriptor, bytes([byte]))
                        arriving = None
            quiet = quiet + 1
            if not quiet % 1000:
                time.sleep(_IDLE_SECONDS)


@contextmanager
def simulated_board(noise=0.0, seed=0, engine=Engine.MATMUL):
    """The port of a board that is simulated in a thread of its own, and what its wires saw."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    os.set_blocking(ours, False)
    wires = Wires(ours, noise, seed)
    dut = SerialPico(PICO, engine, DIVISOR)
    failures = []

    async def bench(ctx):
        await wires.bench(ctx, dut)

    def run():
        try:
            simulate(dut, bench, cycles=1 << 40, engine="native")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield os.ttyname(theirs), wires
    finally:
        wires.ended.set()
        thread.join()
        os.close(ours)
        os.close(theirs)
    assert not failures, failures
