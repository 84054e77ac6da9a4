"""Matching methods by name."""

import dataclasses

from fairdd_jax.errors import unknown_name
from fairdd_jax.methods.cafe import CAFE
from fairdd_jax.methods.dc import DC
from fairdd_jax.methods.dm import DM
from fairdd_jax.methods.idc import IDC
from fairdd_jax.methods.method import Method

__all__ = ["METHODS", "Method", "method_named"]

METHODS: dict[str, Method] = {
    "dm": DM,
    "dc": DC,
    "dsa": dataclasses.replace(DC, summary="DSA, matches gradients of augmented images"),
    "idc": IDC,
    "dream": dataclasses.replace(IDC, summary="DREAM, IDC on representative real images"),
    "cafe": CAFE,
}


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
      ConfigError: an unknown name.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]
