# %% [markdown]
# # 9. DenseNet: keep everything
#
# **Aim.** You stack what layers find in place of adding it, and see which layer listens to which. Then you measure what this
# costs in memory, and how computing twice saves it.
#
# **Read before.** Lesson 8, the class `DenseBlock` in `models/densenet.py`, and the first lines of `minidl/ops/dense.py`.

# %%
from course import QUICK, fitted, lesion_or_skin, out, panels, show  # before all others, see there

# isort: split
from functools import partial

import dense_or_residual  # examples/dense_or_residual.py
import numpy as np

import models
from minidl import Tensor, cost
from minidl.train import Settings
from minidl.view.figure import BLUE, GREY, ORANGE

# %% [markdown]
# ## Predict
#
# 1. 24 channels go into a block of 12 layers, and each layer adds 12 of its own. How many channels does the last layer read?
#    How many come out of the block?
# 2. Each layer copies all channels before it, and training keeps the copies. A block of twice as many layers: how many times
#    as much memory?

# %% [markdown]
# ## Concatenate in place of add
#
# ResNet adds, and what was before is in the sum, but can no longer be told apart. DenseNet (Huang et al. 2017) puts it
# beside:
#
#     x_l = [x_(l-1), H_l(x_(l-1))]    k more channels each time, the growth rate
#
# So layer l reads k0 + k (l - 1) channels, and L layers have L (L + 1) / 2 direct connections. And what goes in comes out
# again:

# %%
rng = np.random.default_rng(0)
block = models.densenet.DenseBlock(models.densenet.DenseLayer, 12, 24, 12, 0.0, rng)
x = Tensor(rng.normal(size=(2, 24, 8, 8)).astype(np.float32))
y = block(x)
reads = [layer.conv1.weight.shape[1] for _, layer in block.named_children()]
print(f"the layers read {reads} channels, and {y.shape[1]} come out")
print(f"the first 24 are x itself: {np.array_equal(y.data[:, :24], x.data)}")

# %% [markdown]
# ## What it costs, and computing twice
#
# Op by op, a layer concatenates, normalises and rectifies all channels before it. Training keeps all three arrays until the
# way back: memory that grows with the square of the number of layers. But concatenation, norm and relu are cheap. So keep the
# channels once, and compute the rest again when the way back needs it (Pleiss et al. 2017, "Memory-efficient implementation
# of DenseNets"). minidl does this in one op, `minidl/ops/dense.py`.
#
# The peak of a process only rises, so the thriftier way is measured first.

# %%
make, shape = partial(models.densenet_bc, 22 if QUICK else 40, 12), (8 if QUICK else 48, 3, 32, 32)
costs = {}
for fused in True, False:
    costs[fused] = dense_or_residual.step_cost(make, fused, shape, seconds=0)
    mebibytes = (costs[fused].peak - costs[fused].before) / 2**20
    print(f"{dense_or_residual.HOW[fused]}: {mebibytes:,.0f} MiB for a step, {costs[fused].seconds * 1e3:,.0f} ms")

# %% [markdown]
# ## Does it learn with fewer parameters?
#
# The easy task of lesson 8, a dense net and a residual one.

# %%
train_set, test_set = lesion_or_skin(64 if QUICK else 800, seed=0), lesion_or_skin(400, seed=1)
settings = Settings(epochs=1 if QUICK else 5, batch_size=32, lr=0.05, weight_decay=1e-4, crop=2, flip="both")
dense, residual = make(num_classes=2), models.resnet20(num_classes=2)
for name, net in ("dense", dense), ("residual", residual):
    row, counted = fitted(net, train_set, settings, test_set)[-1], cost(net, (3, 16, 16))
    print(f"{name}: {counted.parameters:,} parameters, {counted.multiply_adds:,} multiply-adds, "
          f"errors {1 - row['train_accuracy']:.1%} (training), {1 - row['validation_accuracy']:.1%} (test)")  # fmt: skip

# %% [markdown]
# Who listens to whom? The first convolution of a layer has a weight for each channel that it reads, and we know which layer
# made that channel. The paper draws the mean of |w| in this way (its figure 5). After so short a training as ours all are
# still heard nearly alike: look at the scale.

# %%
layers = [layer for _, layer in dense.features.denseblock2.named_children()]
growth, first = 12, layers[0].conv1.weight.shape[1]
heard = np.full((len(layers), len(layers)), np.nan)
for target, layer in enumerate(layers):
    size = np.abs(layer.conv1.weight.data).mean((0, 2, 3))  # by channel that is read
    heard[0, target] = size[:first].mean()  # what came into the block
    heard[1 : target + 1, target] = size[first:].reshape(-1, growth).mean(1)

# %% [markdown]
# ## The image

# %%
fig, (stairs, listens, memory) = panels(
    "A dense block: what its layers read, to whom they listen, and what a step holds", 3, 12
)
stairs.step(range(1, 13), reads, where="mid", color=BLUE, label="concatenated")
stairs.step(range(1, 13), [24] * 12, where="mid", color=ORANGE, label="added")
stairs.set(ylim=(0, None), xlabel="layer")
stairs.set_title("channels that a layer reads", fontsize=10, loc="left")
stairs.legend(frameon=False, fontsize=9)
share = heard / np.nanmax(heard, axis=0)
shades = listens.imshow(share, cmap="Blues", vmin=2 * np.nanmin(share) - 1)  # the least is half blue, what is not read is white
listens.set_yticks(range(len(layers)), ["input", *(f"layer {k}" for k in range(1, len(layers)))])
listens.set_xticks(range(len(layers)), range(1, len(layers) + 1))
listens.set_xlabel("layer that reads")
listens.set_title("mean |w|, most = 1; white: not read", fontsize=10, loc="left")
fig.colorbar(shades, ax=listens, shrink=0.8)
names = [dense_or_residual.HOW[fused].replace(", ", ",\n") for fused in costs]
held = [(one.peak - one.before) / 2**20 for one in costs.values()]
memory.bar(names, held, 0.6, color=[BLUE, GREY])
for k, (one, mebibytes) in enumerate(zip(costs.values(), held, strict=True)):
    memory.annotate(
        f"{mebibytes:,.0f} MiB\n{one.seconds * 1e3:,.0f} ms", (k, mebibytes), (0, 3), textcoords="offset points", ha="center"
    )
memory.set_ylim(0, 1.25 * max(held))
memory.set_title("memory of a training step (MiB)", fontsize=10, loc="left")
show(out("09_densenet.png"), "a dense block reads more and more; computing twice saves the memory for that", fig)

# %% [markdown]
# ## Questions
#
# 1. Why may a layer of a dense net have so few channels of its own, 12 where ResNets have 64?
# 2. What must be kept, and what can be computed again? Why not compute a convolution again, too?
# 3. Between the blocks a transition halves channels and pixels. What would happen without it?
#
# ## Exercise
#
# Write the dense block, in `examples/exercises/lesson09.py`, then run `python -m pytest examples/exercises -k lesson09`.
