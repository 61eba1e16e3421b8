# %% [markdown]
# # 3. Convolution
#
# **Aim.** You turn a convolution into one product of two matrices, and its way back into another one. Then you see why people
# say that the kernel is turned around on the way back.
#
# **Read before.** Lesson 2, and `minidl/kernels/reference.py` from `windows` to `conv2d_grad_w`: some fifty lines.

# %%
from course import out, panels, show  # before all others, see there

# isort: split
import numpy as np

from minidl import Tensor, data, gradients, ops
from minidl.kernels import reference
from minidl.view.figure import GREY

# %% [markdown]
# ## Predict
#
# 1. An image of 16 channels and 32x32 pixels meets a kernel of 3x3, with a border of zeros so that it stays 32x32. All
#    windows are written into one matrix. How many numbers are in it, and how many times as many as in the image?
# 2. Of all numbers of the output only one gets a gradient, 1. How many pixels of the image get one, and what pattern do they
#    show?

# %% [markdown]
# ## Windows as columns
#
# Every output pixel sees one window of the image. Write each window as a column: this is im2col, `windows` in minidl. The
# kernel is a row. Then the whole convolution is
#
#     Y = W X,    W (F, 9 C),  X (9 C, pixels),  with C channels and F filters
#
# `windows` returns (images, C, 3, 3, rows, columns): a place in the window, then which window. Read as a matrix, that is X.

# %%
image = data.lesions(2, seed=4).images[1:2].mean(1, keepdims=True) / 255  # (1,1,32,32), a malignant one in grey
edges = np.array([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]]])  # (1,1,3,3): light on the right, dark on the left
one, pad = (1, 1), (1, 1)

X = reference.windows(image, (3, 3), one, pad, one, (32, 32)).reshape(9, 32 * 32)  # one window a column
Y = edges.reshape(1, 9) @ X  # the one product
y = ops.conv2d(Tensor(image), Tensor(edges), padding=1)
print(f"X is {X.shape}, {X.size / image.size:.0f} times the image; off by {np.abs(Y.reshape(32, 32) - y.data[0, 0]).max():.1e}")

# %% [markdown]
# ## The way back
#
# Y = W X is a product of matrices, and lesson 2 knows its gradients: GW = GY X^T, and GX = W^T GY. The second is one of the
# windows, not of the image. A pixel stands in nine windows, so it gets the sum of nine numbers. This is `fold`: it puts every
# window back to its place, and adds where they overlap.
#
#     gx = fold(W^T GY)

# %%
rng = np.random.default_rng(0)
GY = rng.normal(size=(1, 32 * 32))
GX = edges.reshape(1, 9).T @ GY  # (9, pixels)
gx = reference.fold(GX.reshape(1, 1, 3, 3, 32, 32), image.shape, one, pad, one)

x = Tensor(image, requires_grad=True)
theirs = gradients(ops.conv2d(x, Tensor(edges), padding=1), [x], GY.reshape(1, 1, 32, 32))[0]
print(f"by hand and by minidl: off by {np.abs(gx - theirs).max():.1e}")

# %% [markdown]
# `fold` is no inverse of `windows`: after both, an inner pixel is nine times what it was. It is the *adjoint*. For all images
# x and all columns C,
#
#     <windows(x), C> = <x, fold(C)>
#
# One random pair of x and C finds nearly every mistake in either. minidl tests all its operations this way,
# `minidl/check/gradient.py`.

# %%
C = rng.normal(size=(1, 1, 3, 3, 32, 32))
left = (reference.windows(image, (3, 3), one, pad, one, (32, 32)) * C).sum()
right = (image * reference.fold(C, image.shape, one, pad, one)).sum()
print(f"<windows(x), C> = {left:.12f}\n<x, fold(C)>    = {right:.12f}")

# %% [markdown]
# ## The kernel turned around
#
# Take a kernel in the form of an F. Forward, a single bright pixel is seen by 25 windows, by each at another place: the
# output shows the F turned by half a turn. Back, a single output pixel hands its gradient to the window that it saw, weighted
# by the kernel: the image gets the F as it is. So for whoever stands at a pixel and collects, the way back is a convolution,
# too, with the kernel turned around.

# %%
F = np.zeros((1, 1, 5, 5))
F[0, 0, :, 1], F[0, 0, 0, 1:4], F[0, 0, 2, 1:3] = 1, 1, 1
dot = np.zeros((1, 1, 13, 13))
dot[0, 0, 6, 6] = 1
x = Tensor(dot, requires_grad=True)
forward = ops.conv2d(x, Tensor(F), padding=2)
back = gradients(forward, [x], dot)[0]
turned = ops.conv2d(Tensor(dot), Tensor(F[:, :, ::-1, ::-1]), padding=2)
print(f"the way back, and a convolution with the turned kernel: off by {np.abs(back - turned.data).max():.1e}")

# %% [markdown]
# ## The image

# %%
fig, axes = panels("A convolution is one product; on the way back every window returns to its place", 5, 13, 3.1)
pictures = (
    ("image", image[0, 0], "gray"),
    ("its windows as columns (part)", X[:, 320:416], "gray"),
    ("output: edges", y.data[0, 0], "RdBu_r"),
    ("one pixel, forward: F turned", forward.data[0, 0], "Oranges"),
    ("one gradient, back: F as it is", back[0, 0], "Blues"),
)
for ax, (name, picture, colors) in zip(axes, pictures, strict=True):
    most = np.abs(picture[1:-1, 1:-1]).max()  # without the border, which meets zeros
    ax.imshow(
        picture,
        cmap=colors,
        vmin=-most if colors == "RdBu_r" else None,
        vmax=most,
        aspect="auto" if "part" in name else "equal",
    )
    ax.set_title(name, fontsize=9, loc="left")
    ax.set(xticks=(), yticks=())
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color(GREY)
show(out("03_convolution.png"), "forward the kernel appears turned, back as it is", fig)

# %% [markdown]
# ## Questions
#
# 1. Which of the three, x, X and W, must be kept for the gradient of W, and which for that of x?
# 2. X takes nine times the memory of x. Why do people build it all the same, and what does minidl do instead in
#    `minidl/kernels/compiled/`?
# 3. With stride 2 the output has a quarter of the pixels. Which pixels of the image then get nine numbers on the way back,
#    and which fewer?
#
# ## Exercise
#
# Write `fold`, and with it the gradient of the image, in `examples/exercises/lesson03.py`, then run `python -m pytest
# examples/exercises -k lesson03`.
