"""Train a ConvNet on a distilled set: python train_keras.py distilled.npz [test.npz]

test.npz has real test images: uint8 `images` [N, H, W, C] and `labels` [N]. Needs keras 3 and jax.
"""

import os
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

EPOCHS, BATCH, SEED = 300, 256, 0


def convnet(image_shape, num_classes):
    network = keras.Sequential([keras.Input(image_shape)])
    for _ in range(3):
        network.add(keras.layers.Conv2D(64, 3, padding="same"))
        network.add(keras.layers.GroupNormalization(groups=-1))  # instance norm
        network.add(keras.layers.ReLU())
        network.add(keras.layers.AveragePooling2D(2))
    network.add(keras.layers.Flatten())
    network.add(keras.layers.Dense(num_classes))
    return network


def main(path, test_path=None):
    with np.load(path, allow_pickle=False) as file:
        images, labels = file["images_float"], file["labels"]  # normalised already
        mean, std, classes = file["mean"], file["std"], len(file["class_names"])

    keras.utils.set_random_seed(SEED)
    network = convnet(images.shape[1:], classes)
    network.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    network.fit(images, labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    print(f"trained on {len(images)} images of {classes} classes")

    if test_path:
        with np.load(test_path, allow_pickle=False) as file:
            x = (file["images"] / np.float32(255) - mean) / std  # as the set was normalised
            _, accuracy = network.evaluate(x, file["labels"], batch_size=BATCH, verbose=0)
        print(f"accuracy on {len(x)} test images: {accuracy:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
