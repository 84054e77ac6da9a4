"""IDC: gradient matching of images that each hold several, with a network trained on real images.

What it adds to DC are settings, multi-formation (`fairdd_jax.formation`) among them, which the
presets hold: those of its authors, and with ``--recipe cobra`` those that COBRA's code really runs
(no augmentation, a network that is never trained, crops enlarged corner to corner). DREAM is IDC on
representative real images.

References: Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization (ICML
2022); Liu et al., DREAM: Efficient Dataset Distillation by Representative Matching (ICCV 2023).
Deviations from the authors' code: the classes are updated together, where theirs take a step of the
one optimiser after every class, so that the momentum of a class goes on during the steps of the
others; the sum of what a gradient moves is the same. The default sampler takes `per_cell` images of
every group in place of their batch. Digits are 32 pixels wide, not 28. Subsets of ImageNet keep the
network of the other methods, untrained before the first update, where theirs is a ResNet with 10
epochs of training. Networks that score are trained as all others here, where theirs lower the rate
after two thirds and five sixths. DREAM starts from random images, theirs from cluster centres.
"""

import dataclasses

from fairdd_jax.data import DataConfig
from fairdd_jax.methods.dc import DC, dc_loops

# The authors' learning rates, in units of pixel values, at IPC 10; they grow with IPC, since the
# loss is a mean over images, and with the area of an image: of one with this side they are as they
# stand here. Without an entry: COBRA's.
_LR_IMG = {"kernel_mse": 5e-3, "kernel_l1": 1e-4}
_LR_IMG_IMAGENET = {"kernel_mse": 5e-3, "kernel_l1": 3e-3}
_SIDE, _SIDE_IMAGENET = 32, 224
_LR_IMG_COBRA = 0.1
_FACTOR = 2
_FACES = ("utkface", "bffhq")
_LONG_LOOPS = (50, 100)


def lr_img(data: DataConfig, ipc: int, distance: str) -> float:
    """The authors' learning rate of a distance, or COBRA's.

    >>> lr_img(DataConfig("cifar10s"), 50, "kernel_mse"), lr_img(DataConfig("cifar10s"), 50, "ours")
    (0.025, 0.1)
    >>> lr_img(DataConfig("celeba", size=64), 10, "kernel_mse")
    0.02
    """
    subset = data.name.startswith("imagenet_")
    rates, side = (_LR_IMG_IMAGENET, _SIDE_IMAGENET) if subset else (_LR_IMG, _SIDE)
    if distance not in rates:
        return _LR_IMG_COBRA
    return rates[distance] * ipc / 10 * ((data.size or _SIDE) / side) ** 2


def loops(ipc: int, on_real: bool) -> tuple[int, int]:
    """The authors' 100 updates per network, or COBRA's, whose network is not trained at all.

    >>> loops(10, True), loops(10, False), loops(50, False)
    ((100, 0), (10, 0), (30, 0))
    """
    if on_real:
        return 100, 0
    return (30 if ipc in _LONG_LOOPS else dc_loops(ipc)[0]), 0


def factor(dataset: str, ipc: int) -> int:
    """Crops along each side, by data set and IPC as in COBRA's code.

    >>> factor("celeba", 10), factor("bffhq", 10), factor("bffhq", 100)
    (2, 4, 3)
    """
    if dataset in _FACES:
        return 3 if ipc >= 100 else 4
    return _FACTOR


IDC = dataclasses.replace(
    DC,
    summary="IDC, matches gradients of several images in one",
    lr_img=lr_img,
    loops=loops,
    factor=factor,
)
