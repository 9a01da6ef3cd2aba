"""Several sets of images as one: every image is where it was, under the class of its name."""

import numpy as np
import pytest

from limbeck.data.imageset import ImageSet
from limbeck.data.joined import joined
from limbeck.runtime.errors import UsageError


def images(names: tuple[str, ...], seed: int, size: int = 8) -> ImageSet:
    drawn = np.random.default_rng(seed)
    labels = np.arange(12) % len(names)
    x, x_test = (drawn.integers(0, 256, (12, size, size, 3), dtype=np.uint8) for _ in range(2))
    return ImageSet.from_arrays(x, labels, x_test, labels, class_names=names, val_fraction=0.25)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_every_image_keeps_its_class_by_name(part: str) -> None:
    sets = images(("cat", "dog"), 0), images(("owl", "cat", "eel"), 1)
    whole = joined(sets, "both")
    assert whole.class_names == ("cat", "dog", "owl", "eel")
    found = getattr(whole, part)
    parts = [getattr(one, part) for one in sets]
    np.testing.assert_array_equal(found.images(), np.concatenate([one.images() for one in parts]))
    said = [one.class_names[label] for one, split in zip(sets, parts, strict=True) for label in split.labels]
    assert [whole.class_names[label] for label in found.labels] == said
    assert found.boxes is None


def test_images_of_two_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^data\.size: images of one size are needed to join sets: arrays 3×8×8, arrays 3×16×16$"):
        joined((images(("cat", "dog"), 0), images(("cat", "dog"), 1, size=16)), "both")
