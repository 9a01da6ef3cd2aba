"""What runs on a GPU, as small calls that no value is asked of.

`test_stand_in.py` makes them on torch's `meta` device, `fake_cuda.py` with tensors that say they are on a CUDA device. Either
refuses what a GPU would: tensors of the CPU among those of the device.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.augmentation import Dsa
from limbeck.augmentation_settings import OPERATIONS
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Whiten
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.distances import features_of
from limbeck.evaluation.evaluator import Evaluator
from limbeck.experts.files import Job
from limbeck.experts.train import material_of
from limbeck.losses import cross_entropy, soft_cross_entropy
from limbeck.matching.adjoint import Adjoint, Exact, InnerLoop, Tesla, Truncated, Unroll
from limbeck.matching.closed_form import Staged
from limbeck.matching.criteria import (
    Criterion,
    HighLossDropout,
    KeepAll,
    LayerDropout,
    LowLossDropout,
    RandomDropout,
    UniformDropout,
    layers_of,
)
from limbeck.matching.distances import Distance, LayerCosine, MatchingLoss, SquaredError
from limbeck.matching.engine import Problem, prepare
from limbeck.matching.settings import EngineSettings
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.methods.enhance import Enhancement
from limbeck.methods.outer import OuterLoop
from limbeck.methods.realistic_patches import crop_losses, cut, draw_boxes, stitch
from limbeck.methods.settings import RdedSettings, Sre2lSettings
from limbeck.methods.state import OuterState
from limbeck.methods.statistics_matching import Recovery
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.runs.plan import Rehearsal
from limbeck.runs.settings import DistillSettings, settle
from limbeck.runtime.progress import NoProgress
from limbeck.runtime.random import generator
from limbeck.saliency.maps import FunctionCam, TorchCam
from limbeck.saliency.weights import Activation, Constant, Shuffled
from limbeck.training.images import TensorImages, prepare_split, sample
from limbeck.training.targets import Labels, Teacher
from limbeck.training.train import logits_of
from limbeck.views import Views, apply, draw, mix_targets

Path = Callable[[torch.device], None]
SHAPE, CLASSES, IMAGES, STEPS = (3, 16, 16), 4, 8, 2
PATHS: dict[str, Path] = {}


def path(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enter a function of (device) under its own name, or of (device, name) under every one of `names`."""

    def enter(function: Callable[..., None]) -> Callable[..., None]:
        title = function.__name__.strip("_").replace("_", " ")
        PATHS.update({f"{title}: {name}": partial(function, name=name) for name in names} or {title: function})
        return function

    return enter


def there(device: torch.device, *tensors: Tensor) -> None:
    """Check that the tensors are on the device."""
    assert [tensor.device.type for tensor in tensors] == [device.type] * len(tensors)


def network_on(device: torch.device, name: str = "ConvNetD1-w8") -> FlatNetwork:
    return flat_network(name, SHAPE, CLASSES).to(device)


