# %% [markdown]
# # 7. Inception-v3: kernels taken apart
#
# **Aim.** You take large kernels apart into small ones, and see what that can and cannot express. Then you count and time it,
# and three ways of making an image smaller.
#
# **Read before.** Lesson 6, and the classes `InceptionA`, `InceptionB` and `InceptionC` in `models/inception.py`.

# %%
from course import QUICK, out, panels, show  # before all others, see there

# isort: split
import factorisation  # examples/factorisation.py
import numpy as np

from minidl import Tensor, ops
from minidl.bar import Bar
from minidl.view.figure import GREY

# %% [markdown]
# ## Predict
#
# 1. Two 3x3 convolutions in place of one of 5x5, as many channels throughout: which share of the multiply-adds is saved? And
#    1x7 with 7x1 in place of 7x7?
# 2. An image of 35x35 is to become one of 17x17 with more channels. You may pool first and convolve then, or the other way
#    round. Which is cheaper, and which is better?

# %% [markdown]
# ## One kernel behind another
#
# Convolutions without a relu between them are one convolution, and its kernel is the two kernels, convolved. So two 3x3
# kernels make a 5x5 kernel, but with 18 numbers they cannot make every one of 25. And a column behind a row makes the outer
# product of both:
#
#     1xn then nx1:   K = column row^T,   2n numbers in place of n^2

# %%
rng = np.random.default_rng(0)
x = Tensor(rng.normal(size=(1, 1, 20, 20)))
row, column = rng.normal(size=(1, 1, 1, 7)), rng.normal(size=(1, 1, 7, 1))
one_by_one = ops.conv2d(ops.conv2d(x, Tensor(row)), Tensor(column))
at_once = ops.conv2d(x, Tensor(column * row))  # (7,1) times (1,7) is (7,7): the outer product
print(f"1x7 then 7x1, and the outer product as one 7x7: off by {np.abs(one_by_one.data - at_once.data).max():.1e}")

# %% [markdown]
# Which kernels are outer products? Those of rank 1. A blur is one. A slanted edge is not: it takes several. The singular
# values of a kernel say how much of it the best outer product catches.

# %%
i, j = np.mgrid[-3:4, -3:4]
bell = np.exp(-(i**2 + j**2) / 6)
kernels = {
    "a blur": bell,
    "an upright edge": -j * bell,
    "a slanted edge": -(i + j) * bell,
    "a slanted line": np.exp(-((i - j) ** 2) / 2),
}
best = {}
for name, kernel in kernels.items():
    U, S, V = np.linalg.svd(kernel)
    best[name] = S[0] * np.outer(U[:, 0], V[0])
    print(f"{name:16} the best outer product catches {S[0] ** 2 / (S**2).sum():.0%}")

# %%
fig, axes = panels("7x7 kernels (left of each pair) and the best that 1x7 with 7x1 can do", 8, 13, 2.3)
for k, (name, kernel) in enumerate(kernels.items()):
    for ax, picture in zip(axes[2 * k : 2 * k + 2], (kernel, best[name]), strict=True):
        ax.imshow(picture, cmap="RdBu_r", vmin=-np.abs(kernel).max(), vmax=np.abs(kernel).max())
        ax.set(xticks=(), yticks=())
        ax.spines[:].set_color(GREY)
    axes[2 * k].set_title(name, fontsize=10, loc="left")
show(out("07_kernels.png"), "a blur and an upright edge are outer products, slanted ones are not", fig)

# %% [markdown]
# A net is no single kernel: with many channels, and a relu in between, several rows and columns work together. Szegedy et al.
# (2016) found relus between the parts better than none (section 3.1), and 1x7 with 7x1 good on grids of 12 to 20 pixels, but
# not in early layers (section 3.2).
#
# ## Three ways to a smaller image
#
# - pool first, then convolve: cheap, but everything must pass the few channels of the small grid (a representational
#   bottleneck)
# - convolve first, then pool: nothing is squeezed, and every convolution runs on four times the pixels
# - both side by side, convolutions with stride 2 and a pooling, concatenated: the net's own way, `InceptionB` in
#   `models/inception.py`
#
# `examples/factorisation.py` counts and times all of it. In brackets: the ratio to the first of each question.

# %%
questions = [q for q in factorisation.QUESTIONS if not q.title.startswith("Inception")]
rounds, batch = (1, 1) if QUICK else (7, 2)
with Bar(total=len(questions) * (rounds + 1), leave=False, disable=None) as bar:
    results = {q.title: factorisation.measure(q, batch, rounds, 9 if QUICK else q.pixels, bar) for q in questions}
print(factorisation.table(results))

# %% [markdown]
# ## The image

# %%
image = out("07_inception_v3.png")
factorisation.draw(image, results, f"{batch} images, median of {rounds}")
show(out("07_inception_v3.png"), "what taking kernels apart saves on paper, and what on the clock")

# %% [markdown]
# ## Questions
#
# 1. Two 3x3 save 28% of the multiply-adds, and less than that of the time. 1x3 with 3x1 saves a third on paper. What else
#    does a layer cost?
# 2. The slanted line is caught badly by one row and one column. How can a net with 192 channels between them have it all the
#    same?
# 3. "Pool first" has the smallest number in the column "narrowest place". What is lost there, and why can no later layer
#    bring it back?
#
# ## Exercise
#
# Write the factorised block, in `examples/exercises/lesson07.py`, then run `python -m pytest examples/exercises -k lesson07`.
