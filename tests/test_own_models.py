"""Networks of the user's own: linen and nnx, in every form, and what is refused."""

import sys
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FIRST_ORDER, assert_close
from flax import nnx
from test_loop import CLASSES, SIDE, toy
from test_models import normal

import fairdd_jax
from fairdd_jax import command_line, models
from fairdd_jax.errors import ConfigError
from fairdd_jax.models import registry
from fairdd_jax.models.networks import ConvNet
from fairdd_jax.run import Run

SHAPE = (SIDE, SIDE, 3)
CREATE = {"num_classes": CLASSES, "image_shape": SHAPE}
QUICK = {
    "ipc": 1,
    "steps": 1,
    "per_cell": 2,
    "inner_epochs": 1,
    "dsa_strategy": "none",
    "evaluate.epochs": 0,
    "evaluate.networks": 1,
    "evaluate.uint8_networks": 0,
}


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch):
    monkeypatch.setattr(registry, "_OWN", {})


def flat(x):
    return x.reshape(x.shape[0], -1)


class Backbone(nn.Module):
    """A feature map alone."""

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(5, (3, 3), strides=2)(x))


class Pair(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = flat(Backbone()(x))
        return nn.Dense(self.num_classes)(x), x


class Parts(nn.Module):
    """Logits, and a method for the features."""

    num_classes: int

    def setup(self):
        self.backbone = Backbone()
        self.head = nn.Dense(self.num_classes)

    def embed(self, x):
        return flat(self.backbone(x))

    def __call__(self, x):
        return self.head(self.embed(x))


class Norms(Parts):
    """The same with Flax's batch norm in front."""

    def setup(self):
        super().setup()
        self.norm = nn.BatchNorm(momentum=0.5)

    def embed(self, x, train=False):
        return flat(self.backbone(self.norm(x, use_running_average=not train)))

    def __call__(self, x, train=False):
        return self.head(self.embed(x, train))


class Nnx(nnx.Module):
    """A pair; nnx wants every size in advance."""

    def __init__(self, num_classes, *, rngs):
        self.conv = nnx.Conv(3, 5, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(5 * (SIDE // 2) ** 2, num_classes, rngs=rngs)

    def __call__(self, x):
        x = flat(nnx.relu(self.conv(x)))
        return self.head(x), x


class NnxNorms(Nnx):
    def __init__(self, num_classes, *, rngs):
        super().__init__(num_classes, rngs=rngs)
        self.norm = nnx.BatchNorm(3, momentum=0.5, rngs=rngs)

    def __call__(self, x, train, mask):
        mask = None if mask is None else mask.astype(bool).reshape(-1, 1, 1, 1)
        return super().__call__(self.norm(x, use_running_average=not train, mask=mask))


def to_linen(nnx_class):
    return lambda num_classes: nnx.bridge.to_linen(nnx_class, num_classes)


class LogitsOnly(ConvNet):
    """A network of ours as one that knows nothing of our outputs."""

    def __call__(self, x):
        return super().__call__(x).logits


# What is given, and what comes of it


@pytest.mark.parametrize(
    ("factory", "features"),
    [
        (Pair, None),
        (Parts, Parts.embed),
        (Parts, lambda net, x: flat(net.backbone(x))),
        (Norms, Norms.embed),
        (partial(ConvNet, width=8, depth=1), None),
        (to_linen(Nnx), None),
        (to_linen(NnxNorms), None),
    ],
)
def test_outputs_and_variables_are_those_of_the_module(factory, features):
    """Whatever the form: the module's own logits, initial values and names of variables."""
    models.register("mine", factory, features=features)
    network, module = models.create("mine", **CREATE), factory(CLASSES)
    images, key = normal(3, *SHAPE), jax.random.key(1)
    flags = {"train": False, "mask": None} if "NnxNorms" in str(module) else {}
    variables = jax.jit(network.init)(key, images)
    expected, theirs = jax.jit(partial(module.init_with_output, **flags))(key, images)
    assert jax.tree.structure(variables) == jax.tree.structure(theirs)
    for ours, other in zip(jax.tree.leaves(variables), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(ours, other)
    outputs, _ = models.apply(network, variables, images, train=False)
    logits = expected[0] if isinstance(expected, tuple) else expected
    assert_close(outputs.logits, logits, **FIRST_ORDER)
    # In every one of them, the features are what its last linear layer takes.
    (head,) = variables["params"].keys() & {"Dense_0", "head", "classifier"}
    head = variables["params"][head]
    assert_close(outputs.features @ head["kernel"] + head["bias"][None], logits, **FIRST_ORDER)


def test_a_linear_layer_is_added_to_features():
    """With the initial values of that of our networks, to the features flattened."""
    models.register("mine", lambda num_classes: Backbone(), features="output")
    network = models.create("mine", **CREATE)
    images = normal(3, *SHAPE)
    variables = jax.jit(network.init)(jax.random.key(0), images)
    outputs = network.apply(variables, images)
    backbone = {"params": variables["params"]["module"]}
    features = flat(Backbone().apply(backbone, images))
    np.testing.assert_array_equal(outputs.features, features)
    linear = variables["params"]["classifier"]
    assert_close(outputs.logits, features @ linear["kernel"] + linear["bias"][None], **FIRST_ORDER)
    assert np.abs(linear["kernel"]).max() <= features.shape[1] ** -0.5


@pytest.mark.parametrize(
    ("factory", "features"), [(Norms, Norms.embed), (to_linen(NnxNorms), None)]
)
def test_batch_norm_leaves_padded_images_out(factory, features):
    """In training, masked equals sliced, and the running statistics move once."""
    models.register("mine", factory, features=features)
    network = models.create("mine", **CREATE)
    images = normal(6, *SHAPE) + 1
    variables = jax.jit(network.init)(jax.random.key(0), images)
    mask = jnp.array([1, 1, 0, 1, 1, 0], jnp.float32)
    rows = jnp.flatnonzero(mask)
    masked, changed = models.apply(
        network, variables, images.at[2].multiply(1e3), train=True, mask=mask
    )
    sliced, _ = models.apply(network, variables, images[rows], train=True)
    for ours, alone in zip(masked[:2], sliced[:2], strict=True):
        assert_close(ours[rows], alone, **FIRST_ORDER)
    head = variables["params"]["head"]  # the features are those of the same pass
    assert_close(
        masked.features @ head["kernel"] + head["bias"][None], masked.logits, **FIRST_ORDER
    )
    (moved,) = (norm["mean"] for norm in changed["batch_stats"].values())
    assert_close(moved, images[rows].mean((0, 1, 2)) / 2, **FIRST_ORDER)
    frozen, _ = models.apply(network, variables, images, train=False)
    assert np.abs(frozen.logits[0] - masked.logits[0]).max() > 1e-3


# From end to end


@pytest.mark.parametrize("method", ["dm", pytest.param("dc", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("factory", "features"), [(Norms, Norms.embed), (to_linen(NnxNorms), None)]
)
def test_distils_and_evaluates(factory, features, method):
    """Batch statistics included, which are taken beforehand in gradient matching."""
    models.register("mine", factory, features=features)
    loops = {"outer_loops": 2} if method == "dc" else {}
    run = fairdd_jax.distill(toy(), method=method, model="mine", **QUICK | loops)
    assert np.isfinite(run.images).all()
    assert (run.images != Run(run.config, run.dataset).images).any()
    if method == "dm":  # the same for every method
        (scores,) = run.evaluate()
        assert scores["arch"] == "mine"
        assert 0 <= scores["accuracy"]["mean"] <= 1


@pytest.mark.parametrize("method", ["dm", pytest.param("dc", marks=pytest.mark.slow)])
def test_our_network_as_a_strange_one_gives_our_results(method):
    """Bit by bit, though its features take a second pass."""
    strange = partial(LogitsOnly, width=8, depth=1)
    models.register("mine", strange, features=lambda net, x: ConvNet.__call__(net, x).features)
    results = []
    for name in ("ConvNetD1W8", "mine"):
        run = fairdd_jax.distill(toy(), method=method, model=name, **QUICK)
        scores = run.evaluate()[0]["cell_accuracy"] if method == "dm" else None
        results.append((run.images, run.log[-1]["loss"], scores))
    (images, *numbers), (their_images, *their_numbers) = results
    np.testing.assert_array_equal(images, their_images)
    assert numbers == their_numbers


# Names


def test_registered_names_are_known():
    models.register("my-net.v2", Pair)
    assert "my-net.v2" in models.names()
    assert models.resolve_archs("MLP, my-net.v2", model="my-net.v2") == ("MLP", "my-net.v2")
    with pytest.raises(
        ConfigError, match=r"unknown network 'my-net\.v3'; did you mean 'my-net.v2'"
    ):
        models.check_name("my-net.v3")


def test_the_last_registration_counts():
    models.register("mine", Pair)
    models.register("mine", Parts, features=Parts.embed)
    assert isinstance(models.create("mine", **CREATE).module, Parts)


def test_evaluation_with_the_network_that_distilled_keeps_its_name():
    """The official mode S takes the letters BN out of official names alone."""
    models.register("myBN", Pair)
    assert models.resolve_archs("S", model="myBN") == ("myBN",)


@pytest.mark.parametrize("name", ["ConvNet", "ConvNetD7W8GNMP", "ViT2W64", "MLP", "M", "SS"])
def test_taken_names_are_refused(name):
    with pytest.raises(ConfigError, match=f"'{name}' is taken; register your network by another"):
        models.register(name, Pair)
    assert name not in registry._OWN


@pytest.mark.parametrize("name", ["", "a,b", "package:net", "my net", "2nd"])
def test_unusable_names_are_refused(name):
    with pytest.raises(ConfigError, match=f"'{name}' cannot be a network's name; use letters"):
        models.register(name, Pair)


@pytest.fixture
def module_file(tmp_path, monkeypatch):
    """A module of the user's on the path."""
    (tmp_path / "mynets.py").write_text(
        "import flax.linen as nn\n"
        "from fairdd_jax import models\n"
        "class Net(nn.Module):\n"
        "    num_classes: int\n"
        "    @nn.compact\n"
        "    def __call__(self, x):\n"
        "        x = x.mean((1, 2))\n"
        "        return nn.Dense(self.num_classes)(x), x\n"
        "def adapted(num_classes):\n"
        "    return models.Adapter(nn.Dense(6), num_classes, features='output')\n"
        "number = 3\n"
        "class Bare(nn.Module):\n"
        "    pass\n"
    )
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    (tmp_path / "unfinished.py").write_text("def net(:\n")
    (tmp_path / "unnamed.py").write_text("class Net(nn.Module):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mynets", None)


@pytest.mark.usefixtures("module_file")
def test_a_network_is_imported():
    """In a command line, and for a distillation."""
    for name in ("mynets:Net", "mynets:adapted"):
        command = command_line.read_command(["--config", "demo", "--model", name], description=None)
        assert command.config.model == name
    assert models.create("mynets:Net", **CREATE).module.num_classes == CLASSES
    run = fairdd_jax.distill(toy(), model="mynets:adapted", **QUICK)
    assert np.isfinite(run.log[-1]["loss"])
    assert run.config.model == "mynets:adapted"


@pytest.mark.usefixtures("module_file")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mynets:Nett", "unknown function of mynets 'Nett'; did you mean 'Net'"),
        ("mynets:number", "unknown function of mynets 'number'; Valid: Bare, Net, adapted"),
        ("nomodule:Net", "network nomodule:Net: No module named 'nomodule'; install it, or put"),
        ("broken:Net", "network broken:Net: No module named 'no_such_package'; install it"),
        ("unfinished:net", "unfinished:net: importing unfinished fails: SyntaxError: .*; mend"),
        ("unnamed:Net", "importing unnamed fails: NameError: name 'nn' is not defined; mend the"),
        (":Net", "unknown network ':Net'"),
        ("mynets:", "unknown network 'mynets:'"),
    ],
)
def test_what_cannot_be_imported_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        models.check_name(name)


@pytest.mark.usefixtures("module_file")
def test_a_factory_that_takes_no_number_of_classes_is_refused():
    message = "network mynets:Bare: its factory fails on 2 classes: TypeError: .*; give a function"
    with pytest.raises(ConfigError, match=message) as caught:
        fairdd_jax.distill(toy(), model="mynets:Bare", **QUICK)
    assert "\n" not in str(caught.value)


# What is refused


def test_other_features_are_refused():
    with pytest.raises(ConfigError, match=r"network mine: features is 'embed'; give a function of"):
        models.register("mine", Parts, features="embed")
    assert "mine" not in models.names()


class Call(nn.Module):
    """Any function as the call of a module."""

    function: object

    @nn.compact
    def __call__(self, x):
        return self.function(self, x)


def called(function):
    return lambda num_classes: Call(function)


class TrainedOnly(nn.Module):
    """Dropout in training."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dropout(0.5, deterministic=not train)(Backbone()(x))


class Folded(nn.Module):
    """Batch norm over pixels, which a mask of images does not fit."""

    @nn.compact
    def __call__(self, x, train=False):
        pixels = nn.BatchNorm(use_running_average=not train)(x.reshape(-1, 3))
        return nn.Dense(5)(pixels.reshape(x.shape).mean((1, 2)))


class NnxDropout(Nnx):
    def __init__(self, num_classes, *, rngs):
        super().__init__(num_classes, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return super().__call__(self.dropout(x))


class NnxUnmasked(NnxNorms):
    def __call__(self, x, train):
        return super().__call__(x, train, None)


def cached(net, x):
    net.variable("cache", "last", jnp.zeros, 3)
    return nn.Dense(5)(x.mean((1, 2)))


@pytest.mark.parametrize(
    ("factory", "features", "message"),
    [
        (Parts, None, "gives one array and no features; let it give .logits, features., or tell"),
        (lambda _: Pair(7), None, r"gives logits of shape \(2, 7\) for 2 images; .* \[2, 2\]"),
        (lambda n: nn.Dense(n), lambda net, x: x, r"gives logits of shape \(2, 8, 8, 2\)"),
        (
            Parts,
            lambda net, x: x[..., 0],
            r"features of shape \(2, 8, 8\) for 2 images; .*\[2, D\]",
        ),
        (Parts, lambda net, x: x.mean((0, 1, 2)), r"gives features of shape \(3,\) for 2 images"),
        (
            Pair,
            lambda net, x: x[:, 0, 0],
            "gives tuple and .* as logits and features; each must be",
        ),
        (called(lambda net, x: x.mean((1, 2))[:, :2]), lambda net, x: x[:, 0, 0], "no parameters"),
        (called(cached), "output", "has variables in 'cache'; use no others than params"),
        (
            called(lambda net, x: nn.BatchNorm(use_running_average=False)(x.mean((1, 2)))),
            "output",
            "has batch norm; its call needs an argument train",
        ),
        (to_linen(NnxUnmasked), None, "has an nnx batch norm; its call needs an argument mask"),
        (lambda _: TrainedOnly(), "output", "Dropout_0 needs PRNG.*; nothing may be random here"),
        (lambda _: Folded(), "output", "fails on images of 8x8x3: .*broadcast"),
        (to_linen(NnxDropout), None, "dropout.*; nothing may be random here, leave dropout"),
        (
            called(lambda net, x: nn.Dense(5)(x.reshape(3, 5))),
            "output",
            "fails on images of 8x8x3: TypeError: .*",
        ),
        (lambda _: nnx.Linear(2, 2, rngs=nnx.Rngs(0)), None, "gave Linear; it must give a flax"),
        (lambda _: Backbone, "output", "gave type; it must give a flax"),
    ],
)
def test_what_cannot_serve_is_refused_in_one_line(factory, features, message):
    models.register("mine", factory, features=features)
    models.check_name("mine")
    with pytest.raises(ConfigError, match=f"^network mine.*{message}") as caught:
        models.create("mine", **CREATE)
    assert "\n" not in str(caught.value)


def test_a_module_that_does_not_fit_the_images_is_refused_before_anything_runs():
    """The error of the user's own code stays the cause."""
    models.register("mine", to_linen(Nnx))
    with pytest.raises(ConfigError, match="network mine fails on images of 6x6x3: ") as caught:
        models.create("mine", num_classes=2, image_shape=(6, 6, 3))
    assert caught.value.__cause__ is not None
    models.register(
        "small",
        lambda num_classes: LogitsOnly(num_classes, width=4, depth=4),
        features=lambda net, x: x.mean((1, 2)),
    )
    with pytest.raises(ConfigError, match="small cannot take images of 8x8 pixels"):
        models.create("small", **CREATE)
