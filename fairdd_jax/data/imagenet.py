"""Tiny-ImageNet-S and six ten-class subsets of ImageNet, biased by greyscale as CIFAR10-S is.

A folder per class (`train/n01440764/*.JPEG`, with or without another folder `images/` in it) and
the same for `val/`, or Tiny-ImageNet's own `val/images/` with `val_annotations.txt`. A class of the
first half shows a share `bias_ratio` of its training images without colour, one of the second half
the rest; every test image is there twice, grey and in colour. FairDD's repository has no code for
these; classes and cropping are those of trajectory matching.

References: Russakovsky et al., ImageNet (IJCV 2015); Cazenavette et al., Dataset Distillation by
Matching Training Trajectories (CVPR 2022).
"""

from functools import partial
from pathlib import Path

import numpy as np

from fairdd_jax.data import tfds_source
from fairdd_jax.data.balance import GREY, assign_grey
from fairdd_jax.data.config import DataConfig
from fairdd_jax.data.decode import Transform
from fairdd_jax.data.files import Folder, ImageFiles, find_folder, images_below, not_found
from fairdd_jax.data.listing import Listed, Listing, Source, hold_out
from fairdd_jax.errors import DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

SUBSETS: dict[str, dict[str, str]] = {
    "nette": {
        "n01440764": "tench",
        "n02102040": "English springer",
        "n02979186": "cassette player",
        "n03000684": "chain saw",
        "n03028079": "church",
        "n03394916": "French horn",
        "n03417042": "garbage truck",
        "n03425413": "gas pump",
        "n03445777": "golf ball",
        "n03888257": "parachute",
    },
    "woof": {
        "n02096294": "Australian terrier",
        "n02093754": "border terrier",
        "n02111889": "Samoyed",
        "n02088364": "beagle",
        "n02086240": "Shih-Tzu",
        "n02089973": "English foxhound",
        "n02087394": "Rhodesian ridgeback",
        "n02115641": "dingo",
        "n02099601": "golden retriever",
        "n02105641": "Old English sheepdog",
    },
    "meow": {
        "n02123045": "tabby",
        "n02123159": "tiger cat",
        "n02123394": "Persian cat",
        "n02123597": "Siamese cat",
        "n02124075": "Egyptian cat",
        "n02129165": "lion",
        "n02129604": "tiger",
        "n02128925": "jaguar",
        "n02128757": "snow leopard",
        "n02127052": "lynx",
    },
    "squawk": {
        "n01806143": "peacock",
        "n02007558": "flamingo",
        "n01818515": "macaw",
        "n02051845": "pelican",
        "n02056570": "king penguin",
        "n01614925": "bald eagle",
        "n01843383": "toucan",
        "n01518878": "ostrich",
        "n01860187": "black swan",
        "n01819313": "sulphur-crested cockatoo",
    },
    "fruit": {
        "n07753275": "pineapple",
        "n07753592": "banana",
        "n07745940": "strawberry",
        "n07747607": "orange",
        "n07749582": "lemon",
        "n07768694": "pomegranate",
        "n07753113": "fig",
        "n07720875": "bell pepper",
        "n07718472": "cucumber",
        "n07742313": "Granny Smith",
    },
    "yellow": {
        "n02206856": "bee",
        "n12057211": "yellow lady's slipper",
        "n07753592": "banana",
        "n07749582": "lemon",
        "n12144580": "corn",
        "n04146614": "school bus",
        "n03530642": "honeycomb",
        "n02129165": "lion",
        "n01773157": "black and gold garden spider",
        "n01531178": "goldfinch",
    },
}

# tfds has imagenette in sizes and in two versions; the first one has ImageNet's own split.
_COPIES = [f"imagenette/{s}{v}" for v in ("", "-v2") for s in ("full-size", "320px", "160px")]
_NO_NAMES = "a tfds copy does not say how images are called: others are grey than from the folders"
_NEW_SPLIT = "imagenette 2 is split anew: its scores do not compare with those of ImageNet's split"


