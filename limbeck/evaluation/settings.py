"""What a user may say about evaluation: the keys `eval.*`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from limbeck.runtime.checked import Checked, Count, Named, Positive, at_least

OfProtocol = Annotated[int, at_least(1, ", or null for the protocol's")]
Seeds = Annotated[int, at_least(2, " (an interval needs two)")]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSettings(Checked):
    """How results are measured.

    Args:
        protocol: how fresh networks are trained on a small set: `dd`, `dd-published`, `dd-hard`, `none`, `kd`, `kd-rded`,
            `kd-sre2l`, `soft-ce`, or those that repeat others' evaluations, `edf-2024`, `ncfm-2025`, `rded`, `sre2l`, `dd-ranking`
            (`evaluation/protocols.py`); or a .yaml file with a protocol of your own, or a `Protocol`.
        every: iterations between two evaluations on the validation split.
        seeds: fresh networks of the final evaluation on the test split.
        epochs: of each of them; None takes the protocol's.
        batch_size: of each of them; None takes the protocol's.
        every_seeds: fresh networks of a periodic evaluation.
        networks: names of the networks to evaluate with, joined by commas; None takes the one distilled for.
        baselines: names of coresets that stand beside every figure under the same protocol, joined by commas, or `all`: herding,
            k-center, k-means, moderate, el2n, forgetting, ccs, rded-hard; None has none.
        teacher: name of the teacher's network; None takes the student's own.
        view_labels: where a protocol asks a teacher about augmented views: `stored` takes the labels that the set holds, if it
            does, `live` asks the teacher in every step.
        full_epochs: epochs of the networks trained on the whole training split, the teacher among them.
        full_seeds: how many of those.
        full_lr: their step size.
        full_batch_size: their batch size.
        random_lr: step size on the random real subset, and on sets that have learned none; None takes for each the best of 0.001,
            0.005, 0.01, 0.05, 0.1 and the set's η on images that are not tested.
    """

    prefix: ClassVar[str] = "eval."
    protocol: Named[str] = "dd"
    every: Count = 500
    seeds: Seeds = 5
    epochs: OfProtocol | None = None
    batch_size: OfProtocol | None = None
    every_seeds: Count = 1
    networks: str | None = None
    baselines: str | None = None
    teacher: str | None = None
    view_labels: Literal["stored", "live"] = "stored"
    full_epochs: Count = 100
    full_seeds: Seeds = 2
    full_lr: Positive = 0.01
    full_batch_size: Count = 256
    random_lr: Positive | None = None


def under_another(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A set's settings for another protocol than its own: what was changed about the one is no change of the other."""
    own = stored.get("eval") or {}
    kept = {key: value for key, value in own.items() if key not in ("epochs", "batch_size")} if isinstance(own, Mapping) else own
    return {**stored, "eval": kept}
