"""CIFAR10-S: CIFAR-10, most images of five classes and few of the others without colour.

As officially the first images of a class become grey, and every test image is there twice, grey and
in colour. The images come from the original batches (the binary version, or the Python version once
its published checksum has matched) or from a tfds copy, always in the order of the batches.

References: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009); Wang et al.,
Towards Fairness in Visual Recognition (CVPR 2020).
"""

from pathlib import Path

import numpy as np

from fairdd_jax.data import cifar_batches, tfds_source
from fairdd_jax.data.balance import assign_grey, to_grey
from fairdd_jax.data.config import DataConfig
from fairdd_jax.data.dataset import Dataset, Split
from fairdd_jax.data.files import find_folder
from fairdd_jax.data.listing import Source, hold_out

GREY = ("grey", "colour")
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
MEAN, STD = (0.48905, 0.48451, 0.46715), (0.24278, 0.24082, 0.25098)
_BATCHES = ("cifar-10-batches-bin", "cifar-10-batches-py", ".")
_FOLDERS = tuple(f"{a}/{b}" for a in (".", "cifar10", "CIFAR10") for b in _BATCHES)


def find(config: DataConfig, data_dir: Path | None, download: bool) -> Dataset:
    """Read CIFAR10-S; see the module and `fairdd_jax.data.listing.Source`."""
    folder = find_folder(data_dir, _FOLDERS, cifar_batches.is_there)
    if folder is not None:
        (images, labels), (test_images, test_labels) = (
            cifar_batches.load(folder, split) for split in ("train", "test")
        )
    else:
        copy = tfds_source.copy_of(
            "cifar10s",
            data_dir,
            download,
            copies=["cifar10"],
            files="data_batch_1.bin to data_batch_5.bin and test_batch.bin (or those of the "
            "Python version, without .bin)",
            folder=_BATCHES[0],
        )
        (images, labels), (test_images, test_labels) = (
            tfds_source.load_by_id(copy, split) for split in ("train", "test")
        )
    if config.validation:
        kept, held = hold_out(labels, np.zeros_like(labels), config=config)
        test_images, test_labels = images[held], labels[held]
        images, labels = images[kept], labels[kept]
    groups = assign_grey(labels, ratio=config.bias_ratio, num_classes=len(CLASSES))
    images[groups == 0] = to_grey(images[groups == 0])
    twice = np.concatenate([to_grey(test_images), test_images])
    test = Split(twice, np.tile(test_labels, 2), np.repeat([0, 1], len(test_labels)))
    return Dataset("cifar10s", Split(images, labels, groups), test, CLASSES, GREY, MEAN, STD)


SOURCE = Source(find, frozenset({"bias_ratio", "balanced"}), holds_out=True)
