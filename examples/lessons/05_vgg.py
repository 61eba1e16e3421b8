# %% [markdown]
# # 5. VGG: small kernels, deep
#
# **Aim.** You count where the parameters and the work of a deep net are, and find them in two different places. Then you
# measure what a stack of small kernels sees.
#
# **Read before.** Lesson 3, and `models/vgg.py`, which is short.

# %%
from course import QUICK, out, panels, show  # before all others, see there

# isort: split
import numpy as np

import models
from minidl import Tensor, cost, gradients, nn
from minidl.view.figure import BLUE, GREY, ORANGE

# %% [markdown]
# ## Predict
#
# 1. VGG-19 has 16 convolutions and 3 linear layers, and 143.7 million parameters. Which share of them do the three linear
#    layers have? And of the multiply-adds for an image?
# 2. Three convolutions of 3x3, one behind the other, and one of 7x7: which sees more pixels, and which has more weights?

# %% [markdown]
# ## Count
#
# A convolution of k x k from C to F channels has a weight for each pair of channels and each place of the kernel, and one
# bias a filter. Every output pixel uses all of them again:
#
#     parameters = F (C k^2 + 1),    multiply-adds = F C k^2 OH OW
#
# `minidl/analysis/cost.py` runs one image through the net and counts on the graph.

# %%
name, make = ("VGG-11", models.vgg11) if QUICK else ("VGG-19", models.vgg19)
counted = cost(make(), (3, 224, 224))
rows = [row for row in counted.rows if row.op in ("Conv2d", "Linear")]
for row in rows:
    print(f"{row.op:7} {row.window:4} {row.shape!s:20} {row.parameters:12,} parameters {row.multiply_adds:14,} multiply-adds")

first = rows[1]  # 64 (or 128) filters on 64 channels
F, C = first.shape[1], rows[0].shape[1]
print(f"by hand, the second convolution: {F * (C * 9 + 1):,}, and minidl says {first.parameters:,}")

# %%
linear = [row.op == "Linear" for row in rows]
parameters, work = (np.array([getattr(row, key) for row in rows]) for key in ("parameters", "multiply_adds"))
for key, numbers in ("parameters", parameters), ("multiply-adds", work):
    print(f"{key}: {numbers.sum():,}, of which linear layers {numbers[linear].sum() / numbers.sum():.1%}")

# %% [markdown]
# The tutorial that this course follows speaks of 160 million. The largest net of the paper has 144 million (Simonyan and
# Zisserman 2015, table 2); the order of magnitude is right. Nearly all of it sits where 7x7x512 numbers meet 4,096: in the
# first linear layer. Every later net of this course does without that layer, and takes the mean over the image in its place.
#
# ## Why 3x3
#
# Three 3x3 layers see what one of 7x7 sees. They have 3 · 9 C^2 = 27 C^2 weights in place of 49 C^2, and three relus in place
# of one (the paper's section 2.3). The field of view grows layer by layer:
#
#     r -> r + (k - 1) j,    j -> j s
#
# with j, the jump, the pixels of the image between neighbours of the output, and s the stride. Is it so? The gradient of one
# output pixel tells which pixels it depends on.

# %%
rng = np.random.default_rng(0)


def seen_by_one(*kernels: int) -> np.ndarray:
    """|dy/dx| of the output pixel in the middle, for drawn convolutions with these kernels and relus between them."""
    layers: list[nn.Module] = [nn.Conv2d(1, 24, kernels[0], padding=kernels[0] // 2, rng=rng)]
    for k in kernels[1:]:
        layers += [nn.ReLU(), nn.Conv2d(24, 24, k, padding=k // 2, rng=rng)]
    x = Tensor(rng.normal(size=(1, 1, 15, 15)).astype(np.float32), requires_grad=True)
    y = nn.Sequential(*layers)(x)
    gy = np.zeros_like(y.data)
    gy[:, :, 7, 7] = rng.normal(size=24)
    return np.abs(gradients(y, [x], gy)[0])[0, 0]


three, seven = (np.mean([seen_by_one(*kernels) for _ in range(40)], axis=0) for kernels in ((3, 3, 3), (7,)))
for name_of, map_of in ("three 3x3", three), ("one 7x7", seven):
    print(f"{name_of}: {np.ptp(np.flatnonzero(map_of.any(1))) + 1} rows are seen, {np.count_nonzero(map_of)} pixels in all")
last = next(row for row in reversed(counted.rows) if row.jump)
print(f"{name} before its linear layers: a field of {last.receptive_field[0]:.0f} pixels, a jump of {last.jump[0]:.0f}")

# %% [markdown]
# ## The image

# %%
fig, (left, middle, small, large) = panels(f"{name}: the parameters are at the end, the work is before", 4, 13, 3.8)
places, colors = np.arange(len(rows)), [ORANGE if is_linear else BLUE for is_linear in linear]
for ax, numbers, unit, title in (left, parameters, 1e6, "parameters (millions)"), (middle, work, 1e9, "multiply-adds (10⁹)"):
    ax.barh(places, numbers / unit, color=colors)
    ax.invert_yaxis()
    ax.set_yticks(places, [f"{row.op.removesuffix('2d').lower()} {k}" for k, row in enumerate(rows, 1)])
    ax.tick_params(axis="y", labelsize=7)
    ax.set_title(title, fontsize=10, loc="left")
middle.set_yticks([])
for ax, picture, title in (small, three, "three 3x3: what a pixel sees"), (large, seven, "one 7x7"):
    ax.imshow(picture, cmap="Blues")
    ax.set_title(title, fontsize=10, loc="left")
    ax.set(xticks=(), yticks=())
    ax.spines[:].set_color(GREY)
show(out("05_vgg.png"), "parameters and work are in different layers; three small kernels see what a large one sees", fig)

# %% [markdown]
# ## Questions
#
# 1. Parameters cost memory, multiply-adds cost time. You may make one of the two three times smaller: where do you begin with
#    each?
# 2. The map of three 3x3 is the mean over 40 drawn nets. Its middle is darker than its border. Why, and what does that say
#    about the field of a deep net?
# 3. Without the relus between them, what would three 3x3 convolutions be able to do that one of 7x7 cannot?
#
# ## Exercise
#
# Count parameters and the receptive field yourself, in `examples/exercises/lesson05.py`, then run `python -m pytest
# examples/exercises -k lesson05`.
