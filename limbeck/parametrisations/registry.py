"""The parametrisations by name, and as the JSON object that a saved set holds."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from limbeck.parametrisations.dct import Dct
from limbeck.parametrisations.multi_formation import MultiFormation
from limbeck.parametrisations.parametrisation import Parametrisation, Pixels

KINDS: dict[str, type[Parametrisation]] = {"pixels": Pixels, "multi": MultiFormation, "dct": Dct}


def parametrisation_of(kind: str, factor: int, keep: float | None) -> Parametrisation:
    """The parametrisation of that name with those of the settings that it has."""
    given, known = {"factor": factor, "keep": keep}, KINDS[kind]
    assert is_dataclass(known)
    return known(**{one.name: given[one.name] for one in fields(known)})


def to_dict(parametrisation: Parametrisation) -> dict[str, Any] | None:
    """Its kind and settings; None of one of the user's, which no file can say."""
    kind = next((name for name, known in KINDS.items() if type(parametrisation) is known), None)
    if kind is None or not is_dataclass(parametrisation):
        return None
    return {"kind": kind, **{one.name: getattr(parametrisation, one.name) for one in fields(parametrisation)}}


def from_dict(held: Mapping[str, Any]) -> Parametrisation:
    """The parametrisation of such an object.

    Raises:
        ValueError: when it is none.
    """
    kind = held.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"it stores its images as {kind!r}, which is none of {', '.join(KINDS)}")
    known = KINDS[kind]
    assert is_dataclass(known)
    if held.keys() - {"kind"} != {one.name for one in fields(known)}:
        raise ValueError(f"what it stores of {kind!r} has other settings")
    return known(**{one.name: held[one.name] for one in fields(known)})
