"""Arrays whose values were left out: what a platform opened with `values=False` answers with."""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from halfdome.sim.timing.left_out import ValuesLeftOut


class LeftOut:
    """Stands where an array would: of the same shape and dtype, and nothing in it can be read.

    Attributes
    ----------
    shape : tuple of int; None where only a computation would tell
    dtype : np.dtype
    """

    def __init__(self, shape: Sequence[int | None], dtype: np.dtype):
        self.shape = tuple(shape)
        self.dtype = dtype

    def __repr__(self) -> str:
        sizes = ", ".join("n" if size is None else str(size) for size in self.shape)
        return f"LeftOut({self.dtype}[{sizes}])"

    def __len__(self) -> int:
        if not self.shape or self.shape[0] is None:
            raise TypeError(f"{self!r}: has no known length")
        return self.shape[0]

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse(name)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise ValuesLeftOut(
            f"{self!r}: its values were not computed, as the platform was opened with "
            "values=False; open it without that option to read them"
        )

    __array__ = __getitem__ = __iter__ = __bool__ = __float__ = __int__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
