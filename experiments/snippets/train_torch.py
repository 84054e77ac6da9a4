"""Train a ConvNet on a distilled set: python train_torch.py distilled.npz [test.npz]

test.npz has real test images: uint8 `images` [N, H, W, C] and `labels` [N]. Needs torch.
"""

import sys

import numpy as np
import torch
from torch import nn

EPOCHS, BATCH, SEED = 300, 256, 0


def convnet(channels, num_classes):
    layers = []
    for width in (channels, 64, 64):
        layers += [nn.Conv2d(width, 64, 3, padding=1), nn.GroupNorm(64, 64)]  # instance norm
        layers += [nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(num_classes))


def inputs(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2)  # PyTorch has the channels first


def main(path, test_path=None):
    with np.load(path, allow_pickle=False) as file:
        images = inputs(file["images_float"])  # normalised already
        labels = torch.from_numpy(file["labels"]).long()
        mean, std, classes = file["mean"], file["std"], len(file["class_names"])

    torch.manual_seed(SEED)
    network = convnet(images.shape[1], classes)
    network(images[:1])  # the last layer finds its size
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    print(f"trained on {len(images)} images of {classes} classes")

    if test_path:
        with np.load(test_path, allow_pickle=False) as file:
            x = (file["images"] / np.float32(255) - mean) / std  # as the set was normalised
            with torch.no_grad():
                logits = torch.cat([network(part) for part in inputs(x).split(BATCH)])
            accuracy = (logits.argmax(-1).numpy() == file["labels"]).mean()
        print(f"accuracy on {len(x)} test images: {accuracy:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
