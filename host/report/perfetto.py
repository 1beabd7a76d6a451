"""A timeline of a recording: every engine, queue, DMA and link, the host, in microseconds.

Commands come from the completions that the card wrote, packets from the fabric. Card cycle k is
drawn at k / clock_mhz.
"""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from halfdome.hdl.commands import Engine
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES
from halfdome.host import arguments
from halfdome.host.driver.device import Submitted
from halfdome.host.driver.rings import RING_ENTRIES
from halfdome.host.report.describe import Describer
from halfdome.host.report.link_tracks import draw_link, reads
from halfdome.host.report.recording import CardRecord, Link, Packet, Recording
from halfdome.host.report.trace_events import TraceEvents


@dataclass(frozen=True)
class _Command:
    """A command with its times in cycles since reset, beyond 32 bits.

    `arrival` is when it was in the card, as far as the packets tell, else when it was submitted;
    `start` and `end` are None if it did not complete.
    """

    submitted: Submitted
    arrival: int
    start: int | None
    end: int | None


def check_path(path: str | Path) -> Path:
    """The path of a file that can be written. Raises `ValueError` that says why it cannot."""
    try:
        return arguments.output_file(path)
    except ValueError as error:
        raise ValueError(f"trace: {error}") from None


def write(path: Path, recording: Recording) -> None:
    """Writes the timeline of a recording."""
    _draw(recording).write(path, **_about(recording))


def timeline(recording: Recording) -> dict:
    """The timeline of a recording: processes for the host, the fabric and each card."""
    return _draw(recording).file(**_about(recording))


def _about(recording: Recording) -> dict:
    config = recording.config
    return {
        "config_hash": config.hash,
        "clock_mhz": config.clock_mhz,
        "start_cycle": recording.start,
        "stop_cycle": recording.stop,
    }


def _draw(recording: Recording) -> TraceEvents:
    trace = TraceEvents()
    _draw_host(trace, recording)
    fabric = trace.process("fabric")
    edges = [cycle / recording.config.clock_mhz for cycle in (recording.start, recording.stop)]
    for link in recording.links:
        draw_link(trace, fabric, link, *edges)
    describer = Describer(recording)
    for index in range(len(recording.cards)):
        _Card(trace, recording, describer, index).draw()
    return trace


def _draw_host(trace: TraceEvents, recording: Recording) -> None:
    """What the host did and was told: doorbells and interrupts."""
    clock = recording.config.clock_mhz
    host = trace.process("host")
    for index, card in enumerate(recording.cards):
        track = trace.track(host, f"doorbells of card {index}")
        for cycle, group in groupby(card.commands, key=lambda command: command.cycle):
            count = len(list(group))
            trace.instant(
                track, cycle / clock, f"{count} command{'s' * (count > 1)}", "doorbell",
                commands=count, cycle=cycle,
            )  # fmt: skip
    track = trace.track(host, "interrupts")
    for interrupt in recording.interrupts:
        name = f"card {interrupt.data}"
        trace.instant(track, interrupt.time_ns / 1000, name, "interrupt", card=interrupt.data)


