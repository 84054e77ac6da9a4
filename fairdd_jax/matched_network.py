"""The network that an update matches with: fresh, or trained, and on what."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.errors import ConfigError
from fairdd_jax.fairness import inverse_shares
from fairdd_jax.learning_from_failure import FailureState, LearningFromFailure
from fairdd_jax.train import Trainer, TrainState

Network: TypeAlias = TrainState | FailureState
# Given whether real ones are meant, the images ``[N, ...]`` to train on and their labels ``[N]``.
Images: TypeAlias = Callable[[bool], tuple[jax.Array, jax.Array]]


class MatchedNetwork:
    """Where the networks of a configuration come from and what they are trained on.

    Training on real images weighs them as ``debias`` says. The FairDD paper compares itself with
    DM on such a "fair extractor", made by loss weighting (LW) and by Learning from Failure (table
    5); it prints no details, so how long a network is trained, and with what, is ours.

    Args:
      config: a resolved configuration.
      dataset: its data set, with the groups that the matching is told.
      trainer: of its network.
      streamed: whether the real images are not all on the device.

    Raises:
      ConfigError: they are not, and networks are trained on them.
    """

    def __init__(self, config: Config, dataset: Dataset, trainer: Trainer, *, streamed: bool):
        for field in ("inner_real", "warmup_real"):
            if streamed and getattr(config, field):
                raise ConfigError(
                    f"--{field} trains on real images, which a streamed training set leaves on "
                    f"disk; choose --stream never or --{field} 0"
                )
        self.config = config
        self.dataset = dataset
        self.trainer = trainer
        train, weighs = dataset.train, config.debias == "inverse_share"
        self._importance = inverse_shares(train.labels, train.groups) if weighs else None
        self._lff = LearningFromFailure(trainer, dataset.num_classes)

    def fresh(self, key: jax.Array) -> Network:
        """A network before any training; for lff with the one whose failures it learns from."""
        network = self._begun(key)
        if self.config.debias != "lff":
            return network
        biased = self._begun(jax.random.fold_in(key, 1))
        return self._lff.start(network, biased, num_images=len(self.dataset.train))

    def _begun(self, key: jax.Array) -> TrainState:
        config = self.config
        return self.trainer.start(
            self.trainer.init(key, self.dataset.image_shape),
            lr=config.lr_net,
            momentum=config.momentum_net,
            weight_decay=config.weight_decay_net,
        )

    def training_steps(self, *, real: bool) -> tuple[int, int]:
        """Steps of training before the first update with a network, and between two.

        Args:
          real: those on real images; or those on synthetic ones.
        """
        config, dataset = self.config, self.dataset
        drawn = (config.warmup_real, config.inner_real) if real else (0, 0)
        warmup, inner = (-(-images // config.batch_train) for images in drawn)
        if real != (config.inner_real > 0):
            return warmup, inner
        synthetic = dataset.num_classes * config.decoded_ipc
        per_epoch = self.trainer.steps_per_epoch(len(dataset.train) if real else synthetic)
        return warmup + config.warmup_epochs * per_epoch, inner + config.inner_epochs * per_epoch

    def trained(
        self, network: Network, images: Images, key: jax.Array, *, first: jax.Array | None
    ) -> Network:
        """The network as an update takes it.

        Args:
          network: fresh, or that of the update before.
          images: what it may be trained on.
          key: random key of the update.
          first: whether it is fresh; None if it always is.
        """
        for real in (True, False):
            warmup, inner = self.training_steps(real=real)
            if warmup or (inner and first is not None):
                last = warmup if first is None else jnp.where(first, warmup, inner)
                network = self._run(network, *images(real), key, last, real=real)
        return network

    def _run(
        self,
        network: Network,
        images: jax.Array,
        labels: jax.Array,
        key: jax.Array,
        last: jax.Array | int,
        *,
        real: bool,
    ) -> Network:
        training = images, labels, key, 0, last
        if isinstance(network, FailureState):
            if real:
                return self._lff.run(network, *training)
            return network._replace(network=self.trainer.run(network.network, *training))
        importance = self._importance if real else None
        weights = None if importance is None else jnp.asarray(importance)
        return self.trainer.run(network, *training, weights)
