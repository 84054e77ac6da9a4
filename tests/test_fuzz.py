"""Whatever is read, nothing but a clean error comes out: one line, of a kind that has an exit code.

A few hundred cases each by default, 1,000 in the slow tests.
"""

import dataclasses
import gzip
import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from originals import encoded, picture

from fairdd_jax import config, schema
from fairdd_jax.data import idx
from fairdd_jax.data.decode import DamagedImageError, Transform, decode
from fairdd_jax.data.table import read_table, rows_of
from fairdd_jax.distilled import DistilledSet, load_distilled
from fairdd_jax.errors import ConfigError, DataError

MANY = pytest.mark.parametrize(
    "cases", [pytest.param(1000, marks=pytest.mark.slow, id="1000"), pytest.param(100, id="100")]
)


def fuzz(cases, check, **strategies):
    """Try a check on so many cases, the same ones every time."""
    chosen = settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    seen = []

    def counted(**values):
        seen.append(1)
        check(**values)

    counted.__annotations__ = {}
    chosen(given(**strategies)(lambda **values: counted(**values)))()
    assert len(seen) >= cases


def assert_clean(error):
    assert str(error)
    assert "\n" not in str(error)


def changes(length):
    """How bytes are damaged: cut, overwritten at some places, and others put in."""
    place = st.integers(0, length - 1)
    overwritten = st.lists(st.tuples(place, st.integers(0, 255)), max_size=8)
    return st.tuples(st.integers(0, length), overwritten, place, st.binary(max_size=12))


def damaged(content, change):
    cut, overwritten, place, inserted = change
    result = bytearray(content)
    for position, value in overwritten:
        result[position] = value
    if cut % 3 == 0:  # else the end stays
        del result[cut:]
    result[place:place] = inserted
    return bytes(result)


FIELDS = sorted(schema.flat(dataclasses.asdict(config.make({"data.name": "demo"}))))
VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=12),
    st.sampled_from(["null", "true", "[]", "{}", "{a: 1}", "[1, 2]", "dm", "real", "1e999", "-0"]),
    st.sampled_from(
        ["fairdd", "ConvNetD1W8", "a.b:c", "os:system", "!!python/object:os.x", "&a *a"]
    ),
)


@MANY
def test_configurations(cases):
    """Fields and values, right and wrong, as a command line has them."""

    def check(arguments):
        settings = {"data.name": "demo", "model": "ConvNetD1W8"}
        try:
            made = config.from_arguments(
                config.parser(settings), [f"--{name}={value}" for name, value in arguments]
            )
        except (ConfigError, DataError) as error:
            assert_clean(error)
        else:
            json.dumps(dataclasses.asdict(made), allow_nan=False)

    name = st.one_of(st.sampled_from(FIELDS), st.text("abcz._-=", min_size=1, max_size=9))
    fuzz(cases, check, arguments=st.lists(st.tuples(name, VALUES), min_size=1, max_size=3))


CSV = b'path,age,sex\na.png,old,f\nb/c.png,young,m\n"d,e.png",old,m\n'


@MANY
def test_tables(cases, tmp_path):
    path = tmp_path / "table.csv"

    def check(content, leave_out):
        path.write_bytes(content)
        try:
            columns = read_table(path)
            rows = rows_of(
                columns,
                path="path",
                labels=["age", "sex"],
                split=None,
                leave_out=leave_out,
                root=tmp_path,
            )
        except (ConfigError, DataError) as error:
            assert_clean(error)
        else:
            names = rows.columns["path"]
            assert len(set(names)) == len(names) == len(rows.columns["age"])
            assert not any(".." in name.split("/") or name.startswith("/") for name in names)

    table = changes(len(CSV)).map(lambda change: damaged(CSV, change))
    lines = st.lists(st.text(max_size=20), max_size=5)
    made = lines.map(lambda rows: "\n".join(["path,age,sex", *rows]).encode("utf-8", "replace"))
    content = st.one_of(table, made, st.binary(max_size=60))
    fuzz(cases, check, content=content, leave_out=st.booleans())


IMAGES = b"\0\0\x08\x03" + (2).to_bytes(4, "big") + 2 * (3).to_bytes(4, "big") + bytes(range(18))


@MANY
def test_digits(cases, tmp_path):
    """Whole and packed, damaged before or after packing."""

    def check(change, packed, inside):
        path = tmp_path / ("images.gz" if packed else "images")
        content = damaged(IMAGES, change) if inside or not packed else IMAGES
        if packed:
            content = gzip.compress(content, mtime=0)
        if packed and not inside:
            content = damaged(content, tuple_within(change, len(content)))
        path.write_bytes(content)
        try:
            images = idx.read_idx(path, dimensions=3)
        except DataError as error:
            assert_clean(error)
        else:
            assert images.dtype == np.uint8
            assert images.size == images.shape[0] * images.shape[1] * images.shape[2] > 0

    fuzz(cases, check, change=changes(len(IMAGES)), packed=st.booleans(), inside=st.booleans())


def tuple_within(change, length):
    """The same damage of shorter bytes."""
    cut, overwritten, place, inserted = change
    places = [(position % length, value) for position, value in overwritten]
    return min(cut, length), places, place % length, inserted


PICTURE = picture(np.random.default_rng(0), 12, 9, label=1, group=1)
PICTURES = [encoded(PICTURE, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]


@MANY
def test_images(cases):
    """Of every kind, the header more often than the rest."""
    transforms = [Transform(8), Transform(8, fit="crop"), Transform(8, crop=5)]

    def check(data, change, transform):
        content = damaged(data, tuple_within(change, min(len(data), 200)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on what it can still read
            try:
                pixels = decode(content, transform)
            except DamagedImageError as error:
                assert_clean(error)
            else:
                assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)

    fuzz(
        cases,
        check,
        data=st.sampled_from(PICTURES),
        change=changes(400),
        transform=st.sampled_from(transforms),
    )


@MANY
def test_distilled_sets(cases, tmp_path):
    path = tmp_path / "distilled.npz"
    images = np.random.default_rng(0).standard_normal((2, 1, 2, 2, 3)).astype(np.float32)
    whole = DistilledSet.of_classes(
        images, mean=(0.5,) * 3, std=(0.2,) * 3, class_names=("a", "b"), meta={"step": 1}
    )
    whole.save(path)
    content = path.read_bytes()

    def check(change, wide):
        position = change if wide else tuple_within(change, 300)
        path.write_bytes(damaged(content, position))
        try:
            loaded = load_distilled(path)
        except DataError as error:
            assert_clean(error)
        else:
            assert loaded.images.shape == loaded.images_float.shape
            assert loaded.labels.max() < len(loaded.class_names)

    fuzz(cases, check, change=changes(len(content)), wide=st.booleans())


def test_damage_does_damage():
    """The cases are not all whole: most of them differ from what they were made of."""
    seen = []
    fuzz(100, lambda change: seen.append(damaged(IMAGES, change)), change=changes(len(IMAGES)))
    assert len(set(seen)) > 60
    assert any(len(content) < len(IMAGES) for content in seen)
    assert io.BytesIO(seen[0]).read() == seen[0]
