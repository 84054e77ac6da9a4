"""The tree of settings: official defaults, what is filled in, what is refused and how."""

import dataclasses
import json

import pytest

from fairdd_jax import config as configuration
from fairdd_jax import losses, presets, schema
from fairdd_jax.config import Config, make, resolve
from fairdd_jax.data import DataConfig
from fairdd_jax.errors import ConfigError
from fairdd_jax.methods.dc import dc_loops
from fairdd_jax.schema import completed

ALL = "color_crop_cutout_flip_scale_rotate"

# What every row of the official tables has in common.
COMMON = {
    "model": "ConvNet",
    "momentum_img": 0.5,
    "lr_net": 0.01,
    "batch_train": 256,
    "init": "real",
    "fairness": "fairdd",
    "ipc": 10,
    "per_cell": 8,
    "warmup_epochs": 0,
    "evaluate.lr": 0.01,
    "evaluate.batch_size": 256,
    "data.bias_ratio": 0.9,
}
DM = {"lr_img": 1.0, "distance": "squared_l2", "outer_loops": 1, "inner_epochs": 0}
DC = {"lr_img": 0.1, "distance": "ours", "outer_loops": 10, "inner_epochs": 50, "steps": 1000}
DEFAULT = {"sampling": "stratified", "batch_real": 256, "evaluate.networks": 10}
OFFICIAL = {"sampling": "proportional", "batch_real": 256, "evaluate.networks": 20}
COBRA = {"sampling": "proportional", "evaluate.networks": 5}


def augmentation(strategy):
    return {"dsa_strategy": strategy, "evaluate.augment": strategy}


ROWS = [
    ("dm", None, DM | DEFAULT | augmentation(ALL) | {"steps": 20000, "evaluate.epochs": 1000}),
    ("dc", None, DC | DEFAULT | augmentation("none") | {"evaluate.epochs": 300}),
    ("dsa", None, DC | DEFAULT | augmentation(ALL) | {"evaluate.epochs": 1000}),
    (
        "dm",
        "official",
        DM | OFFICIAL | augmentation(ALL) | {"steps": 20000, "evaluate.epochs": 1000},
    ),
    ("dc", "official", DC | OFFICIAL | augmentation("none") | {"evaluate.epochs": 300}),
    ("dsa", "official", DC | OFFICIAL | augmentation(ALL) | {"evaluate.epochs": 1000}),
    (
        "dm",
        "cobra",
        DM
        | COBRA
        | augmentation(ALL)
        | {"steps": 2600, "batch_real": 600, "evaluate.epochs": 1500},
    ),
    (
        "dc",
        "cobra",
        DC | COBRA | augmentation("none") | {"batch_real": 256, "evaluate.epochs": 1000},
    ),
    ("dsa", "cobra", DC | COBRA | augmentation(ALL) | {"batch_real": 256, "evaluate.epochs": 1000}),
]


def flat(config):
    return schema.flat(dataclasses.asdict(config))


def preset(method, *, recipe=None, **changes):
    return make(presets.compose(f"cmnist_fg_{method}", recipe=recipe) | changes)


@pytest.mark.parametrize(("method", "recipe", "row"), ROWS)
def test_defaults_are_the_rows_of_the_official_programs(method, recipe, row):
    values = flat(preset(method, recipe=recipe))
    expected = COMMON | row
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("method", "recipe", "ipc", "lr_img"),
    [
        ("dm", None, 1, 1.0),
        ("dm", None, 50, 1.0),
        ("dm", None, 100, 10.0),
        ("dm", "official", 100, 10.0),
        ("dm", "cobra", 100, 1.0),
        ("dc", None, 100, 0.1),
        ("dsa", "official", 100, 0.1),
    ],
)
def test_learning_rate_by_ipc(method, recipe, ipc, lr_img):
    assert preset(method, recipe=recipe, ipc=ipc).lr_img == lr_img


