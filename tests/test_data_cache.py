"""Decoded images on disk: made once, never half, made anew when anything changed."""

import errno
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from originals import encoded, picture, refused, write_files
from PIL import Image

from fairdd_jax import hosts
from fairdd_jax.data import Listed, Listing, cache
from fairdd_jax.data.decode import Transform, decode
from fairdd_jax.data.files import Folder, Zip
from fairdd_jax.errors import DataError, WorkdirError

TRANSFORM = Transform(8, fit="crop")


def write(folder, count=20, seed=0):
    """PNG files 00.png, 01.png, ... of different shapes."""
    rng = np.random.default_rng(seed)
    names = [f"{i:02d}.png" for i in range(count)]
    shown = (picture(rng, 10 + i % 3, 12, label=i) for i in range(count))
    files = ((name, encoded(image, "PNG")) for name, image in zip(names, shown, strict=True))
    write_files(folder, files)
    return names


def listing_of(files, *, transform=TRANSFORM):
    """The last quarter is for testing, and the training images come in no order."""
    positions = np.arange(len(files.names))
    order = np.random.default_rng(1).permutation(positions)
    cut = len(order) * 3 // 4

    def split(chosen):
        return Listed(files, chosen, chosen % 2, chosen % 3, chosen % 5 == 0)

    train, test = split(order[:cut]), split(order[cut:])
    return Listing("some", train, test, ("even", "odd"), ("0", "1", "2"), transform)


@pytest.fixture
def source(tmp_path):
    names = write(tmp_path / "source")
    return Folder(tmp_path / "source", names)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def load(listing, folder, **options):
    """The data set, and how many images were decoded for it."""
    decoded = []
    data = cache.load(listing, folder=folder, on_decoded=decoded.append, **options)
    return data, sum(decoded)


def one_by_one(listed, transform=TRANSFORM):
    """What the images of a split are, in a plain loop."""
    return np.stack(
        [
            decode(listed.files.read(i), transform, grey=bool(grey))
            for i, grey in zip(listed.chosen, listed.grey, strict=True)
        ]
    )


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def damage(source, *positions, data=b"<html>"):
    for position in positions:
        (source.root / source.names[position]).write_bytes(data)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_decoded_in_parallel_is_decoded_one_by_one(source, folder, monkeypatch, workers, chunk):
    monkeypatch.setattr(os, "cpu_count", lambda: workers)
    monkeypatch.setattr(cache, "_CHUNK", chunk)
    listing = listing_of(source)
    data, decoded = load(listing, folder)
    assert decoded == 20
    for split, listed in ((data.train, listing.train), (data.test, listing.test)):
        np.testing.assert_array_equal(split.images, one_by_one(listed))
        np.testing.assert_array_equal(split.labels, listed.labels)
        np.testing.assert_array_equal(split.groups, listed.groups)
    assert (data.classes, data.groups, data.name) == (listing.classes, listing.groups, "some")


def test_the_second_start_decodes_nothing(source, folder, monkeypatch):
    first, _ = load(listing_of(source), folder)
    monkeypatch.setattr(cache, "decode", None)
    monkeypatch.setattr(Folder, "read", None)
    again, decoded = load(listing_of(source), folder)
    assert decoded == 0
    np.testing.assert_array_equal(again.train.images, first.train.images)
    np.testing.assert_array_equal(again.test.images, first.test.images)
    assert (again.mean, again.std) == (first.mean, first.std)


def test_every_process_of_a_run_keeps_its_images(source, folder, monkeypatch):
    """Not the first alone: the folder of another machine may be its own."""
    monkeypatch.setattr(hosts, "is_first", lambda: False)
    assert load(listing_of(source), folder)[1] == 20
    assert load(listing_of(source), folder)[1] == 0


