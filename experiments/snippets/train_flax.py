"""Train a ConvNet on a distilled set: python train_flax.py distilled.npz [test.npz]

test.npz has real test images: uint8 `images` [N, H, W, C] and `labels` [N]. Needs flax and optax.
"""

import sys

import flax.linen as nn
import jax
import numpy as np
import optax

EPOCHS, BATCH, SEED = 300, 256, 0


class ConvNet(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = nn.relu(nn.InstanceNorm()(nn.Conv(64, (3, 3))(x)))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


def main(path, test_path=None):
    with np.load(path, allow_pickle=False) as file:
        images, labels = file["images_float"], file["labels"]  # normalised already
        mean, std, classes = file["mean"], file["std"], len(file["class_names"])
    network, optimizer = ConvNet(classes), optax.adam(1e-3)
    params = network.init(jax.random.key(SEED), images[:1])
    state = optimizer.init(params)

    def loss(params, x, y):
        logits = network.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params, state, x, y):
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state)
        return optax.apply_updates(params, updates), state

    rng = np.random.default_rng(SEED)
    for _ in range(EPOCHS):
        order = rng.permutation(len(images))
        for batch in np.array_split(order, -(-len(order) // BATCH)):
            params, state = step(params, state, images[batch], labels[batch])
    print(f"trained on {len(images)} images of {classes} classes")

    if test_path:
        with np.load(test_path, allow_pickle=False) as file:
            x = (file["images"] / np.float32(255) - mean) / std  # as the set was normalised
            logits = [network.apply(params, x[i : i + BATCH]) for i in range(0, len(x), BATCH)]
            accuracy = (np.concatenate(logits).argmax(-1) == file["labels"]).mean()
        print(f"accuracy on {len(x)} test images: {accuracy:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
