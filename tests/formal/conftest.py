"""The fixture that runs proofs."""

from functools import partial

import pytest

from tests.formal.prove import prove as prove_in


@pytest.fixture
def prove(tmp_path):
    """`prove(spec, depth=..., induction=...)`, see `tests.formal.prove`."""
    return partial(prove_in, folder=tmp_path)