def filled(device: torch.device, *shape: int) -> Tensor:
    """Random numbers that have been moved to the device."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)).to(device)


def adjoints() -> Iterator[tuple[str, Adjoint]]:
    for name, kind in (("exact", Exact), ("truncated", partial(Truncated, steps=1)), ("tesla", Tesla)):
        yield name, kind()
        yield f"{name}, a step kept, θ on the host", kind(kept=1, on_host=True)
    yield "unroll", Unroll()


WAYS = {
    f"{name}, {form}, {precision}, {size or 'all'} at a time": (adjoint, form, precision, size)
    for name, adjoint in adjoints()
    for form in (("reverse", "staged") if name != "unroll" else ("reverse",))
    for precision, size in product(("fp32", "bf16"), (None, 3))
    if name.startswith("exact, a") or name == "unroll" or (precision, size) == ("fp32", None)
}


def gradients(
    device: torch.device,
    step: StudentStep,
    adjoint: Adjoint,
    criterion: Criterion = LowLossDropout(0.3),
    distance: Distance = SquaredError(),
    seed: int = 0,
) -> None:
    network = step.network
    theta, target = (filled(device, network.num_parameters) for _ in range(2))
    x, y, eta = filled(device, IMAGES, *SHAPE), filled(device, IMAGES, CLASSES), filled(device, 1)[0]
    draws = draw_steps((IMAGES, *SHAPE), 5, STEPS, Dsa(), seed, 0)
    losses = [MatchingLoss(theta, target, one, distance, layers_of(network.slices)) for one in (criterion, KeepAll())]
    for found in adjoint(InnerLoop(step, theta, draws), x, y, eta, *losses):
        there(device, found.loss, found.images, found.labels, found.syn_lr)
        assert (found.images.shape, found.labels.shape, found.syn_lr.shape) == (x.shape, y.shape, eta.shape)


@path(*WAYS)
def _way(device: torch.device, name: str) -> None:
    adjoint, form, precision, size = WAYS[name]
    step = StudentStep(network_on(device), soft_cross_entropy, precision=precision, micro_batch=size)
    if form == "staged":
        stages = step.network.stages(torch.bfloat16 if precision == "bf16" else None)
        assert stages is not None
        object.__setattr__(step, "functions", Staged(step.network, stages, soft_cross_entropy))
    gradients(device, step, adjoint)


@path("ConvNetD2-w8-batchnorm", "ConvNetD1-w8-groupnorm-maxpool-leaky", "ConvNetD2-w4-nonorm-sigmoid", "MLP", "LeNet")
def _network(device: torch.device, name: str) -> None:
    network = network_on(device, name)
    gradients(device, StudentStep(network, soft_cross_entropy), Exact(kept=1))
    images = TensorImages(filled(device, IMAGES, *SHAPE))
    theta = network.initial(generator(0, "path")).to(device)
    module = network.with_parameters(theta, lambda: sample(images))
    there(device, logits_of(module, images, 3), features_of(module, images.images))


@path()
def _every_operation_of_the_augmentation(device: torch.device) -> None:
    seen, x = set(), filled(device, IMAGES, *SHAPE)
    for seed in range(40):
        drawn = Dsa().draw(generator(seed, "path"), x.shape)
        if drawn.operation not in seen:  # type: ignore[attr-defined]
            seen.add(drawn.operation)  # type: ignore[attr-defined]
            leaf = x.clone().requires_grad_()
            there(device, *torch.autograd.grad(drawn(leaf), leaf, torch.ones_like(x)))
    assert seen == set(OPERATIONS)


CRITERIA: dict[str, tuple[Criterion, Distance]] = {
    "high losses": (HighLossDropout(0.3), SquaredError()),
    "random": (RandomDropout(0.3), SquaredError()),
    "uniform": (UniformDropout(0.3), SquaredError()),
    "first layers": (LayerDropout(0.3, "first"), SquaredError()),
    "middle layers": (LayerDropout(0.3, "middle"), LayerCosine()),
    "low losses, cosine": (LowLossDropout(0.3), LayerCosine()),
}


@path(*CRITERIA)
def _criterion(device: torch.device, name: str) -> None:
    gradients(device, StudentStep(network_on(device), soft_cross_entropy), Tesla(), *CRITERIA[name])


@path("auto", "1GB", "1MB")
def _engine_within(device: torch.device, name: str) -> None:
    network = network_on(device, "ConvNetD1-w16")
    problem = Problem(network, (IMAGES, *SHAPE), CLASSES, [3, 5], STEPS, 10**6)
    settings = EngineSettings(memory=name, compile="no")
    step, adjoint, decided = prepare(problem, Exact(), settings, NoProgress())
    assert isinstance(adjoint, Exact) and adjoint.kept == decided.kept
    if name == "1MB":
        assert decided.micro_batch is not None and decided.micro_batch < 5
    gradients(device, step, adjoint)


@cache
def pictures() -> ImageSet:
    draws = np.random.default_rng(0)
    labels = np.arange(CLASSES).repeat(6)
    x = draws.integers(0, 256, (len(labels), *SHAPE), dtype=np.uint8)
    return ImageSet.from_arrays(x, labels, x[::2], labels[::2], val_fraction=0.34)


def settings(method: str, **keys: Any) -> DistillSettings:
    given = {
        "data.source": pictures(),
        "network": "ConvNetD1-w8",
        "method": method,
        "ipc": 2,
        "match.syn_steps": STEPS,
        "match.batch_syn": 5,
        "outer.iterations": 3,
        "experts.batch_size": 8,
        "eval.epochs": 1,
        "eval.batch_size": 3,
        "enhance.cam_every": 1,
    }
    return settle(given | keys)


def rehearsed(device: torch.device, method: str, **keys: Any) -> Rehearsal:
    """What hands out materials on the device; experts and the maps' network are fresh ones."""
    return Rehearsal(settings(method, **keys), NoProgress(), device=device)


