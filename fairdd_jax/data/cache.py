"""Decoded images on disk: made once, in parallel, and read back as a memory map.

A split lies in a folder of its own, `images.npy` beside `manifest.json`, which is written last and
says what the images were made of. Nothing without a manifest, or with one that no longer fits the
files or the transform, is ever read.
"""

import errno
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fairdd_jax import workdir
from fairdd_jax.data.dataset import Dataset, Split, channel_statistics
from fairdd_jax.data.decode import DamagedImageError, decode
from fairdd_jax.data.listing import Listed, Listing
from fairdd_jax.errors import DataError, WorkdirError, first_few
from fairdd_jax.prefetch import prefetch

OnDecoded = Callable[[int], None]

_FORMAT = 1  # of the cache; another one is made anew
_CHUNK = 64  # images that a thread decodes at a time
_SHOWN = 3  # damaged images that a message names


def default_folder() -> Path:
    """Where decoded images are kept unless the user says otherwise.

    The folder in FAIRDD_CACHE_DIR, else fairdd_jax in the user's cache folder.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("FAIRDD_CACHE_DIR") or Path(cache, "fairdd_jax")).expanduser()


def load(
    listing: Listing,
    *,
    folder: Path,
    leave_out_damaged: bool = False,
    on_decoded: OnDecoded = lambda images: None,
) -> Dataset:
    """Decode a listing, or take what was decoded before.

    Args:
      listing: the images.
      folder: where decoded images are kept.
      leave_out_damaged: leave out what cannot be decoded, and say so in the notes.
      on_decoded: told how many images were just decoded; not called for those taken from disk.

    Returns:
      The data set, its images memory maps (read only).

    Raises:
      DataError: an image cannot be decoded.
      WorkdirError: the folder cannot be written, or is full.
    """
    splits: list[Split] = []
    notes = list(listing.notes)
    places, damaged = {}, {}
    parts = {"train": listing.train, "test": listing.test}
    for name, listed in parts.items():
        place = folder / f"{listing.name}_{name}_{_selection(listing, listed)[:16]}"
        fingerprint = _fingerprint(listed)
        manifest = _manifest(place)
        if manifest is None or manifest["fingerprint"] != fingerprint:
            manifest = _build(place, listing, listed, fingerprint, on_decoded)
        places[name] = place
        damaged[name] = {int(i): why for i, why in manifest["damaged"].items()}
    if any(damaged.values()) and not leave_out_damaged:
        raise DataError(_refusal(damaged, parts))
    for name, listed in parts.items():
        kept = np.setdiff1d(np.arange(len(listed)), list(damaged[name]))
        if damaged[name]:
            notes.append(f"{len(damaged[name])} damaged images of the {name} split are left out")
        if not kept.size:
            refusal = _refusal(damaged, parts)
            raise DataError(f"no image of the {name} split can be decoded; {refusal}")
        images = np.load(places[name] / "images.npy", mmap_mode="r", allow_pickle=False)
        splits.append(Split(images, listed.labels[kept], listed.groups[kept]))
    mean, std = listing.mean, listing.std
    if mean is None or std is None:
        measured = channel_statistics(splits[0].images)
        mean, std = tuple(measured[0]), tuple(measured[1])
    train, test = splits
    return Dataset(
        listing.name, train, test, listing.classes, listing.groups, mean, std, tuple(notes)
    )


def _selection(listing: Listing, listed: Listed) -> str:
    """Which images, and what is done to them: decides the folder."""
    parts: list[Any] = [_FORMAT, listed.files.place, listing.transform.describe()]
    parts.append([listed.files.names[i] for i in listed.chosen])
    parts.append(None if listed.grey is None else np.flatnonzero(listed.grey).tolist())
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _fingerprint(listed: Listed) -> str:
    """What changes as soon as a file does."""
    digest = hashlib.sha256()
    for index in listed.chosen:
        digest.update(listed.files.stamp(index).encode() + b"\n")
    return digest.hexdigest()


def _manifest(place: Path) -> dict[str, Any] | None:
    """The manifest, if there is one and the images beside it are as many as it says."""
    try:
        manifest: dict[str, Any] = json.loads((place / "manifest.json").read_text())
        if (place / "images.npy").stat().st_size != manifest["bytes"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest


def _build(
    place: Path, listing: Listing, listed: Listed, fingerprint: str, on_decoded: OnDecoded
) -> dict[str, Any]:
    """Decode a split into its folder and describe it; the manifest."""
    # Of its own process: several may build the same at once, each whole, and the last one wins.
    # One that fails leaves what lies there without a manifest: it may be another one's already.
    temporary = place / f".images.{os.getpid()}@{platform.node()}.npy"
    images, description = place / "images.npy", place / "manifest.json"
    try:
        place.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(place)
        try:
            written, damaged, is_final = _write_images(temporary, listing, listed, on_decoded)
            manifest = {
                "name": listing.name,
                "source": listed.files.place,
                "transform": listing.transform.describe(),
                "images": written,
                "bytes": temporary.stat().st_size,
                "damaged": damaged,
                # What could not be read this time may be read another time: it fits no files then.
                "fingerprint": fingerprint if is_final else None,
            }
            description.unlink(missing_ok=True)  # of the images that these replace
            os.replace(temporary, images)
        finally:
            temporary.unlink(missing_ok=True)
        workdir.put(description, json.dumps(manifest, indent=2).encode())
    except OSError as error:
        hint = "free some space, or choose" if error.errno == errno.ENOSPC else "choose"
        raise WorkdirError(
            f"cannot keep decoded images in {place}: {error.strerror or error}; {hint} another "
            "--cache_dir"
        ) from None
    return manifest


def _remove_abandoned(place: Path) -> None:
    """Remove what processes of this machine were writing when they were killed."""
    if os.name != "posix":  # elsewhere signal 0 would end the process
        return
    for path in place.glob(f".images.*@{platform.node()}.npy"):
        try:
            os.kill(int(path.name.split(".")[2].partition("@")[0]), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except PermissionError:  # it lives, and is another user's
            pass


def _write_images(
    path: Path, listing: Listing, listed: Listed, on_decoded: OnDecoded
) -> tuple[int, dict[str, str], bool]:
    """Decode into a file of NumPy: how many it has, what is wrong with the others, and whether
    that is all in their bytes."""
    side = listing.transform.size
    header = {"descr": "|u1", "fortran_order": False}
    written, is_final = 0, True
    damaged: dict[str, str] = {}
    with path.open("wb") as file:
        _write_header(file, header, (len(listed), side, side, 3))
        for images, errors in _decoded(listing, listed):
            is_final &= not any(map(_may_pass, errors.values()))
            damaged |= {
                position: (isinstance(error, OSError) and error.strerror) or str(error)
                for position, error in errors.items()
            }
            file.write(images.tobytes())
            written += len(images)
            on_decoded(len(images) + len(errors))
        file.seek(0)
        _write_header(file, header, (written, side, side, 3))
        file.flush()
        os.fsync(file.fileno())
    return written, damaged, is_final


def _may_pass(error: Exception) -> bool:
    """Whether the same file may be readable another time: the system says so, and not that it is
    not there, which its stamp would tell."""
    absent = (None, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return isinstance(error, OSError) and error.errno not in absent


def _write_header(file: Any, header: dict[str, Any], shape: tuple[int, ...]) -> None:
    """NumPy's own header, always 128 bytes: the images behind it are aligned for the device."""
    np.lib.format.write_array_header_1_0(file, header | {"shape": shape})


