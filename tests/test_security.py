"""What files from elsewhere cannot do, and what the program does not do unasked."""

import ast
import gzip
import io
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
from originals import encoded, picture
from test_run import HEAD_RUN, load_script, own_surroundings

from fairdd_jax import load_distilled
from fairdd_jax.data import files, idx
from fairdd_jax.errors import DataError

__all__ = ["own_surroundings"]  # a fixture of every test here
ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "fairdd_jax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])
# Modules that run what they read, and calls that do; the one reader that is allowed.
RUN_WHAT_THEY_READ = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system"}
CALLS |= {"pickle.load", "pickle.loads", "yaml.load"}
ALLOWED = ROOT / "fairdd_jax" / "data" / "cifar_batches.py"


def offences(path):
    """Lines of a source file that could run what they read."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").partition(".")[0]]
        if RUN_WHAT_THEY_READ & set(names) and path != ALLOWED:
            yield node.lineno
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            is_load = called.endswith("np.load") or called == "numpy.load"
            unpickles = is_load and options.get("allow_pickle") != "False"
            unpickles |= called == "torch.load" and options.get("weights_only") != "True"
            if called in CALLS or unpickles or options.get("shell") == "True":
                yield node.lineno


def test_nothing_runs_what_it_reads():
    assert len(SOURCES) > 100
    found = {str(path): lines for path in SOURCES if (lines := list(offences(path)))}
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import cloudpickle.x as y",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path, weights_only=False)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_search_finds_it(tmp_path, line):
    path = tmp_path / "module.py"
    path.write_text(f"import os\n{line}\n")
    assert list(offences(path)) == [2]


def test_the_allowed_reader_knows_arrays_alone():
    """It has a class of its own that refuses every other name; nothing else is called."""
    tree = ast.parse(ALLOWED.read_text())
    used = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert {name for name in used if name.startswith("pickle.")} == {
        "pickle.Unpickler",
        "pickle.UnpicklingError",
    }
    (reader,) = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.bases)
    assert "find_class" in {n.name for n in reader.body if isinstance(n, ast.FunctionDef)}


def test_archives_stay_packed(tmp_path):
    """Names that lead out of the folder lead nowhere."""
    image = encoded(picture(np.random.default_rng(0), 9, 9, label=0, group=0), "PNG")
    archive = tmp_path / "inside" / "images.zip"
    archive.parent.mkdir()
    names = ["../outside.png", "/absolute.png", "a/../../b.png"]
    with zipfile.ZipFile(archive, "w") as file:
        for name in names:
            file.writestr(name, image)
    packed = files.Zip(archive, names)
    assert [packed.read(i) for i in range(3)] == [image] * 3
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["images.zip", "inside"]
    assert not Path("/absolute.png").exists()


def test_an_image_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 10_000)
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros.png", bytes(10_001))
        file.writestr("small.png", bytes(10_000))
    assert archive.stat().st_size < 500
    packed = files.Zip(archive, ["zeros.png", "small.png"])
    with pytest.raises(OSError, match="10001 bytes, more than the 10000"):
        packed.read(0)
    assert packed.read(1) == bytes(10_000)
    (tmp_path / "zeros.png").write_bytes(bytes(10_001))
    with pytest.raises(OSError, match="10001 bytes, more than the 10000"):
        files.Folder(tmp_path, ["zeros.png"]).read(0)


def test_an_archive_that_lies_about_a_size(tmp_path):
    """What is said is the most that is unpacked, and it is checked."""
    archive = tmp_path / "lie.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros.png", bytes(100_000))
    content = archive.read_bytes()
    archive.write_bytes(content.replace((100_000).to_bytes(4, "little"), (9).to_bytes(4, "little")))
    with pytest.raises(OSError, match="CRC"):
        files.Zip(archive, ["zeros.png"]).read(0)


def test_a_pipe_among_images_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="it is a pipe"):
        files.Folder(tmp_path, ["pipe.png"]).read(0)


def test_a_device_among_images_is_not_read(tmp_path):
    """A null device has an end, unlike that of zeros, should it be read after all."""
    (tmp_path / "null.png").symlink_to("/dev/null")
    with pytest.raises(OSError, match="a device"):
        files.Folder(tmp_path, ["null.png"]).read(0)


def test_packed_digits_that_unpack_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "LARGEST", 1000)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(DataError, match="unpack to more than 1000; get it again"):
        idx.read_idx(path, dimensions=3)


def test_a_distilled_set_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr("fairdd_jax.folder.LARGEST", 1000)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=np.zeros(100_000, np.uint8))
    path = tmp_path / "distilled.npz"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="unpacks to 100128 bytes, more than 1000"):
        load_distilled(path)


def test_no_network_unless_it_is_asked_for(tmp_path, monkeypatch, capsys):
    """A whole run opens no connection; that of missing data says --download instead."""

    def refuse(*args, **options):
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(AssertionError, match="connection"):
        socket.create_connection(("127.0.0.1", 9))
    script = load_script()
    assert script.main([*HEAD_RUN, "--steps", "1", "--workdir", str(tmp_path / "run")]) == 0
    assert script.main(["--config", "celeba_dm", "--data_dir", str(tmp_path)]) == 3
    assert "--download" in capsys.readouterr().err
