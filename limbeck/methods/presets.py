"""The methods as functions: each gives a `Method` with what is set in the call laid over its preset.

limbeck.methods.edf(drop_ratio=0.25, beta=1.0)
limbeck.methods.mtt(schedule=limbeck.Sequential(0, 5, 10), criterion=MyCriterion())
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from limbeck.methods.method import Method
from limbeck.methods.registry import METHODS

if TYPE_CHECKING:
    from limbeck.augmentation import Augmentation
    from limbeck.matching.adjoint import Adjoint
    from limbeck.matching.criteria import Criterion
    from limbeck.matching.distances import Distance
    from limbeck.matching.schedules import Schedule
    from limbeck.parametrisations.parametrisation import Parametrisation
    from limbeck.saliency.maps import Cam
    from limbeck.saliency.weights import Weighting

# What may be an object, by the keyword that takes it.
PARTS = ("criterion", "distance", "schedule", "weighting", "cam", "adjoint", "augmentation", "init", "parametrisation")


@dataclass(frozen=True)
class Preset:
    """A method by name; called, it gives the `Method`.

    Example:
        >>> edf(drop_ratio=0.25).name
        'edf'
    """

    name: str

    def __call__(
        self,
        *,
        drop_ratio: float | None = None,
        beta: float | None = None,
        criterion: "Criterion | str | None" = None,
        distance: "Distance | str | None" = None,
        schedule: "Schedule | str | None" = None,
        weighting: "Weighting | str | None" = None,
        cam: "Cam | str | None" = None,
        adjoint: "Adjoint | str | None" = None,
        augmentation: "Augmentation | str | None" = None,
        init: Any = None,
        parametrisation: "Parametrisation | str | None" = None,
        labels: str | None = None,
        **settings: Any,
    ) -> Method:
        """The method with these settings over its own; what is None is left as the method has it.

        Args:
            drop_ratio: α in [0, 1), the share of parameters that the criterion drops.
            beta: β ≥ 0 of Discriminative Area Enhancement.
            criterion: which parameters the loss keeps.
            distance: how the loss compares.
            schedule: the epochs of the experts that iterations start from.
            weighting: what becomes of activation maps.
            cam: what makes them.
            adjoint: the way to the gradient.
            augmentation: of synthetic images in student steps, of experts and of evaluation.
            init: what the loop starts from: `correct`, `real`, `noise`, `centre`, or a set.
            parametrisation: what is stored of images: `pixels`, `multi`, `dct`, or an object such as `limbeck.MultiFormation(2)`.
            labels: `soft` or `hard`.
            **settings: any other key by its last word (`lr_img=100`, `syn_steps=20`) or in full (`**{"experts.momentum": 0.9}`);
                they are checked when the method is run.
        """
        parts = zip(
            PARTS, (criterion, distance, schedule, weighting, cam, adjoint, augmentation, init, parametrisation), strict=True
        )
        named = {"drop_ratio": drop_ratio, "beta": beta, **dict(parts), "labels": labels}
        given = {key: value for key, value in named.items() if value is not None}
        return replace(METHODS[self.name], name=self.name, given={**given, **settings})


edf, edf_plus, pad, datm, tesla, ftd, mtt = map(Preset, ("edf", "edf-plus", "pad", "datm", "tesla", "ftd", "mtt"))
dsa, dc, dm, ncfm, sre2l, rded = map(Preset, ("dsa", "dc", "dm", "ncfm", "sre2l", "rded"))
cda, sre2l_plus_plus, fadrm = map(Preset, ("cda", "sre2l++", "fadrm"))
k_center, k_means, herding, moderate = map(Preset, ("k-center", "k-means", "herding", "moderate"))
el2n, forgetting, ccs, rded_hard, random = map(Preset, ("el2n", "forgetting", "ccs", "rded-hard", "random"))
