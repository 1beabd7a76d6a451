"""Links as tracks: packets, bytes over time, reads in flight."""

from collections.abc import Iterable, Iterator

import numpy as np

from halfdome.host.report.recording import Link, Packet
from halfdome.host.report.size import size
from halfdome.host.report.trace_events import TraceEvents

MOST_SLICES = 20_000
"""Packets of one direction that are drawn one by one; of more, only the bytes over time."""
MOST_STEPS = 2000
"""Intervals of the counters of bytes."""

_FS = 1e9
"""Femtoseconds in a microsecond."""


def draw_link(
    trace: TraceEvents, process: int, link: Link, start_us: float, stop_us: float
) -> None:
    """One direction: a slice for each packet, and how many bytes went over it in each interval."""
    count = len(link.records)
    told = f", first {count:,} of {count + link.left_out:,} packets" if link.left_out else ""
    if count > MOST_SLICES:
        trace.track(process, f"{link.name}, {count:,} packets, see its counter{told}")
    else:
        track = trace.track(process, link.name + told)
        for packet in link.packets():
            trace.slice(
                track,
                packet.start_fs / _FS,
                # Viewers round to nanoseconds; a femtosecond apart, neighbours do not overlap.
                (packet.end_fs - packet.start_fs - 1) / _FS,
                f"{packet.kind} {size(packet.bytes)}",
                packet.kind,
                **_details(packet),
            )
    interval_us = _interval(stop_us - start_us)
    trace.counter(
        process,
        f"{link.name}, bytes per {interval_us:g} us",
        "wire_bytes",
        bytes_per_interval(link, start_us, stop_us, interval_us),
    )


def _details(packet: Packet) -> dict:
    details = {
        "source": packet.source,
        "destination": packet.destination,
        "payload_bytes": packet.payload_bytes,
        "wire_bytes": packet.wire_bytes,
        "tag": packet.tag,
        "start_fs": packet.start_fs,
        "end_fs": packet.end_fs,
    }
    if packet.kind == "MRd":
        details["read_bytes"] = packet.bytes
    if packet.address is not None:
        details["address"] = f"{packet.address:#x}"
    return details


def _interval(span_us: float) -> float:
    """A round interval of at least 0.1 us, `MOST_STEPS` of which cover the span."""
    interval, factors = 0.1, (2, 2.5, 2)
    step = 0
    while interval * MOST_STEPS < span_us:
        interval *= factors[step % 3]
        step += 1
    return interval


def bytes_per_interval(
    link: Link, start_us: float, stop_us: float, interval_us: float
) -> Iterator[tuple[float, float]]:
    """When the number of wire bytes of an interval changes, and to what.

    A packet that lies in two intervals counts in each for the time that it takes of it, so that
    the sum over intervals is that over packets.
    """
    records = link.records
    if not len(records):
        return
    sums = np.cumsum(records["wire_bytes"], dtype=np.float64)
    times = np.stack([records["start_fs"], records["end_fs"]], 1).reshape(-1) / _FS
    so_far = np.stack([sums - records["wire_bytes"], sums], 1).reshape(-1)
    end = max(stop_us, times[-1])
    edges = start_us + interval_us * np.arange(int((end - start_us) / interval_us) + 2)
    each = np.diff(np.interp(edges, times, so_far, left=0.0))
    last = 0.0
    for edge, value in zip(edges.tolist(), [*each.tolist(), 0.0], strict=True):
        if value != last:
            yield edge, value
        last = value


def reads(up: Iterable[Packet], down: Iterable[Packet], owner: str) -> list[tuple[Packet, Packet]]:
    """The reads that `owner` sent up and the completion that ended each, in order of the reads."""
    waiting: dict[int, list[Packet]] = {}
    for packet in up:
        if packet.kind == "MRd" and packet.requester == owner:
            waiting.setdefault(packet.tag, []).append(packet)
    pairs = []
    for packet in down:
        if packet.last and packet.requester == owner and waiting.get(packet.tag):
            pairs.append((waiting[packet.tag].pop(0), packet))
    return sorted(pairs, key=lambda pair: pair[0].start_fs)
