"""Products that are passed over: in the cycles of hardware, whoever comes between."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import ElementFormat, Flag, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import pack
from tests.hdl.matmul.jobs import conv2d, matmul
from tests.sim.timing.test_commands import Memory

pytestmark = pytest.mark.slow  # models of cards are compiled first

TINY = PRESETS["tiny"]
BASE, SIZE = TINY.scratchpad_base, TINY.scratchpad_bytes
SPARE = 2048


def near_products():
    """Some products in the scratchpad, its image, and where nothing of them lies."""
    memory = Memory(TINY, np.random.default_rng(5), in_dram=0)
    made = [
        matmul(memory, 9, 40, 12).descriptor,
        matmul(memory, 32, 48, 16, flags=int(Flag.RELU)).descriptor,
        conv2d(memory, [4, 5], 8, 8, kernel=[2, 3], pad=[1, 1]).descriptor,
    ]
    return made, memory.data[BASE : BASE + SIZE].tobytes(), memory.allocate(SPARE)


def disturbed(engine, seed):
    """Completions, counters and products of the same products again and again, while the host
    reads, writes or waits, and the card copies or loads: a load's words arrive when the product has
    begun already."""
    rng = np.random.default_rng(seed)
    products, image, spare = near_products()
    word = TINY.bus_bytes
    copy = pack(
        Opcode.COPY, source=spare, destination=spare + 128, rows=1, row_bytes=3 * word,
        source_stride=0, destination_stride=0,
    )  # fmt: skip
    with halfdome.open(cards=1, config=TINY, engine=engine) as runtime:
        bus, device = runtime.platform.bus, runtime.cards[0].device
        window = runtime.platform.bars[0].bar2
        bus.write(window + BASE, image)
        load = pack(
            Opcode.LOAD, source=bus.map(SPARE).address, destination=spare, rows=1, row_bytes=SPARE,
            source_stride=0, destination_stride=0,
        )  # fmt: skip
        for product in 3 * products:  # now it is known what they do alone
            device.wait(device.submit([product]))
        for _ in range(40):
            before = [load] if rng.integers(3) == 0 else []
            product = products[rng.integers(len(products))]
            tickets = list(device.submit([*before, product]))
            for _ in range(rng.integers(3)):
                what = rng.integers(5)
                if what == 0:
                    bus.read(window + spare, int(rng.integers(1, 5)) * word)
                elif what == 1:
                    bus.write(window + spare, bytes(int(rng.integers(1, 64))))
                elif what == 2:
                    tickets += device.submit([copy])
                elif what == 3:
                    yield device.read_at(0, 4)
                else:
                    bus.wait(int(rng.integers(1, 900)))
            yield device.wait(tickets).tolist()
            yield device.counters()
        yield bus.read(window + BASE, SIZE)


@pytest.mark.parametrize("seed", range(3))
def test_whoever_comes_between_finds_a_product_as_hardware_would_have_it(seed):
    ours, theirs = (list(disturbed(engine, seed)) for engine in ("timing", "native"))
    assert ours == theirs


def loaded_meanwhile(engine):
    """Cycles of a load whose words come to the banks to which a product writes nearly always, and
    of the product, which began so many cycles later."""
    memory = Memory(TINY, np.random.default_rng(5), in_dram=0)
    product = matmul(memory, 64, 8, 24, y_format=ElementFormat.INT32).descriptor
    image, spare = memory.data[BASE : BASE + SIZE].tobytes(), memory.allocate(SPARE)
    with halfdome.open(cards=1, config=TINY, engine=engine) as runtime:
        bus, device = runtime.platform.bus, runtime.cards[0].device
        bus.write(runtime.platform.bars[0].bar2 + BASE, image)
        load = pack(
            Opcode.LOAD, source=bus.map(SPARE).address, destination=spare, rows=1, row_bytes=SPARE,
            source_stride=0, destination_stride=0,
        )  # fmt: skip
        for _ in range(3):
            device.wait(device.submit([product]))
        for delay in range(500, 1500, 97):
            tickets = list(device.submit([load]))
            bus.wait(delay)
            ends = device.wait([*tickets, *device.submit([product])])
            yield (ends.end_cycle - ends.start_cycle).tolist()


def test_words_that_the_card_itself_writes_wait_for_a_product_that_is_passed_over():
    assert list(loaded_meanwhile("timing")) == list(loaded_meanwhile("native"))


def test_what_follows_from_what_was_seen_is_passed_over():
    products, image, _ = near_products()
    with halfdome.open(cards=1, config=TINY, engine="timing") as runtime:
        device, world = runtime.cards[0].device, runtime.platform.world
        runtime.platform.bus.write(runtime.platform.bars[0].bar2 + BASE, image)
        taken, evaluated = [], []
        for _ in range(6):
            before = world.evaluated_cycles(0)
            (completion,) = device.wait(device.submit([products[0]]))
            evaluated.append(world.evaluated_cycles(0) - before)
            taken.append(int(completion["end_cycle"] - completion["start_cycle"]))
    assert min(taken) > 300
    assert max(evaluated[-2:]) < evaluated[0] / 2
