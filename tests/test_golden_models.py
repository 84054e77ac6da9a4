"""The networks against those of the official program: outputs, gradients, running statistics."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import FIRST_ORDER, assert_close, golden, golden_files
from flax.traverse_util import flatten_dict
from torch_layout import (
    abstract_variables,
    assert_trees_close,
    features_from_torch,
    images_from_torch,
    state_dict,
    variables_from_torch,
)

from fairdd_jax.models import create
from fairdd_jax.models.networks import MLP, ConvNet, LeNet

BIG = golden("models_big.npz")
SPECIFICATIONS = golden("params_count.json")


def make_network(meta: dict[str, Any]) -> ConvNet | LeNet | MLP:
    num_classes = int(meta["num_classes"])
    if meta["arch"] != "ConvNet":
        return {"LeNet": LeNet, "MLP": MLP}[str(meta["arch"])](num_classes)
    return ConvNet(
        num_classes,
        width=int(meta["net_width"]),
        depth=int(meta["net_depth"]),
        norm=str(meta["norm"]),
        activation=str(meta["act"]),
        pooling=str(meta["pooling"]),
    )


@pytest.mark.parametrize("name", [f for f in golden_files("models_*.npz") if f != "models_big.npz"])
def test_network_matches_official(name: str) -> None:
    """Outputs in every mode, the gradients of all inputs, and the buffers of one training pass."""
    arrays = golden(name)
    network = make_network({key[5:]: arrays[key] for key in arrays if key.startswith("meta/")})
    images, labels = images_from_torch(arrays["x"]), arrays["y"]

    def variables(params: str, buffers: str) -> dict[str, Any]:
        tensors = state_dict(arrays, params)
        if batch_norm:
            tensors |= state_dict(arrays, buffers)
        return variables_from_torch(network, tensors, image_shape=images.shape[1:])

    @jax.jit
    def evaluate(variables, images):
        return network.apply(variables, images)

    @jax.jit
    def train(variables, images):
        def loss(params, images):
            outputs, updates = network.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
            return losses.mean(), (outputs, updates)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(variables["params"], images)

    batch_norm = any(key.startswith("buffer/") for key in arrays)
    start = variables("param/", "buffer/")
    (loss, (outputs, updates)), (param_gradients, image_gradient) = train(start, images)
    modes = {"train": outputs, "eval": evaluate(start, images)} if batch_norm else {"": outputs}
    actual = {"loss": loss}
    for mode, (logits, features, _) in modes.items():
        actual[f"logits_{mode}".rstrip("_")] = logits
        actual[f"embed_{mode}".rstrip("_")] = features

    for key in (key.removeprefix("out/") for key in arrays if key.startswith("out/")):
        expected = arrays[f"out/{key}"]
        if key.startswith("embed"):
            expected = features_from_torch(expected, network.width)
        assert_close(actual[key], expected, **FIRST_ORDER)
    assert_close(image_gradient, images_from_torch(arrays["grad/x"]), **FIRST_ORDER)
    if any(key.startswith("grad/param/") for key in arrays):
        expected = variables("grad/param/", "buffer/")["params"]
        assert_trees_close(param_gradients, expected, **FIRST_ORDER)
    if batch_norm:
        expected = variables("param/", "buffer_after/")["batch_stats"]
        assert_trees_close(updates["batch_stats"], expected, **FIRST_ORDER)


def torch_shape(shape: tuple[int, ...]) -> list[int]:
    """The shape that PyTorch gives to a parameter of that shape."""
    order = {4: (3, 2, 0, 1), 3: (2, 0, 1), 2: (1, 0), 1: (0,)}[len(shape)]
    return [shape[axis] for axis in order]


@pytest.mark.parametrize("size", SPECIFICATIONS["configs"])
@pytest.mark.parametrize("arch", SPECIFICATIONS["sets"]["fairdd"])
def test_registry_matches_official_shapes(arch: str, size: str) -> None:
    """Tensors, their number and those of the outputs of every official name.

    Where the official network cannot run, its first linear layer does not fit the size of the
    images, and ours does.
    """
    channels, num_classes, side = SPECIFICATIONS["configs"][size]
    official = SPECIFICATIONS["sets"]["fairdd"][arch][size]
    image_shape = (side, side, channels)
    network = create(arch, num_classes=num_classes, image_shape=image_shape)
    variables = abstract_variables(network, image_shape)
    shapes = [leaf.shape for leaf in flatten_dict(variables["params"]).values()]
    expected = list(official["params"].values())
    if official["forward"] == "ok":
        assert sum(np.prod(shape) for shape in shapes) == official["num_params"]
        images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
        logits, features, _ = jax.eval_shape(network.apply, variables, images)
        assert logits.shape == (2, *official["logits_shape"])
        assert official["embed_dim"] in (None, features.shape[1])
    else:
        linear = [len(shape) for shape in expected].index(2)
        assert official["embed_dim"] in (None, shapes[linear][0])
        del shapes[linear], expected[linear]
    assert [torch_shape(shape) for shape in shapes] == expected
    buffers = [list(leaf.shape) for leaf in flatten_dict(variables.get("batch_stats", {})).values()]
    assert buffers == list(official.get("buffers", {}).values())


def big_state_dict(arch: str) -> dict[str, np.ndarray]:
    """The weights of a big network, drawn as the goldens' README says."""
    specification = next(iter(SPECIFICATIONS["sets"]["fairdd"][arch].values()))
    params, buffers = specification["params"], specification.get("buffers", {})
    linear = (int(BIG["meta/num_classes"]), BIG[f"{arch}/embed_eval"].shape[1])
    shapes = {}
    for name, shape in params.items():
        is_linear = len(shape) == 2 or name == list(params)[-1]
        shapes[name] = linear[: len(shape)] if is_linear else tuple(shape)
        if name.endswith(".bias"):
            layer = name.removesuffix("bias")
            shapes |= {key: tuple(buffers[key]) for key in buffers if key.startswith(layer)}
    seed = int(BIG[f"{arch}/base_seed"])
    return {name: draw(name, shape, seed + k) for k, (name, shape) in enumerate(shapes.items())}


def draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    random = np.random.RandomState(seed)
    if name.endswith("running_var"):
        tensor = 0.5 + random.random_sample(shape)
    elif len(shape) >= 2:
        tensor = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    else:
        tensor = 0.1 * random.standard_normal(shape) + name.endswith("weight")
    return tensor.astype(np.float32)


@pytest.mark.parametrize("arch", sorted({key.split("/")[0] for key in BIG} - {"meta"}))
def test_big_network_matches_official(arch: str) -> None:
    images = images_from_torch(BIG[f"{arch}/x"])
    image_shape = images.shape[1:]
    tensors = big_state_dict(arch)
    assert len(tensors) == BIG[f"{arch}/num_tensors"]
    total = sum(np.abs(tensor, dtype=np.float64).sum() for tensor in tensors.values())
    assert_close(total, BIG[f"{arch}/param_abs_sum"], **FIRST_ORDER)

    num_classes = int(BIG["meta/num_classes"])
    network = create(arch, num_classes=num_classes, image_shape=image_shape)
    variables = variables_from_torch(network, tensors, image_shape=image_shape)
    logits, features, _ = jax.jit(network.apply)(variables, images)
    assert_close(logits, BIG[f"{arch}/logits_eval"], **FIRST_ORDER)
    channels = [tensor for tensor in tensors.values() if tensor.ndim == 4][-1].shape[0]
    expected = features_from_torch(BIG[f"{arch}/embed_eval"], channels)
    assert_close(features, expected, **FIRST_ORDER)
    if f"{arch}/logits_train" in BIG:
        train = jax.jit(partial(network.apply, train=True, mutable=["batch_stats"]))
        outputs, _ = train(variables, images)
        assert_close(outputs.logits, BIG[f"{arch}/logits_train"], **FIRST_ORDER)
