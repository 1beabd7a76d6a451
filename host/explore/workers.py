"""Who measures points: processes of this machine, or those of a Dask cluster."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

ANSWERS_SECONDS = 10
"""Within which a scheduler must answer."""

Workers = int | str
"""So many processes of this machine, or those of the Dask scheduler with this address."""


@dataclass(frozen=True)
class Crew:
    """Whoever measures.

    Attributes
    ----------
    executor : Executor
    size : how many points it measures at a time, now; raises `OSError` if nobody is left
    """

    executor: Executor
    size: Callable[[], int]


@contextmanager
def opened(workers: Workers) -> Iterator[Crew]:
    """A crew; what it has not begun when this is left is not measured.

    Raises `OSError` if a scheduler does not answer, goes away or has no workers, `ValueError` if
    there can be none at its address, `RuntimeError` if workers die of a point, `ImportError` if
    Dask is not installed.
    """
    with _cluster(workers) if isinstance(workers, str) else _processes(workers) as crew:
        yield crew


@contextmanager
def _processes(count: int) -> Iterator[Crew]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=_end_with_parent) as executor:
        try:
            yield Crew(executor, lambda: count)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker ended in the midst of a point, as when memory runs out: the same command "
                "goes on where this ended, and takes less memory with fewer --workers"
            ) from error
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """A worker does not outlive the process that started it, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


@contextmanager
def _cluster(address: str) -> Iterator[Crew]:
    try:
        from distributed import Client, KilledWorker
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{error.name}: is not installed, a scheduler needs it: pip install 'halfdome[dask]'"
        ) from None
    try:
        client = Client(address, timeout=ANSWERS_SECONDS, set_as_default=False)
    except OSError as error:
        raise OSError(
            f"scheduler {address}: does not answer within {ANSWERS_SECONDS} s; start one with "
            "`dask scheduler`"
        ) from error
    except ValueError as error:
        raise ValueError(f"scheduler {address}: {error}; give HOST:PORT") from None

    gone = f"scheduler {address}: went away; the same command goes on where this ended"

    def size() -> int:
        try:
            threads = sum(client.nthreads().values())
        except OSError as error:
            raise OSError(gone) from error
        if not threads:
            raise OSError(
                f"scheduler {address}: has no workers; start some with `dask worker {address}`"
            )
        return threads

    with client, client.get_executor() as executor:
        try:
            yield Crew(executor, size)
        except CancelledError:
            raise OSError(gone) from None
        except KilledWorker as error:
            raise RuntimeError(f"scheduler {address}: {error}") from None
        finally:
            executor.shutdown(wait=False)
