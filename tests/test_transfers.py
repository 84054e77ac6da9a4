"""A block of updates: nothing passes between host and device, nothing is compiled twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_loop import settings, toy

from fairdd_jax.sharding import place
from fairdd_jax.start import initial_images
from fairdd_jax.step import Step
from fairdd_jax.training_set import training_set

METHODS = {
    "dm": {"dsa_strategy": "flip_crop"},
    "dc": {"inner_epochs": 1},
}


def placed(method):
    """A step and its arguments, on the devices as the loop puts them."""
    config, dataset = settings(method, **METHODS[method]), toy()
    images = initial_images(jax.random.key(0), dataset, ipc=config.ipc, init=config.init).images
    step = Step(config, dataset)
    data = training_set(dataset, step.mesh)
    init_key, run_key = place(jax.random.split(jax.random.key(0)), step.mesh)
    return step, step.init(init_key, images), data, run_key


@pytest.mark.parametrize("method", ["dm", pytest.param("dc", marks=pytest.mark.slow)])
def test_a_block_transfers_nothing(method):
    """Neither of its own accord nor by what compiled programs can ask of the host."""
    step, state, data, key = placed(method)
    block = step.run_block.lower(state, data, key, length=2).compile()
    text = block.as_text()
    assert "while" in text  # the text is that of the program
    assert not any(word in text for word in ("callback", "infeed", "outfeed"))
    with jax.transfer_guard("disallow"):
        state, _ = block(state, data, key)
        state, loss = block(state, data, key)
    assert state.update == 4
    assert np.isfinite(loss)


def test_the_guard_sees_transfers():
    """To the device; from it there are none to see on CPU, whose memory is the host's."""
    double = jax.jit(lambda x: 2 * x)
    on_device = double(jnp.ones(3))
    with jax.transfer_guard("disallow"):
        double(on_device)
        with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
            double(np.ones(3, np.float32))


@pytest.mark.parametrize("method", ["dm", pytest.param("dc", marks=pytest.mark.slow)])
def test_blocks_compile_once_and_take_over_their_buffers(method):
    step, state, data, key = placed(method)
    for _ in range(3):
        before = state
        state, _ = step.run_block(before, data, key, length=1)
        assert before.images.is_deleted()
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.opt_state))
    assert step.run_block._cache_size() == 1
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((data, key)))
