"""The fixture that runs proofs, and worlds small enough for them."""

import os

import pytest
from amaranth.lib import data

import halfdome.hdl.dma.rows
import halfdome.hdl.memory.port
import halfdome.hdl.memory.reader
import halfdome.hdl.pcie.completion_sender
from tests.formal.mutants import survivors
from tests.formal.prove import prove as prove_in


@pytest.fixture
def prove(tmp_path, request):
    """`prove(spec, depth=..., induction=...)`, see `tests.formal.prove`."""
    count = int(os.environ.get("FORMAL_MUTANTS", 0))

    def prove(spec, *, depth, induction=None):
        __tracebackhide__ = True
        prove_in(spec, tmp_path, depth=depth, induction=induction)
        if count:
            tried, left = survivors(spec, tmp_path, count, depth, induction)
            line = f"{request.node.name}: {tried - len(left)} of {tried} mutants noticed"
            request.config.get_terminal_writer().line("\n".join(["", line, *left]))

    return prove


@pytest.fixture
def narrow(monkeypatch):
    """Memory words of four bits: data is moved whole, so that more of it proves nothing more."""
    word = data.StructLayout({"data": 4, "last": 1})
    for module in (
        halfdome.hdl.memory.port,
        halfdome.hdl.memory.reader,
        halfdome.hdl.pcie.completion_sender,
        halfdome.hdl.dma.rows,
    ):
        monkeypatch.setattr(module, "read_word", lambda config: word)
