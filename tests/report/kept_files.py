"""What a run keeps for its report, made in a moment: a data card and a map of features, known point by point."""

import torch

from limbeck.runs import data_card, feature_map
from limbeck.runs.data_card import DataCard
from limbeck.runs.feature_map import FeatureMap


def a_card(
    names: tuple[str, ...], train: tuple[int, ...], examples: list[int], shape: tuple[int, int, int] = (3, 8, 8)
) -> DataCard:
    nothing = (0,) * len(names)
    counts = {"train": train, "val": nothing, "test": tuple(reversed(train))}
    about = data_card.CardAbout(source="photos", class_names=names, counts=counts, shape=shape, fingerprint="f")
    pictures = torch.arange(len(examples), dtype=torch.uint8)[:, None, None, None].expand(-1, *shape)
    return DataCard(about, pictures.contiguous(), torch.tensor(examples, dtype=torch.int64))


def a_map(way: str = "t-SNE", iterations: tuple[int, ...] = (0, 200, 400), best: int | None = 200, classes: int = 2) -> FeatureMap:
    """Of one real and one distilled image of each class, the latter moving to the right and up by 10 a look."""
    looks, own = max(1, len(iterations)), torch.arange(classes)
    real = torch.stack([100.0 * own, 0.0 * own], 1)
    paths = real + 10 * torch.arange(looks)[:, None, None]
    about = feature_map.MapAbout(
        network="ConvNetD3, trained on the full data",
        dimensions=64,
        way=way,  # type: ignore[arg-type]
        share=0.625 if way == "PCA" else None,
        iterations=iterations,
        best=best,
        searched=50,
        real=80,
        typical=1.5,
    )
    return FeatureMap(
        about=about,
        real=real,
        real_classes=own,
        paths=paths,
        positions=own * 2,
        classes=own,
        asked=own * 2,
        near=torch.zeros(classes, 1, dtype=torch.int64),
        distances=torch.ones(classes, 1),
        pictures=torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        picture_classes=torch.tensor([0]),
        picture_positions=torch.tensor([7]),
    )
