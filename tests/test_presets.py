"""Preset names, what they are composed of, and that nothing overrides anything unsaid."""

import dataclasses

import pytest

from fairdd_jax import data, losses, presets, schema
from fairdd_jax.config import make
from fairdd_jax.errors import ConfigError
from fairdd_jax.methods import METHODS

NAMES = list(presets.names())


def flat(settings):
    return schema.flat(dataclasses.asdict(make(settings)))


def test_names_are_every_pair_of_data_set_and_method():
    sources = [name for name in data.names() if name != "demo"]
    assert set(NAMES) == {"demo"} | {f"{s}_{m}" for s in sources for m in METHODS}
    for line in presets.names().values():
        assert line
        assert "\n" not in line
    assert len(set(presets.names().values())) == len(NAMES)


def has(recipe, method):
    """Whether the program of a recipe has a method."""
    return recipe is None or method in presets.table()["recipes"][recipe]


@pytest.mark.parametrize("quick", [False, True], ids=["whole", "quick"])
@pytest.mark.parametrize("recipe", [None, "official", "cobra"])
@pytest.mark.parametrize("name", NAMES)
def test_every_name_resolves(name, recipe, quick):
    if not has(recipe, name.rpartition("_")[2].replace("demo", "dm")):
        with pytest.raises(ConfigError, match=f"recipe '{recipe}' has no"):
            presets.compose(name, recipe=recipe, quick=quick)
        return
    settings = presets.compose(name, recipe=recipe, quick=quick)
    config = make(settings)
    source, method = ("demo", "dm") if name == "demo" else name.rsplit("_", 1)
    assert (config.data.name, config.method) == (source, method)
    values = schema.flat(dataclasses.asdict(config))
    assert {key: values[key] for key in settings} == settings
    if quick:
        assert config.updates <= 20
        assert config.evaluate.networks * (config.evaluate.epochs + 1) <= 20


def test_quick_changes_budgets_alone():
    for method in METHODS:
        whole = flat(presets.compose(f"cmnist_fg_{method}"))
        quick = flat(presets.compose(f"cmnist_fg_{method}", quick=True))
        for name in ("method", "fairness", "sampling", "distance", "dsa_strategy", "lr_img", "ipc"):
            assert quick[name] == whole[name]
        assert quick["evaluate.augment"] == whole["evaluate.augment"]


def test_the_demo_has_a_budget_of_its_own_and_one_for_all_its_networks():
    demo, dm = make(presets.compose("demo")), make(presets.compose("cmnist_fg_dm"))
    assert demo.steps < dm.steps / 100
    assert demo.evaluate.networks == 1
    assert demo.evaluate.full_steps == 0  # as many as the synthetic sets get
    assert demo.dsa_strategy == dm.dsa_strategy


@pytest.mark.parametrize("recipe", [None, "official", "cobra"])
@pytest.mark.parametrize("method", METHODS)
def test_fairness_changes_its_own_parts_alone(method, recipe):
    if not has(recipe, method):
        assert method in ("idc", "dream", "cafe")
        return
    base = presets.compose(f"cfmnist_bg_{method}", recipe=recipe)
    runs = {mode: flat(base | {"fairness": mode}) for mode in losses.FAIRNESS}
    for mode, values in runs.items():
        changed = {name for name in values if values[name] != runs["vanilla"][name]}
        own = set()
        if mode == "cobra":
            own = {"dm": {"distance", "warmup_epochs"}, "cafe": {"distance"}}.get(method, own)
        assert changed == ({"fairness"} | own if mode != "vanilla" else set())


def test_what_cobras_code_runs_as_idc_is_gradient_matching_of_crops():
    """All of IDC's own settings are taken back; what is left of it are the crops and the loops."""
    dc = flat(presets.compose("utkface_dc", recipe="cobra"))
    idc = flat(presets.compose("utkface_idc", recipe="cobra"))
    assert {name for name in dc if dc[name] != idc[name]} == {
        "method",
        "factor",
        "interpolation",
        "inner_epochs",
        "evaluate.networks",
    }