@pytest.mark.parametrize(
    ("ipc", "outer", "inner"),
    [
        (1, 1, 1),
        (10, 10, 50),
        (20, 20, 25),
        (30, 30, 20),
        (40, 40, 15),
        (50, 50, 10),
        (51, 100, 10),
        (100, 100, 10),
        (400, 100, 10),
        # Not in the official table: on the line between its rows.
        (5, 5, 23),
        (12, 12, 45),
        (42, 42, 14),
    ],
)
def test_loops_of_gradient_matching(ipc, outer, inner):
    assert dc_loops(ipc) == (outer, inner)
    for method in ("dc", "dsa"):
        config = preset(method, ipc=ipc)
        assert (config.outer_loops, config.inner_epochs) == (outer, inner)
        assert config.updates == 1000 * outer
    assert preset("dm", ipc=ipc).updates == 20000


@pytest.mark.parametrize("method", ["dc", "dsa", "idc", "dream", "cafe"])
def test_real_images_stand_in_the_place_of_epochs(method):
    made = make({"data.name": "cmnist_fg", "method": method, "ipc": 10, "inner_real": 512})
    assert (made.inner_real, made.inner_epochs) == (512, 0)


@pytest.mark.parametrize(
    ("ipc", "epochs"), [(1, 10), (10, 10), (49, 10), (50, 50), (99, 50), (100, 100), (200, 100)]
)
def test_cobra_warms_the_network_of_dm_up(ipc, epochs):
    assert preset("dm", ipc=ipc, fairness="cobra").warmup_epochs == epochs
    assert preset("dm", ipc=ipc, fairness="fairdd").warmup_epochs == 0
    assert preset("dc", ipc=ipc, fairness="cobra").warmup_epochs == 0
    assert preset("dm", ipc=ipc, fairness="cobra", warmup_real=500).warmup_epochs == 0


def test_distance_by_method_and_fairness():
    chosen = {
        (method, fairness): preset(method, fairness=fairness).distance
        for method in ("dm", "dc")
        for fairness in losses.FAIRNESS
    }
    assert chosen.pop(("dm", "cobra")) == "l1"
    assert {method for method, _ in chosen} == {"dm", "dc"}
    for (method, _), distance in chosen.items():
        assert distance == {"dm": "squared_l2", "dc": "ours"}[method]


def test_epochs_follow_the_augmentation():
    assert preset("dc").evaluate.epochs == 300
    assert preset("dc", dsa_strategy="flip").evaluate.epochs == 1000
    assert preset("dsa", dsa_strategy="flip").evaluate.augment == "flip"


# A value for every field that `resolve` would fill in.
CHOSEN = {
    "distance": "cos",
    "lr_img": 0.25,
    "outer_loops": 3,
    "inner_epochs": 7,
    "warmup_epochs": 4,
    "chunk": 5,
    "block": 6,
    "factor": 2,
    "augment_net": "scale",
    "evaluate.epochs": 11,
    "evaluate.augment": "flip",
}


# What stays empty: the data set decides, and full_steps gives way to epochs.
LEFT = {f"data.{name}" for name in ("target", "protected", "size", "table", "split_column")}
LEFT |= {"data.severity", "evaluate.full_steps"}


@pytest.mark.parametrize("method", ["dm", "dc", "dsa"])
@pytest.mark.parametrize("fairness", ["vanilla", "cobra"])
def test_everything_is_filled_in_and_nothing_of_the_user_is_changed(method, fairness):
    empty = {name for name, v in flat(Config(DataConfig("demo"))).items() if v is None}
    assert empty - LEFT == set(CHOSEN)
    filled = flat(make({"data.name": "demo", "method": method, "fairness": fairness}))
    assert {name for name, v in filled.items() if v is None} == LEFT
    chosen = flat(make({"data.name": "demo", "method": method, "fairness": fairness} | CHOSEN))
    assert {name: chosen[name] for name in CHOSEN} == CHOSEN


def test_what_a_file_lacks_of_the_settings_has_its_default():
    whole = make({"data.name": "demo", "data.seed": 3, "groups.noise": 0.5, "ipc": 7}).as_json()
    old = json.loads(json.dumps(whole))
    del (
        old["data"]["colours"],
        old["data"]["severity"],
        old["groups"]["missing"],
        old["average_img"],
    )
    assert completed(old) == completed(whole) == whole
    assert completed(old | {"gone": 1}) == whole | {"gone": 1}


