"""Networks by their official names."""

import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fairdd_jax.errors import ConfigError, unknown_name
from fairdd_jax.models.networks import MLP, VGG, AlexNet, ConvNet, LeNet, ResNet18

_FAMILIES: dict[str, Callable[[int], nn.Module]] = {
    "MLP": MLP,
    "LeNet": LeNet,
    "AlexNet": AlexNet,
    "AlexNetBN": lambda classes: AlexNet(classes, norm="batchnorm"),
    "VGG11": VGG,
    "VGG11BN": lambda classes: VGG(classes, norm="batchnorm"),
    "ResNet18": ResNet18,
    "ResNet18BN": lambda classes: ResNet18(classes, norm="batchnorm"),
    "ResNet18BN_AP": lambda classes: ResNet18(classes, norm="batchnorm", average_pool=True),
}

# A ConvNet's name may carry any number of these suffixes; the official names carry at most two.
_CONVNET_SUFFIXES: dict[str, dict[str, Any]] = {
    "ASwish": {"activation": "swish"},
    "AS": {"activation": "sigmoid"},
    "AR": {"activation": "relu"},
    "AL": {"activation": "leakyrelu"},
    "NN": {"norm": "none"},
    "BN": {"norm": "batchnorm"},
    "LN": {"norm": "layernorm"},
    "IN": {"norm": "instancenorm"},
    "GN": {"norm": "groupnorm"},
    "NP": {"pooling": "none"},
    "MP": {"pooling": "maxpooling"},
    "AP": {"pooling": "avgpooling"},
}
_SUFFIX = re.compile(rf"D(?P<depth>[1-9]\d*)|W(?P<width>[1-9]\d*)|{'|'.join(_CONVNET_SUFFIXES)}")

# The official evaluation modes that stand for a fixed list; S and SS depend on the network.
_MODES = {
    "M": ("MLP", "ConvNet", "LeNet", "AlexNet", "VGG11", "ResNet18"),
    "B": ("ConvNetBN", "ConvNetASwishBN", "AlexNetBN", "VGG11BN", "ResNet18BN"),
    "W": ("ConvNetW32", "ConvNetW64", "ConvNetW128", "ConvNetW256"),
    "D": ("ConvNetD1", "ConvNetD2", "ConvNetD3", "ConvNetD4"),
    "A": ("ConvNetAS", "ConvNetAR", "ConvNetAL", "ConvNetASwish"),
    "P": ("ConvNetNP", "ConvNetMP", "ConvNetAP"),
    "N": ("ConvNetNN", "ConvNetBN", "ConvNetLN", "ConvNetIN", "ConvNetGN"),
}
MODES = ("S", "SS", *_MODES)


def names() -> tuple[str, ...]:
    """The official names; a ConvNet's suffixes may also be combined, as in ``ConvNetD4W64GN``."""
    convnets = [name for mode in "WDAPN" for name in _MODES[mode]]
    return (*_FAMILIES, "ConvNet", *convnets, "ConvNetASwishBN")


def create(name: str, *, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Make the network of that name.

    Args:
      name: one of `names`, or ``ConvNet`` with any of the suffixes D<depth>, W<width>, AS, AR,
        AL, ASwish (activation), NN, BN, LN, IN, GN (norm), NP, MP, AP (pooling).
      num_classes: number of logits.
      image_shape: (height, width, channels) of its images.

    Raises:
      ConfigError: an unknown name, a width that group norm cannot divide, or images too small for
        the network's striding.

    Deviation from the official code: its linear layers fit 32x32 or 64x64 alone, these fit every
    size that the network's striding leaves a feature of.

    >>> create("ConvNetD4GN", num_classes=2, image_shape=(64, 64, 3)).norm
    'groupnorm'
    """
    module = _module(name, num_classes)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    if any(leaf.size == 0 for leaf in jax.tree.leaves(variables)):
        height, width, _ = image_shape
        raise ConfigError(
            f"{name} cannot take images of {height}x{width} pixels: its poolings leave nothing; "
            "choose a shallower network or larger images"
        )
    return module


def _module(name: str, num_classes: int) -> nn.Module:
    if name in _FAMILIES:
        return _FAMILIES[name](num_classes)
    if not name.startswith("ConvNet"):
        raise unknown_name("network", name, names())
    options: dict[str, Any] = {}
    rest = name.removeprefix("ConvNet")
    while rest:
        suffix = _SUFFIX.match(rest)
        if suffix is None:
            raise unknown_name("network", name, names())
        sizes = {key: int(value) for key, value in suffix.groupdict().items() if value}
        options |= sizes or _CONVNET_SUFFIXES[suffix.group()]
        rest = rest[suffix.end() :]
    if options.get("norm") == "groupnorm" and options.get("width", 0) % 4:
        raise ConfigError(f"{name}: group norm makes 4 groups; choose a width that 4 divides")
    return ConvNet(num_classes, **options)


def check_name(name: str) -> None:
    """See that there is a network of that name.

    Raises:
      ConfigError: there is none.
    """
    _module(name, num_classes=1)


def resolve_archs(archs: str, *, model: str) -> tuple[str, ...]:
    """Names of the evaluation networks.

    Args:
      archs: names separated by commas, or an official evaluation mode: ``SS`` the network that
        distilled, ``S`` the same with instance norm in place of batch norm (a synthetic set is
        too small for batch statistics), ``M`` several families, ``W`` widths, ``D`` depths,
        ``A`` activations, ``P`` poolings, ``N`` norms, ``B`` batch-norm networks.
      model: the network that distilled.

    Raises:
      ConfigError: an unknown name.

    >>> resolve_archs("S", model="ConvNetBN")
    ('ConvNet',)
    """
    check_name(model)
    if archs == "SS":
        return (model,)
    if archs == "S":
        return (model.replace("BN_AP", "").replace("BN", ""),)
    resolved = _MODES.get(archs) or tuple(name.strip() for name in archs.split(",") if name.strip())
    for name in resolved:
        check_name(name)
    if not resolved:
        raise unknown_name("network", archs, (*MODES, *names()))
    return resolved
