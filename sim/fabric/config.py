"""Parameters of what connects the cards: root complex, switch, links, and the address map."""

import ctypes
from dataclasses import dataclass

from halfdome.hdl import registers
from halfdome.hdl.config import CardConfig, ConfigError
from halfdome.hdl.registers import BAR0_BYTES

MESSAGE_BASE = 0xFEE0_0000
"""Interrupt messages go here, as on x86 (Intel SDM volume 3, section 11.11)."""
MESSAGE_BYTES = 1 << 20
BAR0_BASE = 0xE000_0000
HOST_BASE = 0x1_0000_0000
BAR2_BASE = 0x40_0000_0000


@dataclass(frozen=True, kw_only=True)
class FabricConfig:
    """Root complex, uplink and switch. The card's link is described by `CardConfig`.

    Sources of the defaults: docs/fabric.md.
    """

    uplink_generation: int = 3
    """Generation of the link between root complex and switch, 1 to 5."""
    uplink_lanes: int = 16
    """Its lanes, 1 to 16."""
    port_latency_ns: int = 25
    """Latency each port adds to a packet on the wire, so twice this for a link."""
    switch_latency_ns: int = 50
    """From a packet being in the switch to its leaving, between the ports."""
    cut_through: bool = False
    """Whether the switch sends a packet on before its end has arrived."""
    credit_update_ns: int = 115
    """From a buffer being free to the message that says so."""
    posted_header_credits: int = 127
    """Posted requests that a receiver holds: switch, root complex and card alike."""
    posted_data_credits: int = 444
    """Their payload, in units of 16 bytes."""
    nonposted_header_credits: int = 127
    """Reads that a receiver holds. They carry no data."""
    completion_header_credits: int = 127
    """Completions that a port of the switch holds. Whoever asked always has room for the answer."""
    completion_data_credits: int = 444
    """Their payload, in units of 16 bytes."""
    host_read_latency_ns: int = 300
    """From a read's arrival at the root complex to its data."""
    host_bandwidth_mb_s: int = 51_200
    """Host memory bandwidth for device traffic: two DDR4-3200 channels."""
    host_memory_bytes: int = 1 << 30
    """Host memory that cards can reach."""

    def __post_init__(self) -> None:
        bounds = {
            "uplink_generation": (1, 5), "uplink_lanes": (1, 16), "port_latency_ns": (0, 100_000),
            "switch_latency_ns": (0, 100_000), "credit_update_ns": (0, 100_000),
            "posted_header_credits": (1, 2047), "posted_data_credits": (8, 32767),
            "nonposted_header_credits": (1, 2047), "completion_header_credits": (1, 2047),
            "completion_data_credits": (8, 32767), "host_read_latency_ns": (0, 1_000_000),
            "host_bandwidth_mb_s": (1, 1_000_000),
            "host_memory_bytes": (1 << 16, BAR2_BASE - HOST_BASE),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ConfigError(f"{name}={value!r}: must be an integer from {low} to {high}")
        if type(self.cut_through) is not bool:
            raise ConfigError(f"cut_through={self.cut_through!r}: must be true or false")


class CreditLimits(ctypes.Structure):
    """`CreditLimits` of sim/fabric/link.hpp: posted, non-posted, completions; 0 is no limit."""

    _fields_ = (("headers", ctypes.c_int64 * 3), ("data", ctypes.c_int64 * 3))


class FabricSettings(ctypes.Structure):
    """What `sim/fabric/fabric.hpp` takes, same order as its `FabricSettings`."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in (
                "uplink_generation", "uplink_lanes", "card_generation", "card_lanes",
                "port_latency_fs", "switch_latency_fs", "cut_through", "credit_update_fs",
                "host_read_latency_fs", "host_bytes_per_us", "max_payload_bytes",
                "max_read_request_bytes", "reset_offset", "reset_value", "host_base", "host_bytes",
                "message_base", "message_bytes",
            )
        ),
        ("switch_credits", CreditLimits),
        ("root_credits", CreditLimits),
        ("card_credits", CreditLimits),
    )  # fmt: skip


def settings(fabric: FabricConfig, card: CardConfig) -> FabricSettings:
    """The fabric around cards built from `card`."""

    def room(completion_headers: int, completion_data: int) -> CreditLimits:
        return CreditLimits(
            (
                fabric.posted_header_credits,
                fabric.nonposted_header_credits,
                completion_headers,
            ),
            (fabric.posted_data_credits, 0, completion_data),
        )

    return FabricSettings(
        uplink_generation=fabric.uplink_generation,
        uplink_lanes=fabric.uplink_lanes,
        card_generation=card.pcie_generation,
        card_lanes=card.pcie_lanes,
        port_latency_fs=fabric.port_latency_ns * 1_000_000,
        switch_latency_fs=fabric.switch_latency_ns * 1_000_000,
        cut_through=fabric.cut_through,
        credit_update_fs=fabric.credit_update_ns * 1_000_000,
        host_read_latency_fs=fabric.host_read_latency_ns * 1_000_000,
        host_bytes_per_us=fabric.host_bandwidth_mb_s,
        max_payload_bytes=card.max_payload_bytes,
        max_read_request_bytes=card.max_read_request_bytes,
        reset_offset=registers.offset("CONTROL"),
        reset_value=registers.CONTROL_RESET,
        host_base=HOST_BASE,
        host_bytes=fabric.host_memory_bytes,
        message_base=MESSAGE_BASE,
        message_bytes=MESSAGE_BYTES,
        switch_credits=room(fabric.completion_header_credits, fabric.completion_data_credits),
        root_credits=room(0, 0),
        card_credits=room(0, 0),
    )


@dataclass(frozen=True)
class Bars:
    """Where a card's BARs are on the bus."""

    bar0: int
    bar0_bytes: int
    bar2: int
    bar2_bytes: int


def assign_bars(config: CardConfig, cards: int) -> list[Bars]:
    """BAR addresses of every card: BAR0 below 4 GiB, BAR2 above host memory, each aligned."""
    window = config.window_bytes
    base = -(-BAR2_BASE // window) * window
    return [
        Bars(BAR0_BASE + i * BAR0_BYTES, BAR0_BYTES, base + i * window, window)
        for i in range(cards)
    ]
