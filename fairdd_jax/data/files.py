"""Encoded images by number, wherever they lie: in a folder, a zip archive or a prepared copy."""

import hashlib
import os
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from fairdd_jax.errors import DataError

# No image of a data set needs more; a hostile archive may say that a small file becomes a huge one.
LARGEST = 256 * 2**20  # bytes
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


class ImageFiles(Protocol):
    """Encoded images that have names and can be read in any order, from several threads."""

    @property
    def place(self) -> str:
        """Where they are, for messages."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """A name for each, relative to the place."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded image; raises OSError."""
        ...

    def stamp(self, index: int) -> str:
        """What is another text as soon as the image may be another one."""
        ...


class Folder:
    """Image files below a folder."""

    def __init__(self, root: Path, names: Sequence[str]):
        self.root, self.names = root, names
        self.place = str(root)

    def read(self, index: int) -> bytes:
        """The encoded image."""
        path = self.root / self.names[index]
        status = path.stat()
        # Reading a pipe would wait for ever, and /dev/zero has no end; a folder says so itself.
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise OSError("it is a pipe, a socket or a device")
        _limit(status.st_size)
        return path.read_bytes()

    def stamp(self, index: int) -> str:
        """Size and times of the last changes of the content and of the permissions."""
        try:
            status = (self.root / self.names[index]).stat()
        except OSError as error:
            return error.strerror or "unreadable"
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


class Zip:
    """Image files in a zip archive, which stays packed."""

    def __init__(self, archive: Path, names: Sequence[str]):
        self.names = names
        self.place = str(archive)
        self._archive = open_zip(archive)

    def read(self, index: int) -> bytes:
        """The encoded image."""
        _limit(self._archive.getinfo(self.names[index]).file_size)  # more is never unpacked
        try:
            return self._archive.read(self.names[index])
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
            raise OSError(str(error)) from None

    def stamp(self, index: int) -> str:
        """The checksum that the archive keeps."""
        info = self._archive.getinfo(self.names[index])
        return f"{info.file_size} {info.CRC}"


class Records:
    """Encoded images of a copy prepared by tensorflow-datasets.

    Args:
      source: its records by number, the image not decoded.
      names: the names of the images in their order.
      positions: which record each is.
      place: the folder of the copy.
    """

    def __init__(self, source: Any, names: Sequence[str], positions: Sequence[int], place: Path):
        self.names, self.place = names, str(place)
        self._source, self._positions = source, positions

    @cached_property
    def _version(self) -> str:
        info = Path(self.place) / "dataset_info.json"
        return hashlib.sha256(info.read_bytes()).hexdigest()

    def read(self, index: int) -> bytes:
        """The encoded image."""
        try:
            return bytes(self._source[self._positions[index]]["image"])
        except Exception as error:  # array_record raises its own
            raise OSError(f"record {index}: {error}") from None

    def stamp(self, index: int) -> str:
        """A copy never changes; another one has another description."""
        return f"{self._version} {index}"


class Joined:
    """Several of the others, one after the other."""

    def __init__(self, parts: Sequence[ImageFiles]):
        self.names = [name for part in parts for name in part.names]
        self.place = parts[0].place
        self._where = [(part, i) for part in parts for i in range(len(part.names))]

    def read(self, index: int) -> bytes:
        """The encoded image."""
        part, position = self._where[index]
        return part.read(position)

    def stamp(self, index: int) -> str:
        """That of the part."""
        part, position = self._where[index]
        return part.stamp(position)


def _limit(size: int) -> None:
    if size > LARGEST:
        raise OSError(f"it has {size} bytes, more than the {LARGEST} that an image may have")


def open_zip(archive: Path) -> zipfile.ZipFile:
    """The archive.

    Raises:
      DataError: it is truncated or none.
    """
    try:
        return zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive} cannot be read ({error}); get it again") from None


def is_image(name: str) -> bool:
    """Whether a file name is that of an image, not a hidden one.

    >>> is_image("a/b.JPEG"), is_image("a/._b.jpg"), is_image("labels.csv")
    (True, False, False)
    """
    last = name.rpartition("/")[2]
    return last.lower().endswith(SUFFIXES) and not last.startswith(".")


def images_below(folder: Path) -> list[str]:
    """Names of all image files below a folder, sorted; links to folders are followed.

    Raises:
      DataError: the folder, or one in it, cannot be listed, or a name is no text.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from None

    found = []
    # The folders on the way to each: a link to one of them would go round and round.
    passed = {str(folder): {os.path.realpath(folder)}}
    for where, below, files in os.walk(folder, onerror=refuse, followlinks=True):
        on_the_way = passed.pop(where)
        real = {name: os.path.realpath(os.path.join(where, name)) for name in below}
        below[:] = [name for name in below if real[name] not in on_the_way]
        passed |= {os.path.join(where, name): on_the_way | {real[name]} for name in below}
        found += [(Path(where) / file).relative_to(folder).as_posix() for file in files]
    names = sorted(name for name in found if is_image(name))
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = name.encode(errors="replace").decode()
            raise DataError(
                f"{folder}: the name {shown} is no text in {sys.getfilesystemencoding()}; rename it"
            ) from None
    return names


def find_folder(
    data_dir: Path | None, folders: Sequence[str], has: Callable[[Path], bool]
) -> Path | None:
    """The first of some folders below the data folder ("." is itself) that has what is needed."""
    if data_dir is None:
        return None
    places = (data_dir / name for name in folders)
    return next((place for place in places if has(place)), None)


def not_found(name: str, data_dir: Path | None, *, files: str, folder: str, copy: str) -> DataError:
    """The error of a data set that is nowhere.

    Args:
      name: the data set.
      data_dir: where it was looked for.
      files: what belongs there.
      folder: in which folder below it.
      copy: what can be said of a prepared copy and of a download.
    """
    where = data_dir or Path("DATA_DIR")
    absent = f" ({data_dir} does not exist)" if data_dir and not data_dir.exists() else ""
    return DataError(
        f"{name} not found{absent}: put {files} into {where / folder} and pass "
        f"--data_dir {where}, or {copy}"
    )
