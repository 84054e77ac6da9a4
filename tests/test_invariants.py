"""What every method holds in every fairness mode: one base class, a subclass per method.

The data are 3 classes of 3 groups on images of 8 x 8 pixels; one cell is empty. DREAM is IDC that
draws from fewer images.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import forget_programs
from jax.sharding import PartitionSpec

from fairdd_jax import config as configuration
from fairdd_jax import losses
from fairdd_jax.data import Dataset
from fairdd_jax.data.sampling import RealBatch
from fairdd_jax.matching import ClassBatch
from fairdd_jax.sharding import mesh_for, shard_map
from fairdd_jax.start import initial_images
from fairdd_jax.step import Step
from fairdd_jax.training_set import training_set

CLASSES, GROUPS, SIDE, PER_CELL, IPC = 3, 3, 8, 4, 2


def modes(*fast):
    """All fairness modes as parameters, of which these run by default and the others as slow."""
    others = sorted(set(losses.FAIRNESS) - set(fast))
    return [*fast, *(pytest.param(mode, marks=pytest.mark.slow) for mode in others)]


MODES = modes("fairdd")
KEY = jax.random.key(7)


def toy(seed=0):
    """Noise about a level of grey per class and a tint per group; cell (2, 1) is empty."""
    rng = np.random.default_rng(seed)
    labels, groups = (x.ravel() for x in np.indices((CLASSES, GROUPS)))
    counts = np.where((labels == 2) & (groups == 1), 0, 6 + 5 * (labels == groups))
    labels, groups = np.repeat(labels, counts), np.repeat(groups, counts)
    level = 90.0 + 20 * labels[:, None] + 40 * (np.arange(3) == groups[:, None])
    images = level[:, None, None, :] + rng.normal(0, 25, (len(labels), SIDE, SIDE, 3))
    images = images.clip(0, 255).astype(np.uint8)
    split = images, labels, groups
    return Dataset.from_arrays(split, split, mean=(0.5,) * 3, std=(0.5,) * 3)


def function_of(step):
    """The matching of a step as a function of arrays, on one device."""
    one = mesh_for(1, "class=1")
    whole = PartitionSpec()
    return shard_map(
        lambda *arguments: step.matching(*arguments), one, (whole,) * 3, (whole, whole)
    )


@functools.cache
def compiled(config, **changes):
    """One program for all tests of a configuration and of a method that is changed so; data sets of
    other sizes compile it again."""
    return jax.jit(function_of(changed(Step(config, toy()), **changes)))


@pytest.fixture(autouse=True, scope="class")
def programs_of_one_class():
    yield
    compiled.cache_clear()
    forget_programs()


def changed(step, **changes):
    """The step with another method."""
    step.matching.method = dataclasses.replace(step.matching.method, **changes)
    return step


@functools.cache
def variables_of(config):
    step = Step(config, toy())
    return step.trainer.init(jax.random.key(3), step.dataset.image_shape)


class Invariants:
    """Subclass it with the settings of a method."""

    settings: ClassVar[dict] = {}
    zero = 1e-4

    def config(self, fairness="fairdd", **changes):
        base = {
            "data.name": "toy",
            "fairness": fairness,
            "ipc": IPC,
            "per_cell": PER_CELL,
            "model": "ConvNetD1W8",
            "init": "noise",
            "dsa_strategy": "none",
            "chunk": 5,
            "steps": 1,
            "inner_real": 0,
            "representatives": 0,
        }
        return configuration.make(base | self.settings | changes)

    def step(self, fairness="fairdd", dataset=None, **changes):
        return Step(self.config(fairness, **changes), dataset or toy())

    def images(self, step, seed=0):
        key = jax.random.key(seed)
        images = initial_images(key, step.dataset, ipc=step.config.ipc, init="noise").images
        return jnp.asarray(images)

    def batch(self, step, data):
        drawn = step.draws.sampler.draw(KEY, data.cells)
        classes = jnp.arange(step.dataset.num_classes)
        return ClassBatch(drawn, classes, jax.random.split(KEY, step.dataset.num_classes))

    def variables(self, step):
        return variables_of(step.config)

    def run(self, step, images, batch, data, jit=True, **changes):
        """Loss per class and gradient, all classes on one device."""
        batch = batch._replace(images=data.images[batch.drawn.indices])
        arguments = images, self.variables(step), batch
        arguments = jax.device_put(arguments, jax.devices()[0])
        return (compiled(step.config, **changes) if jit else function_of(step))(*arguments)

    def result(self, fairness="fairdd", **changes):
        step = self.step(fairness, **changes)
        data = training_set(step.dataset, step.mesh)
        return self.run(step, self.images(step), self.batch(step, data), data)

    @pytest.mark.parametrize("fairness", MODES)
    def test_nothing_to_do_where_synthetic_equals_real_in_every_group(self, fairness):
        """A data set whose groups all hold the same images, which the synthetic ones are too."""
        rng = np.random.default_rng(1)
        base = rng.integers(0, 256, (CLASSES, IPC, SIDE, SIDE, 3), np.uint8)
        images = np.concatenate([base] * GROUPS, axis=1).reshape(-1, SIDE, SIDE, 3)
        labels = np.repeat(np.arange(CLASSES), GROUPS * IPC)
        groups = np.tile(np.repeat(np.arange(GROUPS), IPC), CLASSES)
        split = images, labels, groups
        dataset = Dataset.from_arrays(split, split, mean=(0.5,) * 3, std=(0.5,) * 3)
        step = self.step(fairness, dataset=dataset, per_cell=IPC, **self.without_crops())
        data = training_set(dataset, step.mesh)
        same = jnp.asarray(base, jnp.float32) / 255 * 2 - 1
        batch, own = self.batch(step, data), self.own_part(fairness)
        loss, gradient = self.run(step, same, batch, data, **own)
        other, slope = self.run(step, self.images(step), batch, data, **own)
        slopes = float(jnp.abs(slope).max())
        assert float(jnp.abs(loss).max()) <= self.zero * float(jnp.abs(other).max())
        if step.config.distance != "l1":  # which has no gradient at zero
            assert float(jnp.abs(gradient).max()) <= 30 * self.zero * slopes

    def without_crops(self):
        return {}

    def coupled(self, fairness):
        return False

    def own_part(self, fairness):
        """Changes of the method that leave of the loss of a class what its own images decide."""
        return {"coupling": None} if self.coupled(fairness) else {}

    def of_one_class(self, label, images, batch):
        return images[label : label + 1], jax.tree.map(lambda x: x[label : label + 1], batch)

    @pytest.mark.parametrize("fairness", MODES)
    def test_the_order_of_images_groups_and_classes_does_not_matter(self, fairness):
        step = self.step(fairness)
        data = training_set(step.dataset, step.mesh)
        images, batch = self.images(step), self.batch(step, data)
        loss, gradient = self.run(step, images, batch, data)
        rng = np.random.default_rng(0)
        order, groups = rng.permutation(batch.drawn.indices.shape[1]), np.array([2, 0, 1])
        drawn = RealBatch(
            batch.drawn.indices[:, order],
            batch.drawn.weights[:, groups][:, :, order],
            batch.drawn.shares[:, groups],
        )
        own = rng.permutation(IPC)
        moved_loss, moved = self.run(step, images[:, own], batch._replace(drawn=drawn), data)
        np.testing.assert_allclose(moved_loss, loss, rtol=2e-4)
        self.close(moved, gradient[:, own])
        classes = np.array([1, 2, 0])
        if not self.coupled(fairness):  # which takes the place of a class for its label
            batch = jax.tree.map(lambda x: x[classes], batch)
            moved_loss, moved = self.run(step, images[classes], batch, data)
            np.testing.assert_allclose(moved_loss, loss[classes], rtol=2e-4)
            self.close(moved, gradient[classes])

    def close(self, actual, expected, rtol=2e-3):
        np.testing.assert_allclose(actual, expected, atol=rtol * float(jnp.abs(expected).max()))

    @pytest.mark.parametrize("fairness", MODES)
    def test_an_absent_group_does_not_count(self, fairness):
        """Cell (2, 1) is empty: images that its weights leave out change nothing."""
        step = self.step(fairness)
        data = training_set(step.dataset, step.mesh)
        images, batch = self.images(step), self.batch(step, data)
        absent = np.asarray(batch.drawn.weights[2]).sum(0) == 0
        assert absent.sum() == PER_CELL
        loss, gradient = self.run(step, images, batch, data)
        indices = batch.drawn.indices.at[2].set(
            jnp.where(jnp.asarray(absent), 11, batch.drawn.indices[2])
        )
        other = batch._replace(drawn=batch.drawn._replace(indices=indices))
        moved_loss, moved = self.run(step, images, other, data)
        assert jnp.isfinite(gradient).all()
        np.testing.assert_allclose(moved_loss, loss, rtol=1e-5)
        self.close(moved, gradient, rtol=1e-5)

    @pytest.mark.parametrize("fairness", MODES)
    def test_an_absent_group_is_as_if_it_did_not_exist(self, fairness):
        step, own = self.step(fairness), self.own_part(fairness)
        data = training_set(step.dataset, step.mesh)
        images, batch = self.of_one_class(2, self.images(step), self.batch(step, data))
        loss, gradient = self.run(step, images, batch, data, **own)
        drawn = batch.drawn
        there = np.array([0, 2])
        fewer = drawn._replace(weights=drawn.weights[:, there], shares=drawn.shares[:, there])
        other_loss, other = self.run(step, images, batch._replace(drawn=fewer), data, **own)
        np.testing.assert_allclose(other_loss, loss, rtol=2e-4)
        self.close(other, gradient)

    @pytest.mark.parametrize("fairness", MODES)
    def test_chunks_do_not_matter(self, fairness):
        loss, gradient = self.result(fairness)
        other_loss, other = self.result(fairness, chunk=64)
        np.testing.assert_allclose(other_loss, loss, rtol=2e-4)
        self.close(other, gradient)

    @pytest.mark.parametrize("fairness", MODES)
    def test_jit_and_no_jit_agree(self, fairness):
        step = self.step(fairness, chunk=64)
        data = training_set(step.dataset, step.mesh)
        images, batch = self.images(step), self.batch(step, data)
        loss, gradient = self.run(step, images, batch, data)
        eager_loss, eager = self.run(step, images, batch, data, jit=False)
        np.testing.assert_allclose(eager_loss, loss, rtol=2e-4)
        self.close(eager, gradient)

    @pytest.mark.parametrize("fairness", MODES)
    def test_gradient_agrees_with_finite_differences(self, fairness):
        step = self.step(fairness, **self.smooth())
        data = training_set(step.dataset, step.mesh)
        images, batch = self.images(step), self.batch(step, data)
        _, gradient = self.run(step, images, batch, data)
        direction = gradient / jnp.linalg.norm(gradient)
        epsilon = 2e-2 * float(jnp.linalg.norm(images)) ** 0.5 / 4
        ahead, behind = (
            float(self.run(step, images + sign * epsilon * direction, batch, data)[0].sum())
            for sign in (1, -1)
        )
        expected = (ahead - behind) / (2 * epsilon)
        assert float(jnp.vdot(gradient, direction)) == pytest.approx(expected, rel=0.03)

    def smooth(self):
        """Settings under which the loss has second derivatives."""
        return {"model": f"{self.config().model}ASwish"}

    @pytest.mark.parametrize("fairness", MODES)
    def test_class_losses_add(self, fairness):
        """The loss of an update is the sum over classes, each of its own images alone."""
        step, changes = self.step(fairness), self.own_part(fairness)
        data = training_set(step.dataset, step.mesh)
        images, batch = self.images(step), self.batch(step, data)
        loss, gradient = self.run(step, images, batch, data, **changes)
        for label in range(CLASSES):
            alone = self.of_one_class(label, images, batch)
            own_loss, own = self.run(step, *alone, data, **changes)
            np.testing.assert_allclose(own_loss[0], loss[label], rtol=2e-4)
            self.close(own[0], gradient[label])

    @pytest.mark.parametrize("fairness", MODES)
    def test_loss_falls_over_20_steps(self, fairness):
        step = self.step(fairness)
        data = training_set(step.dataset, step.mesh)
        images, batch = self.images(step), self.batch(step, data)
        first = loss = None
        for _ in range(20):
            loss, gradient = self.run(step, images, batch, data)
            first = loss if first is None else first
            images = images - self.rate(gradient) * gradient
        assert float(loss.sum()) < 0.98 * float(first.sum())

    def rate(self, gradient):
        """A step that moves the fastest pixel by a twentieth of the deviation."""
        return 0.05 / float(jnp.abs(gradient).max())


class TestDM(Invariants):
    settings: ClassVar[dict] = {"method": "dm"}


class TestDC(Invariants):
    settings: ClassVar[dict] = {"method": "dc"}


@pytest.mark.slow  # DC with another preparation of the images
class TestDSA(Invariants):
    settings: ClassVar[dict] = {"method": "dsa", "dsa_strategy": "flip"}


@pytest.mark.slow  # DC on crops
class TestIDC(Invariants):
    settings: ClassVar[dict] = {"method": "idc", "factor": 2, "distance": "kernel_mse"}

    def without_crops(self):
        return {"factor": 1}


class TestCAFE(Invariants):
    settings: ClassVar[dict] = {"method": "cafe", "model": "ConvNetD2W8"}  # layers, so several

    def coupled(self, fairness):
        # The discrimination loss is there however well the features match.
        return fairness == "vanilla"

    def test_cobra_is_a_mean_over_classes(self):
        step = self.step("cobra")
        data = training_set(step.dataset, step.mesh)
        images, batch = self.images(step), self.batch(step, data)
        mean, _ = self.run(step, images, batch, data)
        total, _ = self.run(step, images, batch, data, cobra_class_mean=False)
        np.testing.assert_allclose(total, CLASSES * mean, rtol=1e-5)

    @pytest.mark.parametrize("per_cell", [PER_CELL, pytest.param(3, marks=pytest.mark.slow)])
    def test_discrimination_is_a_sum_over_a_batch_of_real_images(self, per_cell):
        """However many of them are drawn."""
        step = self.step("vanilla", per_cell=per_cell, batch_real=12)
        twice = self.step("vanilla", per_cell=per_cell, batch_real=24)
        data = training_set(step.dataset, step.mesh)
        images, batch = self.images(step), self.batch(step, data)
        alone, once, two = (
            self.run(*arguments, images, batch, data, **changes)[0]
            for arguments, changes in (((step,), {"coupling": None}), ((step,), {}), ((twice,), {}))
        )
        np.testing.assert_allclose(two - alone, 2 * (once - alone), rtol=1e-3)
