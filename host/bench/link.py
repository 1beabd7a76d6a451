"""What the links carry: DMA reads and writes, host and peer, one card and six."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import pack
from halfdome.host.bench.dlrm import SEED
from halfdome.host.driver.rings import span_cycles
from halfdome.host.platform import Runtime, open
from halfdome.host.report.stamp import stamp

BAR = 0.95
"""Least share of the payload limit for transfers of `BAR_BYTES` or more."""
BAR_BYTES = 16 * 1024
SIZES = tuple(64 << 2 * i for i in range(8))
"""Bytes of one transfer: 64 B to 1 MiB."""
CARDS = 6
TAGS = (2, 3, 5, 9, 17, 33)
"""Values of `dma_tags` in the sweep; one of them is for descriptors."""
MOVED_BYTES = 1 << 18
"""What each card moves at least in a row of the table."""
HEADER_BYTES, OVERHEAD_BYTES = {"read": 12, "write": 16}, 8
"""Of the packets that carry the data: completions, and writes to 64-bit addresses."""


@dataclass(frozen=True)
class Transfer:
    """One kind of transfer: "read" or "write", with "host" or "peer" memory at the other end."""

    kind: str
    end: str


TRANSFERS = tuple(Transfer(kind, end) for end in ("host", "peer") for kind in ("read", "write"))


def _wire_bytes_per_second(generation: int, lanes: int) -> float:
    """Bytes a second that a link carries in one direction, after coding."""
    giga_transfers = {1: 2.5 * 8 / 10, 2: 5 * 8 / 10, 3: 8 * 128 / 130, 4: 16 * 128 / 130,
                      5: 32 * 128 / 130}  # fmt: skip
    return giga_transfers[generation] * 1e9 / 8 * lanes


def link_bytes_per_second(config: CardConfig) -> float:
    """Bytes a second that the wire of a card's link carries in one direction, after coding."""
    return _wire_bytes_per_second(config.pcie_generation, config.pcie_lanes)


def shared_bytes_per_second(
    config: CardConfig, uplink: tuple[int, int], end: str, cards: int
) -> float:
    """Bytes a second that the wires carry for `cards` at once: to the host all share the uplink.

    `uplink` is its generation and its lanes.
    """
    links = cards * link_bytes_per_second(config)
    if end == "peer":
        return links
    return min(links, _wire_bytes_per_second(*uplink))


def payload_limit(config: CardConfig, kind: str, *, mutual: bool = False) -> float:
    """Share of the wire that payload can take: P / (P + header + 8), P the maximum payload.

    `mutual`: cards read each other, so that what a link carries besides data are the requests of
    its own card, of 16 bytes and 8 for each `max_read_request_bytes`.
    """
    payload = config.max_payload_bytes
    wire = (payload + HEADER_BYTES[kind] + OVERHEAD_BYTES) / payload
    if mutual and kind == "read":
        wire += (HEADER_BYTES["write"] + OVERHEAD_BYTES) / config.max_read_request_bytes
    return 1 / wire


def _cycles(runtime: Runtime, transfer: Transfer, nbytes: int, rows: int, cards: int) -> float:
    """Cycles from the first command's start to the end of the last, each card moving `rows`.

    Rows do not touch, so that each is a transfer of its own. Written data are still on their way
    when a command ends; the interrupt behind them has arrived after they have.
    """
    config = runtime.config
    stride = nbytes + config.bus_bytes
    bus = runtime.platform.bus
    submitted, buffers = [], []
    for index, card in enumerate(runtime.cards[:cards]):
        inside = card.dram.allocate(rows * stride)
        if transfer.end == "host":
            buffers.append(bus.map(rows * stride))
            outside = buffers[-1].address
        else:
            peer = runtime.cards[(index + 1) % len(runtime.cards)]
            outside = peer.device.bar2 + inside.address + rows * stride
        read = transfer.kind == "read"
        descriptor = pack(
            Opcode.LOAD if read else Opcode.STORE,
            source=outside if read else inside.address,
            destination=inside.address if read else outside,
            rows=rows, row_bytes=nbytes, source_stride=stride, destination_stride=stride,
        )  # fmt: skip
        card.dram.release(inside)
        submitted.append(card.device.submit([descriptor]))
    ran = [card.device.check(ids) for card, ids in zip(runtime.cards, submitted, strict=False)]
    for buffer in buffers:
        buffer.release()
    if transfer.kind == "write":
        last = max(message.time_ns for message in runtime.platform.interrupts[-cards:])
        arrived = last * config.clock_mhz / 1e3
        return max((arrived - int(done.start_cycle[0])) % 2**32 for done in ran)
    return span_cycles(np.concatenate(ran))


