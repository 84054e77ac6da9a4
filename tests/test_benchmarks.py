"""The benchmarks: counted operations, generated data, the grid of cases, and runs in small."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairdd_jax import command_line, models, sharding

BENCHMARKS = Path(__file__).parents[1] / "experiments" / "benchmarks"
HEAD = Path(__file__).parent / "fixtures" / "mnist_head"  # 40 and 20 real digits
sys.path.append(str(BENCHMARKS))

import cases  # noqa: E402
import dry_run  # noqa: E402
import measure  # noqa: E402
import step_time  # noqa: E402
import time_to_quality  # noqa: E402
from cases import Case  # noqa: E402

SMALL = Case(model="ConvNetD1W8", groups=2, size=8, classes=2, ipc=1, num_train=100)


def convolve(images, kernel, *, groups=1, padding="VALID", stride=(1, 1)):
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        stride,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def with_own_gradient(function):
    function = jax.custom_vjp(function)
    function.defvjp(lambda x: (function(x), None), lambda _, g: (g @ W.T,))
    return function


X, W = jnp.ones((5, 6)), jnp.ones((6, 7))
DOT = 2 * 5 * 6 * 7


class TestFlops:
    def test_convolution(self):
        # Outputs of 3 images, (9 - 3) / 2 + 1 rows, 8 - 2 + 1 columns, 6 channels; each sums over
        # a window of 3 x 2 pixels and the 4 / 2 channels of its group.
        count = measure.flops(
            lambda x, k: convolve(x, k, groups=2, stride=(2, 1)),
            jnp.ones((3, 9, 8, 4)),
            jnp.ones((3, 2, 2, 6)),
        )
        assert count == 2 * (3 * 4 * 7 * 6) * (3 * 2 * 2)

    def test_product(self):
        assert measure.flops(jnp.dot, X, W) == DOT

    def test_batched_product_with_axes_out_of_order(self):
        count = measure.flops(
            lambda a, b: jnp.einsum("kib,jbk->ibj", a, b), jnp.ones((4, 3, 2)), jnp.ones((5, 2, 4))
        )
        assert count == 2 * (2 * 3 * 5) * 4

    def test_elementwise_operations_are_left_out(self):
        assert measure.flops(lambda x: jnp.exp(x).sum() + x * x, X) == 0

    def test_scan_counts_as_often_as_it_runs(self):
        def scanned(x):
            return jax.lax.scan(lambda c, _: (c, c @ W), x, length=11)[1]

        assert measure.flops(scanned, X) == 11 * DOT
        assert measure.flops(jax.vmap(scanned), X[None].repeat(3, 0)) == 33 * DOT

    def test_conditional_counts_its_dearest_branch(self):
        def chosen(x, take):
            return jax.lax.cond(take, lambda: x @ W, lambda: (x @ W) @ (W.T @ W))

        assert measure.flops(chosen, X, True) == DOT + 2 * 7 * 6 * 7 + 2 * 5 * 7 * 7

    def test_while_counts_once(self):
        square = jnp.ones((5, 5))
        count = measure.flops(
            lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: square @ c, x), X
        )
        assert count == 2 * 5 * 5 * 6

    def test_every_device_counts(self):
        mesh = sharding.mesh_for(1)
        program = sharding.shard_map(
            lambda x: x @ W, mesh, sharding.REPLICATED, sharding.REPLICATED
        )
        assert measure.flops(program, X) == DOT
        (equation,) = jax.make_jaxpr(program)(X).eqns
        of_three = SimpleNamespace(
            primitive=equation.primitive,
            invars=equation.invars,
            outvars=equation.outvars,
            params=equation.params | {"mesh": SimpleNamespace(size=3)},
        )
        assert measure._of_equation(of_three) == 3 * DOT

    def test_gradient_takes_a_product_per_operand(self):
        def loss(x, w):
            return jnp.sin(x @ w).sum()

        assert measure.flops(jax.grad(loss), X, W) == 2 * DOT
        assert measure.flops(jax.grad(loss, (0, 1)), X, W) == 3 * DOT

    @pytest.mark.parametrize(
        "wrap",
        [
            jax.jit,
            jax.vmap,
            jax.checkpoint,
            with_own_gradient,
            lambda f: jax.jit(jax.checkpoint(jax.jit(f))),
        ],
    )
    def test_looks_into_wrapped_functions(self, wrap):
        assert measure.flops(wrap(lambda x: x @ W), X) == DOT

    def test_rematerialisation_counts(self):
        def loss(x):
            return jnp.sin(jax.checkpoint(lambda x: jnp.sin(x @ W) @ W.T)(x)).sum()

        plain = measure.flops(jax.grad(lambda x: jnp.sin(jnp.sin(x @ W) @ W.T).sum()), X)
        assert plain == 4 * DOT
        assert measure.flops(jax.grad(loss), X) == plain + DOT

    def test_agrees_with_xla_without_loops(self):
        """XLA leaves padding out of its count, so that no convolution here has any."""

        def network(images, kernel, strided, weights):
            hidden = convolve(images, kernel)
            hidden = convolve(hidden, strided, groups=4, stride=(2, 2))
            return hidden.reshape(3, -1) @ weights

        arguments = (
            jnp.ones((3, 12, 10, 3)),
            jnp.ones((3, 3, 3, 8)),
            jnp.ones((2, 4, 2, 12)),
            jnp.ones((5 * 3 * 12, 17)),
        )
        analysis = jax.jit(network).lower(*arguments).cost_analysis()
        assert measure.flops(network, *arguments) == analysis["flops"]

    def test_network_of_the_package(self):
        """Two 3x3 convolutions of 16 channels, each before a pooling by 2, and a linear layer."""
        network = models.create("ConvNetD2W16", num_classes=7, image_shape=(8, 8, 3))
        images = jnp.ones((5, 8, 8, 3))
        variables = network.init(jax.random.key(0), images)
        count = measure.flops(lambda v, x: network.apply(v, x).logits, variables, images)
        per_image = 8 * 8 * 16 * 9 * 3 + 4 * 4 * 16 * 9 * 16 + 2 * 2 * 16 * 7
        assert count == 2 * 5 * per_image


class TestGenerated:
    def test_counts(self):
        data = measure.generated(classes=4, groups=3, size=8, num_train=4003, num_test=41)
        train = data.cell_counts(data.train)
        assert train.shape == (4, 3)
        assert train.sum(1).tolist() == [1001, 1001, 1001, 1000]
        assert data.cell_counts(data.test).sum() == 41
        assert data.image_shape == (8, 8, 3)
        assert data.train.images.dtype == np.uint8
        # 0.9 of a class and a third of the rest: 933 of 1000, standard deviation 8.
        own = train[np.arange(4), np.arange(4) % 3]
        assert np.all(np.abs(own - 933) < 40)

    def test_bias(self):
        biased = measure.generated(classes=3, groups=3, size=4, num_train=300, bias=1.0)
        assert biased.cell_counts(biased.train).tolist() == np.diag([100] * 3).tolist()

    def test_seed_decides(self):
        one, same, other = (
            measure.generated(classes=2, groups=2, size=4, num_train=50, seed=seed).train
            for seed in (1, 1, 2)
        )
        assert np.array_equal(one.images, same.images)
        assert np.array_equal(one.groups, same.groups)
        assert not np.array_equal(one.images, other.images)


class TestTiming:
    def test_spread(self):
        spread = measure.spread([4.0, 1.0, 3.0, 2.0, 10.0])
        assert spread == {"median_s": 3, "min_s": 1, "max_s": 10, "iqr_s": 2, "runs": 5}

    def test_warmup_is_left_out(self, monkeypatch):
        ticks = iter([0.0, 10.0, 11.0, 20.0, 22.0])  # the end of the warm-up is not asked for
        monkeypatch.setattr(measure.time, "perf_counter", lambda: next(ticks))
        assert measure.seconds(lambda: X, runs=2, warmup=1) == [1.0, 2.0]

    def test_rate_of_the_matrix_product(self, monkeypatch):
        monkeypatch.setattr(measure, "seconds", lambda *_, **__: [4.0, 2.0, 3.0])
        assert measure.matmul_rate(10) == 2 * 10**3 / 2.0


class TestGrid:
    def test_varies_one_factor_at_a_time(self):
        found = step_time.grid(("dm",), factor=None, full=False, model="ConvNet")
        assert found[0] == Case()
        assert len(set(found)) == len(found)
        fields = asdict(Case())
        for case in found:
            base = replace(Case(), kind=case.kind)
            assert sum(getattr(case, name) != getattr(base, name) for name in fields) <= 1
        updates = [case for case in found if case.kind == "update"]
        for factor, values in step_time.FACTORS.items():
            assert set(values) <= {getattr(case, factor) for case in updates}

    def test_has_every_method_and_fits_an_hour(self):
        found = step_time.grid(step_time.METHODS, factor=None, full=False, model="ConvNet")
        assert {case.method for case in found} == {"dm", "dc", "dsa"}
        assert {case.kind for case in found} == {"update", "inner_epoch", "evaluation_epoch"}
        assert sum(step_time.expected_seconds(case, 10) for case in found) < 3600

    def test_full_crosses_the_factors(self):
        found = step_time.grid(step_time.METHODS, factor=None, full=True, model="ConvNet")
        updates = {case for case in found if case.kind == "update"}
        assert len(updates) == 3 * 2 * 2 * 5 * 3
        extreme = Case("update", "dsa", "vanilla", "proportional", groups=2, size=96)
        assert extreme in updates

    def test_one_factor(self):
        found = step_time.grid(("dc",), factor="groups", full=False, model="ConvNet")
        assert {case.kind for case in found} == {"update"}
        assert sorted(case.groups for case in found) == [2, 4, 6, 8, 10]

    def test_rows_of_a_factor(self):
        rows = [
            asdict(case) | {"median_s": 1.0, "chunk_used": case.chunk or 10}
            for case in step_time.grid(step_time.METHODS, factor=None, full=True, model="ConvNet")
        ]
        rows += [asdict(Case(chunk=16)) | {"median_s": 2.0, "chunk_used": 16}]
        rows += [asdict(Case(groups=3)) | {"error": "exit status 1"}]
        groups = step_time.varying(rows, "update", "dm", "groups")
        assert list(groups) == [2, 4, 6, 8, 10]
        assert all(row["size"] == 32 and row["chunk"] is None for row in groups.values())
        assert list(step_time.varying(rows, "update", "dm", "chunk")) == [10, 16]


@pytest.fixture
def matmul(monkeypatch):
    """The rate of the matrix product, which takes long to measure: 1 GFLOP/s."""
    monkeypatch.setattr(measure, "matmul_rate", lambda *_, **__: 1e9)


def check_rates(row):
    assert row["min_s"] <= row["median_s"] <= row["max_s"]
    assert row["gflop_per_s"] == pytest.approx(row["flops"] / row["median_s"] / 1e9)
    assert row["matmul_gflop_per_s"] == 1


@pytest.mark.usefixtures("matmul")
@pytest.mark.slow
class TestCases:
    def test_update(self):
        row = cases.update(SMALL, 2)
        check_rates(row)
        assert row["fraction_of_matmul"] == pytest.approx(row["gflop_per_s"])
        assert row["real_images_per_class"] == 16
        assert row["images_per_s"] == pytest.approx(2 * (16 + 1) / row["median_s"])
        assert row["runs"] == 2
        assert row["peak_memory_mib"] > 1
        # A convolution of 8 channels at 8x8 pixels: forward for all images, and for the synthetic
        # ones backward to the images; the centres, and little else.
        convolution = 2 * 8 * 8 * 8 * 9 * 3
        assert 1 <= row["flops"] / (2 * (16 + 2) * convolution) < 1.3

    def test_update_without_training_in_between(self, monkeypatch):
        """Of a network that serves several updates, each is timed as the first."""
        one = cases.Update(replace(SMALL, method="dc", ipc=10))
        assert one.step.config.outer_loops == 10
        numbers = []
        compiled = one.compiled
        monkeypatch.setattr(
            one, "compiled", lambda s, *rest: numbers.append(int(s.update)) or compiled(s, *rest)
        )
        assert len(one.seconds(3)) == 3
        assert numbers == [0, 10, 20]
        monkeypatch.setattr(one, "block", 4)
        monkeypatch.setattr(measure, "seconds", lambda *_, **__: [8.0])
        assert one.seconds(1) == [2.0]

    def test_epochs(self):
        row = cases.inner_epoch(replace(SMALL, method="dc"), 2)
        check_rates(row)
        assert row["strategy"] == "none"
        assert row["images_per_s"] == pytest.approx(2 / row["median_s"])
        # Two images, forward and for the weights backward: no gradient for the images.
        layers = 8 * 8 * 8 * 9 * 3 + 4 * 4 * 8 * 2
        assert row["flops"] == pytest.approx(2 * 2 * 2 * layers, rel=0.1)

    def test_feature_pass(self):
        small = replace(SMALL, num_train=cases.FEATURE_IMAGES)
        row = cases.feature_pass(small, 2)
        check_rates(row)
        assert row["images"] == 2560
        assert row["fraction_min"] <= row["fraction_of_matmul"] <= row["fraction_max"]
        assert row["flops"] == pytest.approx(2 * 2560 * 8 * 8 * 8 * 9 * 3, rel=0.1)

    def test_fairness_ratio(self, monkeypatch):
        """The first pair is the warm-up; the others' ratios are 3 / 2 and 4 / 2."""
        turns = {"vanilla": iter([9.0, 2.0, 2.0]), "fairdd": iter([1.0, 3.0, 4.0])}

        class Update:
            def __init__(self, case):
                self.fairness = case.fairness
                sampler = SimpleNamespace(batch_size=16)
                self.step = SimpleNamespace(draws=SimpleNamespace(sampler=sampler))

            def seconds(self, runs):
                return [next(turns[self.fairness]) for _ in range(runs)]

        monkeypatch.setattr(cases, "Update", Update)
        row = cases.fairness_ratio(SMALL, 2)
        assert (row["ratio_min"], row["ratio"], row["ratio_max"]) == (1.5, 1.75, 2.0)
        assert row["vanilla"]["median_s"] == 2
        assert row["fairdd"]["max_s"] == 4