def _decoded(listing: Listing, listed: Listed) -> Iterator[tuple[np.ndarray, dict[str, Exception]]]:
    """Chunks of images in order, and what is wrong with those that are missing by position."""
    side = listing.transform.size

    def chunk(start: int) -> tuple[np.ndarray, dict[str, Exception]]:
        images: list[np.ndarray] = []
        errors: dict[str, Exception] = {}
        for position in range(start, min(start + _CHUNK, len(listed))):
            grey = listed.grey is not None and bool(listed.grey[position])
            try:
                data = listed.files.read(listed.chosen[position])
                images.append(decode(data, listing.transform, grey=grey))
            except (DamagedImageError, OSError) as error:
                errors[str(position)] = error
        return np.array(images, np.uint8).reshape(-1, side, side, 3), errors

    Image.init()  # in this thread: one that comes while another registers formats misses some
    workers = os.cpu_count() or 1
    starts = range(0, len(listed), _CHUNK)
    return prefetch(chunk, starts, workers=workers, pieces=2 * workers)


def _refusal(damaged: dict[str, dict[int, str]], parts: dict[str, Listed]) -> str:
    """Which images of any split are damaged, each once."""
    names = {
        part: [f"{listed.files.place}/{listed.files.names[i]}" for i in listed.chosen]
        for part, listed in parts.items()
    }
    reasons = {names[part][i]: why for part in parts for i, why in damaged[part].items()}
    shown = first_few([f"{name} ({why})" for name, why in reasons.items()], _SHOWN)
    return (
        f"{len(reasons)} of {len(set().union(*names.values()))} images cannot be decoded: "
        f"{shown}; get them again, or leave them out with --data.damaged leave_out"
    )
