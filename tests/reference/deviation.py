"""How far a result lies from its oracle, noted for `benchmarks/fidelity.py`."""

from torch import Tensor

NOTED: list[float] = []


def deviation(value: Tensor, reference: Tensor) -> float:
    """‖value − reference‖ / ‖reference‖."""
    found = ((value.double() - reference.double()).norm() / reference.double().norm()).item()
    NOTED.append(found)
    return found