def test_step_time_survives_a_failing_case(tmp_path, monkeypatch, capsys):
    """Rows are written as they come; the last case fails in a process of its own."""
    good = {"chunk_used": 8, **measure.spread([1.0, 2.0]), "compile_s": 0.0}
    good |= cases._rates([1.0, 2.0], 10**9, [1e9])
    run = subprocess.run

    def one_process(command, **options):
        """Only the case that fails is worth a process."""
        case = json.loads(command[2])
        if case["model"] == "Nonsense":
            done = run(command, **options, stderr=subprocess.PIPE)
            assert "Nonsense" in done.stderr
            return done
        printed = json.dumps({"row": case | good, "environment": {"jax": "0"}})
        return subprocess.CompletedProcess(command, 0, stdout=f"noise\n{printed}\n")

    todo = [SMALL, replace(SMALL, model="Nonsense")]
    monkeypatch.setattr(step_time, "grid", lambda *_, **__: todo)
    monkeypatch.setattr(subprocess, "run", one_process)
    monkeypatch.setattr(step_time, "plot", lambda rows, path: path.touch())
    out = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["step_time.py", "--runs", "1", "--out", str(out)])
    assert step_time.main() == 1
    written = json.loads(out.read_text())
    first, second = written["rows"]
    assert written["environment"] == {"jax": "0"}
    assert first["median_s"] == 1.5
    assert second["error"] == "exit status 1"
    assert out.with_suffix(".png").exists()
    assert "exit status 1" in capsys.readouterr().out


