"""Networks by their names: the official ones, and those that users register or import."""

import re
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fairdd_jax.errors import ConfigError, unknown_name
from fairdd_jax.models import own
from fairdd_jax.models.networks import MLP, VGG, AlexNet, ConvNet, LeNet, ResNet18
from fairdd_jax.models.vit import HEADS, ViT

_FAMILIES: dict[str, own.Factory] = {
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

_VIT = re.compile(r"ViT(?P<layers>[1-9]\d*)(W(?P<width>[1-9]\d*))?")

# What users register. The names that can be registered, and those that are imported.
_OWN: dict[str, own.Factory] = {}
_OWN_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_IMPORTED = re.compile(r"[A-Za-z_]\w*(\.\w+)*:\w+")

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
    """The official names, ViTs as in the paper, and what was registered.

    A ConvNet's suffixes may also be combined, as in ``ConvNetD4W64GN``.

    >>> "ResNet18BN" in names(), "ConvNetD4W64GN" in names()
    (True, False)
    """
    convnets = [name for mode in "WDAPN" for name in _MODES[mode]]
    vits = ("ViT1", "ViT2", "ViT3")
    return (*_FAMILIES, "ConvNet", *convnets, "ConvNetASwishBN", *vits, *_OWN)


def register(name: str, factory: own.Factory, *, features: own.Features | None = None) -> None:
    """Make a network of your own known by a name, for distilling and for evaluating.

    Args:
      name: how ``model`` and ``evaluate.archs`` then call it; a second registration replaces the
        first.
      factory: takes the number of classes, gives a linen module (or an nnx one in a
        `flax.nnx.bridge.ToLinen`) that maps normalised images ``[N, H, W, C]`` to logits, without
        random numbers. See `Adapter` for what is passed to it.
      features: where the features ``[N, D]`` come from; see `Adapter`.

    Raises:
      ConfigError: the name is that of another network or of an evaluation mode, or is not letters,
        digits, ``_``, ``.`` and ``-``; or ``features`` is something else.

    >>> class Linear(nn.Module):
    ...     num_classes: int
    ...     @nn.compact
    ...     def __call__(self, images):
    ...         features = images.reshape(len(images), -1)
    ...         return nn.Dense(self.num_classes)(features), features
    >>> register("linear", Linear)
    >>> create("linear", num_classes=2, image_shape=(4, 4, 1)).module
    Linear(
        # attributes
        num_classes = 2
    )
    """
    if name in MODES or _built_in(name) is not None:
        raise ConfigError(f"'{name}' is taken; register your network by another name")
    if not _OWN_NAME.fullmatch(name):
        raise ConfigError(f"'{name}' cannot be a network's name; use letters, digits, _, . and -")
    if not (features is None or features == "output" or callable(features)):
        raise ConfigError(
            f"network {name}: features is {features!r}; give a function of (module, images), "
            "'output', or nothing"
        )
    _OWN[name] = own.adapted(name, factory, features)


def create(name: str, *, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Make the network of that name.

    Args:
      name: one of `names`; ``ConvNet`` with any of the suffixes D<depth>, W<width>, AS, AR, AL,
        ASwish (activation), NN, BN, LN, IN, GN (norm), NP, MP, AP (pooling); ``ViT<layers>``, with
        W<width> if it is not 128; or ``package.module:factory``, a function as `register` takes
        it, whose module gives (logits, features) or is an `Adapter`.
      num_classes: number of logits.
      image_shape: (height, width, channels) of its images.

    Raises:
      ConfigError: an unknown name, a width that group norm or attention cannot divide, images too
        small for the network's striding, or a module of the user's own that gives something else
        than it should.

    Deviation from the official code: its linear layers fit 32x32 or 64x64 alone, these fit every
    size that the network's striding leaves a feature of.

    >>> create("ConvNetD4GN", num_classes=2, image_shape=(64, 64, 3)).norm
    'groupnorm'
    """
    module = _factory(name)(num_classes)
    if isinstance(module, own.Adapter):
        own.check(name, module, num_classes=num_classes, image_shape=image_shape)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    if any(leaf.size == 0 for leaf in jax.tree.leaves(variables)):
        height, width, _ = image_shape
        raise ConfigError(
            f"{name} cannot take images of {height}x{width} pixels: its poolings leave nothing; "
            "choose a shallower network or larger images"
        )
    return module


def imports(archs: str) -> list[str]:
    """Those of some names, separated by commas, that are ``module:function`` and are imported.

    What a file names may come from anybody, and to import a module is to run it.

    >>> imports("ConvNetD3, my_networks:wide")
    ['my_networks:wide']
    """
    return [name for name in _listed(archs) if _IMPORTED.fullmatch(name)]


def _listed(archs: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in archs.split(",") if name.strip())


def _factory(name: str) -> own.Factory:
    """Makes networks of that name from a number of classes."""
    if _IMPORTED.fullmatch(name):
        return own.imported(name)
    factory = _OWN.get(name) or _built_in(name)
    if factory is None:
        raise unknown_name("network", name, names())
    return factory


def _built_in(name: str) -> own.Factory | None:
    if name in _FAMILIES:
        return _FAMILIES[name]
    if vit := _VIT.fullmatch(name):
        sizes = _sizes(vit)
        if sizes.get("width", 0) % HEADS:
            raise ConfigError(
                f"{name}: attention has {HEADS} heads; choose a width that {HEADS} divides"
            )
        return partial(ViT, **sizes)
    if not name.startswith("ConvNet"):
        return None
    options: dict[str, Any] = {}
    rest = name.removeprefix("ConvNet")
    while rest:
        suffix = _SUFFIX.match(rest)
        if suffix is None:
            return None
        options |= _sizes(suffix) or _CONVNET_SUFFIXES[suffix.group()]
        rest = rest[suffix.end() :]
    if options.get("norm") == "groupnorm" and options.get("width", 0) % 4:
        raise ConfigError(f"{name}: group norm makes 4 groups; choose a width that 4 divides")
    return partial(ConvNet, **options)


def _sizes(match: re.Match[str]) -> dict[str, Any]:
    return {key: int(value) for key, value in match.groupdict().items() if value}


def check_name(name: str) -> None:
    """See that there is a network of that name.

    Raises:
      ConfigError: there is none.

    >>> check_name("ConvNetD4W64GN")
    """
    _factory(name)


def resolve_archs(archs: str, *, model: str) -> tuple[str, ...]:
    """Names of the evaluation networks.

    Args:
      archs: names separated by commas, or an official evaluation mode: ``SS`` the network that
        distilled, ``S`` the same with instance norm in place of batch norm (a synthetic set is
        too small for batch statistics; a network of your own stays as it is), ``M`` several
        families, ``W`` widths, ``D`` depths, ``A`` activations, ``P`` poolings, ``N`` norms, ``B``
        batch-norm networks.
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
        own_network = _built_in(model) is None
        return (model if own_network else model.replace("BN_AP", "").replace("BN", ""),)
    resolved = _MODES.get(archs) or _listed(archs)
    for name in resolved:
        check_name(name)
    if not resolved:
        raise unknown_name("network", archs, (*MODES, *names()))
    return resolved
