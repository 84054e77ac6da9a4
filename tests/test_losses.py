"""The matching losses against numpy loops, finite differences and the paper's theorems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fairdd_jax import losses
from fairdd_jax.errors import ConfigError

FAIRNESS = sorted(losses.FAIRNESS)
CASES = [("features", d) for d in sorted(losses.FEATURE_DISTANCES)] + [
    ("gradients", d) for d in sorted(losses.GRADIENT_DISTANCES)
]


def loss_of(kind):
    return {
        "features": losses.distribution_matching_loss,
        "gradients": losses.gradient_matching_loss,
    }[kind]


def example(kind, groups=5, seed=0):
    """Group signals and a synthetic signal, of odd and unequal sizes."""
    rng = np.random.default_rng(seed)

    def array(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    if kind == "features":
        return array(groups, 17), array(17)
    shapes = {"kernel": (3, 2, 7), "dense": (11, 3), "bias": (7,)}
    stacked = {name: array(groups, *shape) for name, shape in shapes.items()}
    return stacked, {name: array(*shape) for name, shape in shapes.items()}


def numpy_distance(kind, distance, a, b):
    """The distances once more, entry by entry."""
    if kind == "features":
        a, b = {"features": a}, {"features": b}
    pairs = [(np.float64(a[name]), np.float64(b[name])) for name in a]

    def one_minus_cosine(x, y):
        return 1 - np.sum(x * y) / (np.sqrt(np.sum(x * x)) * np.sqrt(np.sum(y * y)) + 1e-6)

    if distance == "ours":
        rows = [
            one_minus_cosine(x[..., o], y[..., o])
            for x, y in pairs
            if x.ndim > 1
            for o in range(x.shape[-1])
        ]
        return np.sum(rows)
    if distance.startswith("kernel"):
        pairs = [(x, y) for x, y in pairs if x.ndim > 2]
    x, y = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    if distance in ("mse", "squared_l2", "kernel_mse"):
        return np.sum((x - y) ** 2)
    return np.sum(np.abs(x - y)) if distance.endswith("l1") else one_minus_cosine(x, y)


def numpy_loss(kind, distance, fairness, centres, synthetic, shares, present):
    """The modes once more, with loops over the groups that are present."""
    members = [g for g in range(len(present)) if present[g]]
    groups = [jax.tree.map(lambda c, g=g: np.float64(c[g]), centres) for g in members]

    def weighted(weights):
        total = jax.tree.map(lambda c: np.zeros(c.shape[1:]), centres)
        for weight, group in zip(weights, groups, strict=True):
            total = jax.tree.map(lambda t, x, w=weight: t + w * x, total, group)
        return numpy_distance(kind, distance, total, synthetic)

    if fairness == "vanilla":
        return weighted([shares[g] / sum(shares[m] for m in members) for g in members])
    if fairness == "cobra":
        return weighted([1 / len(members)] * len(members))
    terms = [numpy_distance(kind, distance, group, synthetic) for group in groups]
    if fairness == "groupdro":
        return max(terms)
    own = [shares[g] / sum(shares[m] for m in members) for g in members]
    raw = {
        "fairdd": [1 for _ in own],
        "fairdd_mean": [1 / len(own) for _ in own],
        "inverse_size": [len(own) * (1 / r) / sum(1 / q for q in own) for r in own],
        "ldam": [len(own) * r**-0.25 / sum(q**-0.25 for q in own) for r in own],
        "df": [1 / (len(own) * r) for r in own],
    }
    return sum(weight * term for weight, term in zip(raw[fairness], terms, strict=True))


@pytest.mark.parametrize("fairness", FAIRNESS)
@pytest.mark.parametrize(("kind", "distance"), CASES)
def test_agrees_with_a_loop_over_groups(kind, distance, fairness):
    centres, synthetic = example(kind)
    shares = np.array([0.5, 0.2, 0.1, 0.15, 0.05], np.float32)
    for present in ([1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 0, 0, 1, 0]):
        value = loss_of(kind)(
            centres,
            synthetic,
            shares=jnp.asarray(shares),
            present=jnp.asarray(present, bool),
            fairness=fairness,
            distance=distance,
        )
        expected = numpy_loss(kind, distance, fairness, centres, synthetic, shares, present)
        np.testing.assert_allclose(value, expected, rtol=2e-5)


@pytest.mark.parametrize("fairness", FAIRNESS)
@pytest.mark.parametrize(("kind", "distance"), CASES)
def test_gradient_agrees_with_finite_differences(kind, distance, fairness):
    centres, synthetic = example(kind, groups=3)

    def loss(s):
        return loss_of(kind)(centres, s, fairness=fairness, distance=distance)

    check_grads(loss, (synthetic,), order=1, modes=["rev"], atol=2e-2, rtol=2e-2, eps=1e-2)


@pytest.mark.parametrize("fairness", FAIRNESS)
@pytest.mark.parametrize(("kind", "distance"), CASES)
def test_zero_where_the_synthetic_signal_equals_every_group(kind, distance, fairness):
    _, synthetic = example(kind)
    centres = jax.tree.map(lambda s: jnp.stack([s] * 4), synthetic)
    value = loss_of(kind)(centres, synthetic, fairness=fairness, distance=distance)
    assert abs(value) < 1e-4
    if not distance.endswith("l1"):  # which has no gradient where it is zero
        gradient = jax.grad(
            lambda s: loss_of(kind)(centres, s, fairness=fairness, distance=distance)
        )(synthetic)
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) < 1e-4


@pytest.mark.parametrize("fairness", FAIRNESS)
@pytest.mark.parametrize(("kind", "distance"), CASES)
def test_masked_equals_sliced_and_order_does_not_count(kind, distance, fairness):
    centres, synthetic = example(kind, groups=5)
    shares = jnp.array([0.4, 0.1, 0.2, 0.2, 0.1])
    keep = np.array([4, 0, 2])
    present = jnp.zeros(5, bool).at[keep].set(True)

    def loss(c, s, p):
        return loss_of(kind)(
            c, synthetic, shares=s, present=p, fairness=fairness, distance=distance
        )

    garbage = jax.tree.map(
        lambda c: jnp.where(present.reshape(-1, *[1] * (c.ndim - 1)), c, 1e3), centres
    )
    masked = loss(garbage, shares, present)
    sliced = loss(jax.tree.map(lambda c: c[keep], centres), shares[keep], None)
    np.testing.assert_allclose(masked, sliced, rtol=1e-5)


def test_absent_groups_leave_the_gradient_finite():
    kernel = {"kernel": jnp.ones((2, 3))}
    groups = {"kernel": jnp.stack([jnp.ones((2, 3)), jnp.zeros((2, 3))])}
    for fairness in FAIRNESS:
        for zero_row in (kernel, {"kernel": jnp.ones((2, 3)).at[:, 1].set(0.0)}):
            gradient = jax.grad(
                lambda s, f=fairness: losses.gradient_matching_loss(
                    groups, s, present=jnp.array([True, False]), fairness=f
                )
            )(zero_row)
            assert jnp.isfinite(gradient["kernel"]).all()


@pytest.mark.parametrize("fairness", FAIRNESS)
@pytest.mark.parametrize(("kind", "distance"), CASES)
def test_the_mean_of_no_image_may_be_nan(kind, distance, fairness):
    centres, synthetic = example(kind, groups=3)
    present = jnp.array([True, False, True])

    def of(centres):
        return jax.value_and_grad(
            lambda s: loss_of(kind)(
                centres, s, present=present, fairness=fairness, distance=distance
            )
        )(synthetic)

    unknown = jax.tree.map(lambda c: c.at[1].set(jnp.nan), centres)
    jax.tree.map(np.testing.assert_array_equal, of(unknown), of(centres))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of(unknown)))


@pytest.mark.parametrize("fairness", FAIRNESS)
@pytest.mark.parametrize(("kind", "distance"), CASES)
def test_a_class_without_images_has_no_loss(kind, distance, fairness):
    centres, synthetic = example(kind, groups=2)
    value, gradient = jax.value_and_grad(
        lambda s: loss_of(kind)(
            centres, s, present=jnp.zeros(2, bool), fairness=fairness, distance=distance
        )
    )(synthetic)
    assert value == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_group_centres_agree_with_a_loop():
    rng = np.random.default_rng(3)
    signals = rng.normal(size=(29, 4, 3)).astype(np.float32)
    groups = rng.integers(0, 6, 29)
    groups[groups == 4] = 1  # group 4 is absent
    valid = rng.random(29) < 0.8
    weights = losses.group_weights(jnp.asarray(groups), num_groups=6, valid=jnp.asarray(valid))
    centres = losses.group_centres(jnp.asarray(signals), weights)
    for group in range(6):
        members = [signals[i] for i in range(29) if groups[i] == group and valid[i]]
        expected = np.mean(members, axis=0) if members else np.zeros((4, 3))
        np.testing.assert_allclose(centres[group], expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint32])
def test_groups_may_be_of_any_integer_type(dtype):
    """Also of one that cannot count the groups."""
    weights = losses.group_weights(jnp.asarray([0, 3, 3], dtype), num_groups=300)
    expected = np.zeros((300, 3), np.float32)
    expected[0, 0], expected[3, 1:] = 1, 0.5
    np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize(
    ("distance", "shallow", "final"),
    [("layers_equal", 1, 1), ("layers", 0.1, 1), ("layers_shallow", 1, 0.1)],
)
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_the_final_feature_map_is_deep(distance, shallow, final, blocks):
    """However few blocks are before it; the third block is deep too."""
    weights = [*[shallow, shallow, final][:blocks], final]
    means = (jnp.zeros(1), (jnp.zeros(1),) * (blocks + 1))
    for place, weight in enumerate(weights):
        layers = tuple(jnp.full((1, 1), float(i == place)) for i in range(blocks + 1))
        value = losses.layer_matching_loss((jnp.zeros((1, 1)), layers), means, distance=distance)
        assert value == pytest.approx(weight)


def test_second_call_compiles_nothing():
    traces = []

    @jax.jit
    def loss(centres, synthetic):
        traces.append(None)
        return losses.distribution_matching_loss(centres, synthetic)

    for seed in (0, 1):
        loss(*example("features", seed=seed))
    assert len(traces) == 1


@pytest.mark.parametrize("kind", ["features", "gradients"])
def test_unknown_names_are_refused(kind):
    centres, synthetic = example(kind)
    with pytest.raises(ConfigError, match="unknown fairness 'fair'; did you mean 'fairdd'"):
        loss_of(kind)(centres, synthetic, fairness="fair")
    with pytest.raises(ConfigError, match="unknown distance 'coz'; did you mean 'cos'"):
        loss_of(kind)(centres, synthetic, distance="coz")


def minimiser(fairness, centres, shares, steps=400):
    synthetic = jnp.zeros(centres.shape[1])
    gradient = jax.jit(
        jax.grad(
            lambda s: losses.distribution_matching_loss(
                centres, s, shares=shares, fairness=fairness
            )
        )
    )
    for _ in range(steps):
        synthetic = synthetic - 0.05 * gradient(synthetic)
    return synthetic


def test_theorem_5_1_the_optimum_weighs_groups_equally():
    """FairDD, theorem 5.1: what each objective pulls the synthetic signal to.

    Setting the gradient of sum_a |m_a - s|^2 to zero gives s = mean_a m_a whatever the sizes of
    the groups; that of |sum_a r_a m_a - s|^2 gives the mean of the class, which is the majority's.
    """
    centres, _ = example("features", groups=4)
    shares = jnp.array([0.91, 0.05, 0.03, 0.01])
    fair = minimiser("fairdd", centres, shares)
    np.testing.assert_allclose(fair, np.mean(centres, axis=0), atol=1e-4)
    vanilla = minimiser("vanilla", centres, shares)
    np.testing.assert_allclose(vanilla, np.asarray(shares) @ np.asarray(centres), atol=1e-4)
    to_group = np.linalg.norm(np.asarray(centres) - np.asarray(vanilla), axis=1)
    assert to_group[0] < 0.2 * to_group[1:].min()


@pytest.mark.parametrize("distance", ["squared_l2", "l1"])
def test_theorem_5_2_fairdd_bounds_vanilla(distance):
    """FairDD, theorem 5.2: its objective bounds the vanilla one from above, for a convex D.

    By Jensen's inequality D(sum_a r_a m_a, s) <= sum_a r_a D(m_a, s) <= sum_a D(m_a, s), so that
    driving the fair objective to zero covers the distribution of the class as well.
    """
    rng = np.random.default_rng(5)
    for seed in range(50):
        centres, synthetic = example("features", groups=6, seed=seed)
        shares = jnp.asarray(rng.dirichlet(np.ones(6)), jnp.float32)

        def loss(fairness, c=centres, s=synthetic, r=shares):
            return losses.distribution_matching_loss(
                c, s, shares=r, fairness=fairness, distance=distance
            )

        assert loss("vanilla") <= loss("fairdd") * (1 + 1e-6)
        assert loss("cobra") <= loss("fairdd_mean") * (1 + 1e-6)