def distilled(device: torch.device, method: str, **keys: Any) -> None:
    """Two iterations of the outer loop."""
    workspace = rehearsed(device, method, **keys)
    classes = torch.arange(CLASSES).repeat_interleave(2)
    step, adjoint, _ = workspace.engine() if workspace.method.steps else (None, None, None)
    loop = OuterLoop(
        objective=workspace.method(workspace, classes, None if step is None else (step, adjoint)),
        enhancement=workspace.enhancement(classes),
        settings=workspace.settings.outer,
        evaluate=lambda *_: None,
        every=10,
        match_norm=workspace.settings.match.match_norm,
        folder=None,  # type: ignore[arg-type]  # nothing is written
    )
    x, y = filled(device, len(classes), *SHAPE), filled(device, len(classes), CLASSES)
    state = OuterState.start(x, y, 0.01, loop.objective.init(), adamw=loop.settings.adamw)
    for iteration in range(2):
        state.iteration = iteration
        update, _, d_images = loop.gradients(state)
        there(device, update.gradients.loss, d_images, *(one for one in update.kept_share.values() if isinstance(one, Tensor)))
        loop.apply(state, update, d_images)
    there(device, state.images, state.labels, state.syn_lr, state.average, state.weights, loop.enhancement.maps(state.average, 0))


METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("edf", "datm", "pad", "ftd", "mtt", "tesla", "dc", "dsa", "dm", "ncfm")},
    "edf, norm matched": ("edf", {"match.match_norm": True, "match.drop_ratio": 0.25, "outer.ema_decay": 0.9}),
    "dsa, criterion": ("dsa", {"match.criterion": "loss", "match.drop_ratio": 0.25}),
    "ncfm, learned": ("ncfm", {"ncfm.sampling": "learned", "ncfm.frequencies": 20}),
    "dm, criterion, batch norm": (
        "dm",
        {"match.criterion": "random", "match.drop_ratio": 0.25, "network": "ConvNetD2-w8-batchnorm"},
    ),
}


@path(*METHODS)
def _method(device: torch.device, name: str) -> None:
    method, keys = METHODS[name]
    distilled(device, method, **keys)


@path("gradcam", "smooth_gradcam_pp", "layercam", "average", "XGradCAM")
def _maps(device: torch.device, name: str) -> None:
    module = network_on(device).module
    x, classes = filled(device, IMAGES, *SHAPE), torch.arange(IMAGES) % CLASSES
    maps = TorchCam(name, batch_size=5)(module, x, classes, torch.Generator())
    for weighting in (Activation(), Constant(2.0, 0.5), Shuffled()):
        there(device, maps, weighting(maps, torch.Generator().manual_seed(0)))


@path()
def _map_of_ones_own(device: torch.device) -> None:
    def loud(module: torch.nn.Module, x: Tensor, classes: Tensor) -> Tensor:
        return x.mean(1).sigmoid() * module(x).gather(1, classes[:, None]).sigmoid()[:, :, None]

    enhancement = Enhancement(network_on(device).module, torch.arange(IMAGES) % CLASSES, 0, FunctionCam(loud))
    there(device, enhancement.weights(filled(device, IMAGES, *SHAPE), 0))


@path()
def _sre2l(device: torch.device) -> None:
    teacher = network_on(device, "ConvNetD2-w8-batchnorm").module.eval()
    preprocessing = rehearsed(device, "dm").preprocessing
    for prepared in (preprocessing, whitening()):
        recovery = Recovery(teacher, prepared, SHAPE, CLASSES, 2, Sre2lSettings(iterations=2, batch_size=5), 0, device)
        state = recovery.run(recovery.start(), lambda state, loss: there(device, loss, state["images"], state["mean"]))
        assert int(state["done"]) == 4


def whitening() -> Whiten:
    found = rehearsed(torch.device("cpu"), "dm", **{"data.zca": True}).preprocessing
    assert isinstance(found, Whiten)
    return found


