"""Compiled artefacts on disk, found by the hash of everything they were made from.

An artefact is a folder that appears under its final name in one step, when it is whole. An
interrupted build leaves at most a temporary folder, which the next build removes.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """The cache: `$HALFDOME_CACHE`, else `halfdome` under `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("HALFDOME_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halfdome"


def content_key(*parts: str | bytes) -> str:
    """SHA-256 of the parts, each with its length, as 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:32]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The artefact `kind-key`, made by `build(folder)` if it is not there yet.

    Concurrent callers, in this process or others, build once. Raises what `build` raises, and
    `OSError` if the cache cannot be written; neither leaves anything behind that would be used.
    """
    root = cache_dir()
    final = root / f"{kind}-{key}"
    if final.exists():
        return final
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f"{kind}-{key}.lock"):
        if final.exists():
            return final
        for stale in root.glob(f"{kind}-{key}.*.building"):  # the lock says no one is at it
            shutil.rmtree(stale, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-{key}.", suffix=".building", dir=root))
        try:
            build(folder)
            folder.rename(final)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return final
