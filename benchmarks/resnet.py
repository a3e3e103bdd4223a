"""ResNets for CIFAR-10 with shortcuts without parameters (He et al. 2016, section 4.2, option A)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

DEPTH = 56
WEIGHTS = "resnet56-4bfd9763.th"


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut that has no parameters: where the width grows it is padded."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(leaving)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(leaving)
        self.grown = leaving - entering

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        inner = self.bn2(self.conv2(inner))
        if self.grown:
            half = self.grown // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return functional.relu(inner + x)


class ResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels, (DEPTH - 2) / 6 blocks each."""

    def __init__(self, depth: int = DEPTH, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks = (depth - 2) // 6
        self.layer1 = _stage(16, 16, blocks)
        self.layer2 = _stage(16, 32, blocks)
        self.layer3 = _stage(32, 64, blocks)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> logits (N, classes)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(entering: int, leaving: int, blocks: int) -> nn.Sequential:
    first = Block(entering, leaving, 1 if entering == leaving else 2)
    return nn.Sequential(first, *(Block(leaving, leaving, 1) for _ in range(blocks - 1)))


def published(file: Path) -> ResNet:
    """With the weights of akamaster/pytorch_resnet_cifar10."""
    model = ResNet()
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return model.eval()
