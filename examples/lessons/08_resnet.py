# %% [markdown]
# # 8. ResNet: y = F(x) + x
#
# **Aim.** You see a deeper net do worse than a shallower one on the images it is trained on, which no overfitting explains.
# Then you add x, and it is gone.
#
# **Read before.** Lessons 2 and 4, and the classes `PlainBlock` and `ResidualBlock` in `models/resnet.py`.

# %%
from course import QUICK, fitted, lesion_or_skin, out, show  # before all others, see there

# isort: split
import numpy as np
import residual_or_plain  # examples/residual_or_plain.py

import models
from minidl import Tensor, gradients, ops
from minidl.train import Settings

# %% [markdown]
# ## Predict
#
# 1. Plain nets of 20 and of 56 layers and residual ones are trained on the same images. Order the four by their error on the
#    *training* images.
# 2. Before the first step, how do the gradients of the first and of the last layers compare in a plain net of 56 layers: much
#    smaller, alike, or much larger?

# %% [markdown]
# ## A deeper net can do no worse
#
# Take a net, and put layers behind it that hand on what they are given. It is deeper, and computes the same. Such a layer is
# easy to write: a 3x3 kernel with a 1 in its middle, and a relu, which does nothing to numbers that are not negative.

# %%
rng = np.random.default_rng(0)
x = ops.relu(Tensor(rng.normal(size=(1, 4, 8, 8))))
identity = np.zeros((4, 4, 3, 3))
identity[range(4), range(4), 1, 1] = 1
deeper = ops.relu(ops.conv2d(ops.relu(ops.conv2d(x, Tensor(identity), padding=1)), Tensor(identity), padding=1))
print(f"two layers more, and the output differs by {np.abs(deeper.data - x.data).max()}")

# %% [markdown]
# So weights with a training error as small as that of the shallow net exist. The question is whether training finds them. In
# a residual block (He et al. 2016) the layers that do nothing need not be found: with F = 0 the block is the identity.
#
#     y = F(x) + x,    gx = gy + (dF/dx)^T gy
#
# The second formula is the point: the gradient goes back unchanged, *and* through F. Let us see it.

# %%
w = Tensor(rng.normal(0, 0.1, size=(4, 4, 3, 3)))


def branch(x: Tensor) -> Tensor:
    """F(x)"""
    return ops.conv2d(ops.relu(ops.conv2d(x, w, padding=1)), w, padding=1)


x, gy = Tensor(rng.normal(size=(1, 4, 8, 8)), requires_grad=True), rng.normal(size=(1, 4, 8, 8))
through = gradients(branch(x), [x], gy)[0]
whole = gradients(branch(x) + x, [x], gy)[0]
print(f"gx - (gy + way through F): {np.abs(whole - gy - through).max():.1e}; |gy| {np.linalg.norm(gy):.1f}, "
      f"|way through F| {np.linalg.norm(through):.1f}")  # fmt: skip

# %% [markdown]
# ## Four nets
#
# The task is an easy one, so that nets of 56 layers show what they can within a minute: is there a lesion in the image, or
# only skin? The nets are those of section 4.2 of the paper. `plain56` and `resnet56` have the very same layers, and one of
# them adds x.

# %%
train_set, test_set = lesion_or_skin(64 if QUICK else 800, seed=0), lesion_or_skin(400, seed=1)
settings = Settings(epochs=1 if QUICK else 5, batch_size=32, lr=0.05, weight_decay=1e-4, crop=2, flip="both")
depths = (20, 32) if QUICK else (20, 56)
first = residual_or_plain.first_batch(train_set, settings.batch_size)
rows, norms = {}, {}
for name in [f"{kind}{depth}" for kind in ("plain", "resnet") for depth in depths]:
    model = getattr(models, name)(num_classes=2)
    norms[name] = [residual_or_plain.gradient_norms(model, *first)]  # before the first step
    model = getattr(models, name)(num_classes=2)
    rows[name] = [fitted(model, train_set, settings, test_set)]
    ratio = norms[name][0][1] / norms[name][0][-2]
    error = 1 - rows[name][0][-1]["train_accuracy"]
    print(f"{name}: training error {error:.1%}; at the start, |gradient| of layer 2 over the last but one: {ratio:.1f}")

# %% [markdown]
# The gradient does not vanish in the deep plain net, as one reads so often. Behind batch norm it grows on the way back, here
# to a thousand times and more, so that the first layers are told far more loudly what to change than the last ones (Yang et
# al. 2019, "A mean field theory of batch normalization"). The sum of the residual block keeps it about as large as it is.
# Neither net begins badly drawn: all weights have the variance 2 / fan-in (He et al. 2015, `minidl/nn/init.py`), by which a
# relu net without batch norm keeps the size of its numbers from layer to layer.
#
# ## The image

# %%
residual_or_plain.draw(out("08_resnet.png"), rows, norms, depths, f"{len(train_set)} images, lesion or skin")
show(out("08_resnet.png"), "the deep plain net stays behind the shallow one in training; the deep residual net does not")

# %% [markdown]
# ## Questions
#
# 1. Why do we compare the errors on the training images here, and not those on the test images?
# 2. F(x) and x must have the same shape. What does the block do where the channels double and the image is halved
#    (`SubsampleAndPad` and `projection` in `models/resnet.py`)?
# 3. Put the relu behind F, before the sum, instead of behind the sum. Which values can y - x no longer have?
#
# ## Exercise
#
# Write the residual block, in `examples/exercises/lesson08.py`, then run `python -m pytest examples/exercises -k lesson08`.
