"""What simulations found, kept in the cache by all that they depend on.

Another bound, another objective or another table of energy asks anew of what cards did before.
"""

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict

from halfdome.host.explore.queueing import Answered, Line
from halfdome.host.explore.simulate import Ran
from halfdome.sim.build.cache import cache_dir

MOST = 10_000
"""Simulations kept, the last ones; each takes some kilobytes."""
_WAIT_SECONDS = 60
"""For other processes that write."""
_FAILURES = (sqlite3.Error, zlib.error, OSError)


def kept(said: str, simulated: Callable[[], Ran]) -> Ran:
    """What was found when the same was `said`, else what is `simulated` now.

    A cache that cannot be read or written keeps nothing, and costs nothing else.
    """
    key = hashlib.sha256(said.encode()).hexdigest()
    with suppress(*_FAILURES), _database() as database:
        for (data,) in database.execute("SELECT ran FROM simulated WHERE key = ?", (key,)):
            return _read(zlib.decompress(data))
    ran = simulated()
    with suppress(*_FAILURES), _database() as database:
        data = zlib.compress(json.dumps(asdict(ran)).encode())
        database.execute("INSERT OR REPLACE INTO simulated (key, ran) VALUES (?, ?)", (key, data))
        database.execute(
            "DELETE FROM simulated WHERE number <= (SELECT MAX(number) FROM simulated) - ?", (MOST,)
        )
    return ran


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "simulated.db", _WAIT_SECONDS)) as database, database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS simulated "
            "(number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE, ran BLOB)"
        )
        yield database


def _read(data: bytes) -> Ran:
    found = json.loads(data)
    line = found["line"]
    return Ran(**found | {
        "line": Line(line["stages"], line["slots"], tuple(line["syncs"])),
        "answered": [Answered(**each) for each in found["answered"]],
    })  # fmt: skip
