"""The official PyTorch program in a process of its own, one step at a time.

Nothing of it is here: a checkout runs as it is, but for what `official` says of its `utils`.
"""

import importlib.abc
import importlib.machinery
import multiprocessing
import os
import runpy
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from fairdd_jax.data import Dataset
from fairdd_jax.errors import ConfigError

PROGRAMS = {"dm": "main_DM.py", "dc": "main_DC.py"}
IPC = 10
BATCH_REAL = 256
# Training epochs per turn: each draws one augmentation, and these differ in cost.
EPOCHS = 10
NEVER = 10**9


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules in place of missing ones that only the official data sets need."""

    names = ("torchvision", "scipy.ndimage.interpolation")

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Claim the missing modules; a finder at the end of the list sees no others."""
        missing = any(name == own or name.startswith(f"{own}.") for own in self.names)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if missing else None

    def exec_module(self, module: ModuleType) -> None:
        """Every attribute is a class: the official program subclasses and calls some."""

        def attribute(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {"__init__": lambda self, *_, **__: None})

        vars(module)["__getattr__"] = attribute


@dataclass
class Gate:
    """Where the official program waits between two steps.

    Attributes:
      connection: tells the seconds of a turn; hears how many steps the next turn has.
      left: steps that may begin before the gate shuts; those at the start are the warm-up.
      settle: waits for the device.
    """

    connection: Connection
    left: int
    settle: Callable[[], None]
    began: float = 0.0

    def __call__(self) -> None:
        """End a step and begin the next."""
        if self.left == 0:
            self.settle()
            taken = time.perf_counter() - self.began
            try:
                self.connection.send(taken)
                self.left = self.connection.recv()
            except (EOFError, BrokenPipeError):
                sys.exit()
            self.began = time.perf_counter()
        self.left -= 1

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the gate before every call."""

        def gated(*arguments: Any, **options: Any) -> Any:
            self()
            return function(*arguments, **options)

        return gated


def run_official(
    connection: Connection, folder: Path, method: str, fairness: str, dataset: Dataset
) -> None:
    """Body of the process: take steps until the connection is closed."""
    sys.path.insert(0, str(folder))
    sys.meta_path.append(StandIns())
    warnings.simplefilter("ignore")
    import torch

    utils: Any = importlib.import_module("utils")
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    versions = {"torch": torch.__version__, "torch_threads": torch.get_num_threads()}
    connection.send(versions | {"torch_device": device})
    mean, std = (torch.tensor(x).view(1, -1, 1, 1) for x in (dataset.mean, dataset.std))
    images = torch.from_numpy(dataset.train.images).permute(0, 3, 1, 2).float().div_(255)
    images = images.sub_(mean).div_(std).contiguous()
    # The first matching update of DC has no gate before it, only the epoch after it.
    warmup = {"dm": 1, "dc": 0, "epoch": EPOCHS}[method]
    gate = Gate(connection, warmup, torch.cuda.synchronize if cuda else lambda: None)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        if method == "epoch":
            labels = np.repeat(np.arange(dataset.num_classes), IPC)
            chosen = [np.flatnonzero(dataset.train.labels == c)[:IPC] for c in np.unique(labels)]
            train_official(
                utils, gate, images[np.concatenate(chosen)], torch.tensor(labels), device
            )
        else:
            distil_official(utils, gate, folder / PROGRAMS[method], fairness, images, dataset)


def train_official(utils: Any, gate: Gate, images: Any, labels: Any, device: str) -> None:
    """Train an evaluation network for ever, with the gate before every epoch."""
    utils.epoch = gate.before(utils.epoch)
    options = SimpleNamespace(
        device=device,
        lr_net=0.01,
        epoch_eval_train=NEVER,
        batch_train=256,
        dsa=True,
        dsa_strategy="color_crop_cutout_flip_scale_rotate",
        dsa_param=utils.ParamDiffAug(),
    )
    channels, *size = images.shape[1:]
    network = utils.get_network("ConvNet", channels, len(labels.unique()), tuple(size))
    utils.evaluate_synset(0, network, images, labels, None, options)


def distil_official(
    utils: Any, gate: Gate, program: Path, fairness: str, images: Any, dataset: Dataset
) -> None:
    """Run main_DM.py with the gate before every iteration, or main_DC.py between its updates."""
    labels, groups = dataset.train.labels.tolist(), dataset.train.groups.tolist()
    training = list(zip(images, labels, groups, strict=True))
    channels, *size = images.shape[1:]
    about = (dataset.num_classes, dataset.classes, dataset.mean, dataset.std)
    utils.get_dataset = lambda *_: (channels, tuple(size), *about, training, None, None)
    utils.get_eval_pool = lambda *_: []
    if program.name == PROGRAMS["dm"]:
        utils.get_network = gate.before(utils.get_network)
    else:  # One network, updates for ever, no training in between.
        utils.get_loops = lambda _: (NEVER, 1)
        utils.epoch = lambda *_, **__: gate()
    with tempfile.TemporaryDirectory() as results:
        sys.argv = [str(program), "--dataset", "Colored_MNIST_foreground", "--model", "ConvNet"]
        sys.argv += ["--ipc", str(IPC), "--batch_real", str(BATCH_REAL), "--save_path", results]
        sys.argv += ["--FairDD"] if fairness == "fairdd" else []
        runpy.run_path(str(program), run_name="__main__")


class Official:
    """The official program in a process of its own."""

    def __init__(self, folder: Path, method: str, fairness: str, dataset: Dataset):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, folder, method, fairness, dataset)
        self._process = context.Process(target=run_official, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self.versions: dict[str, Any] = self._receive()
        self._receive()  # The warm-up.

    def __enter__(self) -> "Official":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()

    def turn(self, steps: int) -> float:
        """Seconds per step."""
        self._connection.send(steps)
        return self._receive() / steps

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            raise ConfigError(
                "the official program ended with the error above; give --official an unchanged "
                "checkout of github.com/zqhang/FairDD"
            ) from None
