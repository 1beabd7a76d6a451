"""What a caller hands in, made into checked values before anything else happens.

Every function takes the argument's name and value, and returns the value as the code below wants
it. What does not fit raises `ValueError` that names argument, value and rule. Python's numbers,
numpy's, and arrays without dimensions (what an ONNX initialiser is) are alike.
"""

import enum
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

Choice = TypeVar("Choice", bound=enum.Enum)


def integer(name: str, value: object, low: int, high: int | None = None) -> int:
    """A whole number from `low` to `high`."""
    scalar = _scalar(value)
    if not isinstance(scalar, int | np.integer) or isinstance(scalar, bool | np.bool_):
        raise ValueError(f"{name}={value!r}: must be an integer{_range(low, high)}")
    if scalar < low or (high is not None and scalar > high):
        raise ValueError(f"{name}={scalar}: must be an integer{_range(low, high)}")
    return int(scalar)


def number(name: str, value: object, *, infinite: bool = False) -> float:
    """A finite number, or an infinite one if it may be; never NaN."""
    scalar = _scalar(value)
    found = math.nan
    if isinstance(scalar, int | float | np.integer | np.floating) and not isinstance(scalar, bool):
        with suppress(OverflowError):  # a whole number beyond all floats
            found = float(scalar)
    if not math.isfinite(found) and not (infinite and math.isinf(found)):
        kind = "number" if infinite else "finite number"
        raise ValueError(f"{name}={value!r}: must be a {kind}")
    return found


def flag(name: str, value: object) -> bool:
    """True or False."""
    scalar = _scalar(value)
    if not isinstance(scalar, bool | np.bool_):
        raise ValueError(f"{name}={value!r}: must be True or False")
    return bool(scalar)


def integers(name: str, value: object, count: int, low: int, high: int) -> tuple[int, ...]:
    """So many whole numbers, or one that stands for all of them."""
    if isinstance(_scalar(value), int | np.integer):
        return (integer(name, value, low, high),) * count
    listed = isinstance(value, Sequence | np.ndarray) and getattr(value, "shape", None) != ()
    if isinstance(value, str | bytes) or not listed:
        raise ValueError(f"{name}={value!r}: must be an integer or {count} integers")
    if len(value) != count:
        raise ValueError(f"{name}={value!r}: must be {count} integers, or one for all")
    return tuple(integer(f"{name}[{place}]", each, low, high) for place, each in enumerate(value))


def pads(value: object) -> tuple[int, ...]:
    """Pixels beside an image: top, left, bottom, right, or two or one that stand for them."""
    with suppress(TypeError):  # what has no length
        if len(value) == 2:  # type: ignore[arg-type]
            return 2 * integers("pads", value, 2, 0, 255)
    return integers("pads", value, 4, 0, 255)


def choice(name: str, value: object, choices: type[Choice]) -> Choice:
    """A member of `choices`, given as such, by its value or by its name."""
    if isinstance(value, str) and value.upper() in choices.__members__:
        return choices[value.upper()]
    scalar = _scalar(value)
    if not isinstance(scalar, bool | np.bool_ | np.ndarray):  # equal to members, but none
        with suppress(ValueError, TypeError):
            return choices(scalar)
    known = ", ".join(member.name.lower() for member in choices)
    raise ValueError(f"{name}={value!r}: must be one of {known}")


def dtype(name: str, value: DTypeLike, allowed: Sequence[DTypeLike]) -> np.dtype:
    """A dtype among those that are `allowed`."""
    known = [np.dtype(each) for each in allowed]
    try:
        chosen = np.dtype(value)
    except TypeError:
        raise ValueError(f"{name}={value!r}: must be {_either(known)}") from None
    if value is None or chosen not in known:
        raise ValueError(f"{name}={chosen}: must be {_either(known)}")
    return chosen


class Shaped(Protocol):
    """An array, or what stands for one that lies elsewhere."""

    @property
    def dtype(self) -> np.dtype: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def array(
    name: str, value: ArrayLike, dtypes: Sequence[DTypeLike], shape: Sequence[int | None]
) -> np.ndarray:
    """A contiguous array of one of `dtypes` and of `shape`, where None stands for any size."""
    found = plain(name, value)
    fitting(name, found, dtypes, shape)
    return np.ascontiguousarray(found)


def fitting(
    name: str, found: Shaped, dtypes: Sequence[DTypeLike], shape: Sequence[int | None]
) -> None:
    """Refuses what is not of one of `dtypes` and of `shape`, where None stands for any size."""
    fits = len(found.shape) == len(shape) and all(
        size is None or size == is_ for size, is_ in zip(shape, found.shape, strict=True)
    )
    if found.dtype not in dtypes or not fits:
        if all(size is None for size in shape):
            wanted = f"with {len(shape)} dimension{'s' * (len(shape) != 1)}"
        else:
            wanted = "of shape [" + ", ".join("n" if s is None else str(s) for s in shape) + "]"
        raise ValueError(f"{name}: is {described(found)}, must be {_either(dtypes)} {wanted}")


def plain(name: str, value: ArrayLike) -> np.ndarray:
    """An array of whatever dtype and shape, but without masked elements: they have no value."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: has masked elements, fill them in with .filled(value)")
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: is no array, its rows differ in length") from None
    except (TypeError, RuntimeError) as error:  # what it is made of refuses, and says why
        raise ValueError(f"{name}: {error}") from None


def rows(name: str, value: ArrayLike, kind: DTypeLike, shape: Sequence[int]) -> np.ndarray:
    """A contiguous array of `kind` whose first size is at most that of `shape`."""
    found = array(name, value, (kind,), (None, *shape[1:]))
    if len(found) > shape[0]:
        raise ValueError(f"{name}: is {described(found)}, must have at most {shape[0]} rows")
    return found


def output_file(path: str | Path) -> Path:
    """The path of a file that can be written, which is left as it is."""
    path = Path(path)
    try:
        if path.is_dir():
            raise ValueError(f"{path}: is a folder, must be a file")
        if not path.parent.is_dir():
            raise ValueError(f"{path}: folder {path.parent} does not exist")
        known = path.exists()
        path.open("a").close()
        if not known:
            path.unlink()
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def output_folder(path: str | Path) -> Path:
    """The path of a folder that files can be written to; it is made if it is missing."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path).close()
    except OSError as error:
        raise ValueError(f"{path}: is no folder to write to: {error.strerror}") from None
    return path


def described(value: Shaped) -> str:
    """An array in an error: dtype and shape."""
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"


def _scalar(value: object) -> object:
    """What an array without dimensions, or a numpy number, holds."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value[()]
    return value


def _range(low: int, high: int | None) -> str:
    return f" from {low} to {high}" if high is not None else f", {low} or more"


def _either(dtypes: Sequence[DTypeLike]) -> str:
    return " or ".join(str(np.dtype(each)) for each in dtypes)
