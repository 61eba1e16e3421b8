"""Run outside the checkout on what was installed from the wheel or the sdist: a net is explained, trained a step and saved."""

import pathlib
import tempfile

import numpy as np

import minidl
import models

assert "site-packages" in minidl.__file__, minidl.__file__
model = models.resnet8(num_classes=2)
x = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
labels = np.array([0, 1])
optimizer = minidl.optim.SGD(model.parameters(), 0.1)
minidl.ops.cross_entropy(model(x), labels).backward()
optimizer.step()
assert minidl.explain.saliency(model, x).map.shape == (2, 32, 32)
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "model.safetensors")
    minidl.weights.save(model, path)
    minidl.weights.load(models.resnet8(num_classes=2), path)
    assert (
        minidl.view.stepper(model.eval(), x[0], path=pathlib.Path(folder, "page.html")).stat().st_size > 10_000
    )  # its parts too
print(f"minidl {minidl.__version__} works in {pathlib.Path(minidl.__file__).parent}")
