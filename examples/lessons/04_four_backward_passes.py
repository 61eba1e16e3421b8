# %% [markdown]
# # 4. Four backward passes
#
# **Aim.** You write the way back of relu, max pooling and cross-entropy by hand, and check each against minidl. You prepare
# the fourth, batch norm, which will be your exercise.
#
# **Read before.** Lesson 2, and the `backward` methods in `minidl/ops/activation.py`, `minidl/ops/pool.py` and
# `minidl/ops/loss.py`.

# %%
from course import out, panels, show  # before all others, see there

# isort: split
import numpy as np

from minidl import Tensor, data, gradients, ops
from minidl.view.figure import BLUE, GREY, ORANGE

# %% [markdown]
# ## Predict
#
# 1. A net gives three classes the probabilities 0.7, 0.2 and 0.1. The second is the right one. Which gradient does the
#    cross-entropy send into each of the three logits?
# 2. You add 5 to every input of batch norm. What happens to its output? So what must the gradients of its inputs add up to?

# %% [markdown]
# ## ReLU: a gate
#
# y = max(x, 0). Where the gate is open the gradient passes, elsewhere it ends:
#
#     gx = gy where x > 0, else 0
#
# We take a gradient gy of random numbers. You will see below why not of ones.

# %%
rng = np.random.default_rng(0)
image = data.lesions(2, seed=4).images[1:2].mean(1, keepdims=True) / 255
edges = np.array([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]]])
x = ops.conv2d(Tensor(image), Tensor(edges), padding=1).data  # (1,1,32,32), edges of a lesion


def off(mine: np.ndarray, f, gy: np.ndarray, x: np.ndarray) -> str:
    """How far my gradient is off that of minidl."""
    leaf = Tensor(x, requires_grad=True)
    return f"off by {np.abs(mine - gradients(f(leaf), [leaf], gy)[0]).max():.1e}"


gy = rng.normal(size=x.shape)
gx_relu = np.where(x > 0, gy, 0)
print("relu:", off(gx_relu, ops.relu, gy, x))

# %% [markdown]
# ## Max pooling: the winner takes all
#
# Each window of 2x2 passes its largest number on, and its whole gradient goes back to where that number stood. Three of four
# pixels get nothing.
#
#     gx[n,c, at the maximum of window (i,j)] = gy[n,c,i,j]

# %%
cells = x.reshape(16, 2, 16, 2).transpose(0, 2, 1, 3).reshape(16, 16, 4)  # the four numbers of each window
winner = np.arange(4) == cells.argmax(2)[..., None]
gy = rng.normal(size=(1, 1, 16, 16))
gx_pool = (winner * gy[0, 0, :, :, None]).reshape(16, 16, 2, 2).transpose(0, 2, 1, 3).reshape(x.shape)
print("max pooling:", off(gx_pool, lambda x: ops.max_pool2d(x, 2), gy, x))

# %% [markdown]
# ## Cross-entropy: what it says minus what is so
#
# loss = mean over the images of -log p[label], p the softmax of the logits z. All exponentials cancel on the way back:
#
#     gz = (p - t) / N,    t 1 for the label, 0 elsewhere

# %%
z, labels = np.log([[0.7, 0.2, 0.1]]) + 1, np.array([1])  # any constant may be added to the logits
p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
gz = (p - np.eye(3)[labels]) / len(z)
print("cross-entropy:", off(gz, lambda z: ops.cross_entropy(z, labels), np.ones(()), z), "gradient", gz[0].round(3))

# %% [markdown]
# ## Batch norm: every input moves the mean
#
# With m values a channel, x_hat = (x - mean) / std and y = gamma x_hat + beta. An input changes its own output, and the mean
# and the variance, and through these all outputs of its channel. Three ways, three terms (`minidl/kernels/reference.py`,
# `batch_norm_grad`):
#
#     gx = gamma / std (gy - mean(gy) - x_hat mean(gy x_hat))
#
# The two that are subtracted make gx sum to 0 and stand at right angles to x_hat. For the output does not change when all
# inputs are shifted, or stretched; stretched it does a little, by the eps of 1e-5 in std = sqrt(var + eps).

# %%
x4 = rng.normal(3, 2, (64, 1))  # 64 images, one channel
x_hat = (x4 - x4.mean()) / x4.std()
one, zero, gy4 = np.ones(1), np.zeros(1), rng.normal(1 + x_hat, 0.7)
leaf = Tensor(x4, requires_grad=True)
gx_norm = gradients(ops.batch_norm(leaf, Tensor(one), Tensor(zero)), [leaf], gy4)[0]
print(f"batch norm: sum gy = {gy4.sum():.2f}, sum gx = {gx_norm.sum():.1e}, sum gx x_hat = {(gx_norm * x_hat).sum():.1e}")
blind = gradients(ops.batch_norm(leaf, Tensor(one), Tensor(zero)), [leaf], np.ones((64, 1)))[0]
print(f"with gy of ones: largest |gx| = {np.abs(blind).max():.1e}; a backward that returns zeros would pass such a test")

# %% [markdown]
# ## The image

# %%
fig, (gate, pool, norm, loss) = panels("Four ways back: a gate, a winner, a projection, a difference", 4, 13)
for ax, gx, name in (gate, gx_relu, "relu: white is closed"), (pool, gx_pool, "max pooling: one of four"):
    ax.imshow(gx[0, 0], cmap="RdBu_r", vmin=-2, vmax=2)
    ax.set_title(name, fontsize=10, loc="left")
    ax.set(xticks=(), yticks=())
norm.scatter(x_hat, gy4, s=12, color=GREY, label="gy, arrives")
norm.scatter(x_hat, gx_norm * x4.std(), s=12, color=ORANGE, label="gx std, leaves")
norm.axhline(0, color=GREY, lw=0.8)
norm.set_xlabel("x_hat")
norm.set_title("batch norm: no mean, no slope", fontsize=10, loc="left")
norm.legend(frameon=False, fontsize=8, loc="upper left")
loss.bar(np.arange(3) - 0.2, p[0], 0.4, color=BLUE, label="p")
loss.bar(np.arange(3) + 0.2, gz[0], 0.4, color=ORANGE, label="gradient of the logit")
loss.axhline(0, color=GREY, lw=0.8)
loss.set_xticks(range(3), ["class 0", "class 1\n(the label)", "class 2"])
loss.set_title("cross-entropy: p - t", fontsize=10, loc="left")
loss.legend(frameon=False, fontsize=8)
show(out("04_four_backward_passes.png"), "what arrives at four operations, and what leaves them", fig)

# %% [markdown]
# ## Questions
#
# 1. Half of the units of a layer are closed. What do their weights learn from this image?
# 2. The net is sure and right: p of the label is 0.999. How large is the gradient, and what does that mean for easy images?
# 3. Why does a training with batch norm need more than one image in a batch, and what is used in place of the batch when the
#    net is asked later?
#
# ## Exercise
#
# Write the way back of batch norm, in `examples/exercises/lesson04.py`, then run `python -m pytest examples/exercises -k
# lesson04`.