def test_every_field_can_be_set():
    other = {
        "data.name": "arrays",  # of one's own: no source says which settings it has
        "data.bias_ratio": 0.5,
        "data.minority": "unequal",
        "data.colours": 4,
        "data.clean_colours": True,
        "data.severity": 3,
        "data.seed": 1,
        "data.target": "job",
        "data.protected": "age,gender",
        "data.balanced": True,
        "data.size": 48,
        "data.fit": "stretch",
        "data.table": "rows.csv",
        "data.path_column": "file",
        "data.split_column": "part",
        "data.test_fraction": 0.3,
        "data.validation": 0.1,
        "data.test_without": 2,
        "data.damaged": "leave_out",
        "method": "dc",
        "fairness": "cobra",
        "ipc": 3,
        "seed": 7,
        "steps": 5,
        "sampling": "proportional",
        "per_cell": 2,
        "batch_real": 12,
        "init": "balanced",
        "model": "MLP",
        "dsa_strategy": "crop_flip",
        "interpolation": "corners",
        "lr_img_halved": "0.5",
        "space": "pixel",
        "batch_syn": 5,
        "inner_real": 6,
        "warmup_real": 7,
        "debias": "inverse_share",
        "momentum_net": 0.5,
        "weight_decay_net": 0.25,
        "cutmix": 0.5,
        "representatives": 4,
        "pool": 30,
        "momentum_img": 0.75,
        "average_img": 0.95,
        "lr_net": 0.5,
        "batch_train": 9,
        "stream": "always",
        "compute_dtype": "bfloat16",
        "log_every": 4,
        "groups.source": "dbscan",
        "groups.clusters": 4,
        "groups.min_samples": 3,
        "groups.core": 0.5,
        "groups.missing": 0.0,
        "groups.noise": 0.0,
        "mesh": "class=1,data=1",
        "evaluate.archs": "ConvNetD1,MLP",
        "evaluate.networks": 2,
        "evaluate.cutmix": 0.25,
        "evaluate.weighting": "inverse_share",
        "evaluate.lr": 0.125,
        "evaluate.batch_size": 17,
        "evaluate.empty": "official",
        "evaluate.every": 2,
        "evaluate.uint8_networks": 0,
        "evaluate.baselines": "none",
        "evaluate.full_epochs": 1,
        "evaluate.full_steps": 8,
    }
    # Networks are trained on real images.
    other = CHOSEN | {"inner_epochs": 0, "warmup_epochs": 0} | other
    config = make(other)
    assert flat(config) == other  # no field is left out, and none changed
    arguments = [part for name, v in other.items() for part in (f"--{name}", str(v))]
    assert configuration.from_arguments(configuration.parser(), arguments) == config


def test_resolving_twice_changes_nothing():
    config = preset("dc", ipc=7)
    assert resolve(config) == config


@pytest.mark.parametrize("method", ["dm", "dc", "dsa"])
def test_json_round_trip(method):
    config = preset(method, ipc=15, fairness="cobra", **{"evaluate.full_steps": 3})
    text = json.dumps(dataclasses.asdict(config), allow_nan=False)
    assert make(schema.flat(json.loads(text))) == config


def test_what_nothing_reads():
    """Each of these is read as soon as the other field asks for it."""
    of = {
        "batch_real": {"sampling": "proportional"},
        "pool": {"representatives": 10},
        "interpolation": {"factor": 2},
        "inner_epochs": {"outer_loops": 2},
        "inner_real": {"outer_loops": 2},
        "lr_net": {"warmup_real": 1},
        "cutmix": {"outer_loops": 2, "inner_epochs": 1},
        "evaluate.full_steps": {"evaluate.baselines": "full"},
        "evaluate.full_epochs": {"evaluate.baselines": "random,full"},
    }
    demo = {"data.name": "demo", "evaluate.baselines": "random"}
    alone = configuration.unread(make(demo))
    for field, other in of.items():
        assert field in alone
        assert field not in configuration.unread(make(demo | other))
    for steps in (0, 5):
        instead = {"evaluate.baselines": "full", "evaluate.full_steps": steps}
        found = configuration.unread(make(demo | instead))
        assert f"--evaluate.full_steps {steps} stands in" in found["evaluate.full_epochs"]
    assert "per_cell" not in alone
    assert "per_cell" in configuration.unread(preset("dm", sampling="proportional"))
    warm = make({"data.name": "demo", "warmup_epochs": 1, "inner_real": 9, "inner_epochs": 0})
    assert "inner_real" not in configuration.unread(warm)  # it is warmed up on real images
    # CAFE's discrimination loss counts --batch_real images, whoever draws them.
    assert "batch_real" not in configuration.unread(preset("cafe", fairness="vanilla"))
    assert "batch_real" in configuration.unread(preset("cafe"))


