"""Files that `make models` fetches, and photographs among them."""

import numpy as np
import pytest
from PIL import Image

from halfdome.host.models.ladder import photographs, wheels


def test_a_missing_file_says_how_to_fetch_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HALFDOME_MODELS", str(tmp_path))
    with pytest.raises(wheels.MissingModel, match=r"pnet.pt: no such file.*`make models`.*HALFDOM"):
        wheels.find("facenet_pytorch/data/pnet.pt")


def test_files_are_found_where_the_variable_says_or_in_the_source_tree(monkeypatch, tmp_path):
    (tmp_path / "a").write_text("")
    monkeypatch.setenv("HALFDOME_MODELS", str(tmp_path))
    assert wheels.find("a") == tmp_path / "a"
    monkeypatch.delenv("HALFDOME_MODELS")
    with pytest.raises(wheels.MissingModel, match="build/models/a: no such file"):
        wheels.find("a")


def test_a_photograph_has_rows_columns_and_red_first(monkeypatch, tmp_path):
    folder = tmp_path / "skimage" / "data"
    folder.mkdir(parents=True)
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2, :, 0], pixels[2:, :, 2] = 200, 100
    Image.fromarray(pixels).save(folder / "red_over_blue.png")
    monkeypatch.setenv("HALFDOME_MODELS", str(tmp_path))
    np.testing.assert_array_equal(photographs.load("red_over_blue.png"), pixels)
    small = photographs.load("red_over_blue.png", (2, 3))
    assert (small.shape, small.dtype) == ((2, 3, 3), np.uint8)
    assert small[0, 0].argmax() == 0
    assert small[1, 0].argmax() == 2
