"""Points measured by a Dask cluster: the same as here, whatever becomes of workers."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from halfdome.host.explore import measure, search, workers
from tests.host.explore import studies


@pytest.fixture
def start(tmp_path):
    """Starts `dask` with these arguments; its process."""
    path = os.pathsep.join(str(Path(each).resolve()) for each in (".src", "."))
    began = []

    def begin(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", *arguments]
        environment = {**os.environ, "PYTHONPATH": path}
        with (tmp_path / "dask.log").open("a") as log:
            began.append(subprocess.Popen(command, env=environment, stderr=log, stdout=log))
        return began[-1]

    yield begin
    for process in began:
        process.kill()
        process.wait()


@pytest.fixture
def scheduler(start):
    """The address of a scheduler without workers, and its process."""
    port = str(free_port())
    process = start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    return f"127.0.0.1:{port}", process


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def worker(start, address: str) -> subprocess.Popen:
    return start("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def workers_of(address: str) -> int:
    try:
        with workers.opened(address) as crew:
            return crew.size()
    except OSError:
        return 0


@pytest.mark.slow
def test_a_cluster_measures_what_this_machine_does(start, scheduler, tmp_path):
    address, _ = scheduler
    with pytest.raises(OSError, match="has no workers; start some with `dask worker"):
        studies.run(studies.of(parameters={"lanes": [1, 2]}), tmp_path, address)
    first, _ = worker(start, address), worker(start, address)
    wait_for(lambda: workers_of(address) == 2)
    study = studies.of(parameters={"lanes": [1, 2, 4], "array_rows": [4, 32]})
    found = studies.run(study, tmp_path, address)
    assert len(found) == 6
    assert all("array_rows=32" in point.why for point in found if not point.row)
    for point in found:
        if point.row:
            assert point.row == measure.measure(study, point.values)
    first.kill()
    more = studies.of(parameters={"lanes": [1, 2, 4, 8], "array_rows": [4]})
    assert len(studies.run(more, tmp_path, address)) == 4


@pytest.mark.slow
def test_a_search_ends_when_its_scheduler_does(start, scheduler, tmp_path):
    address, process = scheduler
    worker(start, address)
    wait_for(lambda: workers_of(address) == 1)
    study = studies.of(parameters={"lanes": [1, 2, 4]})
    with pytest.raises(OSError, match=f"scheduler {address}: went away"):
        studies.run(study, tmp_path, address, lambda point: process.kill())
    kept = search.Results(study, search.storage_in(tmp_path)).points
    assert 1 <= len(kept) < 3
    assert len(studies.run(study, tmp_path, 1)) == 3


def test_a_worker_that_is_killed_is_told():
    with (
        pytest.raises(RuntimeError, match=r"a worker ended in .*goes on where"),
        workers.opened(1) as crew,
    ):
        crew.executor.submit(os._exit, 1).result()


def test_a_scheduler_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(workers, "ANSWERS_SECONDS", 1)
    address = f"127.0.0.1:{free_port()}"
    with (
        pytest.raises(OSError, match=f"scheduler {address}: does not answer within 1 s"),
        workers.opened(address),
    ):
        pass


def test_an_address_of_another_kind_is_refused():
    with (
        pytest.raises(ValueError, match="scheduler smoke://signal"),
        workers.opened("smoke://signal"),
    ):
        pass