@pytest.mark.slow
def test_step_time_in_a_process(tmp_path, monkeypatch):
    monkeypatch.setattr(step_time, "grid", lambda *_, **__: [SMALL])
    out = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["step_time.py", "--runs", "1", "--out", str(out)])
    monkeypatch.setattr(step_time, "plot", lambda rows, path: None)
    assert step_time.main() == 0
    row = json.loads(out.read_text())["rows"][0]
    assert 0 < row["fraction_of_matmul"] < 1


def test_step_time_plot(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        asdict(case)
        | {"chunk_used": case.chunk or 8, "median_s": 1.0 + i, "min_s": 0.5 + i, "max_s": 2.0 + i}
        for i, case in enumerate(
            step_time.grid(step_time.METHODS, factor=None, full=False, model="ConvNet")
        )
    ]
    for name, some in (("all", rows), ("few", rows[:3])):
        step_time.plot(some, tmp_path / f"{name}.png")
        assert 0 < (tmp_path / f"{name}.png").stat().st_size < 200_000


def point(update, accuracy, deo_max):
    return {"update": update, "seconds": 2.0 * update, "accuracy": accuracy, "deo_max": deo_max}


class TestTimeToQuality:
    def test_goal(self):
        assert time_to_quality.good(point(1, 0.93, 0.17))
        assert not time_to_quality.good(point(1, 0.929, 0.17))
        assert not time_to_quality.good(point(1, 0.93, 0.171))

    def test_reached(self):
        met, missed = (0.94, 0.1), (0.94, 0.3)

        def of(*scores):
            return time_to_quality.reached([point(i, *score) for i, score in enumerate(scores)])

        assert of(missed, missed) is None
        assert of(missed, met, missed) == {"update": 1, "seconds": 2.0, "confirmed": False}
        assert of(met, missed, met, met) == {"update": 2, "seconds": 4.0, "confirmed": True}

    def test_official_estimate(self, tmp_path):
        sides = {"official": {"median_s": 2.5}, "proportional": {"median_s": 1.0}}
        written = {"cases": [{"case": "dm_vanilla", "sides": {}}]}
        written["cases"].append({"case": "dm_fairdd", "sides": sides})
        path = tmp_path / "official.json"
        path.write_text(json.dumps(written))
        step_s = time_to_quality.official_step(path)
        curves = {"proportional fairdd": {"reached": {"update": 400}}}
        estimate = time_to_quality.official_estimate(curves, step_s)
        assert estimate == {"step_s": 2.5, "reached": {"updates": 400, "seconds": 1000.0}}
        assert time_to_quality.official_estimate({}, step_s)["reached"] is None

    @pytest.mark.slow
    def test_stops_at_the_goal_and_keeps_other_curves(self, tmp_path, monkeypatch):
        """Every score is in the JSON as soon as it is known."""
        out = tmp_path / "curves.json"
        out.write_text(json.dumps({"curves": {"other": {"points": []}}}))
        monkeypatch.setattr(time_to_quality, "ACCURACY", 0.0)
        monkeypatch.setattr(time_to_quality, "DEO_M", 1.0)
        lengths = []

        def draw(results, path):
            lengths.append(sorted(results["curves"]))

        monkeypatch.setattr(time_to_quality, "plot", draw)
        write = time_to_quality.workdir.write_json

        def count(path, results):
            write(path, results)
            lengths.append(len(results["curves"]["stratified fairdd"]["points"]))

        monkeypatch.setattr(time_to_quality.workdir, "write_json", count)
        arguments = ["--data_dir", str(HEAD), "--only", "stratified fairdd", "--updates", "1"]
        arguments += ["2", "3", "--epochs", "1", "--ipc", "1", "--model", "ConvNetD1W8"]
        monkeypatch.setattr(sys, "argv", ["time_to_quality.py", *arguments, "--out", str(out)])
        assert time_to_quality.main() == 0
        assert lengths == [1, 2, ["other", "stratified fairdd"]]
        curve = json.loads(out.read_text())["curves"]["stratified fairdd"]
        first, second = curve["points"]
        assert (first["update"], second["update"]) == (1, 2)
        assert first["compile_s"] < first["seconds"] < second["seconds"]
        assert curve["reached"] == {**curve["reached"], "update": 1, "confirmed": True}
        assert 0 <= first["accuracy"] <= 1

    def test_missing_data_is_said(self, tmp_path, monkeypatch, capsys):
        out = str(tmp_path / "curves.json")
        nowhere = str(tmp_path / "nowhere")
        monkeypatch.setenv("TFDS_DATA_DIR", nowhere)
        arguments = ["time_to_quality.py", "--data_dir", nowhere, "--out", out]
        monkeypatch.setattr(sys, "argv", arguments)
        assert time_to_quality.main() > 0
        assert nowhere in capsys.readouterr().err

    def test_plot(self, tmp_path):
        curves = {
            name: {
                "sampling": name.split()[0],
                "fairness": name.split()[1],
                "ipc": 10,
                "epochs": 1,
                "points": [point(1, 0.5, 0.5), point(2, 0.6, 0.4)],
            }
            for name in time_to_quality.CURVES
        }
        results = {"curves": curves, "official": {"reached": {"seconds": 9.0}}}
        time_to_quality.plot(results, tmp_path / "curves.png")
        assert 0 < (tmp_path / "curves.png").stat().st_size < 200_000