@path()
def _rded(device: torch.device) -> None:
    settings, preprocessing = RdedSettings(crops=2), rehearsed(device, "dm").preprocessing
    images = torch.zeros(4, *SHAPE, dtype=torch.uint8).to(device)
    patches = cut(images, draw_boxes(settings, 4, SHAPE[1:], torch.Generator()), (8, 8))
    there(device, patches, stitch(patches[:, 0], 2, SHAPE[1:]))
    there(device, crop_losses(network_on(device).module, filled(device, 4, *SHAPE), preprocessing, 1, CLASSES))


@path("sgd", "gsam, momentum, cosine", "in batches of the images' own")
def _experts_in_step(device: torch.device, name: str) -> None:
    gsam = {"experts.optimiser": "gsam", "experts.momentum": 0.9, "experts.rate": "cosine"}
    keys = gsam if name.startswith("gsam") else {"experts.batch_size": 100} if name.startswith("in") else {}
    material = material_of(rehearsed(device, "edf", **keys).expert_task)
    assert material.compute.together(SHAPE, 8) > 2
    theta = material.in_step([Job(k, 0, (1, 2), None) for k in range(3)], lambda epoch, theta, state: there(device, theta, *state))
    there(device, theta)
    assert theta.shape == (3, material.network.num_parameters)
    module = material.network.with_parameters(theta[0], lambda: sample(material.images))
    assert material.held_out is not None
    there(device, logits_of(module, material.held_out))


def evaluated(device: torch.device, evaluator: Evaluator, small: SmallSet) -> None:
    trials = [evaluator._trial(small, ("evaluation", seed)) for seed in range(2)]
    asked = [evaluator.images_of("test")]
    if not evaluator.network.has_dropout:
        thetas = evaluator.trials.in_step(trials)
        assert thetas.shape == (2, evaluator.network.num_parameters)
        there(device, thetas, *evaluator.trials.answers(trials[0], thetas[0], asked))
    there(device, *evaluator.trials.answers(trials[0], evaluator.trials.trained(trials[0]), asked))


@path("dd", "dd-hard", "none", "soft-ce", "kd", "kd-rded", "kd-sre2l")
def _evaluation(device: torch.device, name: str) -> None:
    workspace = rehearsed(device, "edf", **{"eval.protocol": name})
    evaluator = workspace.evaluator()
    evaluator.__dict__["teacher"] = network_on(device).module.eval()
    classes = torch.arange(CLASSES).repeat_interleave(2)
    small = SmallSet(torch.rand(8, *SHAPE), torch.rand(8, CLASSES), classes, 0.01, "logits")
    evaluated(device, evaluator, small)


@path("AlexNet", "ConvNetD1-w4-batchnorm")
def _evaluation_of(device: torch.device, name: str) -> None:
    workspace = rehearsed(device, "dm", **{"eval.epochs": 1})
    evaluator = workspace.evaluator_of(network_on(device, name))
    classes = torch.arange(CLASSES).repeat_interleave(2)
    evaluated(device, evaluator, SmallSet.of_classes(torch.rand(8, *SHAPE), classes, CLASSES, 0.01))


@path("none", "mixup", "cutmix")
def _views(device: torch.device, name: str) -> None:
    how: Any = name
    drawn = draw(Views(patches=2, roll=2, mix=how), generator(0, "path"), (IMAGES, *SHAPE))
    x, p = filled(device, IMAGES, *SHAPE), filled(device, IMAGES, CLASSES)
    there(device, apply(drawn, x), mix_targets(drawn, p))
    index = torch.arange(IMAGES)
    there(device, Teacher(network_on(device).module).of(index, x, lambda y: y), Labels(p).of(index, x, lambda y: y))
    there(device, cross_entropy(filled(device, IMAGES, CLASSES), p))


@path("normalised", "whitened")
def _images(device: torch.device, name: str) -> None:
    workspace = rehearsed(device, "dm", **{"data.zca": name == "whitened"})
    held = prepare_split(workspace.data.train, workspace.preprocessing, device)
    there(device, held.fetch(torch.arange(3)), workspace.preprocessing.inverse(sample(held)))
    there(device, workspace.train_images.fetch(torch.arange(3)))
