"""Fair dataset distillation in JAX.

`distill` and `load_distilled` are the short way in; `losses`, `metrics` and `augment` stand alone
and read no configuration.
"""

from typing import Any

from fairdd_jax import augment, losses, metrics

__all__ = ["augment", "distill", "dry_run", "load_distilled", "losses", "metrics"]


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that the losses come without its dependencies."""
    if name in ("distill", "dry_run"):
        from fairdd_jax import api

        return getattr(api, name)
    if name == "load_distilled":
        from fairdd_jax.distilled import load_distilled

        return load_distilled
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
