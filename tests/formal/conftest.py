"""The fixture that runs proofs, and worlds small enough for them."""

from functools import partial

import pytest
from amaranth.lib import data

import hdl.memory.port
import hdl.memory.reader
from tests.formal.prove import prove as prove_in


@pytest.fixture
def prove(tmp_path):
    """`prove(spec, depth=..., induction=...)`, see `tests.formal.prove`."""
    return partial(prove_in, folder=tmp_path)


@pytest.fixture
def narrow(monkeypatch):
    """Memory words of four bits: data is moved whole, so that more of it proves nothing more."""
    word = data.StructLayout({"data": 4, "last": 1})
    for module in (hdl.memory.port, hdl.memory.reader):
        monkeypatch.setattr(module, "read_word", lambda config: word)
