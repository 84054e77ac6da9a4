"""Networks (Flax linen) and their registry."""

from fairdd_jax.models.apply import apply, shapes
from fairdd_jax.models.networks import Outputs
from fairdd_jax.models.own import Adapter
from fairdd_jax.models.registry import (
    MODES,
    check_name,
    create,
    imports,
    names,
    register,
    resolve_archs,
)

__all__ = [
    "MODES",
    "Adapter",
    "Outputs",
    "apply",
    "check_name",
    "create",
    "imports",
    "names",
    "register",
    "resolve_archs",
    "shapes",
]