class _Card:
    """The tracks of one card."""

    def __init__(self, trace: TraceEvents, recording: Recording, describer: Describer, index: int):
        self._trace = trace
        self._recording = recording
        self._describer = describer
        self._index = index
        self._record: CardRecord = recording.cards[index]
        self._clock = recording.config.clock_mhz

    def draw(self) -> None:
        process = self._trace.process(f"card {self._index}")
        fetches = self._draw_reads(process)
        commands = [self._timed(command, fetches) for command in self._record.commands]
        ring = [(command.submitted.cycle, command.arrival) for command in commands]
        self._level(process, "submission ring", ring)
        for core in range(self._recording.config.cores):
            for engine in Engine:
                queue = [
                    command
                    for command in commands
                    if self._describer.queue(command.submitted.descriptor) == (core, engine)
                ]
                prefix = f"core {core} " if self._recording.config.cores > 1 else ""
                self._draw_queue(process, prefix + engine.name.lower(), queue)

    def _level(self, process: int, name: str, stays: list[tuple[int, int]]) -> None:
        clock = self._clock
        in_us = [(came / clock, left / clock) for came, left in stays]
        self._trace.level(process, name, "commands", in_us)

    def _draw_reads(self, process: int) -> list[tuple[Packet, Packet]]:
        """Reads of the card in flight, and its fetches of descriptors, which it returns."""
        up, down = self._link(down=False), self._link(down=True)
        if up is None or down is None:
            return []
        pairs = reads(up.packets(), down.packets(), f"card {self._index}")
        in_flight = [(asked.end_fs / 1e9, answered.end_fs / 1e9) for asked, answered in pairs]
        self._trace.level(process, "PCIe reads in flight", "reads", in_flight)
        first, cores = self._record.ring, self._recording.config.cores
        last = first + cores * RING_ENTRIES * DESCRIPTOR_BYTES
        fetches = [pair for pair in pairs if first <= (pair[0].address or 0) < last]
        track = self._trace.track(process, "command fetch")
        for asked, answered in fetches:
            count = asked.bytes // DESCRIPTOR_BYTES
            self._trace.slice(
                track, asked.start_fs / 1e9, (answered.end_fs - asked.start_fs - 1) / 1e9,
                f"{count} command{'s' * (count > 1)}", "fetch", bytes=asked.bytes,
            )  # fmt: skip
        return fetches

    def _link(self, down: bool) -> Link | None:
        found = (x for x in self._recording.links if (x.card, x.down) == (self._index, down))
        return next(found, None)

    def _timed(self, command: Submitted, fetches: list[tuple[Packet, Packet]]) -> _Command:
        arrival = command.cycle
        address = self._record.ring + command.slot * DESCRIPTOR_BYTES
        for asked, answered in fetches:
            begun = asked.start_fs * self._clock >= command.cycle * 10**9
            if begun and asked.address <= address < asked.address + asked.bytes:  # type: ignore
                arrival = -(-answered.end_fs * self._clock // 10**9)
                break
        if command.completion is None:
            return _Command(command, arrival, None, None)
        start = _after(command.cycle, command.completion.start_cycle)
        return _Command(command, arrival, start, _after(start, command.completion.end_cycle))

    def _draw_queue(self, process: int, name: str, commands: list[_Command]) -> None:
        """An engine: what it runs, what is at the head of its queue, how many are in the queue."""
        engine = self._trace.track(process, name)
        queue = self._trace.track(process, f"{name} queue")
        stop, clock = self._recording.stop, self._clock
        free = 0
        stays = []
        for command in commands:
            submitted = command.submitted
            title, details = self._describer.command(self._index, submitted.descriptor)
            if submitted.label:
                title, details = f"{title} ({submitted.label})", details | {"for": submitted.label}
            head = max(command.arrival, free)
            done = command.start if command.start is not None else max(head, stop)
            stays.append((command.arrival, max(command.arrival, done)))
            details |= {"submitted_cycle": submitted.cycle}
            if done > head:
                waiting = "waiting" if submitted.completion else "not completed"
                self._trace.slice(
                    queue, head / clock, (done - head) / clock, f"{title}: {waiting}", "queue",
                    **details, in_queue_cycles=done - command.arrival, at_head_cycles=done - head,
                )  # fmt: skip
            free = max(free, done)
            completion = submitted.completion
            if completion is None or command.start is None or command.end is None:
                continue
            free = command.end
            self._trace.slice(
                engine, command.start / clock, (command.end - command.start) / clock, title,
                title.split()[0], **details, id=completion.id, status=completion.status.name,
                detail=completion.detail, start_cycle=command.start,
                cycles=command.end - command.start,
            )  # fmt: skip
        self._level(process, f"{name} queue", stays)


def _after(cycle: int, low: int) -> int:
    """The first cycle from `cycle` on whose low 32 bits are `low`."""
    return cycle + ((low - cycle) & 0xFFFF_FFFF)