def test_processes_that_share_a_folder_decode_the_same(source, folder):
    """Three that start at once; one that comes later finds what they made."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from test_data_cache import Folder, cache, listing_of\n"
        "root, folder = map(Path, sys.argv[1:])\n"
        "names = sorted(path.name for path in root.iterdir())\n"
        "data = cache.load(listing_of(Folder(root, names)), folder=folder)\n"
        "sys.stdout.buffer.write(data.train.images.tobytes())\n"
    )
    command = [sys.executable, "-c", code, source.root, folder]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(3)]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    data, decoded = load(listing_of(source), folder)
    assert outputs == [data.train.images.tobytes()] * 3
    assert decoded == 0


def test_mean_and_deviation_are_measured_on_the_training_images_unless_given(source, folder):
    data, _ = load(listing_of(source), folder)
    pixels = np.asarray(data.train.images, np.float64).reshape(-1, 3) / 255
    np.testing.assert_allclose(data.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std(0), rtol=1e-12)
    given = replace(listing_of(source), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    data, _ = load(given, folder)
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))


def test_a_changed_file_is_decoded_anew_with_its_split(source, folder):
    listing = listing_of(source)
    load(listing, folder)
    position = int(listing.train.chosen[0])
    other = encoded(picture(np.random.default_rng(9), 12, 12), "PNG")
    damage(source, position, data=other)
    data, decoded = load(listing, folder)
    assert decoded == 15
    np.testing.assert_array_equal(data.train.images, one_by_one(listing.train))
    assert load(listing, folder)[1] == 0


@pytest.mark.parametrize("field", ["st_size", "st_mtime_ns", "st_ctime_ns"])
def test_the_stamp_of_a_file_has_its_size_and_times(source, monkeypatch, field):
    before = source.stamp(0)
    status = (source.root / source.names[0]).stat()
    names = ("st_size", "st_mtime_ns", "st_ctime_ns")
    values = {name: getattr(status, name) + (name == field) for name in names}
    monkeypatch.setattr(Path, "stat", lambda path: SimpleNamespace(**values))
    assert source.stamp(0) != before


def test_a_file_of_the_same_size_and_another_time_is_decoded_anew(source, folder):
    listing = listing_of(source)
    load(listing, folder)
    os.utime(source.root / source.names[int(listing.test.chosen[0])], ns=(1, 1))
    assert load(listing, folder)[1] == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda listing: replace(listing, transform=Transform(8)),
        lambda listing: replace(listing, transform=Transform(8, crop=5, fit="crop")),
        lambda listing: replace(listing, train=replace(listing.train, grey=None)),
        lambda listing: replace(listing, train=replace(listing.train, grey=~listing.train.grey)),
        lambda listing: replace(listing, train=replace(listing.train, chosen=np.arange(15))),
    ],
    ids=["fit", "crop", "no grey", "other grey", "other images"],
)
def test_another_transform_or_selection_has_images_of_its_own(source, folder, change):
    listing = listing_of(source)
    load(listing, folder)
    changed = change(listing)
    data, decoded = load(changed, folder)
    assert decoded >= 15
    grey = changed.train.grey if changed.train.grey is not None else np.zeros(15, bool)
    expected = one_by_one(replace(changed.train, grey=grey), changed.transform)
    np.testing.assert_array_equal(data.train.images, expected)
    assert load(listing, folder)[1] == 0
    assert load(changed, folder)[1] == 0


def test_another_size(source, folder):
    assert load(listing_of(source), folder)[0].image_shape == (8, 8, 3)
    data, decoded = load(listing_of(source, transform=Transform(6)), folder)
    assert (data.image_shape, decoded) == ((6, 6, 3), 20)


def test_other_labels_of_the_same_images_decode_nothing(source, folder):
    listing = listing_of(source)
    load(listing, folder)
    relabelled = replace(listing.train, labels=1 - listing.train.labels)
    data, decoded = load(replace(listing, train=relabelled), folder)
    assert decoded == 0
    np.testing.assert_array_equal(data.train.labels, 1 - listing.train.labels)


def truncate(folder):
    for path in folder.glob("*/images.npy"):
        path.write_bytes(path.read_bytes()[:-1])


def for_each(name, change):
    return lambda folder: [change(path) for path in folder.glob(f"*/{name}")]


HALF = {
    "images truncated": truncate,
    "images longer": for_each(
        "images.npy", lambda path: path.write_bytes(path.read_bytes() + b"x")
    ),
    "images gone": for_each("images.npy", Path.unlink),
    "images empty": for_each("images.npy", lambda path: path.write_bytes(b"")),
    "manifest gone": for_each("manifest.json", Path.unlink),
    "manifest truncated": for_each("manifest.json", lambda p: p.write_text(p.read_text()[:20])),
    "manifest empty": for_each("manifest.json", lambda path: path.write_text("")),
    "manifest of something else": for_each("manifest.json", lambda path: path.write_text("[]")),
}


@pytest.mark.parametrize("change", HALF.values(), ids=HALF.keys())
def test_what_is_half_there_is_made_anew(source, folder, change):
    listing = listing_of(source)
    load(listing, folder)
    change(folder)
    data, decoded = load(listing, folder)
    assert decoded == 20
    np.testing.assert_array_equal(data.train.images, one_by_one(listing.train))
    assert load(listing, folder)[1] == 0


def interrupted(listing, folder, monkeypatch):
    """A start that Ctrl-C ends while it decodes."""
    monkeypatch.setattr(cache, "_CHUNK", 2)

    def interrupt(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.load(listing, folder=folder, on_decoded=interrupt)


def test_an_interrupted_start_leaves_nothing(source, folder, monkeypatch):
    interrupted(listing_of(source), folder, monkeypatch)
    assert files_below(folder) == []


def test_an_interrupted_start_leaves_the_images_of_another_alone(source, folder, monkeypatch):
    """Which was done after this one had found none."""
    load(listing_of(source), folder)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_manifest", lambda place: None)
        interrupted(listing_of(source), folder, patch)
    assert load(listing_of(source), folder)[1] == 0


def test_what_a_killed_process_left_is_removed(source, folder, monkeypatch):
    """But not what a living one writes, or one of another machine."""
    listing = listing_of(source)
    load(listing, folder)
    place = next(folder.glob("some_train_*"))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = platform.node()
    left = place / f".images.{ended.pid}@{here}.npy"
    others = [f".images.{os.getppid()}@{here}.npy", f".images.{ended.pid}@x.{here}.npy"]
    for path in [left, *(place / name for name in others)]:
        path.write_bytes(b"half")
    load(listing, folder)
    assert left.exists()  # nothing was made anew
    truncate(folder)
    load(listing, folder)
    assert not left.exists()
    assert {path.name for path in files_below(place)} == {"images.npy", "manifest.json", *others}

    def of_another_user(pid, signal):
        assert signal == 0
        raise PermissionError

    left.write_bytes(b"half")
    truncate(folder)
    monkeypatch.setattr(os, "kill", of_another_user)
    load(listing, folder)
    assert left.exists()


def full(*args, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def full_device(monkeypatch):
    opened = Path.open

    def open_(path, mode="r", **options):
        return open("/dev/full", mode) if ".images." in path.name else opened(path, mode, **options)

    monkeypatch.setattr(Path, "open", open_)


FULL = {
    "writing": full_device,
    "flushing": lambda monkeypatch: monkeypatch.setattr(os, "fsync", full),
    "renaming": lambda monkeypatch: monkeypatch.setattr(os, "replace", full),
    "the manifest": lambda monkeypatch: monkeypatch.setattr(tempfile, "mkstemp", full),
    "the folder": lambda monkeypatch: monkeypatch.setattr(Path, "mkdir", full),
}


@pytest.mark.parametrize("before", ["nothing", "another state"])
@pytest.mark.parametrize("inject", FULL.values(), ids=FULL.keys())
def test_a_full_disk_is_one_line_and_leaves_nothing_half(source, folder, inject, before):
    listing = listing_of(source)
    if before == "another state":
        load(listing, folder)
        for name in source.names:
            os.utime(source.root / name, ns=(1, 1))
    with pytest.MonkeyPatch.context() as monkeypatch:
        inject(monkeypatch)
        message = "No space left on device; free some space, or choose another --cache_dir"
        with refused(WorkdirError, message) as error:
            load(listing, folder)
        assert error.value.exit_code == 4
    left = {path.name for path in files_below(folder)}
    assert left <= {"images.npy"} | ({"manifest.json"} if before == "another state" else set())
    data, decoded = load(listing, folder)
    assert decoded == 20
    np.testing.assert_array_equal(data.train.images, one_by_one(listing.train))


def test_a_cache_folder_that_is_a_file_is_refused_in_one_line(source, folder):
    folder.write_text("")
    with refused(WorkdirError, "cannot keep decoded images in .*; choose another --cache_dir"):
        load(listing_of(source), folder)


def test_damaged_images_are_refused_by_name_and_count(source, folder):
    damage(source, 3, 7, 8, 11, 12)
    listing = replace(listing_of(source), train=Listed(source, np.arange(15), *[np.arange(15)] * 2))
    message = (
        r"5 of \d+ images cannot be decoded: /.*source/03\.png \(it is a web page\), "
        r"/.*source/07\.png .*, .*08\.png .* and 2 more; .* --data\.damaged leave_out"
    )
    with refused(DataError, message):
        load(listing, folder)


def test_damaged_images_are_left_out_and_counted(source, folder):
    damage(source, 3, 7, data=b"")
    chosen = np.arange(20)
    split = Listed(source, chosen, chosen % 2, chosen % 3)
    listing = replace(listing_of(source), train=split, notes=("a note",))
    data, decoded = load(listing, folder, leave_out_damaged=True)
    assert decoded == 20 + 5
    kept = np.delete(chosen, [3, 7])
    expected = one_by_one(Listed(source, kept, kept, kept, np.zeros(18)))
    np.testing.assert_array_equal(data.train.images, expected)
    np.testing.assert_array_equal(data.train.labels, kept % 2)
    np.testing.assert_array_equal(data.train.groups, kept % 3)
    assert data.notes[:2] == ("a note", "2 damaged images of the train split are left out")
    again, decoded = load(listing, folder, leave_out_damaged=True)
    assert (decoded, again.notes) == (0, data.notes)
    with refused(DataError, "2 of 20 images"):
        load(listing, folder)


def test_damaged_images_of_both_splits_are_refused_together_and_once(source, folder):
    """Test images come twice in some data sets, and training images may lie elsewhere."""
    names = write(source.root.parent / "more", 6, seed=1)
    others = Folder(source.root.parent / "more", names)
    twice = np.tile(np.arange(6), 2)
    listing = replace(listing_of(source), test=Listed(others, twice, twice % 2, twice % 3))
    position = int(listing.train.chosen[0])
    damage(source, position, data=b"")
    damage(others, 2)
    message = (
        rf"2 of 21 images .*source/{position:02d}\.png \(it is empty\), .*more/02\.png \(it.*\);"
    )
    with refused(DataError, message):
        load(listing, folder)
    assert load(listing, folder, leave_out_damaged=True)[0].notes == (
        "1 damaged images of the train split are left out",
        "2 damaged images of the test split are left out",
    )


def test_a_repaired_image_is_taken(source, folder):
    good = source.read(3)
    damage(source, 3, data=good[:-30])
    with refused(DataError, r"03\.png"):
        load(listing_of(source), folder)
    damage(source, 3, data=good)
    data, _ = load(listing_of(source), folder)
    assert (len(data.train), len(data.test), data.notes) == (15, 5, ())


@pytest.mark.parametrize("leave_out_damaged", [False, True])
def test_a_split_without_any_whole_image_is_refused(source, folder, leave_out_damaged):
    damage(source, *range(20))
    with refused(DataError, "20 of 20 images"):
        load(listing_of(source), folder, leave_out_damaged=leave_out_damaged)


def test_a_missing_image_is_refused_by_name(source, folder):
    (source.root / "05.png").unlink()
    with refused(DataError, r"05\.png \(No such file or directory\)"):
        load(listing_of(source), folder)
    assert load(listing_of(source), folder, leave_out_damaged=True)[1] == 0  # it is known


def test_an_image_that_may_not_be_read_is_refused_until_it_may(source, folder):
    read = Folder.read

    def refuse(files, index):
        if files.names[index] == "04.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(files, index)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Folder, "read", refuse)
        with refused(DataError, r"1 of 20 images .*source/04\.png \(Permission denied\)"):
            load(listing_of(source), folder)
        data, _ = load(listing_of(source), folder, leave_out_damaged=True)
        assert len(data.train) + len(data.test) == 19
    # The file is as it was: what could not be read is no property of it.
    data, decoded = load(listing_of(source), folder)
    assert (len(data.train) + len(data.test), data.notes) == (20, ())
    assert decoded in (5, 15)  # of the one split
    assert load(listing_of(source), folder)[1] == 0


@pytest.mark.parametrize("fill", [0x00, 0xFF], ids=["checksum", "compression"])
def test_a_damaged_archive_member_counts_as_a_damaged_image(source, tmp_path, folder, fill):
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for i, name in enumerate(source.names):
            file.writestr(name, source.read(i))
    files = Zip(archive, source.names)
    data, _ = load(listing_of(files), folder)
    np.testing.assert_array_equal(data.train.images, one_by_one(listing_of(source).train))
    with zipfile.ZipFile(archive) as file:
        member = file.getinfo("06.png")
        start = member.header_offset + 30 + len("06.png")
    content = bytearray(archive.read_bytes())
    content[start : start + member.compress_size] = bytes([fill]) * member.compress_size
    archive.write_bytes(content)
    with refused(DataError, r"1 of .* images cannot be decoded: .*images\.zip/06\.png"):
        load(listing_of(Zip(archive, source.names)), tmp_path / "another")


@pytest.mark.parametrize("count", [20, 40, 133])
def test_images_are_a_memory_map_aligned_for_the_device(tmp_path, folder, count):
    names = write(tmp_path / "source", count)
    source = Folder(tmp_path / "source", names)
    damage(source, *range(0, count, 4))  # fewer images than the header was made for
    data, _ = load(listing_of(source), folder, leave_out_damaged=True)
    for split in (data.train, data.test):
        assert isinstance(split.images, np.memmap)
        assert not split.images.flags.writeable
        assert split.images.ctypes.data % 64 == 0
    assert len(data.train) + len(data.test) == count - len(range(0, count, 4))


def test_formats_are_registered_before_threads_look_for_them(source, folder, monkeypatch):
    """Else Pillow takes a good TIFF or WebP for no image while another thread registers them."""
    calls = []
    monkeypatch.setattr(Image, "init", lambda: calls.append("init"))
    monkeypatch.setattr(cache, "decode", lambda *a, **k: calls.append("decode") or decode(*a, **k))
    load(listing_of(source), folder)
    assert calls[0] == "init"
    assert calls.count("decode") == 20


def test_only_a_few_chunks_are_decoded_ahead(source, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(cache, "_CHUNK", 1)
    read, original = [], Folder.read
    monkeypatch.setattr(Folder, "read", lambda files, i: read.append(i) or original(files, i))
    listing = listing_of(source)
    chunks = cache._decoded(listing, listing.train)
    next(chunks)
    chunks.close()  # waits for those on their way
    assert len(read) <= 2 * 2 + 1


def test_the_default_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("FAIRDD_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.default_folder() == Path("/home/someone/.cache/fairdd_jax")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big/cache")
    assert cache.default_folder() == Path("/big/cache/fairdd_jax")
    monkeypatch.setenv("FAIRDD_CACHE_DIR", "~/images")
    assert cache.default_folder() == Path("/home/someone/images")
