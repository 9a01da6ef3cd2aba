"""Activation maps: which pixels of an image speak for its class, to a given network.

    a_l = mean over space of ∂y^c/∂A_l,   M = ReLU(Σ_l a_l A_l)   (Grad-CAM)

with A_l the channels of a layer's output and y^c the logit of the image's class; M is brought to [0, 1] per image by its
minimum and maximum, at the layer's resolution, and then bilinearly to that of the image. Smooth Grad-CAM++ takes other
a_l, from squares and cubes of the gradient averaged over four passes with noise on the image; in LayerCAM

    a_l = ReLU(∂y^c/∂A_l)   at every place,   M = ReLU(Σ_l a_l ∘ A_l)

Several layers are averaged, and so are the three kinds of maps where `average` is asked for.

R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2016,
arXiv:1610.02391. D. Omeiza et al., "Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep
Convolutional Neural Network Models", 2019, arXiv:1908.01224. P.-T. Jiang et al., "LayerCAM: Exploring Hierarchical Class
Activation Maps for Localization", 2021, doi:10.1109/TIP.2021.3089943. All are computed by torch-cam.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from limbeck.networks.blocks import run_watched
from limbeck.runtime.checked import Count, check_fields
from limbeck.runtime.devices import all_true
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.plugins import blamed

NOISY_PASSES = 4
NOISE = 0.3
AVERAGED = ("gradcam", "smooth_gradcam_pp", "layercam")
KINDS = (*AVERAGED, "average")
NOISELESS = {"gradcam": "GradCAM", "layercam": "LayerCAM"}


class Cam(ABC):
    """What makes maps.

    Example:
        >>> import torch
        >>> class Bright(Cam):
        ...     def __call__(self, module, x, classes, generator):
        ...         return x.mean(1).sigmoid()
        >>> Bright()(torch.nn.Identity(), torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), torch.Generator()).shape
        torch.Size([2, 8, 8])
    """

    @abstractmethod
    def __call__(self, module: nn.Module, x: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor:
        """The map of every image for its class, in [0, 1], with shape (N, H, W); zero where the network shows no preference.

        Args:
            module: the map network, which is left as it was: modes, hooks, parameters and their gradients.
            x: images as the network takes them, with shape (N, C, H, W).
            classes: the network's own class ids, integers in [0, K), with shape (N,), where x is.
            generator: a CPU generator, the only source of chance.
        """

    def check(self, module: nn.Module, x: Tensor) -> None:  # noqa: B027 (most ask nothing)
        """Raise `UsageError` for a network that it cannot make maps of; x is one image or more, with shape (N, C, H, W)."""


@dataclass(frozen=True)
class TorchCam(Cam):
    """Maps by torch-cam, of the module in evaluation mode; parameters may be frozen.

    Args:
        kind: `gradcam`, `smooth_gradcam_pp`, `layercam`, `average` of these three, or the name of one of torch-cam's classes, such
            as `XGradCAM`.
        layer: a module of the network, such as `blocks.2`; `last` is the last of a ConvNet's `blocks`, elsewhere the last module
            whose output is an image of more than one pixel; several names joined by `+` are averaged.
        batch_size: images at a time; noise depends on it.

    Raises:
        UsageError: when called, where `layer` names no such module, torch-cam has no such class, or that makes no maps of the
            network: `CAM` asks for global pooling before the one linear layer, `RefineCAM` for several layers, `LeGrad` for a
            transformer.

    Example:
        >>> import torch
        >>> from limbeck.networks.convnet import ConvNet
        >>> x, classes = torch.rand(2, 3, 16, 16), torch.tensor([0, 4])
        >>> TorchCam("layercam")(ConvNet(3, 16, 16, 10, depth=2, width=8), x, classes, torch.Generator()).shape
        torch.Size([2, 16, 16])
    """

    kind: str = "gradcam"
    layer: str = "last"
    batch_size: Count = 32

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, module: nn.Module, x: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor:
        batches = zip(torch.split(x.detach(), self.batch_size), torch.split(classes, self.batch_size), strict=True)
        with _borrowed(module), torch.enable_grad():
            layers = find_layers(module, x[:1], self.layer)
            kinds = AVERAGED if self.kind == "average" else (self.kind,)
            maps = [
                [one for kind in kinds for one in _layer_maps(module, layers, images, ids.tolist(), kind, generator)]
                for images, ids in batches
            ]
        return torch.cat([_blend(batch, x.shape[2:]) for batch in maps])

    def check(self, module: nn.Module, x: Tensor) -> None:
        with _borrowed(module):
            find_layers(module, x, self.layer)
        if self.kind not in KINDS:  # what the others ask of a network shows when they are asked
            self(module, x[:1], torch.zeros(1, dtype=torch.int64), torch.Generator())


@dataclass(frozen=True)
class FunctionCam(Cam):
    """Maps by a function of the user's: (module, x, classes) → maps in [0, 1] with shape (N, H, W).

    Example:
        >>> import torch
        >>> cam = FunctionCam(lambda module, x, classes: x.mean(1).sigmoid())
        >>> cam(torch.nn.Identity(), torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), torch.Generator()).shape
        torch.Size([2, 8, 8])
    """

    function: Callable[[nn.Module, Tensor, Tensor], Tensor]

    def __call__(self, module: nn.Module, x: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor:
        with _borrowed(module), torch.enable_grad(), global_noise_from(generator):
            maps = self.function(module, x.detach(), classes)
        good = isinstance(maps, Tensor) and maps.shape == (len(x), *x.shape[2:]) and all_true((maps >= 0) & (maps <= 1))
        accepted = f"a function that gives maps in [0, 1] with shape {(len(x), *x.shape[2:])}"
        require(good, "enhance.cam", getattr(self.function, "__name__", type(self.function).__name__), accepted)
        return maps.detach()


def has_maps(module: nn.Module, x: Tensor, cam: Cam) -> bool:
    """Whether `cam` can make maps of the module; x holds one image or more, with shape (N, C, H, W)."""
    try:
        cam.check(module, x)
    except UsageError:
        return False
    return True


def find_layers(module: nn.Module, x: Tensor, names: str) -> list[str]:
    """The modules that `enhance.cam_layer` means.

    Args:
        module: the map network.
        x: one image or more, with shape (N, C, H, W).
        names: names joined by `+`; `last` is the last of a ConvNet's `blocks`, elsewhere the last module whose output has
            four dimensions and more than one pixel.

    Raises:
        UsageError: when a name is unknown or its output no such image.
    """
    known = _spatial_modules(module, x)
    if not known:
        raise UsageError(f"enhance.cam_layer: the map network {type(module).__name__} has no layer whose output is an image")
    blocks = getattr(module, "blocks", None)
    block = f"blocks.{len(blocks) - 1}" if isinstance(blocks, nn.ModuleList) else ""
    layers = [(block if block in known else known[-1]) if name == "last" else name for name in names.split("+")]
    outer = [name for name in known if name.count(".") < 2] or known
    accepted = f"last or, joined by +, some of {', '.join(outer)}" + ("" if outer == known else " or modules inside them")
    require(set(layers) <= set(known), "enhance.cam_layer", names, accepted)
    return layers


def _spatial_modules(module: nn.Module, x: Tensor) -> list[str]:
    """Names of the modules whose output has shape (N, C, H, W) with H·W > 1, in the order in which they end."""
    found: dict[str, None] = {}

    def record(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        found.pop(name, None)
        if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            found[name] = None

    run_watched(module, x, {part: partial(record, name) for name, part in module.named_modules() if name})
    return list(found)


def _layer_maps(
    module: nn.Module,
    layers: list[str],
    x: Tensor,
    classes: list[int],
    kind: str,
    generator: torch.Generator,
) -> list[Tensor]:
    """M of each layer, at its resolution and as it comes: ReLU(Σ_l a_l A_l)."""
    from torchcam import methods

    targets: list[nn.Module | str] = [*layers]
    # The parameters are frozen: only the image makes the logits differentiable.
    x = x.detach().requires_grad_()
    # Not normalised by torch-cam, which adds 1e-8 to the greatest value: maps of small gradients would not reach 1.
    if kind == "smooth_gradcam_pp":
        with global_noise_from(generator), methods.SmoothGradCAMpp(module, targets, NOISY_PASSES, NOISE) as smooth:
            # torch-cam takes the image from this pass, and its last noisy pass also for the A_l and ∂y^c/∂A_l outside the means.
            module(x)
            maps: list[Tensor] = smooth(classes, normalized=False)
            return maps
    if kind in NOISELESS:
        with getattr(methods, NOISELESS[kind])(module, targets) as extractor:
            noiseless: list[Tensor] = extractor(classes, module(x), normalized=False)
            return noiseless
    found = getattr(methods, kind, None)
    known = [name for name, value in vars(methods).items() if isinstance(value, type)]
    require(kind in known, "enhance.cam", kind, f"one of {', '.join(KINDS)} or of torch-cam's {', '.join(known)}")
    assert isinstance(found, type), "checked above"
    what = f"makes no maps of {type(module).__name__} at {'+'.join(layers)}: torch-cam raised"
    with blamed("enhance.cam", kind, what), global_noise_from(generator), found(module, targets) as extractor:
        return [one.detach() for one in extractor(classes, module(x), normalized=False)]


def _blend(maps: list[Tensor], size: torch.Size) -> Tensor:
    """The mean of the maps of layers and kinds, brought to [0, 1] and to `size`."""
    scaled = [interpolate(to_unit(layer)[:, None], list(size), mode="bilinear", align_corners=False) for layer in maps]
    # Bilinear weights sum to 1 only to rounding.
    return torch.stack(scaled).mean(0)[:, 0].clamp(0, 1)


def to_unit(maps: Tensor) -> Tensor:
    """(M − min M) / (max M − min M) per image; zeros where the values are equal to rounding or one is not finite."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    span = high - low
    # A flat map differs by the rounding of its sums, and that must not be stretched to [0, 1].
    uneven = span > 16 * torch.finfo(maps.dtype).eps * maps.abs().amax((1, 2), keepdim=True)
    return torch.where(uneven & span.isfinite(), (maps - low) / span, 0.0)


@contextmanager
def _borrowed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and frozen parameters inside; modes, flags and gradients as they were afterwards.

    In evaluation mode dropout is off and batch norms record nothing. Before 0.5 torch-cam clears the parameters' gradients
    and back-propagates into those that are not frozen.
    """
    modes = [(part, part.training) for part in module.modules()]
    held = [(parameter, parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for parameter, requires_grad, gradient in held:
            parameter.requires_grad_(requires_grad).grad = gradient


@contextmanager
def global_noise_from(generator: torch.Generator) -> Iterator[None]:
    """Torch's global CPU generator follows `generator` inside and is afterwards what it was; so is the default type float32.

    torch-cam draws its noise from the global generator, on the CPU, in the default type, and accepts no other; without this the
    maps would depend on whatever was drawn before, and a resumed run would differ.
    """
    seed, usual = int(torch.randint(2**63 - 1, (), generator=generator)), torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the accelerators too, and those are not forked.
        torch.default_generator.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(usual)
