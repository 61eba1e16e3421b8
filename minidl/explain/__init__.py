"""What part of the image decided? Every method takes images (N,C,H,W) and returns an `Explanation`."""

from minidl.explain.evidence import evidence_maps
from minidl.explain.expected_gradients import expected_gradients
from minidl.explain.explanation import Explanation
from minidl.explain.extremal import extremal_perturbation, keep
from minidl.explain.flipped import flipped
from minidl.explain.grad_cam import grad_cam
from minidl.explain.grad_cam_plus_plus import grad_cam_plus_plus
from minidl.explain.grad_times_input import grad_times_input
from minidl.explain.guided import deconvnet, guided_backprop
from minidl.explain.guided_grad_cam import guided_grad_cam
from minidl.explain.hires_cam import hires_cam
from minidl.explain.integrated_gradients import integrated_gradients
from minidl.explain.kernel_shap import kernel_shap
from minidl.explain.layer_cam import layer_cam
from minidl.explain.lime import lime
from minidl.explain.lrp import lrp
from minidl.explain.meaningful import delete, meaningful_perturbation
from minidl.explain.occlusion import occlusion
from minidl.explain.rise import rise
from minidl.explain.saliency import saliency
from minidl.explain.score_cam import score_cam
from minidl.explain.smooth import smooth
from minidl.explain.smoothgrad import smoothgrad
from minidl.explain.vargrad import vargrad
from minidl.inference.heads import Head

__all__ = [
    "Explanation",
    "Head",
    "deconvnet",
    "delete",
    "evidence_maps",
    "expected_gradients",
    "extremal_perturbation",
    "flipped",
    "grad_cam",
    "grad_cam_plus_plus",
    "grad_times_input",
    "guided_backprop",
    "guided_grad_cam",
    "hires_cam",
    "integrated_gradients",
    "keep",
    "kernel_shap",
    "layer_cam",
    "lime",
    "lrp",
    "meaningful_perturbation",
    "occlusion",
    "rise",
    "saliency",
    "score_cam",
    "smooth",
    "smoothgrad",
    "vargrad",
]
