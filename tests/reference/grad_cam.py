"""Grad-CAM, Smooth Grad-CAM++ and LayerCAM of one image in plain loops, in float64.

The network is given in two parts, so that no hook is needed: `front` makes the layer's output A of the image, `back` the
logits of A.
"""

import numpy as np
import torch


def grad_cam(image, front, back, label):
    """ReLU(Σ_l a_l A_l), a_l the mean over space of ∂y^c/∂A_l, for an image (C, H, W)."""
    activation, gradient = _activation_and_gradient(image, front, back, label)
    result = np.zeros(activation.shape[1:])
    for a, g in zip(activation, gradient, strict=True):
        weight = sum(g[place] for place in np.ndindex(g.shape)) / g.size
        for place in np.ndindex(a.shape):
            result[place] += weight * a[place]
    return np.maximum(result, 0)


def layer_cam(image, front, back, label):
    """ReLU(Σ_l ReLU(∂y^c/∂A_l) A_l), place by place, for an image (C, H, W)."""
    activation, gradient = _activation_and_gradient(image, front, back, label)
    result = np.zeros(activation.shape[1:])
    for place in np.ndindex(result.shape):
        result[place] = max(sum(max(g[place], 0) * a[place] for a, g in zip(activation, gradient, strict=True)), 0)
    return result


def smooth_grad_cam_pp(image, noises, front, back, label, eps=1e-8):
    """ReLU(Σ_l a_l A_l), a_l = Σ_p α_l(p) ReLU(g_l(p)), α = D2 / (2 D2 + Σ_q A°_l(q) D3_l(q) + eps).

    D2 and D3 are the means over the noisy passes of the squared and cubed gradients, A° the layer's output without noise,
    A and g the output and gradient of the last noisy pass.
    """
    clean, _ = _activation_and_gradient(image, front, back, label)
    passes = [_activation_and_gradient(image + noise, front, back, label) for noise in noises]
    activation, gradient = passes[-1]
    result = np.zeros(clean.shape[1:])
    for channel in range(len(clean)):
        second = sum(g[channel] ** 2 for _, g in passes) / len(passes)
        third = sum(g[channel] ** 3 for _, g in passes) / len(passes)
        inner = sum(clean[channel][place] * third[place] for place in np.ndindex(third.shape))
        weight = 0.0
        for place in np.ndindex(second.shape):
            alpha = second[place] / (2 * second[place] + inner + eps)
            weight += alpha * max(gradient[channel][place], 0)
        result += weight * activation[channel]
    return np.maximum(result, 0)


def to_unit(values):
    """(M − min M) / (max M − min M), zeros where all are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def upsampled(values, height, width):
    """Bilinear, pixels being squares whose centres are compared; outside the outermost centres the border's value."""
    rows, columns = values.shape
    result = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
        x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
        for row, column in np.ndindex(rows, columns):
            result[i, j] += max(1 - abs(y - row), 0) * max(1 - abs(x - column), 0) * values[row, column]
    return result


def _activation_and_gradient(image, front, back, label):
    activation = front(image[None]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(back(activation)[0, label], activation)
    return activation.detach()[0].numpy(), gradient[0].numpy()