def test_help_shows_every_field_with_its_default_and_description():
    help_text = " ".join(configuration.parser({"data.name": "demo"}).format_help().split())
    for name in flat(Config(DataConfig("demo"))):
        assert f"--{name} " in help_text
    assert "synthetic images per class. (type: int, default: 10)" in help_text
    assert "of the synthetic images, in units of space" in help_text


WRONG = [
    # names
    ({"ipcs": 1}, r"unknown field 'ipcs'; did you mean 'ipc'\?"),
    ({"evaluate.epoch": 1}, r"unknown field 'evaluate.epoch'; did you mean 'evaluate.epochs'\?"),
    ({"inner_epochs": 3, "inner_real": 5}, "--inner_epochs 3 .* choose one, and 0 for the other"),
    (
        {"warmup_epochs": 3, "warmup_real": 5},
        "--warmup_epochs 3 .* choose one, and 0 for the other",
    ),
    ({"debias": "lff"}, "--debias lff weighs the real images .*; choose --warmup_real 25600 or"),
    ({"debias": "inverse_share", "inner_real": 9}, "--debias inverse_share weighs .* on none;"),
    ({"debias": "lfw", "warmup_real": 9}, r"unknown debias 'lfw'; did you mean 'lff'\?"),
    ({"debias": "lff", "warmup_real": 9, "cutmix": 0.5}, r"--cutmix 0.5 mixes; choose --cutmix 0"),
    ({"warmup_real": -1}, r"--warmup_real -1 is out of range; choose 0 or more"),
    ({"method": "dmm"}, r"unknown method 'dmm'; did you mean 'dm'\? Valid: cafe, dc"),
    ({"fairness": "fairdb"}, r"unknown fairness 'fairdb'; did you mean 'fairdd'\?"),
    ({"sampling": "stratifyed"}, r"unknown sampling 'stratifyed'; did you mean 'stratified'\?"),
    ({"init": "rael"}, r"unknown init 'rael'; did you mean 'real'\?"),
    ({"evaluate.empty": "skp"}, r"unknown evaluate.empty 'skp'; did you mean 'skip'\?"),
    ({"data.minority": "equl"}, r"unknown data.minority 'equl'; did you mean 'equal'\?"),
    ({"model": "ConvNett"}, r"unknown network 'ConvNett'; did you mean 'ConvNet'\?"),
    ({"evaluate.archs": "MLP,Resnet18"}, r"unknown network 'Resnet18'; did you mean 'ResNet18'\?"),
    ({"evaluate.archs": ","}, r"unknown network ','; .*Valid: A, AlexNet"),
    ({"dsa_strategy": "flip_rotat"}, r"unknown augmentation 'rotat'; did you mean 'rotate'\?"),
    ({"evaluate.augment": "corp"}, r"unknown augmentation 'corp'; did you mean 'crop'\?"),
    ({"evaluate.baselines": "randm"}, r"unknown baseline 'randm'; did you mean 'random'\?"),
    ({"distance": "squared_l1"}, r"distance of dm 'squared_l1'; did you mean 'squared_l2'\?"),
    ({"method": "dc", "distance": "l1"}, r"distance of dc 'l1'; .*Valid: cos, kernel"),
    # types
    ({"ipc": "ten"}, r"--ipc must be int, got ten"),
    ({"ipc": 2.5}, r"--ipc must be int, got 2.5"),
    ({"ipc": None}, r"--ipc must be int, got None"),
    ({"lr_img": "fast"}, r"--lr_img must be float or null, got fast"),
    ({"evaluate.epochs": "many"}, r"--evaluate.epochs must be int or null, got many"),
    ({"evaluate.lr": "fast"}, r"--evaluate.lr must be float, got fast"),
    ({"data.clean_colours": "maybe"}, r"--data.clean_colours must be bool, got maybe"),
    # ranges
    ({"ipc": 0}, r"--ipc 0 is out of range; choose 1 or more"),
    ({"ipc": -1}, r"--ipc -1 is out of range; choose 1 or more"),
    ({"ipc": 10**20}, r"--ipc 1000+ is out of range; choose 1 to 2147483647"),
    ({"per_cell": 2**31}, r"--per_cell 2147483648 is out of range"),
    ({"steps": -1}, r"--steps -1 is out of range"),
    ({"seed": -1}, r"--seed -1 is out of range"),
    ({"seed": 2**32}, r"--seed 4294967296 is out of range; choose 0 to 4294967295"),
    ({"lr_img": -0.1}, r"--lr_img -0.1 is out of range"),
    ({"lr_img_halved": "0.5,late"}, r"--lr_img_halved must be fractions .*, got '0.5,late'"),
    ({"lr_img_halved": "60"}, r"--lr_img_halved must be fractions between 0 and 1"),
    ({"cutmix": 1.5}, r"--cutmix 1.5 is out of range; choose 0.0 to 1.0"),
    ({"factor": 0}, r"--factor 0 is out of range"),
    ({"augment_net": "color+corp"}, r"unknown augmentation 'corp'"),
    ({"momentum_img": 1.5}, r"--momentum_img 1.5 is out of range; choose 0.0 to 1.0"),
    ({"per_cell": 0}, r"--per_cell 0 is out of range"),
    ({"log_every": 0}, r"--log_every 0 is out of range"),
    ({"evaluate.networks": 0}, r"--evaluate.networks 0 is out of range"),
    ({"evaluate.epochs": -1}, r"--evaluate.epochs -1 is out of range"),
    ({"evaluate.full_steps": -1}, r"--evaluate.full_steps -1 is out of range"),
    ({"data.bias_ratio": 1.5}, r"bias_ratio must be a fraction in \[0, 1\], got 1.5"),
    ({"data.test_fraction": -1}, r"test_fraction must be a fraction in \[0, 1\]"),
    *(
        ({f"data.{field}": ""}, f"{field} is empty; give a name, or leave it out")
        for field in ("table", "target", "protected", "path_column", "split_column")
    ),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as error:
        make({"data.name": "demo"} | settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lr_img", [float("nan"), float("inf")])
def test_non_finite_numbers_are_refused(lr_img):
    with pytest.raises(ConfigError, match="lr_img"):
        make({"data.name": "demo", "lr_img": lr_img})
    with pytest.raises(ConfigError, match="lr_img"):
        resolve(Config(DataConfig("demo"), lr_img=lr_img))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ipcs", "3"], r"unknown option 'ipcs'; did you mean 'ipc'\?"),
        (["--evaluate.epoch=3"], r"unknown option 'evaluate.epoch'; did you mean 'evaluate.epochs"),
        (["--ip", "3"], r"unknown option 'ip'; did you mean 'ipc'\?"),
        (["--ipc"], "--ipc: expected one argument"),
        (["--ipc", "three"], "--ipc must be int, got three"),
        (["--ipc", "-3"], "--ipc -3 is out of range"),
        (["--fairness", "cobr"], r"unknown fairness 'cobr'; did you mean 'cobra'\?"),
        (["--evaluate", "nothing"], "evaluate"),
        (["stray"], "stray"),
    ],
)
def test_wrong_arguments_are_said_in_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as error:
        configuration.from_arguments(configuration.parser({"data.name": "demo"}), arguments)
    assert "\n" not in str(error.value)


def test_names_that_look_like_other_types_stay_names():
    for name in ("null", "1", "true", "a: b", "[x]"):
        assert make({"data.name": name}).data.name == name
