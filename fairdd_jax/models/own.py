"""Networks of the user's own: any Flax module that takes images, called as ours are."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from fairdd_jax.errors import ConfigError, unknown_name
from fairdd_jax.models.layers import Dense
from fairdd_jax.models.networks import Outputs

Factory: TypeAlias = Callable[[int], nn.Module]
Features: TypeAlias = Callable[..., jax.Array] | Literal["output"]


class Adapter(nn.Module):
    """A module that knows nothing of this package as one of its networks.

    Its parameters keep the names and initial values that they have without the adapter, unless a
    linear layer is added. Arguments ``train`` and ``mask`` are passed on where the module's call
    has them by these names. Flax's batch norm leaves padded images out of its statistics though
    the module does not pass ``mask`` on.

    Attributes:
      module: linen, or nnx in a `flax.nnx.bridge.ToLinen`; takes normalised images
        ``[N, H, W, C]``, each of which it must treat on its own (but for batch norm).
      num_classes: number of logits.
      features: where the features ``[N, D]`` come from that distribution matching compares.
        None: the module gives a pair of logits and features. A function of (module, images), such
        as a method of its class: the module gives the logits, this the features. ``"output"``: the
        module gives the features, which are flattened, and a linear layer is added.

    >>> class Mean(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, images):
    ...         return nn.Dense(5)(images.mean((1, 2)))
    >>> network = Adapter(Mean(), num_classes=2, features="output")
    >>> outputs, _ = network.init_with_output(jax.random.key(0), jnp.ones((3, 8, 8, 1)))
    >>> outputs.features.shape, outputs.logits.shape
    ((3, 5), (3, 2))
    """

    module: nn.Module
    num_classes: int
    features: Features | None = None

    def setup(self) -> None:
        """Share the module's scope, so that nothing of its variables changes."""
        if self.features != "output":
            nn.share_scope(self, self.module)

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> Outputs:
        """Classify a batch of images."""
        flags = {"train": train, "mask": mask}
        with _masked_statistics(mask):
            output = self.module(x, **_taken(flags, call_of(self.module)))
            if callable(self.features):
                # Apart from the module in hand, whose running statistics it would move once more.
                # What the two passes share, the compiler computes once.
                module, variables = self.module.unbind()
                features, _ = module.apply(
                    variables,
                    x,
                    **_taken(flags, self.features),
                    method=self.features,
                    mutable=["batch_stats"],
                )
                return Outputs(output, features)
        if self.features == "output":
            features = output.reshape(x.shape[0], -1)
            return Outputs(Dense(self.num_classes, name="classifier")(features), features)
        if not isinstance(output, tuple):
            raise ConfigError(
                "gives one array and no features; let it give (logits, features), or tell "
                "models.register where the features come from"
            )
        return Outputs(*output)


def call_of(module: nn.Module) -> Callable[..., Any]:
    """What a call of the module runs; of an nnx one, what runs inside its `ToLinen`."""
    return getattr(module, "nnx_class", type(module)).__call__


def _taken(flags: dict[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """Those of the flags that a function has arguments for."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in flags.items() if name in parameters}


def _masked_statistics(mask: jax.Array | None) -> AbstractContextManager[Any]:
    """Calls of Flax's batch norm in here get the mask of the images."""

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        of_norm = isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__"
        if of_norm and mask is not None:
            shape = (-1, *(1,) * (args[0].ndim - 1))
            kwargs = {"mask": mask.astype(bool).reshape(shape)} | kwargs
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def _told(error: Exception) -> str:
    """An error of the user's own code, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def adapted(name: str, factory: Factory, features: Features | None = None) -> Factory:
    """The factory of a user as one that gives an `Adapter`.

    Raises, when called:
      ConfigError: the factory fails, or gives no linen module.
    """

    def make(num_classes: int) -> nn.Module:
        try:
            module = factory(num_classes)
        except Exception as error:
            raise ConfigError(
                f"network {name}: its factory fails on {num_classes} classes: {_told(error)}; "
                "give a function of that number, or a module with the field num_classes"
            ) from error
        if not isinstance(module, nn.Module):
            raise ConfigError(
                f"network {name}: its factory gave {type(module).__name__}; it must give a "
                "flax.linen.Module, or an nnx one in flax.nnx.bridge.ToLinen"
            )
        return module if isinstance(module, Adapter) else Adapter(module, num_classes, features)

    return make


def imported(name: str) -> Factory:
    """The factory that ``package.module:factory`` names.

    Raises:
      ConfigError: there is no such module, its own code fails, or it has no such function.
    """
    path, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise ConfigError(
            f"network {name}: {error}; install it, or put its folder on PYTHONPATH"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"network {name}: importing {path} fails: {_told(error)}; mend the module"
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        public = (key for key, value in vars(module).items() if callable(value) and key[0] != "_")
        raise unknown_name(f"function of {path}", attribute, public)
    return adapted(name, factory)


def check(name: str, network: Adapter, *, num_classes: int, image_shape: tuple[int, ...]) -> None:
    """See, without computing anything, that a user's module can serve as a network.

    Raises:
      ConfigError: what is wrong with it; the error that its own code raised is the cause.
    """
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    mask = jax.ShapeDtypeStruct((2,), jnp.float32)
    training = partial(network.apply, train=True, mutable=["batch_stats"])
    try:
        variables = jax.eval_shape(network.init, jax.random.key(0), images)
        outputs, _ = jax.eval_shape(training, variables, images, mask=mask)
    except ConfigError as error:
        raise ConfigError(f"network {name} {error}") from None
    except Exception as error:
        text = _told(error)
        advice = "; nothing may be random here, leave dropout out" if "rng" in text.lower() else ""
        size = "x".join(map(str, image_shape))
        raise ConfigError(f"network {name} fails on images of {size}: {text}{advice}") from error
    for complaint in _complaints(network, variables, outputs, num_classes):
        raise ConfigError(f"network {name} {complaint}")


def _complaints(
    network: Adapter, variables: Any, outputs: Outputs, num_classes: int
) -> Iterator[str]:
    try:
        logits, features = outputs.logits.shape, outputs.features.shape
    except AttributeError:
        kinds = " and ".join(type(output).__name__ for output in outputs[:2])
        yield f"gives {kinds} as logits and features; each must be one array"
        return
    if logits != (2, num_classes):
        yield f"gives logits of shape {logits} for 2 images; they must be [2, {num_classes}]"
    if len(features) != 2 or features[0] != 2:
        yield f"gives features of shape {features} for 2 images; they must be [2, D]"
    if "params" not in variables:
        yield "has no parameters; nothing of it can be trained"
    for collection in variables.keys() - {"params", "batch_stats"}:
        if jax.tree.leaves(variables[collection]):
            yield f"has variables in '{collection}'; use no others than params and batch_stats"
    if "batch_stats" in variables:
        has = inspect.signature(call_of(network.module)).parameters
        if "train" not in has:
            yield "has batch norm; its call needs an argument train: use_running_average=not train"
        if hasattr(network.module, "nnx_class") and "mask" not in has:
            yield "has an nnx batch norm; its call needs an argument mask ([N] or None) to pass on"
