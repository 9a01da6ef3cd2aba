"""What is noted of sets that were made otherwise than they are evaluated."""

import pytest
from distilled.samples import sample_set

from limbeck.recipes import load_recipe
from limbeck.runs.set_notes import other_augmentation, say_notes
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.progress import NoProgress

Keys = dict[str, str]


def noted(made: Keys, evaluated: Keys) -> list[str]:
    """The keys that a note of a set says."""
    was, now = (load_recipe("scenes", {f"augment.{key}": value for key, value in keys.items()}) for keys in (made, evaluated))
    notes = other_augmentation(sample_set(metadata={"settings": {"augment": plain(was.augment)}}), now)
    return [note.partition("augment.")[2].partition("=")[0] for note in notes]


@pytest.mark.parametrize(
    ("strategies", "keys", "said"),
    [
        (("none", "none"), {"crop_ratio": "0.4", "rotate": "false"}, []),
        (("color_flip", "color_flip"), {"crop_ratio": "0.4", "rotate": "false"}, []),
        (("none", "none"), {"flip": "false"}, ["flip"]),  # views are mirrored, too
        (("crop", "crop"), {"crop_ratio": "0.4", "rotate": "false"}, ["crop_ratio"]),
        (("none", "crop"), {"crop_ratio": "0.4"}, ["strategy", "crop_ratio"]),
    ],
)
def test_a_key_that_no_operation_reads_makes_no_difference(strategies: tuple[str, str], keys: Keys, said: list[str]) -> None:
    made, evaluated = strategies
    assert noted({"strategy": made, **keys}, {"strategy": evaluated}) == said


def test_what_several_sets_have_in_common_is_said_once() -> None:
    said: list[str] = []

    class Noted(NoProgress):
        def say(self, message: str) -> None:
            said.append(message)

    say_notes({"a": ["x"], "b": ["x", "y"], "c": ["x"], "d": ["x"], "e": []}, Noted())
    assert said == ["note: a, b, c and 1 more: x", "note: b: y"]
