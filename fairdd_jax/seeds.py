"""Independent streams of randomness of one seed."""

import jax

INIT, DISTILL, EVALUATE, RANDOM = range(4)


def key(seed: int, stream: int) -> jax.Array:
    """The random key of a stream.

    >>> bool((key(0, INIT) == key(0, EVALUATE)).all())
    False
    """
    return jax.random.fold_in(jax.random.key(seed), stream)
