"""Results of the official programs: what they save is found again, and nothing of it is run."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from test_run import HEAD, own_surroundings

from fairdd_jax import load_distilled, official_file
from fairdd_jax.data.normalise import to_pixels

__all__ = ["own_surroundings"]  # a fixture of every test here
main = runpy.run_path(str(Path(__file__).parents[1] / "experiments" / "convert_pt.py"))["main"]
FAIRDD = ["--config", "cmnist_fg_dm", "--recipe", "official"]
IDC = ["--config", "cmnist_fg_idc", "--recipe", "cobra"]
IPC, CLASSES = 2, 10


def converted(path, *arguments):
    target = path.with_suffix(".npz")
    assert main([str(path), str(target), "--data_dir", str(HEAD), *arguments]) == 0
    return load_distilled(target)


def refused(capsys, code, message, *arguments):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert "weights_only" not in printed.err  # no advice to read it unsafely


def test_without_pytorch_it_says_what_to_install(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    arguments = [tmp_path / "x.pt", tmp_path / "x.npz", *FAIRDD]
    refused(capsys, 3, 'takes PyTorch: pip install "fairdd-jax[torch]"', *arguments)


def test_arguments(capsys, tmp_path):
    refused(capsys, 2, "FILE.pt OUT.npz must come before the options", *FAIRDD)
    refused(capsys, 2, "--config NAME or --data.name NAME is missing", "x.pt", "x.npz")
    refused(capsys, 2, "--experiment", "x.pt", "x.npz", *FAIRDD, "--experiment", "first")
    refused(capsys, 2, "is written and ends in .npz, got y.pt", "x.pt", "y.pt", *FAIRDD)
    refused(capsys, 2, "--workdir means nothing here", "x.pt", "x.npz", *FAIRDD, "--workdir", "y")
    assert main(["--help"]) == 0
    assert "convert_pt.py FILE.pt OUT.npz" in capsys.readouterr().out


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def saved(torch, tmp_path):
    """A function that saves as the official programs do; and what it saves by default."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((CLASSES * IPC, 3, 32, 32), generator=generator)
    labels = torch.arange(CLASSES).repeat_interleave(IPC)
    # The programs' round(accuracy * 100, 2) of a mean of NumPy counts.
    accuracies = {"ConvNet": [round(np.int64(8123) / 10000 * 100, 2)]}
    assert type(accuracies["ConvNet"][0]) is np.float64

    def save(data, **more):
        path = tmp_path / "res_DM.pt"
        torch.save({"data": data, "accs_all_exps": accuracies, **more}, path)
        return path

    return save, images, labels


def channels_last(images):
    return np.moveaxis(images.numpy(), 1, -1)


def test_each_experiment_is_found_again(saved, capsys):
    save, images, labels = saved
    path = save([[images, labels], [images + 1, labels]])
    first = converted(path, *FAIRDD)
    assert capsys.readouterr().out.startswith("20 images of 10 classes, experiment 0 of 2, written")
    np.testing.assert_array_equal(first.images_float, channels_last(images))
    np.testing.assert_array_equal(first.labels, labels.numpy())
    pixels = to_pixels(channels_last(images), mean=(0.5,) * 3, std=(0.5,) * 3)
    np.testing.assert_array_equal(first.images, pixels)
    assert first.mean == first.std == (0.5,) * 3
    assert first.class_names == tuple("0123456789")
    assert first.images_coded is None
    second = converted(path, *FAIRDD, "--experiment", "1")
    np.testing.assert_array_equal(second.images_float, channels_last(images + 1))
    refused(capsys, 2, "--experiment 2 is out of range;", path, "x.npz", *FAIRDD, "--experiment=2")
    refused(capsys, 2, "--experiment -1 is", path, "x.npz", *FAIRDD, "--experiment=-1")


def test_the_set_knows_how_it_is_scored(saved):
    save, images, labels = saved
    config = converted(save([[images, labels]]), *FAIRDD).meta["config"]
    assert (config["data"]["name"], config["method"], config["ipc"]) == ("cmnist_fg", "dm", IPC)
    assert (config["evaluate"]["networks"], config["evaluate"]["empty"]) == (20, "official")


def test_other_orders_become_that_of_the_classes(saved, torch):
    save, images, labels = saved
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    found = converted(save([[images[order], labels[order]]]), *FAIRDD)
    np.testing.assert_array_equal(found.labels, labels.numpy())
    for label in range(CLASSES):
        expected = channels_last(images[order][labels[order] == label])
        np.testing.assert_array_equal(found.images_float[found.labels == label], expected)


