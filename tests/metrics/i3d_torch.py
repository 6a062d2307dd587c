"""I3D in PyTorch, built from the checkpoint's arrays: an independent reference, and a rival."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def same_padding(shape, kernel, stride) -> list[int]:
    """TensorFlow's SAME, for `functional.pad`: the last axis first."""
    padding = []
    for size, k, s in zip(shape[-1:-4:-1], kernel[::-1], stride[::-1], strict=True):
        total = max(k - (s if size % s == 0 else size % s), 0)
        padding += [total // 2, total - total // 2]
    return padding


def max_pool(x, kernel, stride):
    padded = functional.pad(x, same_padding(x.shape, kernel, stride))  # zeros: all is after ReLU
    return functional.max_pool3d(padded, kernel, stride)


class Unit(nn.Module):
    """Convolution, batch normalization without a scale, ReLU."""

    def __init__(self, weights, name, stride=1):
        super().__init__()
        kernel = torch.tensor(weights[f"{name}/conv_3d/w"]).permute(4, 3, 0, 1, 2)
        self.stride = (stride,) * 3
        self.conv = nn.Conv3d(*kernel.shape[1::-1], kernel.shape[2:], self.stride, bias=False)
        self.conv.weight.data = kernel.contiguous()
        self.norm = nn.BatchNorm3d(kernel.shape[0], eps=1e-3)
        self.norm.bias.data = self._vector(weights, name, "beta")
        self.norm.running_mean.data = self._vector(weights, name, "moving_mean")
        self.norm.running_var.data = self._vector(weights, name, "moving_variance")

    @staticmethod
    def _vector(weights, name, part):
        return torch.tensor(np.ravel(weights[f"{name}/batch_norm/{part}"]))

    def forward(self, x):
        padding = same_padding(x.shape, self.conv.kernel_size, self.stride)
        return functional.relu(self.norm(self.conv(functional.pad(x, padding))))


class Mixed(nn.Module):
    """Inception block."""

    def __init__(self, weights, name):
        super().__init__()

        def unit(part):
            return Unit(weights, f"{name}/{part}")

        self.first = unit("Branch_0/Conv3d_0a_1x1")
        self.second = nn.Sequential(unit("Branch_1/Conv3d_0a_1x1"), unit("Branch_1/Conv3d_0b_3x3"))
        self.third = nn.Sequential(unit("Branch_2/Conv3d_0a_1x1"), unit("Branch_2/Conv3d_0b_3x3"))
        self.fourth = unit("Branch_3/Conv3d_0b_1x1")

    def forward(self, x):
        pooled = max_pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.first(x), self.second(x), self.third(x), self.fourth(pooled)], 1)


class TorchI3D(nn.Module):
    """Logits `[batch, 400]` of clips `[batch, 3, time, 224, 224]` in [-1, 1]."""

    def __init__(self, weights):
        super().__init__()
        self.stem = Unit(weights, "Conv3d_1a_7x7", 2)
        self.reduce = Unit(weights, "Conv3d_2b_1x1")
        self.widen = Unit(weights, "Conv3d_2c_3x3")
        names = [f"Mixed_{part}" for part in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")]
        self.blocks = nn.ModuleDict({name: Mixed(weights, name) for name in names})
        kernel = torch.tensor(weights["Logits/Conv3d_0c_1x1/conv_3d/w"]).permute(4, 3, 0, 1, 2)
        self.logits = nn.Conv3d(1024, 400, 1)
        self.logits.weight.data = kernel.contiguous()
        self.logits.bias.data = torch.tensor(weights["Logits/Conv3d_0c_1x1/conv_3d/b"])

    def forward(self, x):
        x = max_pool(self.stem(x), (1, 3, 3), (1, 2, 2))
        x = max_pool(self.widen(self.reduce(x)), (1, 3, 3), (1, 2, 2))
        for name, block in self.blocks.items():
            if name == "Mixed_4b":
                x = max_pool(x, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                x = max_pool(x, (2, 2, 2), (2, 2, 2))
            x = block(x)
        return self.logits(functional.avg_pool3d(x, (2, 7, 7), 1)).mean(dim=(2, 3, 4))
