"""The checkpoints in this folder, as PyTorch writes them: `python -m tests.io.checkpoints.make` makes them anew.

small.pth, small.th: {"state_dict": {"module.conv1.weight": ..., ...}, "best_prec1": 91.25}, in the zip and the legacy format
types.pth, types.th: tensors of all types, transposed, strided, shared
"""

import collections
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent
TYPES = "float16 float32 float64 int8 int16 int32 int64 uint8 bool bfloat16".split()


def small_net():
    """What small.pth and small.th hold under "state_dict", without "module."."""
    shapes = {"conv1.weight": (4, 3, 3, 3), "bn1.weight": (4,), "bn1.bias": (4,), "bn1.running_mean": (4,)}
    shapes |= {"bn1.running_var": (4,), "linear.weight": (5, 4), "linear.bias": (5,)}
    arrays = {n: np.sin(np.arange(1, 1 + np.prod(s))).reshape(s).astype(np.float32) for n, s in shapes.items()}
    arrays["bn1.running_var"] += 2
    arrays["bn1.num_batches_tracked"] = np.array(7)
    return arrays


def all_types():
    """What types.pth and types.th hold."""
    arrays = {dtype: np.arange(-3, 9).reshape(3, 4) for dtype in TYPES}
    arrays = {k: a.astype("float32" if k == "bfloat16" else np.uint8 if k == "uint8" else k) for k, a in arrays.items()}
    x = arrays["float32"]
    return arrays | {"transposed": x.T, "strided": x[1:, ::2], "shared": x[2], "scalar": x[0, 1], "empty": x[:0]}


def main():
    import torch

    def save(content, name):
        torch.save(content, FOLDER / f"{name}.pth")
        torch.save(content, FOLDER / f"{name}.th", _use_new_zipfile_serialization=False)

    net = collections.OrderedDict((f"module.{n}", torch.from_numpy(a)) for n, a in small_net().items())
    save({"state_dict": net, "best_prec1": 91.25}, "small")
    tensors = {n: torch.from_numpy(a.copy()) for n, a in all_types().items() if n in TYPES}
    tensors["bfloat16"] = tensors["bfloat16"].bfloat16()
    x = tensors["float32"]
    save(tensors | {"transposed": x.T, "strided": x[1:, ::2], "shared": x[2], "scalar": x[0, 1], "empty": x[:0]}, "types")


if __name__ == "__main__":
    main()
