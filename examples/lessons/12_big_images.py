# %% [markdown]
# # 12. Small lesions, big images
#
# **Aim.** A lesion covers one percent of a big image. You see what resizing loses, and find it again with a window that slides
# over the image, and with a head that listens to the few places that speak loudest.
#
# **Read before.** Lessons 1 and 5, `minidl/inference/sliding.py` and `minidl/ops/top_k.py`.

# %%
from course import QUICK, first_net, out, panels, show  # before all others, see there

# isort: split
import numpy as np

from minidl import Tensor, cost, data, inference, metrics, no_grad, ops
from minidl.view.figure import BLUE, GREY, ORANGE
from minidl.view.maps import draw

# %% [markdown]
# ## Predict
#
# 1. Images of 128x128 are resized to 32x32, the size that the net of lesson 1 knows. A lesion is then about 4 pixels wide.
#    What AUC do you expect (0.5: a coin)?
# 2. A window of 32x32 goes over the 128x128 pixels in steps of 16. How many windows are that? And in how many of them is the
#    whole lesion, if it is 14 pixels wide?

# %% [markdown]
# ## Three ways to ask the same net
#
# - **Resized**: each block of 4x4 pixels becomes one. What tells malignant from benign, a border and a small nucleus, is gone.
# - **Sliding window**: the net answers to every window, each a lesson-1 image, and the image gets the mean of its k highest
#   answers. One window with a lesion is enough; how many there are depends on where it lies.
# - **All at once**: the convolutions go over the whole image, and in place of the mean over all places, the head listens to
#   the k places that speak loudest:
#
#     score = mean of the k largest of the map
#
# The mean over everything would hear one percent of lesion, and 99 percent of skin.

# %%
net = first_net()
big = data.lesions(30 if QUICK else 200, size=128, seed=12)
x = net.inputs(big.images)  # (N,3,128,128)


def auc(scores: np.ndarray) -> float:
    return metrics.auc(scores, big.labels)


def says(logits: np.ndarray) -> np.ndarray:
    return logits[:, 1] - logits[:, 0]  # how much more malignant than benign


small = x.reshape(len(x), 3, 32, 4, 32, 4).mean((3, 5))
resized = says(inference.predict(net.model, small))
windows = inference.sliding_window(net.model, x, 32, 32 if QUICK else 16)  # (N,2,h,w), an answer for each window
speaks = says(windows)  # (N,h,w)

# %% [markdown]
# ## The way of the whole image
#
# The last layer is linear, and so it may stand before the pooling as well as behind it: then there is a map of scores, with
# one for each place. Only how the map becomes one number is new: `ops.top_k_pool2d`.

# %%
model = net.model.eval()
maps = []
with no_grad():
    for image in x:
        h = model.layer3(model.layer2(model.layer1(ops.relu(model.bn1(model.conv1(Tensor(image[None])))))))  # (1,64,32,32)
        w = model.linear.weight  # (2,64), now a 1x1 convolution
        maps.append(ops.conv2d(h, ops.reshape(w, (*w.shape, 1, 1)), model.linear.bias).data[0])
places = says(np.stack(maps))  # (N,32,32)

# %% [markdown]
# ## How many should speak?
#
# k = 1 is the maximum, and hears one place that errs. All places are the mean, and hear skin.


# %%
def top(scores: np.ndarray, k: int) -> np.ndarray:
    return ops.top_k_pool2d(Tensor(scores[:, None]), k).data[:, 0]  # (N,)


shares = 1, 2, 4, 8, 16, 64, 256, 1024
by_place = [auc(top(places, k)) for k in shares]
by_window = {k: auc(top(speaks, k)) for k in shares if k <= speaks[0].size}
print(f"resized: AUC {auc(resized):.3f}")
print("sliding window:", ", ".join(f"k = {k}: {value:.3f}" for k, value in by_window.items()))
print("whole image:   ", ", ".join(f"k = {k}: {value:.3f}" for k, value in zip(shares, by_place, strict=True)))
sizes = {s: cost(net.model, (3, s, s)) for s in (32, 128)}
work = {s: f"{c.multiply_adds / 1e6:.0f} M multiply-adds, {c.bytes / 1e6:.1f} MB of activations" for s, c in sizes.items()}
print(f"one image of 32x32: {work[32]}; one of 128x128: {work[128]}")

# %% [markdown]
# ## The image

# %%
fig, (one, tiny, places_ax, curve) = panels("A lesion of one percent", 4, 13, width_ratios=(1, 1, 1, 1.6))
draw(one, big.images[1])
one.contour(big.masks["lesion"][1], levels=[0.5], colors="black", linewidths=0.8)
draw(tiny, np.rint(big.images[1].reshape(3, 32, 4, 32, 4).mean((2, 4))).astype(np.uint8))
places_ax.imshow(places[1], cmap="RdBu_r", vmin=-np.abs(places[1]).max(), vmax=np.abs(places[1]).max())
for ax, name in (
    (one, "128x128, the lesion outlined"),
    (tiny, "resized to 32x32"),
    (places_ax, "which place speaks for malignant"),
):
    ax.set_axis_off()
    ax.set_title(name, fontsize=10, loc="left")
curve.plot(shares, by_place, "o-", color=BLUE, label="whole image, top k places")
curve.plot(list(by_window), list(by_window.values()), "s-", color=ORANGE, label="sliding window, top k windows")
curve.axhline(auc(resized), color=GREY, label="resized")
curve.axhline(0.5, color=GREY, lw=0.8, ls="--", label="a coin")
curve.set_xscale("log", base=2)
curve.set(xlabel="k", ylim=(0.2, 1.02))
curve.set_title(f"AUC on {len(big)} big images", fontsize=10, loc="left")
curve.legend(frameon=False, fontsize=8)
show(out("12_big_images.png"), "what is one percent of the image is lost by resizing and by the mean over all places", fig)

# %% [markdown]
# ## Questions
#
# 1. The net never saw bare skin alone. What may it answer there, and what does the maximum make of that?
# 2. Training on the whole image keeps all activations of 128x128. What can be done if they do not fit? (Lesson 9.)
# 3. The top-k head is trained with one label an image. Which places get a gradient, and what goes wrong at the beginning?
#
# ## Exercise
#
# Write the top-k head and its way back, in `examples/exercises/lesson12.py`, then run `python -m pytest examples/exercises -k
# lesson12`.
