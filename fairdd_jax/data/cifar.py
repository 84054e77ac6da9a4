"""CIFAR10-S: CIFAR-10, most images of five classes and few of the others without colour.

As officially the first images of a class become grey, and every test image is there twice, grey and
in colour. The images come from the original batches (the binary version, or the Python version once
its published checksum has matched) or from a tfds copy, always in the order of the batches.

With ``severity`` the first group is not grey but changed as in COBRA's code, which takes the images
in an order of its own, shuffled, and draws the noise after that. There the ratio 0.9 leaves the
group grey whatever the severity; here it does not.

References: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009); Wang et al.,
Towards Fairness in Visual Recognition (CVPR 2020); COBRA (ICML 2026), Table 2.
"""

from pathlib import Path

import numpy as np

from fairdd_jax.data import cifar_batches, tfds_source
from fairdd_jax.data.balance import GREY, assign_grey, to_grey
from fairdd_jax.data.config import DataConfig
from fairdd_jax.data.dataset import SPLITS, Dataset, Split
from fairdd_jax.data.files import find_folder
from fairdd_jax.data.listing import Source, unbiased_splits
from fairdd_jax.data.severity import changed

CHANGED = ("changed", "original")
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
MEAN, STD = (0.48905, 0.48451, 0.46715), (0.24278, 0.24082, 0.25098)
_SEVERITY_SEED = 0  # of the order and of the noise of either split
_BATCHES = ("cifar-10-batches-bin", "cifar-10-batches-py", ".")
_FOLDERS = tuple(f"{a}/{b}" for a in (".", "cifar10", "CIFAR10") for b in _BATCHES)


def find(config: DataConfig, data_dir: Path | None, download: bool) -> Dataset:
    """Read CIFAR10-S; see the module and `fairdd_jax.data.listing.Source`."""
    folder = find_folder(data_dir, _FOLDERS, cifar_batches.is_there)
    if folder is not None:
        train, test = (cifar_batches.load(folder, split) for split in SPLITS)
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
        train, test = (tfds_source.load_by_id(copy, split) for split in SPLITS)
    (images, labels), (test_images, test_labels) = unbiased_splits(train, test, config)
    of_train, of_test = (np.random.RandomState(_SEVERITY_SEED) for _ in range(2))
    if config.severity is not None:
        order, test_order = of_train.permutation(len(labels)), of_test.permutation(len(test_labels))
        images, labels = images[order], labels[order]
        test_images, test_labels = test_images[test_order], test_labels[test_order]
    groups = assign_grey(labels, ratio=config.bias_ratio, num_classes=len(CLASSES))
    images[groups == 0] = _first_group(images[groups == 0], config, of_train)
    twice = np.concatenate([_first_group(test_images, config, of_test), test_images])
    both = Split(twice, np.tile(test_labels, 2), np.repeat([0, 1], len(test_labels)))
    names = GREY if config.severity is None else CHANGED
    return Dataset("cifar10s", Split(images, labels, groups), both, CLASSES, names, MEAN, STD)


def _first_group(images: np.ndarray, config: DataConfig, rng: np.random.RandomState) -> np.ndarray:
    if config.severity is None:
        return to_grey(images)
    return changed(images, severity=config.severity, rng=rng)


SOURCE = Source(find, frozenset({"bias_ratio", "balanced", "severity"}), holds_out=True)