def _row(runtime: Runtime, transfer: Transfer, nbytes: int, cards: int) -> dict:
    config = runtime.config
    transfers = max(1, MOVED_BYTES // nbytes)
    cycles = _cycles(runtime, transfer, nbytes, transfers, cards)
    per_second = nbytes * transfers * cards / cycles * config.clock_mhz * 1e6
    fabric = runtime.platform.fabric
    uplink = (fabric.uplink_generation, fabric.uplink_lanes)
    efficiency = per_second / shared_bytes_per_second(config, uplink, transfer.end, cards)
    return {
        "kind": transfer.kind,
        "end": transfer.end,
        "cards": cards,
        "bytes": nbytes,
        "transfers_per_card": transfers,
        "cycles": cycles,
        "bytes_per_second": per_second,
        "link_efficiency": efficiency,
        "of_payload_limit": efficiency
        / payload_limit(config, transfer.kind, mutual=transfer.end == "peer" and cards > 1),
        "alone_ns": _cycles(runtime, transfer, nbytes, 1, 1) / config.clock_mhz * 1e3,
    }


def measure(
    config: CardConfig, engine: str, progress: Callable[[int], None] = lambda rows: None
) -> dict:
    """Every kind, end and size on one card and on six, and a sweep of the tags.

    `alone_ns` is one transfer by itself, from the command's start to its end. `of_payload_limit`
    is link efficiency over what headers leave of it. With six cards, host transfers share the
    uplink, whose limit is theirs; peers form a ring. `progress` is told of each row.
    """
    rows = []
    with open(cards=CARDS, config=config, engine=engine) as runtime:
        for cards in (1, CARDS):
            for transfer in TRANSFERS:
                for nbytes in SIZES:
                    rows.append(_row(runtime, transfer, nbytes, cards))
                    progress(1)
    return {
        **stamp(config, SEED),
        "engine": engine,
        "link_bytes_per_second": link_bytes_per_second(config),
        "payload_limit": {kind: payload_limit(config, kind) for kind in HEADER_BYTES},
        "bar": BAR,
        "bar_bytes": BAR_BYTES,
        "rows": rows,
        "tags": [
            tags_row(_few_engines(config).replace(dma_tags=tags), engine, progress) for tags in TAGS
        ],
    }


def _few_engines(config: CardConfig) -> CardConfig:
    """The same card with engines as small as they come: it compiles sooner, its DMA is the same."""
    return config.replace(
        cores=1, array_rows=4, array_columns=4, lanes=1,
        gather_outstanding=2, max_dim=64,
    )  # fmt: skip


def tags_row(config: CardConfig, engine: str, progress: Callable[[int], None]) -> dict:
    """What one card reads from the host with as many tags as `config` has."""
    with open(cards=1, config=config, engine=engine) as runtime:
        row = _row(runtime, TRANSFERS[0], 1 << 16, 1)
    progress(1)
    kept = ("cycles", "bytes_per_second", "link_efficiency", "of_payload_limit")
    in_flight = (config.dma_tags - 1) * config.max_read_request_bytes
    return {
        "dma_tags": config.dma_tags,
        "bytes_in_flight": in_flight,
        **{name: row[name] for name in kept},
    }


def steps() -> int:
    """How often `measure` tells of progress."""
    return 2 * len(TRANSFERS) * len(SIZES) + len(TAGS)
