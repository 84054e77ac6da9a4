"""What only the real images can tell of the synthetic ones, kept beside the results."""

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fairdd_jax import models
from fairdd_jax.data import Dataset, Split
from fairdd_jax.embedding import Embedding
from fairdd_jax.errors import DataError, one_line
from fairdd_jax.grouping import Features, random_features
from fairdd_jax.workdir import write_atomically

if TYPE_CHECKING:
    from fairdd_jax.run import Run

FILE = "analysis.npz"
_PER_CELL = 50  # real images of a (class, group) cell that neighbours are looked for in
_POINTS = 600  # test images in the map of features, about
_PERPLEXITY = 30.0  # the usual one; at most a third of the points


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """What a report shows beside scores.

    Attributes:
      step: of the run, when its images were these.
      start: ``[C, I, H, W, channels]`` uint8, the synthetic images before the first update.
      neighbours: ``[C, D]`` group of the real image nearest to each synthetic one (decoded, D of
        them), among as many real ones of every group of its class.
      points: ``[N, 2]`` map (t-SNE) of the features of test images; none if no network is at hand.
      labels: ``[N]`` their classes.
      groups: ``[N]`` their groups.
    """

    step: int
    start: np.ndarray
    neighbours: np.ndarray
    points: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def composition(self, num_groups: int) -> np.ndarray:
        """``[C, G]``: share of the synthetic images of a class that are nearest to each group.

        >>> neighbours = np.array([[0, 0, 2, 0]])
        >>> empty = np.zeros(0)
        >>> Analysis(0, empty, neighbours, empty, empty, empty).composition(3).tolist()
        [[0.75, 0.0, 0.25]]
        """
        return (self.neighbours[..., None] == np.arange(num_groups)).mean(1)

    def save(self, folder: Path) -> None:
        """Write it to a folder.

        Raises:
          WorkdirError: it cannot be written.
        """
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **vars(self))
        write_atomically(folder / FILE, buffer.getvalue())

    @classmethod
    def read(cls, folder: Path, *, step: int) -> "Analysis | None":
        """What `save` wrote, None if there is nothing, or what is there is of another step.

        Raises:
          DataError: it is damaged.
        """
        path = folder / FILE
        names = [field.name for field in dataclasses.fields(cls)]
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                if "step" not in content or content["step"] != step:  # older ones do not tell
                    return None
                return cls(**{name: content[name] for name in names} | {"step": step})
        except FileNotFoundError:
            return None
        except Exception as error:  # damaged bytes make zipfile and numpy raise nearly anything
            raise DataError(
                f"{path} is damaged ({one_line(error)}); remove it or run again"
            ) from None


def analyse(run: "Run") -> Analysis:
    """Look at the images of a run, and at the network that was trained on them, if one was."""
    dataset, config = run.dataset, run.config
    features = random_features(dataset, config.model, seed=config.seed, chunk=config.chunk)
    pixels = dataset.to_pixels(run.decoded())
    points, chosen = np.zeros((0, 2), np.float32), np.zeros(0, int)
    if run.trained:
        arch, variables = next(iter(run.trained.items()))
        network = models.create(
            arch, num_classes=dataset.num_classes, image_shape=dataset.image_shape
        )
        embed = Embedding(network, dataset, chunk=config.chunk)
        chosen = _of_every_cell(dataset.test, dataset, max(1, _POINTS // _cells(dataset)))
        points = _map(embed(variables, dataset.test.images[chosen]), seed=config.seed)
    return Analysis(
        step=run.step,
        start=run.start,
        neighbours=nearest_groups(pixels, dataset, features),
        points=points,
        labels=dataset.test.labels[chosen[: len(points)]],
        groups=dataset.test.groups[chosen[: len(points)]],
    )


def nearest_groups(images: np.ndarray, dataset: Dataset, features: Features) -> np.ndarray:
    """Group of the real training image of the same class that is nearest to each image.

    As many real ones of every group of the class take part (the first of each: 50, or as many as
    its smallest group has), or the largest group would be nearest by its number alone. Near is a
    small Euclidean distance of features.

    Args:
      images: ``[C, I, H, W, channels]`` uint8.
      dataset: the real ones.
      features: of uint8 images.

    Returns:
      ``[C, I]``.
    """
    train = dataset.train
    counts = dataset.cell_counts(train)
    smallest = counts.min(1, where=counts > 0, initial=_PER_CELL)
    real = _of_every_cell(train, dataset, smallest[train.labels])
    of_real = features(train.images[real])
    of_images = features(images.reshape(-1, *images.shape[2:])).reshape(*images.shape[:2], -1)
    groups = np.zeros(images.shape[:2], np.int32)
    for label in range(dataset.num_classes):
        own = train.labels[real] == label
        candidates = of_real[own]
        distances = (candidates**2).sum(1) - 2 * of_images[label] @ candidates.T
        groups[label] = train.groups[real[own]][distances.argmin(1)]
    return groups


def _cells(dataset: Dataset) -> int:
    return int((dataset.cell_counts(dataset.test) > 0).sum())


def _of_every_cell(split: Split, dataset: Dataset, number: int | np.ndarray) -> np.ndarray:
    """Positions of the first so many images of every (class, group) cell, one number or that of the
    cell of each image."""
    cell = split.labels * dataset.num_groups + split.groups
    order = np.argsort(cell, kind="stable")
    _, first, counts = np.unique(cell[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, counts)
    return np.sort(order[rank < np.broadcast_to(number, len(order))[order]])


def _map(features: np.ndarray, *, seed: int) -> np.ndarray:
    """t-SNE of features ``[N, D]``, ``[N, 2]``; none of fewer than four, of equal or infinite ones,
    and of a single feature."""
    from sklearn.manifold import TSNE  # takes a second to import
    from threadpoolctl import threadpool_limits

    is_finite = np.isfinite(features).all()  # not of a network that diverged
    is_plane = len(features) >= 4 and features.shape[1] >= 2  # what PCA starts with
    if not is_plane or not is_finite or not np.ptp(features, axis=0).any():
        return np.zeros((0, 2), np.float32)
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    with threadpool_limits(1):  # several threads add up in any order
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32)
        return np.asarray(tsne.fit_transform(features), np.float32)
