"""Networks (Flax linen) and their registry."""

from fairdd_jax.models.networks import Outputs
from fairdd_jax.models.registry import MODES, create, names, resolve_archs

__all__ = ["MODES", "Outputs", "create", "names", "resolve_archs"]
