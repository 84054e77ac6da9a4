"""Groups as the matching is told them, against scikit-learn's scores and plain loops."""

import jax
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from fairdd_jax import models
from fairdd_jax.data import Dataset
from fairdd_jax.errors import ConfigError
from fairdd_jax.grouping import GroupsConfig, random_features, regroup

COLOURS = np.array([[220, 30, 30], [30, 200, 60], [40, 60, 220]])
SIZES = (150, 40, 30)  # of the groups of every class
DBSCAN = GroupsConfig("dbscan")
KMEANS = GroupsConfig("kmeans", clusters=len(SIZES))


def pixels(images):
    return images.reshape(len(images), -1) / np.float32(255)


def must_not_be_called(images):
    raise AssertionError("features were asked for")


def coloured(sizes=SIZES, num_classes=2, seed=0):
    """Squares, a corner for each class, whose colour is the group; shuffled."""
    rng = np.random.default_rng(seed)
    groups = np.tile(np.repeat(np.arange(len(sizes)), sizes), num_classes)
    labels = np.repeat(np.arange(num_classes), sum(sizes))
    images = rng.integers(0, 40, (len(labels), 8, 8, 3))
    for image, label, group in zip(images, labels, groups, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[row : row + 4, column : column + 4] = COLOURS[group] + rng.integers(-25, 26, 3)
    order = rng.permutation(len(labels))
    train = images.astype(np.uint8)[order], labels[order], groups[order]
    return Dataset.from_arrays(train, tuple(part[:40] for part in train))


def arrays(images, labels, groups):
    split = np.asarray(images, np.uint8), labels, groups
    return Dataset.from_arrays(split, split)


def told(dataset, config, *, features=pixels, seed=0):
    return regroup(dataset, config, features=features, seed=seed)


@pytest.mark.parametrize("config", [KMEANS, DBSCAN], ids=lambda config: config.source)
class TestClusters:
    def test_find_the_groups_of_every_class(self, config):
        dataset = coloured()
        found = told(dataset, config).train.groups
        for label in range(dataset.num_classes):
            members = dataset.train.labels == label
            assert adjusted_rand_score(dataset.train.groups[members], found[members]) > 0.95

    def test_are_numbered_by_size_and_named(self, config):
        clustered = told(coloured(), config)
        assert clustered.groups == ("cluster 0", "cluster 1", "cluster 2")
        assert clustered.cell_counts(clustered.train).tolist() == [list(SIZES)] * 2

    def test_change_nothing_but_the_groups(self, config):
        dataset = coloured()
        clustered = told(dataset, config)
        assert clustered.train.images is dataset.train.images
        assert clustered.train.labels is dataset.train.labels
        assert clustered.test.images is dataset.test.images
        assert clustered.test.labels is dataset.test.labels
        assert not clustered.test.groups.any()
        assert (clustered.name, clustered.mean) == (dataset.name, dataset.mean)

    def test_read_no_group(self, config):
        dataset = coloured()
        images, labels = dataset.train.images, dataset.train.labels
        without = arrays(images, labels, np.zeros_like(labels))
        expected = told(dataset, config).train.groups
        assert np.array_equal(told(without, config).train.groups, expected)

    def test_of_a_class_do_not_depend_on_the_others(self, config):
        dataset = coloured(num_classes=3)
        train = dataset.train
        two = train.labels < 2
        part = arrays(train.images[two], train.labels[two], train.groups[two])
        together = told(dataset, config).train.groups
        assert np.array_equal(told(part, config).train.groups, together[two])

    def test_do_not_depend_on_the_order_of_the_images(self, config):
        dataset = coloured()
        train = dataset.train
        order = np.random.default_rng(1).permutation(len(train))
        shuffled = arrays(train.images[order], train.labels[order], train.groups[order])
        expected = told(dataset, config).train.groups[order]
        assert np.array_equal(told(shuffled, config).train.groups, expected)

    def test_follow_from_the_seed(self, config):
        dataset = coloured()
        first, second = (told(dataset, config, seed=3).train.groups for _ in range(2))
        assert np.array_equal(first, second)

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_of_few_images(self, config, count):
        images = np.arange(count).repeat(48).reshape(count, 4, 4, 3) * 100
        clustered = told(arrays(images, [0] * count, [0] * count), config)
        number = {"kmeans": count, "dbscan": 1}[config.source]
        assert len(np.unique(clustered.train.groups)) == number
        assert len(clustered.groups) == number

    def test_of_equal_images_are_one(self, config):
        dataset = arrays(np.full((20, 4, 4, 3), 7), np.zeros(20, int), np.arange(20) % 2)
        clustered = told(dataset, config)
        assert clustered.cell_counts(clustered.train).tolist() == [[20]]

    def test_of_a_sample_are_followed_by_the_others(self, config, monkeypatch):
        monkeypatch.setattr("fairdd_jax.grouping._SAMPLE", 180)
        monkeypatch.setattr("fairdd_jax.grouping._BLOCK", 7)
        dataset, sizes = coloured(), []

        def features(images):
            sizes.append(len(images))
            return pixels(images)

        found = told(dataset, config, features=features)
        assert found.cell_counts(found.train).tolist() == [list(SIZES)] * 2
        assert sorted(sizes) == sorted([180, 7, 7, 7, 7, 7, 5] * 2)


def test_no_more_clusters_than_images_in_the_sample(monkeypatch):
    monkeypatch.setattr("fairdd_jax.grouping._SAMPLE", 30)
    assert told(coloured(), GroupsConfig("kmeans", clusters=300)).num_groups == 30


def test_a_class_without_a_dense_place_is_one_cluster(monkeypatch):
    monkeypatch.setattr(
        "sklearn.cluster.DBSCAN.fit_predict", lambda method, signals: np.full(len(signals), -1)
    )
    assert told(coloured(), DBSCAN).num_groups == 1


def test_dbscan_may_find_fewer_clusters_in_one_class_than_in_another():
    dataset = coloured()
    train = dataset.train
    kept = (train.labels == 0) | (train.groups == 0)
    part = arrays(train.images[kept], train.labels[kept], train.groups[kept])
    clustered = told(part, DBSCAN)
    assert clustered.cell_counts(clustered.train).tolist() == [list(SIZES), [SIZES[0], 0, 0]]


def test_dbscan_keeps_the_largest_clusters():
    dataset = coloured()
    clustered = told(dataset, GroupsConfig("dbscan", clusters=2))
    assert clustered.num_groups == 2
    kept = dataset.train.groups < 2
    expected = dataset.train.groups[kept]
    assert np.array_equal(clustered.train.groups[kept], expected)


def test_more_kmeans_clusters_than_images():
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3))
    clustered = told(arrays(images, [0, 0, 0, 1], [0, 0, 0, 0]), GroupsConfig("kmeans"))
    assert clustered.cell_counts(clustered.train).tolist() == [[1, 1, 1], [1, 0, 0]]


