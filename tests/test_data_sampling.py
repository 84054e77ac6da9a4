"""The samplers: uniform without replacement, and right about their weights."""

from collections import Counter
from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairdd_jax.data.sampling import draw, group_index, proportional_batch, stratified_batch

C, G, N = 3, 4, 211


@pytest.fixture(scope="module")
def labelled():
    """Unequal cells: one empty, one with two images, a class dominated by its own group."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C, N)
    groups = np.where(rng.random(N) < 0.7, labels, rng.integers(0, G, N))
    groups[(labels == 1) & (groups == 3)] = 1
    few = np.flatnonzero((labels == 2) & (groups == 0))
    groups[few[2:]] = 2
    return labels, groups


@pytest.fixture(scope="module")
def index(labelled):
    return group_index(*labelled, num_classes=C, num_groups=G)


def test_index_sorts_by_cell(labelled, index):
    labels, groups = labelled
    for c in range(C):
        for g in range(G):
            start, count = int(index.start[c, g]), int(index.counts[c, g])
            expected = np.flatnonzero((labels == c) & (groups == g))
            assert sorted(np.asarray(index.order)[start : start + count]) == list(expected)


@pytest.mark.parametrize(
    "sampler",
    [partial(stratified_batch, per_cell=5), partial(proportional_batch, batch_real=31)],
    ids=["stratified", "proportional"],
)
def test_weights_average_the_drawn_images_of_each_group(labelled, index, sampler):
    labels, groups = labelled
    sampler = jax.jit(sampler)
    for seed in range(5):
        batch = jax.tree.map(np.asarray, sampler(jax.random.key(seed), index))
        for c in range(C):
            drawn = batch.weights[c].any(0)
            chosen = batch.indices[c][drawn]
            assert len(set(chosen)) == len(chosen)
            assert (labels[chosen] == c).all()
            for g in range(G):
                row = batch.weights[c, g]
                members = batch.indices[c][row > 0]
                assert (groups[members] == g).all()
                assert (groups[chosen] == g).sum() == len(members)
                if len(members):
                    np.testing.assert_allclose(row[row > 0], 1 / len(members), rtol=1e-6)


def test_stratified_draws_evenly_and_keeps_the_true_shares(labelled, index):
    batch = stratified_batch(jax.random.key(0), index, per_cell=5)
    drawn = (np.asarray(batch.weights) > 0).sum(-1)
    counts = np.asarray(index.counts)
    np.testing.assert_array_equal(drawn, np.minimum(counts, 5))
    np.testing.assert_allclose(batch.shares, counts / counts.sum(1, keepdims=True), rtol=1e-6)


def test_proportional_shares_are_those_of_the_batch(labelled, index):
    batch = proportional_batch(jax.random.key(0), index, batch_real=31)
    drawn = (np.asarray(batch.weights) > 0).sum(-1)
    np.testing.assert_array_equal(drawn.sum(1), 31)
    np.testing.assert_allclose(batch.shares, drawn / 31, rtol=1e-6)


def test_samplers_agree_when_all_cells_are_drawn_whole(index):
    """Then both batches are the data set: equal shares, equal centres of any signal."""
    signal = np.random.default_rng(1).normal(size=(N, 2)).astype(np.float32)
    stratified = stratified_batch(jax.random.key(0), index, per_cell=N)
    proportional = proportional_batch(jax.random.key(1), index, batch_real=N)
    np.testing.assert_allclose(stratified.shares, proportional.shares, rtol=1e-6)
    centres = [
        np.einsum("cgn,cnd->cgd", batch.weights, signal[np.asarray(batch.indices)])
        for batch in (stratified, proportional)
    ]
    np.testing.assert_allclose(*centres, atol=1e-6)


def test_every_subset_is_equally_likely():
    """Chi-squared of 6000 draws of 2 out of 5 against ten equally likely pairs."""
    keys = jax.random.split(jax.random.key(0), 6000)
    positions, valid = jax.vmap(lambda k: draw(k, jnp.int32(5), 2))(keys)
    assert valid.all()
    seen = Counter(tuple(sorted(pair)) for pair in np.asarray(positions).tolist())
    assert set(seen) == set(combinations(range(5), 2))
    expected = 6000 / 10
    chi_squared = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi_squared < 27.9  # the 0.999 quantile for 9 degrees of freedom


def test_a_small_cell_gives_all_it_has():
    for count in (0, 1, 3):
        positions, valid = draw(jax.random.key(count), jnp.int32(count), 4)
        assert sorted(np.asarray(positions)[np.asarray(valid)]) == list(range(count))


def test_draws_follow_the_key(index):
    first, again, other = (
        stratified_batch(jax.random.key(seed), index, per_cell=3).indices for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()
