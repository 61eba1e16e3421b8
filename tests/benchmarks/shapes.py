"""What is timed op by op: convolutions, and elementwise ops and pooling over images (N,C,H,W)."""

from __future__ import annotations

from typing import NamedTuple


class Conv(NamedTuple):
    N: int
    C: int
    F: int
    H: int
    kernel_size: tuple[int, int] = (3, 3)
    stride: int = 1
    groups: int = 1

    @property
    def padding(self) -> tuple[int, int]:
        return self.kernel_size[0] // 2, self.kernel_size[1] // 2

    @property
    def flops(self) -> float:
        """of each of forward, dx and dw: two for a multiplication and an addition"""
        out = ((self.H - 1) // self.stride + 1) ** 2
        return 2.0 * self.N * self.F * (self.C // self.groups) * self.kernel_size[0] * self.kernel_size[1] * out


CONVOLUTIONS = {
    "16>16 32x32": Conv(128, 16, 16, 32),
    "32>32 16x16": Conv(128, 32, 32, 16),
    "64>64 8x8": Conv(128, 64, 64, 8),
    "3>16 32x32": Conv(128, 3, 16, 32),
    "16>32 32x32 /2": Conv(128, 16, 32, 32, stride=2),
    "160>12 32x32": Conv(128, 160, 12, 32),
    "160>48 32x32 1x1": Conv(64, 160, 48, 32, (1, 1)),
    "300>48 16x16 1x1": Conv(64, 300, 48, 16, (1, 1)),
    "64>64 64x64": Conv(8, 64, 64, 64),
    "256>256 16x16": Conv(8, 256, 256, 16),
    "512>512 4x4": Conv(8, 512, 512, 4),
    "192>192 17x17 1x7": Conv(8, 192, 192, 17, (1, 7)),
    "48>64 28x28 5x5": Conv(8, 48, 64, 28, (5, 5)),
    "3>64 64x64 7x7 /2": Conv(8, 3, 64, 64, (7, 7), 2),
    "64>64 32x32 groups 8": Conv(32, 64, 64, 32, groups=8),
}
PASSES = ("forward", "dx", "dw")

IMAGES = {"128x16x32x32": (128, 16, 32, 32), "128x64x8x8": (128, 64, 8, 8), "64x160x32x32": (64, 160, 32, 32)}
SWEEPS = {  # op: how many times it must read or write an array of the images' size, forward and backward
    "batch norm + relu": 8,
    "relu": 5,
    "add": 4,
    "max pool 2x2": 3.5,
    "average pool 2x2": 2.5,
    "concat with 12 channels": 4,
}
