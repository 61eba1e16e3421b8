# %% [markdown]
# # 6. GoogLeNet: several sizes at once
#
# **Aim.** You build the Inception module as it was first thought of, and watch it grow out of hand. Then 1x1 convolutions
# make it small, and you count and time what that saves.
#
# **Read before.** Lesson 5, and the two modules `NaiveInception` and `Inception` in `models/googlenet.py`.

# %%
from course import QUICK, out, panels, show  # before all others, see there

# isort: split
import factorisation  # examples/factorisation.py
import numpy as np

import models
from minidl import Tensor, cost, ops
from minidl.bar import Bar
from minidl.view.figure import BLUE, GREY, ORANGE

# %% [markdown]
# ## Predict
#
# 1. A pixel has 192 channels. A 5x5 convolution makes 32 of them: how many multiply-adds for one output pixel? And if a 1x1
#    convolution first makes 16 channels, and the 5x5 makes 32 of those?
# 2. The naive module passes its whole input on, through a pooling, beside all that its convolutions make. Nine of them, one
#    behind the other: how many channels come out, if 192 go in?

# %% [markdown]
# ## What a 1x1 convolution is
#
# It sees one pixel and mixes its channels. At every pixel it is the same product of a matrix and a vector:
#
#     y[:, i, j] = W x[:, i, j]

# %%
rng = np.random.default_rng(0)
x, W = rng.normal(size=(1, 192, 28, 28)), rng.normal(size=(16, 192))
y = ops.conv2d(Tensor(x), Tensor(W[:, :, None, None])).data
by_hand = np.einsum("fc,ncij->nfij", W, x)
print(f"192 -> 16 channels, off by {np.abs(y - by_hand).max():.1e}")

direct, reduced = 25 * 192 * 32, 192 * 16 + 25 * 16 * 32
print(f"5x5 alone: {direct:,} a pixel; 1x1, then 5x5: {reduced:,}, that is {direct / reduced:.1f} times less")

# %% [markdown]
# ## The module
#
# Lesions are large and small, so which kernel is right? The answer of Szegedy et al. (2015): all of them, side by side, and
# let the next layer choose. What the branches find is stacked (`minidl/ops/shape.py`, `Concat`):
#
#     y = [conv1x1(x), conv3x3(x), conv5x5(x), maxpool(x)]    along the channels
#
# On the way back each branch gets its own channels of the gradient, and x the sum of what the branches hand back.
#
# Naively, y has all the channels of x and more. The next module multiplies by all of them.

# %%
nets = {kind: models.googlenet(module=kind, paper=True, aux=False) for kind in ("naive", "reduced")}
modules = ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
channels, weights = {}, {}
for kind, net in nets.items():
    blocks = [getattr(net, f"inception{name}") for name in modules]
    channels[kind] = [192] + [block.c_out for block in blocks]
    weights[kind] = [sum(p.size for p in block.parameters()) for block in blocks]
    print(f"{kind:7} channels {channels[kind]}, {sum(p.size for p in net.parameters()):,} parameters in all")

# %%
size = 64 if QUICK else 224
work = {kind: cost(net, (3, size, size)).multiply_adds for kind, net in nets.items()}
times = work["naive"] / work["reduced"]
print(f"an image of {size}x{size}: {work['naive']:,} and {work['reduced']:,} multiply-adds, {times:.1f} times as many")

# %% [markdown]
# ## Does it save time?
#
# Multiply-adds are counted on paper. `examples/factorisation.py` puts both versions of the first module side by side and
# looks at the clock. The numbers of its table in brackets are ratios to the naive module.

# %%
question = next(q for q in factorisation.QUESTIONS if q.title.startswith("Inception"))
rounds, batch, pixels = (1, 1, 14) if QUICK else (7, 4, question.pixels)
with Bar(total=rounds + 1, leave=False, disable=None) as bar:
    results = {question.title: factorisation.measure(question, batch, rounds, pixels, bar)}
print(factorisation.table(results))

# %% [markdown]
# ## The image

# %%
fig, (grows, heavy, saved) = panels("An Inception module without and with 1x1 convolutions before the large kernels", 3, 12)
for kind, color in ("naive", ORANGE), ("reduced", BLUE):
    grows.plot(["in", *modules], channels[kind], "o-", ms=4, color=color, label=kind)
    heavy.bar(np.arange(9) + (0.2 if kind == "reduced" else -0.2), np.array(weights[kind]) / 1e6, 0.4, color=color)
grows.set_title("channels behind each module", fontsize=10, loc="left")
grows.legend(frameon=False, fontsize=9)
heavy.set_xticks(range(9), modules)
heavy.set_title("parameters of each module (millions)", fontsize=10, loc="left")
naive, small = results[question.title].values()
names = ["weights", "multiply-adds", "time forward", "time with backward"]
shares = [getattr(small, key) / getattr(naive, key) for key in ("weights", "multiply_adds", "forward", "both")]
saved.barh(names, shares, color=BLUE)
saved.axvline(1, color=GREY, lw=0.8)
for k, share in enumerate(shares):
    saved.annotate(f"{share:.2f}", (share, k), (4, 0), textcoords="offset points", va="center", fontsize=9)
saved.set_xlim(0, 1.2 * max(1, *shares))
saved.invert_yaxis()
saved.set_title("module 3a, reduced / naive", fontsize=10, loc="left")
show(out("06_googlenet.png"), "naive modules grow without end; reduced ones stay small, on paper and on the clock", fig)

# %% [markdown]
# ## Questions
#
# 1. The pooling branch has no weights of its own in the naive module. Why is it the one that makes the net explode?
# 2. A 1x1 convolution before the 5x5 throws 176 of 192 channels away. Why does the net not lose by that what it needs?
# 3. GoogLeNet has two more heads halfway, in training alone. What does that have to do with lesson 2's way back?
#
# ## Exercise
#
# Write the concatenation and its way back, in `examples/exercises/lesson06.py`, then run `python -m pytest examples/exercises
# -k lesson06`.