def find(
    config: DataConfig, data_dir: Path | None, download: bool, *, subset: str | None
) -> Listing:
    """List a subset of ImageNet, or Tiny-ImageNet if None; see `fairdd_jax.data.listing.Source`."""
    if subset is None:
        folders: tuple[str, ...] = ("tiny-imagenet-200", "tiny_imagenet", "tiny-imagenet", ".")
    else:
        folders = (
            f"image{subset}",
            f"imagenet_{subset}",
            "imagenet",
            "imagenet2012",
            "ImageNet",
            ".",
        )
    wanted = SUBSETS[subset] if subset else None
    folder = find_folder(data_dir, folders, lambda f: _has_classes(f, wanted))
    missing = {
        "files": "train/ and val/ with a folder per class (n01440764, ...)",
        "folder": folders[0],
    }
    notes: tuple[str, ...] = ()
    if folder is not None:
        classes = wanted or _tiny_classes(folder)
        splits = [_below(folder, part, list(classes)) for part in ("train", "val")]
    elif subset == "nette":
        copy = tfds_source.copy_of(config.name, data_dir, download, copies=_COPIES, **missing)
        classes = SUBSETS[subset]
        splits = [_of_copy(copy, part) for part in ("train", "validation")]
        notes = (_NO_NAMES,) + (_NEW_SPLIT,) * copy.parent.name.endswith("-v2")
    else:
        advice = "link them there; there is no other source of it"
        raise not_found(config.name, data_dir, copy=advice, **missing)
    (files, labels), (test_files, test_labels) = splits
    chosen, test_chosen = np.arange(len(labels)), np.arange(len(test_labels))
    if config.validation:
        chosen, test_chosen = hold_out(labels, np.zeros_like(labels), config=config)
        test_files, test_labels = files, labels
    labels, test_labels = labels[chosen], np.tile(test_labels[test_chosen], 2)
    groups = assign_grey(labels, ratio=config.bias_ratio, num_classes=len(classes))
    test_groups = np.repeat([0, 1], len(test_chosen))
    return Listing(
        config.name,
        Listed(files, chosen, labels, groups, groups == 0),
        Listed(test_files, np.tile(test_chosen, 2), test_labels, test_groups, test_groups == 0),
        tuple(classes.values()),
        GREY,
        Transform(config.size, fit="crop"),
        MEAN,
        STD,
        notes,
    )


def _source(subset: str | None, size: int) -> Source:
    settings = frozenset({"bias_ratio", "damaged"})
    return Source(partial(find, subset=subset), settings, {"size": size}, holds_out=True)


SOURCES = {"tiny_imagenet_s": _source(None, 64)} | {
    f"imagenet_{subset}_s": _source(subset, 128) for subset in SUBSETS
}


def _has_classes(folder: Path, wanted: dict[str, str] | None) -> bool:
    train = folder / "train"
    if wanted is None:
        return (folder / "wnids.txt").is_file() and train.is_dir()
    return any((train / wnid).is_dir() for wnid in wanted)


def _tiny_classes(folder: Path) -> dict[str, str]:
    """Folders of the classes in alphabetical order, with their names if words.txt has them."""
    try:
        wnids = sorted(set((folder / "wnids.txt").read_text(encoding="utf-8").split()))
        words = folder / "words.txt"
        lines = words.read_text(encoding="utf-8").splitlines() if words.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{folder} cannot be read: {error}") from None
    if not wnids:
        raise DataError(f"{folder}/wnids.txt is empty; get it again")
    names = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return {wnid: names.get(wnid, wnid).split(",")[0] for wnid in wnids}


def _below(folder: Path, part: str, wnids: list[str]) -> tuple[ImageFiles, np.ndarray]:
    """The images of a split, class by class, and their labels."""
    annotations = folder / part / "val_annotations.txt"
    names, labels = [], []
    if annotations.is_file():
        lines = annotations.read_text(encoding="utf-8", errors="replace").splitlines()
        rows = [line.split("\t") for line in lines]
        for label, wnid in enumerate(wnids):
            found = sorted(f"images/{row[0]}" for row in rows if len(row) > 1 and row[1] == wnid)
            names += found
            labels += [label] * len(found)
    else:
        for label, wnid in enumerate(wnids):
            place = folder / part / wnid
            if not place.is_dir():
                raise DataError(f"{folder / part} lacks the class {wnid}; put its folder there")
            found = [f"{wnid}/{name}" for name in images_below(place)]
            names += found
            labels += [label] * len(found)
    if not names:
        raise DataError(f"{folder / part} has no image of the classes {wnids[0]}, ...")
    return Folder(folder / part, names), np.array(labels, np.int32)


def _of_copy(copy: Path, part: str) -> tuple[ImageFiles, np.ndarray]:
    """A split of imagenette's copy, whose labels are in the order of the subset."""
    encoded = tfds_source.encoded(copy, part)
    return encoded.files, np.asarray(encoded.features["label"], np.int32)
