"""How well clusters inside the classes agree with the groups that nobody told them.

python experiments/benchmarks/clusters.py --data_dir DATA [--config cmnist_fg_dm cfmnist_bg_dm]

The adjusted Rand index of every class (1: the same parts, 0: what chance gives), between the true
groups of its training images and the clusters that a run matches in their place.
"""

import argparse
import statistics
from pathlib import Path

import measure
from sklearn.metrics import adjusted_rand_score

from fairdd_jax import config as configuration
from fairdd_jax import data, environment, presets, workdir
from fairdd_jax.data import Dataset
from fairdd_jax.grouping import random_features, regroup

SOURCES = ("dbscan", "kmeans")


def agreement(dataset: Dataset, told: Dataset) -> list[float]:
    """The adjusted Rand index of every class.

    Args:
      dataset: with its true groups.
      told: the same images with other groups.

    >>> import numpy as np
    >>> split = (np.zeros((4, 1, 1, 1), np.uint8), [0, 0, 1, 1], [0, 1, 0, 1])
    >>> dataset = Dataset.from_arrays(split, split)
    >>> agreement(dataset, dataset)
    [1.0, 1.0]
    """
    classes = (dataset.train.labels == label for label in range(dataset.num_classes))
    return [
        float(adjusted_rand_score(dataset.train.groups[own], told.train.groups[own]))
        for own in classes
    ]


def main() -> None:
    """Cluster, compare, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, help="folder with the IDX files")
    parser.add_argument("--config", nargs="+", default=["cmnist_fg_dm", "cfmnist_bg_dm"])
    options = parser.parse_args()
    rows = []
    for preset in options.config:
        for source in SOURCES:
            config = configuration.make(presets.compose(preset) | {"groups.source": source})
            dataset = data.load(config.data, data_dir=options.data_dir)
            features = random_features(dataset, config.model, seed=config.seed, chunk=config.chunk)
            told = regroup(dataset, config.groups, features=features, seed=config.seed)
            found = agreement(dataset, told)
            rows.append({"data": config.data.name, "source": source, "adjusted_rand": found})
            print(f"{config.data.name}, {source}: {statistics.mean(found):.2f} on average")
    content = {"rows": rows, "environment": environment.describe()}
    workdir.write_json(measure.RESULTS / "clusters.json", content)


if __name__ == "__main__":
    main()
