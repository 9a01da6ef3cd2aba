"""The methods by name. A method is a composition of parts, chosen by its settings."""

from collections.abc import Callable

from limbeck.matching.adjoint import Adjoint
from limbeck.matching.steps import StudentStep
from limbeck.methods.objective import Objective
from limbeck.methods.trajectory import TrajectoryMatching
from limbeck.methods.workspace import Workspace


def edf(workspace: Workspace, step: StudentStep, adjoint: Adjoint) -> Objective:
    """Trajectory matching with Common Pattern Dropout; Discriminative Area Enhancement comes with the outer loop.

    Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios" (EDF), 2025,
    arXiv:2410.17193.
    """
    s = workspace.settings
    return TrajectoryMatching(workspace.experts, s.experts.num_experts, step, adjoint, s.match, s.schedule, s.augment, s.seed)


METHODS: dict[str, Callable[[Workspace, StudentStep, Adjoint], Objective]] = {"edf": edf}