def test_dbscan_noise_joins_the_nearest_cluster():
    """Two clusters of 20 on a line, 100 apart, and one image two thirds of the way."""
    values = np.concatenate([np.arange(20), 120 + np.arange(20), [85]])
    images = np.broadcast_to(values[:, None, None, None], (41, 4, 4, 3))
    clustered = told(arrays(images, [0] * 41, [0] * 41), DBSCAN)
    near, far = clustered.train.groups[20:40], clustered.train.groups[:20]
    assert len(set(near.tolist())) == len(set(far.tolist())) == 1
    assert near[0] == clustered.train.groups[40] != far[0]


def test_what_is_told_as_it_is_stays_the_same_object():
    dataset = coloured()
    assert told(dataset, GroupsConfig(), features=must_not_be_called) is dataset


@pytest.mark.parametrize(
    ("settings", "valid"),
    [
        ({"clusters": 3}, "kmeans or dbscan"),
        ({"source": "kmeans", "core": 0.5}, "dbscan"),
        ({"source": "kmeans", "min_samples": 7}, "dbscan"),
    ],
)
def test_what_the_source_does_not_read_is_refused(settings, valid):
    with pytest.raises(ConfigError, match=f"means nothing to .* take the source {valid}$"):
        GroupsConfig(**settings)


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.0])
def test_noise_changes_exactly_its_share(noise):
    dataset = coloured()
    noisy = told(dataset, GroupsConfig(noise=noise), features=must_not_be_called)
    changed = noisy.train.groups != dataset.train.groups
    assert changed.sum() == round(noise * len(dataset.train))
    assert noisy.groups == dataset.groups
    assert np.array_equal(noisy.test.groups, dataset.test.groups)
    assert dataset.cell_counts(dataset.train).tolist() == [list(SIZES)] * 2


def test_noise_is_uniform_over_the_other_groups():
    num_images, num_groups = 6000, 4
    images = np.zeros((num_images, 1, 1, 1), np.uint8)
    groups = np.arange(num_images) % num_groups
    noisy = told(arrays(images, np.zeros(num_images, int), groups), GroupsConfig(noise=0.5))
    changed = noisy.train.groups != groups
    step = (noisy.train.groups - groups)[changed] % num_groups
    expected = changed.sum() / (num_groups - 1)
    chi_square = ((np.bincount(step)[1:] - expected) ** 2 / expected).sum()
    assert chi_square < 9.2  # exceeded once in 100 with 2 degrees of freedom


def test_noise_needs_two_groups():
    with pytest.raises(ConfigError, match="at least two groups, got 1"):
        told(coloured(sizes=(20,)), GroupsConfig(noise=0.1))


def scaled_components(images):
    """All principal components, each divided by the root of its standard deviation."""
    centred = pixels(images) - pixels(images).mean(0)
    variance, axes = np.linalg.eigh(np.cov(centred.T))
    return centred @ axes / variance**0.25


