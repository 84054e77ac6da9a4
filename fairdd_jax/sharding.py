"""Work spread over a mesh of devices, by class and by image; a single device is a mesh of one.

On CPU a device is a core (`use_all_cores`): XLA runs the network's products on all cores anyway,
but what lies between them mostly on one, so two halves side by side take less time than one whole.
"""

import math
import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fairdd_jax.environment import cores, on_cpu
from fairdd_jax.errors import ConfigError

PyTree = Any

AUTO = "auto"

# Devices along the first axis have different classes, along the second different real images of the
# same classes.
CLASS, DATA = AXES = ("class", "data")
NETWORK = "network"
SPLIT = PartitionSpec(CLASS)
REPLICATED = PartitionSpec()
_ALIGNMENT = 64  # bytes
# XLA ends the program when one core waits for another for 40 s, which a long step may well take.
_PATIENCE = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=600 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=3600"
)


def use_all_cores() -> None:
    """Make every core of the CPU a device of its own.

    Call it before anything else uses JAX; afterwards, or where XLA_FLAGS already say how many
    devices there are, it does nothing.
    """
    if "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if jax.__version_info__ >= (0, 8) and "collective_call" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_PATIENCE}".strip()
    try:
        jax.config.update("jax_num_cpu_devices", cores())
    except RuntimeError:  # JAX has started
        return


def mesh_for(num_classes: int, shape: str = AUTO, *, data: bool = True) -> Mesh:
    """The mesh for work that falls into so many classes.

    Devices along the first axis have equally many classes, the last ones perhaps fewer, see
    `num_slots`. With several processes all devices take part: a process without one would wait for
    ever, and a TPU slice is one or nothing.

    Args:
      num_classes: number of classes.
      shape: devices along the axes, as ``class=4,data=2``; or ``auto``, as many along the first as
        there are classes for, and along the second as are left for each.
      data: whether there is anything to divide along the second.

    Raises:
      ConfigError: a mesh that does not fit the classes or the devices.

    >>> mesh_for(1).shape["class"]
    1
    """
    devices = jax.devices()
    several = jax.process_count() > 1
    if shape == AUTO:
        fitting = range(1, min(num_classes, len(devices)) + 1)
        along_class = max(n for n in fitting if len(devices) % n == 0)
        along_data = len(devices) // along_class if data or several else 1
    else:
        along_class, along_data = _parsed(shape)
        used = along_class * along_data
        if along_class > num_classes or used > len(devices) or (several and used < len(devices)):
            raise ConfigError(
                f"--mesh {shape} does not fit: class must not exceed the {num_classes} classes, "
                f"and class times data must {'be' if several else 'not exceed'} the "
                f"{len(devices)} devices; --mesh auto chooses"
            )
    chosen = np.array(devices[: along_class * along_data])
    return Mesh(chosen.reshape(along_class, along_data), AXES)


def num_slots(num_classes: int, mesh: Mesh) -> int:
    """Classes with those that fill the last devices up, so that all have equally many.

    >>> num_slots(10, mesh_for(1))
    10
    """
    return num_classes + -num_classes % mesh.shape[CLASS]


def local_mesh() -> Mesh:
    """The devices of this process, for work that every process does for itself."""
    return Mesh(np.array(jax.local_devices())[:, None], AXES)


def network_mesh() -> Mesh:
    """All devices, for work on several networks.

    Cores of a process share every batch, along the second axis; what serves accelerators is
    networks side by side, along the first.
    """
    devices = np.array(jax.devices())  # those of a process follow each other
    shape = (jax.process_count(), -1) if on_cpu() else (-1, 1)
    return Mesh(devices.reshape(shape), (NETWORK, DATA))


def _parsed(shape: str) -> tuple[int, int]:
    match = re.fullmatch(r"class=([1-9]\d{0,5})(?:,data=([1-9]\d{0,5}))?", shape.replace(" ", ""))
    if match is None:
        raise ConfigError(f"--mesh must be auto, or like class=4,data=2, got '{shape}'")
    return int(match[1]), int(match[2] or 1)


def check_mesh(shape: str) -> None:
    """See that it is the shape of a mesh.

    Raises:
      ConfigError: it is not.
    """
    if shape != AUTO:
        _parsed(shape)


def shard_map(
    function: Callable[..., PyTree], mesh: Mesh, in_specs: Any, out_specs: Any
) -> Callable:
    """The function run by every device of the mesh on its part of the arguments."""
    # The checks do not know custom derivatives.
    if hasattr(jax, "shard_map"):
        shard = partial(jax.shard_map, check_vma=False)
    else:  # jax before 0.6
        from jax.experimental import shard_map as experimental

        shard = partial(experimental.shard_map, check_rep=False)
    return shard(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)


def place(tree: PyTree, mesh: Mesh, specs: PyTree = REPLICATED) -> PyTree:
    """Put arrays on the devices of the mesh.

    On CPU numpy's arrays are not copied, or once for all devices if they are not `aligned`. Of
    several processes every one has the whole arrays.
    """
    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    shardings = jax.tree.map(partial(NamedSharding, mesh), specs, is_leaf=is_spec)
    if mesh.devices.flat[0].platform == "cpu":
        tree = jax.tree.map(lambda x: aligned(x) if isinstance(x, np.ndarray) else x, tree)
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    # What the shardings are a prefix of.
    return jax.tree.map(
        lambda sharding, part: jax.tree.map(partial(_placed_by_all, sharding), part),
        shardings,
        tree,
    )


def _placed_by_all(sharding: NamedSharding, array: jax.Array | np.ndarray) -> jax.Array:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = _placed_by_all(sharding, jax.random.key_data(array))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    whole = np.asarray(array)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def place_parts(
    shape: tuple[int, ...], mesh: Mesh, spec: PartitionSpec, part: Callable[[Any], np.ndarray]
) -> jax.Array:
    """An array of which every process has its own parts alone.

    Args:
      shape: of the whole.
      mesh: the devices.
      spec: how the array lies on them.
      part: given the slices of a device's part, returns it. On CPU one that is `aligned` is not
        copied.
    """
    return jax.make_array_from_callback(shape, NamedSharding(mesh, spec), part)


def aligned(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of it, as `aligned_empty` makes them."""
    if is_aligned(array):
        return array
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def is_aligned(array: np.ndarray) -> bool:
    """Whether CPU devices use an array without a copy."""
    return array.ctypes.data % _ALIGNMENT == 0


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """An empty array at a multiple of 64 bytes, where CPU devices use it without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def own_part(
    array: jax.Array, num_parts: int, axes: str | tuple[str, ...] = AXES, *, axis: int = 0
) -> jax.Array:
    """This device's equal part of an array that every device has.

    Args:
      array: the whole; zeros are appended if the parts do not divide its axis.
      num_parts: devices along the axes of the mesh.
      axes: of the mesh.
      axis: of the array.
    """
    if num_parts == 1:
        return array
    size = -(-array.shape[axis] // num_parts)
    more = size * num_parts - array.shape[axis]
    if more:
        widths = [(0, 0)] * array.ndim
        widths[axis] = (0, more)
        array = jnp.pad(array, widths)
    return jax.lax.dynamic_slice_in_dim(array, jax.lax.axis_index(axes) * size, size, axis)
