"""Test benches of a running simulation: where they wait, and how they end."""

import inspect
import linecache
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from amaranth.sim._async import AsyncProcess
from amaranth.sim.pysim import PySimEngine

PATIENCE = 100
"""How often a bench that goes on waiting is ended."""


class Ended(BaseException):
    """Raised in a test bench where it waits when the simulation is over."""


def waiting(engine: PySimEngine) -> str:
    """A line for each test bench that the simulation has to wait for: the lines it is at."""
    return "".join(
        f"\n  {bench.constructor.__name__} waits at {_line(frames[0])}"
        + "".join(f"\n    {frame.f_code.co_name} at {_line(frame)}" for frame in frames[1:])
        for bench in engine._testbenches
        if bench.critical and (frames := list(_frames(bench)))
    )


def _line(frame: FrameType) -> str:
    file, line = frame.f_code.co_filename, frame.f_lineno
    return f"{file}:{line}: {linecache.getline(file, line).strip()}"


def _frames(bench: AsyncProcess) -> Iterator[FrameType]:
    """From the bench inwards, down to what is its author's."""
    coroutine = bench.coroutine
    while inspect.iscoroutine(coroutine) and coroutine.cr_frame is not None:
        if coroutine.cr_frame.f_globals.get("__name__", "").partition(".")[0] == "amaranth":
            return
        yield coroutine.cr_frame
        coroutine = coroutine.cr_await


@contextmanager
def ended(engine: PySimEngine) -> Iterator[None]:
    """Ends all test benches and processes after the block, with `Ended` where they wait.

    CPython closes what is left by itself, but before 3.13 not the asynchronous generators of
    Amaranth's `until` and `repeat`. A bench that then raises something else fails the simulation.
    """
    try:
        yield
    except BaseException:
        _end(engine)
        raise
    if errors := _end(engine):
        raise errors[0]


def _end(engine: PySimEngine) -> list[BaseException]:
    errors = []
    for process in (*engine._testbenches, *engine._processes):
        if isinstance(process, AsyncProcess) and process.coroutine is not None:
            try:
                _end_one(process.coroutine)
            except BaseException as error:
                errors.append(error)
    return errors


def _end_one(coroutine) -> None:
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED:
        try:
            for _ in range(PATIENCE):
                coroutine.throw(Ended)
        except (Ended, StopIteration):
            return
    coroutine.close()