class TestMissing:
    def one_group_each(self):
        """Random images with a group each: one that keeps its group is one whose group is known."""
        images = np.random.default_rng(0).integers(0, 256, (90, 3, 3, 1), np.uint8)
        split = images, np.arange(90) % 3, np.arange(90)
        return Dataset.from_arrays(split, split, groups=[str(group) for group in range(10_000)])

    @pytest.mark.parametrize("noise", [0.0, 0.4])
    @pytest.mark.parametrize("missing", [0.3, 0.8, 1.0])
    def test_get_the_group_of_the_nearest_known_image_of_the_class(self, missing, noise):
        dataset = self.one_group_each()
        groups = told(dataset, GroupsConfig(noise=noise)).train.groups  # noise comes first
        completed = told(dataset, GroupsConfig(noise=noise, missing=missing)).train.groups
        for label in range(3):
            members = np.flatnonzero(dataset.train.labels == label)
            components = scaled_components(dataset.train.images[members])
            signals = dict(zip(members, components, strict=True))
            known = members[completed[members] == groups[members]]
            assert len(known) == max(1, 30 - round(missing * 30))
            for image in members:
                squares = [((signals[image] - signals[other]) ** 2).sum() for other in known]
                assert completed[image] == groups[known[np.argmin(squares)]]

    @pytest.mark.parametrize("config", [GroupsConfig(noise=0.5), GroupsConfig(missing=0.5)])
    def test_and_noisy_ones_follow_from_the_seed(self, config):
        dataset = self.one_group_each()
        one, again, other = (told(dataset, config, seed=seed).train.groups for seed in (0, 0, 1))
        assert np.array_equal(one, again)
        assert not np.array_equal(one, other)

    def test_keep_names_and_test_groups(self):
        dataset = coloured()
        completed = told(dataset, GroupsConfig(missing=0.8))
        assert completed.groups == dataset.groups
        assert np.array_equal(completed.test.groups, dataset.test.groups)
        assert np.mean(completed.train.groups == dataset.train.groups) > 0.95

    def test_of_a_class_with_one_image_stays_known(self):
        images = np.random.default_rng(0).integers(0, 256, (5, 3, 3, 1))
        dataset = arrays(images, [0, 0, 0, 0, 1], [0, 1, 2, 3, 4])
        completed = told(dataset, GroupsConfig(missing=1.0)).train.groups
        assert completed[4] == 4
        assert len(set(completed[:4].tolist())) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "kmean"}, "unknown groups.source 'kmean'; did you mean 'kmeans'"),
        ({"clusters": 0}, "groups.clusters must be 1 or more, got 0"),
        ({"min_samples": 0}, "groups.min_samples must be 1 or more, got 0"),
        ({"core": 1.1}, r"groups.core must be a fraction in \[0, 1\], got 1.1"),
        ({"missing": -0.1}, r"groups.missing must be a fraction in \[0, 1\], got -0.1"),
        ({"noise": 2}, r"groups.noise must be a fraction in \[0, 1\], got 2"),
        ({"source": "kmeans", "noise": 0.1}, "groups.noise 0.1 means nothing to .* kmeans"),
        ({"source": "dbscan", "missing": 0.1}, "groups.missing 0.1 means nothing to .* dbscan"),
    ],
)
def test_a_wrong_setting_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        GroupsConfig(**settings)


class TestRandomFeatures:
    @pytest.mark.parametrize("model", ["ConvNetD1W8", "ConvNetD1W8BN"])
    def test_are_those_of_the_network_whatever_the_chunk(self, model, tmp_path):
        dataset = coloured(sizes=(9, 4))
        np.save(tmp_path / "images.npy", dataset.train.images)
        mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
        network = models.create(model, num_classes=2, image_shape=(8, 8, 3))
        images = dataset.normalise(dataset.train.images)
        outputs, _ = models.apply(
            network, network.init(jax.random.key(5), images), images, train=False
        )
        for chunk in (3, 600):
            features = random_features(dataset, model, seed=5, chunk=chunk)
            actual = features(mapped)
            assert actual.dtype == np.float32
            np.testing.assert_allclose(actual, outputs.features, rtol=1e-5, atol=1e-5)

    def test_differ_by_seed(self):
        dataset = coloured(sizes=(5,))
        one, other = (
            random_features(dataset, "MLP", seed=seed, chunk=10)(dataset.train.images)
            for seed in (0, 1)
        )
        assert not np.allclose(one, other)

    @pytest.mark.parametrize("config", [KMEANS, DBSCAN], ids=lambda config: config.source)
    def test_show_the_colours(self, config):
        dataset = coloured()
        features = random_features(dataset, "ConvNetD1W32", seed=0, chunk=50)
        found = told(dataset, config, features=features).train.groups
        for label in range(dataset.num_classes):
            members = dataset.train.labels == label
            assert adjusted_rand_score(dataset.train.groups[members], found[members]) > 0.95
