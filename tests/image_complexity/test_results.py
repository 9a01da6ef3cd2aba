"""The rows of single images say which image they are of."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from image_complexity.material import image_set, tiny_judge, workspace_of

from limbeck.data.split import encoded
from limbeck.image_complexity.run import measure_complexity
from limbeck.image_complexity.settings import ComplexitySettings

SETTINGS = ComplexitySettings(layer="pool", split="all", per_class=4, workers=1)


@pytest.mark.parametrize("named", [True, False])
def test_every_row_names_its_file(tmp_path: Path, named: bool) -> None:
    data = image_set()
    if named:
        parts = {part: getattr(data, part) for part in ("train", "val", "test")}
        data = replace(
            data,
            **{
                part: replace(split, names=encoded(f"{part}/猫, {row}.png" for row in range(len(split.storage))))
                for part, split in parts.items()
            },
        )
    assert measure_complexity(SETTINGS, workspace_of(data), tmp_path, network=tiny_judge()) is not None
    with (tmp_path / "images.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        split = getattr(data, row["split"])
        place = split.rows[int(row["position"])]
        assert row["file"] == (f"{row['split']}/猫, {place}.png" if named else "")