class TestDryRun:
    @pytest.mark.parametrize("name", dry_run.ROWS)
    def test_its_commands_are_ones(self, name):
        command = command_line.read_command(dry_run.ROWS[name].split(), description=None)
        assert command.options.config == name

    def test_what_is_known_is_not_run_again(self, tmp_path, monkeypatch):
        known = {
            "dry_run_s": 20.0,
            "estimate": {"total_seconds": 90.0, "peak_bytes": 2**30, "seconds": {}},
            "run_s": 120.0,
            "peak_memory_bytes": 3 * 2**29,
        }
        asked = []
        monkeypatch.setattr(dry_run, "compare", lambda arguments: asked.append(arguments) or known)
        out = tmp_path / "dry_run.json"
        stale = {"demo": {**known, "command": "--config demo --ipc 99"}}
        out.write_text(json.dumps(stale))
        for _ in range(2):
            results = dry_run.collect(["demo", "cmnist_fg_dc"], out, HEAD)
        first, second = asked
        assert first == ["--config", "demo"]
        assert second[-2:] == ["--data_dir", str(HEAD)]
        assert json.loads(out.read_text()) == results
        *_, demo, dc = dry_run.lines(results)
        assert demo == "| `--config demo` | 90 | 120 | -25 % | 1.00 | 1.50 | 20 |"
        assert dc.startswith("| `--config cmnist_fg_dc")
