"""A timeline of commands that opens in Perfetto (https://ui.perfetto.dev).

Format: Trace Event Format of Chromium, complete events ("ph": "X"), times in microseconds.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from hdl.commands import Engine
from hdl.config import CardConfig
from host.runtime.timeline import Issued


def timeline(commands: Iterable[Issued], config: CardConfig) -> dict:
    """One process per card, one thread per engine, one event per command."""
    commands = list(commands)
    microseconds = 1 / config.clock_mhz
    events: list[dict] = []
    for card in sorted({command.card for command in commands}):
        name = {"name": f"card {card}"}
        events.append({"ph": "M", "name": "process_name", "pid": card, "tid": 0, "args": name})
        for engine in Engine:
            name = {"name": engine.name.lower()}
            events.append(
                {"ph": "M", "name": "thread_name", "pid": card, "tid": int(engine), "args": name}
            )
    for command in commands:
        completion = command.completion
        cycles = (completion.end_cycle - completion.start_cycle) & 0xFFFF_FFFF
        events.append(
            {
                "ph": "X",
                "name": command.label or command.opcode.name,
                "cat": command.opcode.name,
                "pid": command.card,
                "tid": int(command.opcode.engine),
                "ts": completion.start_cycle * microseconds,
                "dur": cycles * microseconds,
                "args": {
                    "id": completion.id,
                    "status": completion.status.name,
                    "start_cycle": completion.start_cycle,
                    "cycles": cycles,
                },
            }
        )
    other = {"config_hash": config.hash, "clock_mhz": config.clock_mhz}
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": other}


def write(path: Path, commands: Iterable[Issued], config: CardConfig) -> None:
    """Writes `timeline` as JSON."""
    path.write_text(json.dumps(timeline(commands, config)))
