"""MovieLens-100K in time order, read from the files that the `recbole` wheel carries.

The data set's terms forbid redistribution, so this project holds none of it. The wheel is only a
carrier: its files are read and the package is never imported.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_IN_WHEEL = "dataset_example/ml-100k"
_HOW_TO_GET = (
    "`pip install --no-deps recbole==1.2.1`, or name a folder that holds it with --data DIR"
)


class DataError(ValueError):
    """The data set is missing or malformed. The message names the file and the remedy or rule."""


@dataclass(frozen=True)
class User:
    """What is known of a user. `age` is in years; the texts are as written in the file."""

    age: int
    gender: str
    occupation: str
    zip_code: str


@dataclass(frozen=True)
class Item:
    """What is known of a film. `year` is None where the file has no number."""

    year: int | None
    genres: tuple[str, ...]


@dataclass(frozen=True)
class Interactions:
    """Ratings in time order, ties in file order, with the users and items they refer to.

    `user` and `item` (int32[n]) index `users` and `items`; `rating` is float32[n], 1 to 5;
    `timestamp` is int64[n], seconds since 1970, UTC.
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray
    users: tuple[User, ...]
    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.timestamp)


def find() -> Path:
    """The folder of MovieLens-100K inside the installed `recbole` wheel.

    Raises `DataError`, saying how to get it, if there is none.
    """
    spec = importlib.util.find_spec("recbole")  # a top-level name: found, not executed
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / _IN_WHEEL
        if folder.is_dir():
            return folder
    raise DataError(f"MovieLens-100K is not installed: {_HOW_TO_GET}")


def load(data_dir: Path | None = None) -> Interactions:
    """Reads `ml-100k.inter`, `ml-100k.user` and `ml-100k.item` from `data_dir` or the wheel.

    Raises `DataError` for a missing file or column, a malformed number (with its line), or a rating
    whose user or item is not described.
    """
    folder = find() if data_dir is None else Path(data_dir)
    users = {
        token: User(_integer(age, at), gender, occupation, zip_code)
        for at, (token, age, gender, occupation, zip_code) in _rows(
            folder / "ml-100k.user", ("user_id", "age", "gender", "occupation", "zip_code")
        )
    }
    items = {
        token: Item(int(year) if year.isdecimal() else None, tuple(genres.split()))
        for _, (token, year, genres) in _rows(
            folder / "ml-100k.item", ("item_id", "release_year", "class")
        )
    }
    user_number = {token: number for number, token in enumerate(users)}
    item_number = {token: number for number, token in enumerate(items)}
    columns: tuple[list, ...] = ([], [], [], [])
    for at, (user, item, rating, timestamp) in _rows(
        folder / "ml-100k.inter", ("user_id", "item_id", "rating", "timestamp")
    ):
        columns[0].append(_lookup(user_number, user, "user_id", at))
        columns[1].append(_lookup(item_number, item, "item_id", at))
        columns[2].append(_number(rating, at))
        columns[3].append(_integer(timestamp, at))
    if not columns[0]:
        raise DataError(f"{folder / 'ml-100k.inter'}: has a header but no ratings")
    user, item, rating, timestamp = (
        np.array(column, dtype)
        for column, dtype in zip(columns, (np.int32, np.int32, np.float32, np.int64), strict=True)
    )
    order = np.argsort(timestamp, kind="stable")
    return Interactions(
        user[order], item[order], rating[order], timestamp[order],
        tuple(users.values()), tuple(items.values()),
    )  # fmt: skip


def _rows(path: Path, wanted: tuple[str, ...]):
    """Yields where each row stands and its `wanted` cells from a file with a typed header."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; get it by {_HOW_TO_GET}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8 text") from None
    # Not splitlines(): titles may hold characters that it takes for line ends.
    lines = text.rstrip("\n").split("\n")
    header = [cell.partition(":")[0] for cell in lines[0].rstrip("\r").split("\t")]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(
            f"{path}: column {', '.join(missing)} is missing; the header has {', '.join(header)}"
        )
    places = [header.index(name) for name in wanted]
    for number, line in enumerate(lines[1:], start=2):
        cells = line.rstrip("\r").split("\t")
        at = f"{path}, line {number}"
        if len(cells) != len(header):
            raise DataError(f"{at}: has {len(cells)} columns where the header has {len(header)}")
        yield at, [cells[place] for place in places]


def _number(text: str, at: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{at}: {text!r} is not a number") from None
    if not np.isfinite(value):
        raise DataError(f"{at}: {text!r} is not a finite number")
    return value


def _integer(text: str, at: str) -> int:
    value = _number(text, at)
    if value != int(value):
        raise DataError(f"{at}: {text!r} is not a whole number")
    return int(value)


def _lookup(numbers: dict[str, int], token: str, column: str, at: str) -> int:
    if token not in numbers:
        raise DataError(f"{at}: {column} {token!r} is not described in its own file")
    return numbers[token]
