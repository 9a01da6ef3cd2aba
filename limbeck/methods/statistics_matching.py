"""SRe2L: images recovered from noise so that a teacher knows their classes and its batch norms know their statistics.

    L = ℓ(teacher(A(X)), classes) + w Σ_l m_l ( ‖μ_l(A(X)) − μ_l‖₂ + ‖σ²_l(A(X)) − σ²_l‖₂ )

over the batch norms l in the order in which they are run, with μ_l and σ²_l the teacher's statistics and μ_l(·), σ²_l(·) those of
the batch that comes in; m_l = 10 for the first and 1 for the others, w = 0.01. A is a random crop, flip and cyclic shift of every
iteration. Adam's step size falls along a cosine; after every step X is clipped to what pixels in [0, 1] can be.

X starts from noise or from real patches; crops may shrink as the iterations go on (`crop_curriculum.py`), and patches be blended in
between stages, some at a lower resolution (`residual.py`). Discriminative Area Enhancement weights the step that Adam makes of the
gradient, X ← X + F ∘ ΔX, because of weights on the gradient itself Adam would leave nothing: it divides every pixel's gradients by
their own root mean square. F is made from the teacher's maps of X every `enhance.cam_every` iterations of a stage.

An iteration whose L or gradient is not finite changes nothing. After twenty in a row a batch goes on with a quarter of the step
size and Adam's moments anew; X stays as it is, for it is always what pixels can be. After three such times it fails, and at once
where no iteration of the batch has changed anything.

Images are recovered in batches of many classes, one of each class after the other, each from noise of its own; nothing passes from
batch to batch, so that several processes may each recover some. Labels are the teacher's on views (`distilled.view_labels`).

Yin, Xing and Shen, "Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New Perspective" (SRe2L), 2023,
arXiv:2306.13092.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor, nn

from limbeck import views
from limbeck.data.preprocessing import Preprocessing, Whiten
from limbeck.distilled.view_labels import evaluating
from limbeck.methods.crop_curriculum import least_share
from limbeck.methods.enhance import Enhancement
from limbeck.methods.health import IN_A_ROW
from limbeck.methods.norm_statistics import check_teacher, recovery_loss
from limbeck.methods.residual import Stages, blend, resized
from limbeck.methods.settings import Sre2lSettings
from limbeck.runtime.devices import all_true
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.interruption import finishing
from limbeck.runtime.random import generator
from limbeck.training.optimisers import AdamW
from limbeck.training.rates import Cosine
from limbeck.training.train import RETURNS, SMALLER
from limbeck.views import ViewDraw, Views

State = dict[str, Tensor]
CLIPPED = 0.95  # of the numbers of a batch, from which on its images are no images


@dataclass(frozen=True)
class Recovery:
    """Recovers the images.

    Its state is tensors: `images` with shape (ipc · K, C, H, W), of all batches; `mean`, `square` and `steps` of Adam for the
    batch under way; `lost`, of its iterations those lost in a row and in all, and how often its step size was made smaller; `done`,
    the number of finished iterations of all batches together; `small`, of the batch under way, X at a low resolution; `weights` its
    F, where steps are weighted. Draws are keyed by batch and iteration, so that a state that was written to a file goes on to the
    same bits, and so does one of some batches alone (`of_batch`), of which a whole one is made again (`joined`).

    Args:
        teacher: a classifier with batch norms, on `device`; used in evaluation mode and left as it was.
        preprocessing: of the images.
        shape: (C, H, W).
        num_classes: K.
        ipc: images per class.
        settings: the keys `sre2l.*`.
        seed: of the draws.
        device: to compute on.
        flip: whether half of the views are mirrored (not for digits and letters).
        patches: P, a real patch for every image, with the shape and in the order of `images`; asked for by some settings.
        enhancement: gives F, of whatever classes it is asked for; None weights no steps.
        only: the number of the only batch to recover, of whose images alone the state then is; None: all of them.

    Raises:
        UsageError: when the teacher has no batch norm.
    """

    teacher: nn.Module
    preprocessing: Preprocessing
    shape: tuple[int, int, int]
    num_classes: int
    ipc: int
    settings: Sre2lSettings
    seed: int
    device: torch.device
    flip: bool = True
    patches: Tensor | None = None
    enhancement: Enhancement | None = None
    only: int | None = None

    def __post_init__(self) -> None:
        check_teacher(self.teacher, self.settings.teacher or type(self.teacher).__name__)
        assert self.patches is not None or not self.settings.takes_patches, "what asks for patches is given them"

    @property
    def batches(self) -> int:
        """How many there are."""
        return len(self._batches)

    @property
    def numbers(self) -> range:
        """Of the batches that are recovered."""
        return range(self.batches) if self.only is None else range(self.only, self.only + 1)

    @property
    def iterations(self) -> int:
        """Of all batches that are recovered together."""
        return len(self.numbers) * self.settings.iterations

    def start(self) -> State:
        """The state before the first iteration: patches, or noise, N(0, 1) where the network sees it."""
        parts = [self._noise(number) if self.settings.start == "noise" else self._patches(number) for number in self.numbers]
        images = torch.cat(parts).to(self.device)
        return {
            "images": images,
            "done": torch.tensor(0),
            "lost": torch.zeros(3, dtype=torch.int64),
            **self._fresh(images[self._part(self.numbers[0])]),
        }

    def of_batch(self, state: State, number: int) -> State | None:
        """The state of a batch alone, in that of all; None where it has not begun."""
        s, done = self.settings, int(state["done"]) - number * self.settings.iterations
        if done <= 0:
            return None
        found = {"images": state["images"][self._part(number)].clone(), "done": torch.tensor(min(done, s.iterations))}
        last = done <= s.iterations  # else what is of the batch under way is another's
        return found | ({name: value for name, value in state.items() if name not in found} if last else {})

    def joined(self, states: Sequence[State]) -> State:
        """The state of all batches of those of each alone, all of them finished."""
        assert len(states) == self.batches, "one of every batch"
        images = torch.cat([state["images"].to(self.device) for state in states])
        return {**states[-1], "images": images, "done": torch.tensor(self.batches * self.settings.iterations)}

    def _noise(self, number: int) -> Tensor:
        draws = generator(self.seed, "sre2l noise", number)
        return torch.randn(len(self._batches[number]), *self.shape, generator=draws)

    def _patches(self, number: int) -> Tensor:
        assert self.patches is not None, "checked when they are asked for"
        return self.patches[self._batches[number]]

    def fits(self, state: State) -> bool:
        """Whether that may be a state of this recovery."""
        done, count = int(state["done"]), sum(len(self._batches[number]) for number in self.numbers)
        if state["images"].shape != (count, *self.shape) or not 0 <= done <= self.iterations:
            return False
        number, iteration = self._place(done)
        within, _ = self._stages.place(iteration)
        if within == 0:  # what belongs to a stage is made anew
            return True
        low, batch = self._stages.is_low(self._stages.of(iteration)), len(self._batches[number])
        sides = self._stages.low_size(*self.shape[1:]) if low else self.shape[1:]
        wanted = {
            "small": (batch, self.shape[0], *sides) if low else None,
            "weights": (batch, 1, *sides) if self._weighted else None,
        }
        found = {name: tuple(state[name].shape) if name in state else None for name in wanted}
        return found == wanted

    def run(
        self,
        state: State,
        after_iteration: Callable[[State, Tensor], None] = lambda state, loss: None,
        stopped: Callable[[State], None] = lambda state: None,
    ) -> State:
        """Go on from `state`, which is changed in place, until every batch is finished.

        Args:
            state: what `start` made, or what came after some iteration, on any device.
            after_iteration: called with the state, which it must not change, and L.
            stopped: called with the state instead when the run is to end after an iteration.

        Raises:
            Failure: when L is not finite for long.
        """
        state.update({name: value.to(self.device) for name, value in state.items() if name not in ("done", "lost")})
        state.setdefault("lost", torch.zeros(3, dtype=torch.int64))  # files of earlier versions have none
        with evaluating(self.teacher):
            while (done := int(state["done"])) < self.iterations:
                number, iteration = self._place(done)
                try:
                    with finishing():
                        self._begin(state, number, iteration)
                        loss = self._step(state, number, iteration)
                        self._end(state, number, iteration)
                        state["done"] += 1
                except (KeyboardInterrupt, SystemExit):
                    if int(state["done"]) > done:
                        stopped(state)
                    raise
                after_iteration(state, loss)
        return state

    def result(self, state: State) -> tuple[Tensor, Tensor]:
        """X with shape (K · ipc, C, H, W) and the classes, int64 with shape (K · ipc,), class by class."""
        assert self.only is None, "of all batches"
        by_class = state["images"].view(self.ipc, self.num_classes, *self.shape).transpose(0, 1)
        return by_class.flatten(0, 1).clone(), torch.arange(self.num_classes).repeat_interleave(self.ipc)

    def _begin(self, state: State, number: int, iteration: int) -> None:
        """What an iteration that is the first of a batch or of a stage makes anew, and F, where it is its turn."""
        within, _ = self._stages.place(iteration)
        if iteration == 0:
            state["lost"] = torch.zeros(3, dtype=torch.int64)
        if within == 0:
            state.pop("small", None)
            if self._stages.is_low(self._stages.of(iteration)):
                state["small"] = resized(state["images"][self._part(number)], self._stages.low_size(*self.shape[1:]))
            state.update(self._fresh(self._x(state, number)))
        if self.enhancement is not None and self._weighted and within % self.enhancement.every == 0:
            x, (_, height, width) = self._x(state, number), self.shape
            weights = replace(self.enhancement, classes=self._classes(number)).weights(
                resized(x, (height, width)), number * self.settings.iterations + iteration
            )
            state["weights"] = resized(weights, (x.shape[2], x.shape[3])).contiguous()

    def _end(self, state: State, number: int, iteration: int) -> None:
        """After the last iteration of a stage, unless it is that of the batch: X whole again, and the patches blended in."""
        stage = self._stages.of(iteration)
        if iteration + 1 == self.settings.iterations or iteration + 1 < self._stages.first(stage + 1):
            return
        whole, (_, height, width) = state["images"][self._part(number)], self.shape
        x = resized(state.pop("small", whole), (height, width))
        if self.patches is not None:
            x = blend(x, self._patches(number).to(x), self.settings.residual)
        whole.copy_(self._clipped(x))

    def _x(self, state: State, number: int) -> Tensor:
        """X of a batch, at the resolution that it has now."""
        return state["small"] if "small" in state else state["images"][self._part(number)]

    def _step(self, state: State, number: int, iteration: int) -> Tensor:
        """L of a batch in an iteration, whose step has been taken, or which was lost."""
        loss, gradient = self._gradient(state, number, iteration)
        in_a_row, lost, smaller = state["lost"].tolist()
        if all_true(loss.isfinite()) and all_true(gradient.isfinite()):
            self._take(state, number, iteration, gradient, SMALLER**smaller)
            in_a_row = 0
        else:
            in_a_row, lost = in_a_row + 1, lost + 1
        if in_a_row == IN_A_ROW:
            self._check_lost(number, iteration, lost, smaller)
            state.update(self._fresh(self._x(state, number)))
            in_a_row, smaller = 0, smaller + 1
            said = f"sre2l: {IN_A_ROW} iterations of batch {number} in a row were not finite"
            warnings.warn(f"{said}; it goes on with {SMALLER**smaller:g} of sre2l.lr", stacklevel=2)
        state["lost"] = torch.tensor([in_a_row, lost, smaller])
        if iteration + 1 == self.settings.iterations:
            if 2 * lost > iteration + 1:
                self._check_lost(number, iteration, lost, RETURNS)
            self._say_clipped(state["images"][self._part(number)], number)
        return loss

    def _say_clipped(self, x: Tensor, number: int) -> None:
        """Warn of images that are nothing but black and white: steps so large that the clipping alone makes them."""
        if isinstance(self.preprocessing, Whiten):
            return
        share = ((x <= self._levels[0].to(x)) | (x >= self._levels[1].to(x))).double().mean()
        if not all_true(share <= CLIPPED):
            said = f"sre2l: {100 * share.item():.0f} % of the numbers of batch {number} are black or white"
            warnings.warn(f"{said}; sre2l.lr ({self.settings.lr:g}) may be too large", stacklevel=2)

    def _check_lost(self, number: int, iteration: int, lost: int, smaller: int) -> None:
        """Raise `Failure` where smaller steps cannot help a batch, or have not."""
        said = f"sre2l: the loss or its gradient was not finite in {lost} of {iteration + 1} iterations of batch {number}"
        if lost == iteration + 1:
            blame = "the teacher, which eval.full_lr and eval.full_epochs train, is no use, or sre2l.bn_weight too large"
            raise Failure(f"{said}, from the first on: {blame}")
        if smaller == RETURNS:
            raise Failure(f"{said}, with smaller steps too: sre2l.lr ({self.settings.lr:g}) is too large")

    def _gradient(self, state: State, number: int, iteration: int) -> tuple[Tensor, Tensor]:
        """L and its gradient by the images of a batch."""
        s, (_, height, width) = self.settings, self.shape
        leaf = self._x(state, number).detach().requires_grad_()
        with torch.enable_grad():
            x = leaf if "small" not in state or self._takes_small else resized(leaf, (height, width))
            seen = views.apply(self._draw(number, iteration, len(x), (x.shape[2], x.shape[3])), x)
            loss = recovery_loss(self.teacher, seen, self._classes(number), s.bn_weight, s.first_multiplier)
            (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient

    def _take(self, state: State, number: int, iteration: int, gradient: Tensor, smaller: float = 1.0) -> None:
        """The step along a gradient."""
        x, factor = self._x(state, number), smaller * Cosine().factor(iteration, self.settings.iterations)
        moments, before = (state["mean"], state["square"], state["steps"]), x.clone() if self._weighted else x
        self._adam.step(x.view(-1), moments, lambda at: gradient.reshape(-1), factor)
        if self._weighted:
            x.copy_(before + state["weights"] * (x - before))
        x.copy_(self._clipped(x))

    def _draw(self, number: int, iteration: int, count: int, size: tuple[int, int] | None = None) -> ViewDraw:
        """The views of a batch of images of that size, or of whole ones."""
        s, (channels, *whole) = self.settings, self.shape
        height, width = size or whole
        least = least_share(s.crop_curriculum, s.crop_scale, iteration, s.iterations, s.crop_milestone)
        how = Views(crop_scale=(least, s.crop_scale[1]), flip=self.flip, roll=s.roll_for(height, width))
        draws, shape = generator(self.seed, "sre2l view", number, iteration), (channels, height, width)
        if not s.same_view:
            return views.draw(how, draws, (count, *shape))
        one = views.draw(how, draws, (1, *shape))
        return ViewDraw.from_tensors({name: value.expand(count, *value.shape[1:]) for name, value in one.tensors().items()})

    def _clipped(self, x: Tensor) -> Tensor:
        """The images nearest x whose pixels lie in [0, 1]; of whitened ones, those of the nearest such pixels."""
        if isinstance(self.preprocessing, Whiten):
            return self.preprocessing.forward(self.preprocessing.inverse(x).clamp(0, 1))
        black, white = (level.to(x) for level in self._levels)
        return x.clamp(black, white)

    @cached_property
    def _levels(self) -> tuple[Tensor, Tensor]:
        """What black and white pixels are where the network sees them."""
        black, white = (self.preprocessing.forward(torch.full((1, self.shape[0], 1, 1), level)) for level in (0.0, 1.0))
        return black, white

    def _fresh(self, x: Tensor) -> State:
        return dict(zip(("mean", "square", "steps"), self._adam.state(x.reshape(-1)), strict=True))

    @cached_property
    def _stages(self) -> Stages:
        return Stages(self.settings.iterations, self.settings.stages, self.settings.low_resolution)

    @property
    def _weighted(self) -> bool:
        return self.enhancement is not None and self.enhancement.active

    @cached_property
    def _takes_small(self) -> bool:
        """Whether the teacher takes images of the low resolution, as those with global pooling do."""
        held = next(chain(self.teacher.parameters(), self.teacher.buffers()))
        one = held.new_zeros(1, self.shape[0], *self._stages.low_size(*self.shape[1:]))
        try:
            with torch.no_grad():
                self.teacher(one)
        except (RuntimeError, UsageError):
            return False
        return True

    def _classes(self, number: int) -> Tensor:
        """Those of a batch."""
        return (self._batches[number] % self.num_classes).to(self.device)

    def _place(self, done: int) -> tuple[int, int]:
        """The batch and its iteration that come after so many."""
        passed, iteration = divmod(done, self.settings.iterations)
        return self.numbers.start + passed, iteration

    def _part(self, number: int) -> slice:
        """Of a batch, in the images of a state."""
        begin = (number - self.numbers.start) * self.settings.batch_size
        return slice(begin, begin + self.settings.batch_size)

    @cached_property
    def _batches(self) -> tuple[Tensor, ...]:
        """The positions of every batch; the class of a position is its remainder by K."""
        parts: tuple[Tensor, ...] = torch.arange(self.ipc * self.num_classes).split(self.settings.batch_size)
        return parts

    @cached_property
    def _adam(self) -> AdamW:
        return AdamW(self.settings.lr, self.settings.betas, weight_decay=0.0)