def test_images_of_idc_are_decoded_as_its_program_does(saved, torch, capsys):
    """By PyTorch's own interpolation, corner to corner."""
    save, images, labels = saved
    path = save([images, labels])
    found = converted(path, *IDC)
    assert found.images.shape == (CLASSES * IPC * 4, 32, 32, 3)
    np.testing.assert_array_equal(found.labels, np.repeat(np.arange(CLASSES), IPC * 4))
    np.testing.assert_array_equal(found.images_coded, channels_last(images))
    crops = torch.cat(
        [images[:, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16] for i in (0, 1) for j in (0, 1)]
    )
    enlarge = torch.nn.Upsample(size=(32, 32), mode="bilinear", align_corners=True)
    expected = channels_last(enlarge(crops))[np.argsort(labels.repeat(4).numpy(), kind="stable")]
    np.testing.assert_allclose(found.images_float, expected, atol=1e-5)
    assert found.meta["config"]["ipc"] == IPC
    wrong = ["x.npz", "--data_dir", HEAD]
    refused(capsys, 2, "COBRA's IDC, whose images", path, *wrong, *FAIRDD)
    published = ["--config", "cmnist_fg_idc"]  # which enlarges crops in another way
    refused(capsys, 2, "COBRA's IDC, whose images", path, *wrong, *published)
    refused(capsys, 2, "are not coded", save([[images, labels]]), *wrong, *IDC)


def test_what_is_no_result(saved, torch, tmp_path, capsys):
    save, images, labels = saved
    target = tmp_path / "x.npz"
    wrong = [
        [],
        [[images]],
        [[images, labels[:-1]]],
        [[images[0], labels]],
        [[images.long(), labels]],
        [[images, labels.float()]],
        [[images * float("nan"), labels]],
        [images, labels, labels],
        "images",
        3,
    ]
    for data in wrong:
        refused(capsys, 3, "no result of the official programs", save(data), target, *FAIRDD)
    torch.save([images, labels], tmp_path / "list.pt")
    refused(capsys, 3, "no result of the official", tmp_path / "list.pt", target, *FAIRDD)
    refused(capsys, 3, "no file at", tmp_path / "none.pt", target, *FAIRDD)
    for content in (b"", b"hello", save([[images, labels]]).read_bytes()[:5000]):
        (tmp_path / "cut.pt").write_bytes(content)
        refused(
            capsys, 3, "is not a readable file of PyTorch", tmp_path / "cut.pt", target, *FAIRDD
        )
    head = ["--data_dir", HEAD]
    for data, message in (
        ([[images[:, :1], labels]], "images of (32, 32, 1), cmnist_fg of (32, 32, 3)"),
        ([[images[..., :28], labels]], "images of (32, 28, 3), cmnist_fg"),
        ([[images, labels + 1]], "labels 1 to 10, cmnist_fg has 10 classes"),
        ([[images, labels // 2]], "labels 0 to 4, cmnist_fg has 10 classes"),
        ([[images, labels * 2**40]], "cmnist_fg has 10 classes"),
    ):
        refused(capsys, 2, message, save(data), target, *FAIRDD, *head)
    assert not target.exists()


def test_nothing_in_a_file_is_run(saved, tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").write_text, ("!",))

    save, images, labels = saved
    path = save([[images, labels]], trap=Trap())
    refused(capsys, 3, "not read because a file could run", path, tmp_path / "x.npz", *FAIRDD)
    assert not (tmp_path / "sprung").exists()


def test_numbers_of_numpy_are_left_aside(saved, torch):
    """PyTorch's safe reader alone refuses them; nothing of NumPy is called in their stead."""
    save, images, labels = saved
    path = save([[images, labels]])
    with pytest.raises(Exception, match="weights_only"):
        torch.load(path, weights_only=True)
    assert len(official_file.read(path)) == 1
    assert not any("numpy" in str(name) for name in torch.serialization.get_safe_globals())


def test_the_code_of_the_guide_reads_it(saved, tmp_path, monkeypatch):
    save, images, labels = saved
    save([[images, labels]]).rename(tmp_path / "res_DM_....pt")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "experiments" / "docs" / "takeaway.md").read_text()
    (code,) = (block for block in text.split("```") if "safe_globals(" in block)
    found = {}
    exec(code, found)
    assert found["content"]["accs_all_exps"]["ConvNet"] == [81.23]


def test_a_converted_set_is_scored_like_any(saved, capsys, tmp_path):
    save, images, labels = saved
    path = save([[images, labels]])
    converted(path, *FAIRDD, "--model", "ConvNetD1W8", "--dsa_strategy", "none")
    evaluate = runpy.run_path(str(Path(__file__).parents[1] / "experiments" / "evaluate.py"))
    options = ["--evaluate.networks=1", "--evaluate.epochs=1", "--evaluate.uint8_networks=0"]
    arguments = [str(path.with_suffix(".npz")), "--data_dir", str(HEAD), *options]
    assert evaluate["main"]([*arguments, "--workdir", str(tmp_path / "scores")]) == 0
    (scores,) = json.loads((tmp_path / "scores" / "evaluation.json").read_text())["evaluations"]
    assert scores["optimiser_steps"] == 2
