"""Cards that compute no values: every command takes the cycles that it takes with them."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import ElementFormat, Opcode, RowFormat, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import pack
from halfdome.host.compiler.compile import compile
from halfdome.host.runtime.left_out import LeftOut
from halfdome.host.serving.deploy import deploy
from halfdome.sim.timing.left_out import ValuesLeftOut
from tests.hdl.matmul.jobs import matmul
from tests.host.networks import Network
from tests.host.recommenders import Recommender
from tests.sim.timing.test_commands import MAKERS, Memory, NoRoom, seen

pytestmark = pytest.mark.slow  # the model of cards is compiled first

TINY = PRESETS["tiny"]


@pytest.mark.parametrize("kind", MAKERS)
def test_commands_end_as_they_do_with_values(kind):
    rng = np.random.default_rng(7)
    commands = []
    while len(commands) < 40:
        memory = Memory(TINY, rng, in_dram=0.5)
        try:
            commands.append((MAKERS[kind](memory, rng), memory.data))
        except NoRoom:
            continue
    whole = seen("timing", TINY, commands)
    bare = seen("timing", TINY, commands, values=False)
    written = 0
    for ours, theirs in zip(bare, whole, strict=True):
        assert ours[:2] == theirs[:2]  # completions and counters
        written += ours[2] != theirs[2]
    assert written > 20


def answered(graph, requests, *, cards, program=None, **options):
    """What a deployment takes for some requests, at which it arrives, and what cards count."""
    with halfdome.open(cards=cards, config="tiny", engine="timing", **options) as runtime:
        served = deploy(runtime, program or graph)
        responses = served.run(requests)
        spans = [np.concatenate(response.spans).tolist() for response in responses]
        counted = [card.counters() for card in runtime.cards]
        return runtime.cycles, spans, counted, [response.outputs for response in responses]


@pytest.mark.parametrize("kind", [Network, Recommender])
@pytest.mark.parametrize("seed", range(6))
def test_programs_take_the_cycles_that_they_take_with_values(kind, seed):
    made, cards = kind(seed), 1 + seed % 3
    requests = [made.request() for _ in range(3)]
    whole = answered(made.graph, requests, cards=cards)
    bare = answered(made.graph, requests, cards=cards, values=False)
    assert bare[:3] == whole[:3]
    for told, outputs in zip(bare[3], whole[3], strict=True):
        assert {n: (each.shape, each.dtype) for n, each in told.items()} == {
            n: (each.shape, each.dtype) for n, each in outputs.items()
        }


def test_tables_and_weights_exist_by_shape():
    """Nothing is sent for them, and commands take the cycles that they take with other bytes."""
    made = Recommender(3)
    requests = [made.request()]
    bare = compile(made.graph, TINY, 2, values=False)
    bytes_read = []
    for program in (bare, compile(made.graph, TINY, 2)):
        _, spans, counted, _ = answered(
            made.graph, requests, cards=2, program=program, values=False
        )
        assert all(end > start for start, end in spans[0])
        bytes_read.append(sum(card["pcie_read_bytes"] for card in counted))
    assert bytes_read[0] < bytes_read[1]


def test_what_is_moved_is_there_and_indices_are_looked_at():
    with halfdome.open(cards=1, config="tiny", engine="timing", values=False) as runtime:
        card = runtime.cards[0]
        table = card.table(np.ones((4, 12), np.uint8), preload=True)
        with pytest.raises(halfdome.CommandError, match="index at position 1 is outside"):
            card.embedding_bag(table, [0, 4], [0])
        device, window = card.device, runtime.platform.bars[0].bar2
        word = TINY.bus_bytes
        source = np.arange(2 * word, dtype=np.uint8)
        runtime.platform.bus.write(window, source.tobytes())
        move = {"source": 0, "rows": 2, "source_stride": word, "destination_stride": word}
        copied = pack(Opcode.COPY, destination=256, row_bytes=3, **move)
        turned = pack(
            Opcode.TRANSPOSE, destination=512, columns=3, batches=1, element_bytes=2, **move
        )
        ends = device.wait(device.submit([copied, turned]))
        assert ends.status.tolist() == [Status.OK] * 2
        rows, columns = (
            np.frombuffer(runtime.platform.bus.read(window + at, 3 * word), np.uint8)
            for at in (256, 512)
        )
        np.testing.assert_array_equal(
            rows[: 2 * word].reshape(2, -1)[:, :3], source.reshape(2, -1)[:, :3]
        )
        np.testing.assert_array_equal(
            columns.view(np.uint16).reshape(3, -1)[:, :2],
            source.view(np.uint16).reshape(2, -1)[:, :3].T,
        )


@pytest.mark.parametrize("array", ["indices", "lengths"])
@pytest.mark.parametrize("copied", [False, True])
def test_what_was_not_computed_is_not_looked_up(array, copied):
    """Until something is moved over it."""
    memory = Memory(TINY, np.random.default_rng(3), in_dram=0)
    product = matmul(memory, 1, 8, 4, y_format=ElementFormat.INT32)
    computed, row = product.values["y"], {"rows": 1, "row_bytes": TINY.bus_bytes}
    places = {name: memory.allocate(256) for name in ("indices", "lengths", "output", "table")}
    copy = pack(
        Opcode.COPY, source=computed, destination=places[array], source_stride=0,
        destination_stride=0, **row,
    )  # fmt: skip
    gather = {
        "rows": 4, "bags": 1, "dim": 4, "row_stride": 16, "output_stride": 16, "index_count": 4,
        "weights": computed, "format": RowFormat.FLOAT32, "output_format": ElementFormat.FLOAT32,
    }  # fmt: skip
    with halfdome.open(cards=1, config="tiny", engine="timing", values=False) as runtime:
        device, bus = runtime.cards[0].device, runtime.platform.bus
        window = runtime.platform.bars[0].bar2
        device.wait(device.submit([product.descriptor, copy]))
        bus.write(window + places["indices"], bytes(16))
        bus.write(window + places["lengths"], np.int32(4).tobytes())
        moved = pack(Opcode.GATHER, **gather, **places)
        assert device.wait(device.submit([moved])).status.tolist() == [Status.OK]
        device.wait(device.submit([copy]))
        asked = moved if copied else pack(Opcode.GATHER, **gather | places | {array: computed})
        with pytest.raises(ValuesLeftOut, match=rf"GATHER: {array}\[0\] was not computed"):
            device.wait(device.submit([asked]))


READS = {
    "numpy": np.asarray, "an element": lambda y: y[0], "equality": lambda y: y == y,
    "a method": lambda y: y.sum(), "a sum": lambda y: np.add(y, 1), "a list": list, "truth": bool,
}  # fmt: skip


@pytest.mark.parametrize("how", READS)
def test_no_output_can_be_read(how):
    with pytest.raises(ValuesLeftOut, match=r"LeftOut\(uint8\[3, 2\]\).*values=False"):
        READS[how](LeftOut((3, 2), np.dtype(np.uint8)))


def test_calls_answer_with_what_cannot_be_read():
    x = np.ones((7, 9, 4), np.uint8)
    with halfdome.open(cards=1, config="tiny", engine="timing", values=False) as runtime:
        card = runtime.cards[0]
        kernel = np.ones((6, 3, 3, 2), np.int8)
        y = card.conv2d(x, kernel, 0.1, pads=1, groups=2)
        kept = card.linear(card.tensor(x[0]), np.ones((5, 4), np.int8), 0.1)
        assert [repr(each) for each in (y, kept.numpy())] == [
            "LeftOut(uint8[7, 9, 6])", "LeftOut(uint8[9, 5])"
        ]  # fmt: skip


@pytest.mark.parametrize("engine", ["native", "pysim"])
def test_hardware_computes(engine):
    with pytest.raises(ValueError, match=f"values=False: .*engine='{engine}'.*engine='timing'"):
        halfdome.open(cards=1, config="tiny", engine=engine, values=False)
