"""Golden arrays, which keep PyTorch's layouts, in the layouts of the Flax networks.

    images_from_torch(x)                        [..., C, H, W] -> [..., H, W, C]
    features_from_torch(f, channels)            [..., D] flattened (C, H, W) -> (H, W, C)
    state_dict(arrays, prefix)                  {name: tensor} below a prefix, in PyTorch's order
    variables_from_torch(module, tensors, image_shape=...)
                                                {"params": ...}, with "batch_stats" if it has any
    convnet_from_torch(arrays, prefix)          (ConvNet, params) with its sizes read off the arrays
    assert_trees_close(actual, expected, **tolerance)
                                                parameters, their gradients or batch statistics

A golden with a ConvNet below ``param/`` is used like this::

    arrays = golden("dm.npz")
    network, params = convnet_from_torch(arrays, "param/")
    real = images_from_torch(arrays["real"])                        # [C, N, H, W, channels]
    features = network.apply({"params": params}, real[0]).features  # [N, D]
    expected = features_from_torch(arrays["embed_real"][0], network.width)

Parameter gradients are laid out as the parameters are; one row of a stacked array is taken with
``at``: ``convnet_from_torch(arrays, "gw/syn/", at=c)[1]`` are those of class ``c``.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from conftest import assert_close
from flax.linen import Module
from flax.traverse_util import flatten_dict, unflatten_dict

from fairdd_jax.models.networks import ConvNet

_BUFFERS = ("running_mean", "running_var")
_CENTRED = ("instance", "batch")  # norms that take the mean of every channel away


def images_from_torch(images: np.ndarray) -> np.ndarray:
    """Move the channels of ``[..., C, H, W]`` last."""
    return np.moveaxis(images, -3, -1)


def features_from_torch(features: np.ndarray, channels: int) -> np.ndarray:
    """Reorder ``[..., D]``, a flattened map of that many channels, from (C, H, W) to (H, W, C)."""
    grid = features.reshape(*features.shape[:-1], channels, -1)
    return np.swapaxes(grid, -1, -2).reshape(features.shape)


def state_dict(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The tensors below a prefix by their PyTorch names, in the order of the layers."""

    def order(name: str) -> tuple[bool, list[int], bool]:
        layer, kind = name.rsplit(".", 1)
        numbers = [int(digits) for digits in re.findall(r"\d+", layer)]
        return not layer.startswith("features"), numbers, kind not in ("weight", "running_mean")

    names = [key.removeprefix(prefix) for key in arrays if key.startswith(prefix)]
    assert names, f"no array below {prefix}"
    return {name: arrays[prefix + name] for name in sorted(names, key=order)}


def abstract_variables(module: Module, image_shape: tuple[int, ...]) -> Any:
    """Shapes of a module's variables, nothing computed, in order of their creation.

    Whatever passes through a transformation comes back with its keys sorted, so the variables are
    taken from inside.
    """
    seen = []
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    jax.eval_shape(lambda x: seen.append(module.init(jax.random.key(0), x)), images)
    return seen[0]


def variables_from_torch(
    module: Module, tensors: Mapping[str, np.ndarray], *, image_shape: tuple[int, ...]
) -> dict[str, Any]:
    """A PyTorch state dict as the variables of a module that creates its layers in that order."""
    channels = image_shape[-1]  # of the map that a linear layer would find flattened
    params, buffers = [], []
    for name, tensor in tensors.items():
        if name.endswith(_BUFFERS):
            buffers.append(tensor)
        elif tensor.ndim == 4:
            channels = tensor.shape[0]
            params.append(tensor.transpose(2, 3, 1, 0))
        elif tensor.ndim == 3:  # affine of a layer norm
            params.append(images_from_torch(tensor))
        elif tensor.ndim == 2:
            params.append(features_from_torch(tensor, channels).T)
            channels = 1
        else:
            params.append(tensor)
    template = abstract_variables(module, image_shape)
    variables = {"params": _fill(template["params"], params)}
    if "batch_stats" in template or buffers:
        variables["batch_stats"] = _fill(template["batch_stats"], buffers)
    return variables


def _fill(template: Any, arrays: list[np.ndarray]) -> Any:
    """The arrays in place of the template's leaves, in order."""
    leaves = flatten_dict(template)
    expected = {"/".join(path): leaf.shape for path, leaf in leaves.items()}
    assert list(expected.values()) == [array.shape for array in arrays], expected
    return unflatten_dict(dict(zip(leaves, arrays, strict=True)))


def convnet_from_torch(
    arrays: Mapping[str, np.ndarray], prefix: str = "param/", *, at: int | None = None, **options
) -> tuple[ConvNet, Any]:
    """A ConvNet (its activation, norm, pooling in ``options``) and its parameters.

    Args:
      arrays: those of a golden file, in which a pooling follows every block.
      prefix: of the names of the tensors.
      at: the row to take of every tensor, for stacked ones.
    """
    tensors = state_dict(arrays, prefix)
    if at is not None:
        tensors = {name: tensor[at] for name, tensor in tensors.items()}
    kernels = [tensor for tensor in tensors.values() if tensor.ndim == 4]
    num_classes, num_features = tensors["classifier.weight"].shape
    width, channels = kernels[0].shape[:2]
    side = round((num_features / width) ** 0.5) * 2 ** len(kernels)
    module = ConvNet(num_classes, width=width, depth=len(kernels), **options)
    if channels == 1:
        side -= 4  # the padding of the first convolution adds it back
    variables = variables_from_torch(module, tensors, image_shape=(side, side, channels))
    return module, variables["params"]


def assert_trees_close(actual: Any, expected: Any, *, atol: float, rtol: float) -> None:
    """Assert that two trees of parameters, gradients or batch statistics agree array by array.

    The bias of a convolution has no effect if an instance or batch norm follows: its gradient is
    rounding noise around 0, compared absolutely.
    """
    actual, expected = flatten_dict(actual), flatten_dict(expected)
    assert actual.keys() == expected.keys()
    for path, array in expected.items():
        norms = [(*path[:-2], path[-2].replace("Conv", "Norm"), kind, "scale") for kind in _CENTRED]
        if path[-1] == "bias" and any(norm in expected for norm in norms):
            assert_close(actual[path], array, atol=1e-5, rtol=0)
        else:
            assert_close(actual[path], array, atol=atol, rtol=rtol)