def test_the_authors_of_idc_choose_by_data_set():
    mnist, fashion, cifar = (
        flat(presets.compose(f"{name}_idc") | {"ipc": 50})
        for name in ("cmnist_fg", "cfmnist_bg", "cifar10s")
    )
    assert [mnist["distance"], fashion["distance"], cifar["distance"]] == [
        "kernel_l1",
        "kernel_l1",
        "kernel_mse",
    ]
    assert mnist["lr_img"] == pytest.approx(5e-4)
    assert cifar["lr_img"] == pytest.approx(25e-3)
    assert mnist["cutmix"] == 0 < fashion["cutmix"]
    assert cifar["inner_real"] > fashion["inner_real"]


def test_subsets_of_imagenet_and_larger_images_have_their_own():
    subset, tiny = (
        flat(presets.compose(f"{name}_idc")) for name in ("imagenet_woof_s", "tiny_imagenet_s")
    )
    assert (subset["factor"], subset["distance"]) == (3, "kernel_l1")
    assert subset["lr_img"] == pytest.approx(3e-3 * (128 / 224) ** 2)
    assert (subset["cutmix"], subset["evaluate.cutmix"]) == (1.0, 1.0)
    assert tiny["lr_img"] == pytest.approx(5e-3 * 4)
    faces = presets.compose("utkface_dream")
    assert flat(faces)["lr_img"] == pytest.approx(5e-3 * 4)
    assert flat(faces | {"data.size": 96})["lr_img"] == pytest.approx(5e-3 * 9)
    dream = flat(presets.compose("cifar10s_dream"))
    assert (dream["batch_real"], dream["lr_img"]) == (128, pytest.approx(5e-3))


def test_quick_switches_nothing_on_that_a_recipe_switches_off():
    quick = flat(presets.compose("cmnist_fg_idc", recipe="cobra", quick=True))
    assert (quick["inner_real"], quick["inner_epochs"]) == (0, 0)
    assert flat(presets.compose("cmnist_fg_idc", quick=True))["inner_real"] == 32
    assert flat(presets.compose("cmnist_fg_dc", quick=True))["inner_epochs"] == 1


def test_parts_are_those_of_the_name():
    parts = presets.compose_parts("dsa", recipe="official")
    name = presets.compose("cmnist_bg_dsa", recipe="official")
    assert name == parts | {"data.name": "cmnist_bg"}
    parts = presets.compose_parts("dc", data="tiny_imagenet_s")
    assert parts["model"] == "ConvNetD4"
    assert presets.compose("tiny_imagenet_s_dc") == parts | {"data.name": "tiny_imagenet_s"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: presets.compose("cmnist_gf_dm"), r"config 'cmnist_gf_dm'; did you mean 'cmnist_"),
        (lambda: presets.compose("cmnist_fg"), r"config 'cmnist_fg'; did you mean 'cmnist_fg_d"),
        (lambda: presets.compose("dmeo"), r"config 'dmeo'; did you mean 'demo'\?"),
        (lambda: presets.compose("demo", recipe="ofical"), r"did you mean 'official'\?"),
        (lambda: presets.compose("cmnist_fg_dream", recipe="cobra"), "'cobra' has no dream; it"),
        (lambda: presets.compose_parts("das"), r"method 'das'; did you mean 'dsa'\?"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(call, message):
    with pytest.raises(ConfigError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_presets_set_no_unknown_field_and_nothing_but_what_differs():
    table = presets.table()
    default = flat({"data.name": "demo"})
    parts = [*table["methods"].values(), table["quick"], table["demo"]]
    parts += [row for recipe in table["recipes"].values() for row in recipe.values()]
    parts += [entry["settings"] for entry in table["shared"]]
    for part in parts:
        assert set(schema.flat(part)) <= set(default)
    for recipe in table["recipes"].values():
        assert set(recipe) <= set(METHODS)
    for entry in table["shared"]:
        assert set(entry) <= {"methods", "data", "quick", "settings"}
        assert set(entry["methods"]) <= set(METHODS)
        assert set(entry.get("data", [])) <= set(data.names())
    assert set(table["methods"]) == set(METHODS)
    assert set(table["data"]) == set(data.names())


def test_a_method_of_ones_own_needs_no_preset(monkeypatch):
    monkeypatch.setitem(METHODS, "mine", METHODS["dc"])
    assert presets.compose_parts("mine") == {"method": "mine"}
    assert make(presets.compose_parts("mine") | {"data.name": "demo"}).distance == "ours"
