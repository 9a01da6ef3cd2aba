"""What is said and drawn of a store."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from experts.test_store import RECORD
from experts.walks import IDENTITY, filled, snapshot
from matplotlib.colors import to_hex

from limbeck.experts.maintain import Asked, describe, over_experts
from limbeck.experts.notes import ClassScores, Difficulty, Want
from limbeck.experts.store import TrajectoryStore
from limbeck.figures.experts import expert_curves
from limbeck.figures.style import BLUE, ORANGE, png


def test_a_description_says_what_there_is(tmp_path: Path) -> None:
    store = filled(tmp_path, Want(3, tuple(range(20)), 30, 2, "half"))
    said = describe(store)
    assert said.identity == IDENTITY
    assert said.about == {"source": "walks"}
    assert said.epochs == {"0-19,30": 2, "0-19": 1}
    assert said.codings == {"half": 60, "fp32": 2}
    assert 1e-4 < said.step_error < 0.01
    assert said.bytes == sum(map(len, snapshot(tmp_path).values()))
    assert said.list_share == said.bytes / (3 * 31 * 700 * 4)
    assert said.accuracy["0"] == [epoch / 1000 for epoch in range(1, 31)]
    (asked,) = said.wanted
    assert asked == Asked(num_experts=3, epochs="0-19", last=30, label_experts=2, dtype="half", lacking=0)
    assert said.difficulty == []
    store.note_difficulty(Difficulty.from_dict(RECORD))
    assert describe(store).to_dict()["difficulty"] == [RECORD]
    assert describe(TrajectoryStore(tmp_path / "empty", IDENTITY)).list_share is None


def test_over_experts() -> None:
    rows = over_experts([[0.1, None, 0.3], [0.3, None], []])
    assert rows == [(1, 0.2, 0.1, 0.3), (3, 0.3, 0.3, 0.3)]
    assert over_experts([]) == []


def test_the_plot_shows_every_expert_their_mean_and_what_is_held() -> None:
    figure = expert_curves({0: [0.1, 0.3, None, 0.5], 1: [0.3, 0.5]}, {0: [0, 1, 4], 1: [0, 1]})
    (axes,) = figure.axes
    lines = [line.get_xydata() for line in axes.get_lines() if to_hex(line.get_color()) == BLUE]
    points = [line[np.isfinite(line).all(axis=1)].tolist() for line in lines]
    assert points[0] == [[1, 10], [2, 30], [4, 50]]
    assert points[1] == [[1, 30], [2, 50]]
    assert np.allclose(points[2], [[1, 20], [2, 40], [4, 50]])
    (held,) = axes.collections
    assert to_hex(held.get_color()[0]) == ORANGE
    heights = {segment[0, 0]: segment[1, 1] for segment in held.get_segments()}
    assert heights == pytest.approx({0: 0.05, 1: 0.05, 4: 0.025})
    for empty in (({}, {}), ({0: []}, {0: [0]}), ({0: [None]}, {0: [1]})):
        assert len(expert_curves(*empty).axes[0].texts) == 1


def test_difficulties_are_drawn_class_by_class() -> None:
    rows = [
        ClassScores(0, "an uncommonly long name $of$ a class", 5, 2.0, (0, 1, 2, 3, 4)),
        ClassScores(1, "b", 5, 4.0, (1, 1, 5, 6, 9)),
    ]
    made = Difficulty.from_dict(RECORD)
    scores = dataclasses.replace(made, measure="el2n", classes=tuple(rows))
    first, below, last = expert_curves({0: [0.5]}, {0: [0]}, [scores] * 2).axes
    assert first.get_ylabel() == "validation accuracy (%)"
    assert below.get_ylabel() == last.get_ylabel() == "EL2N"
    thin, thick, dots = below.collections
    assert [segment[:, 1].tolist() for segment in thin.get_segments()] == [[0, 4], [1, 9]]
    assert [segment[:, 1].tolist() for segment in thick.get_segments()] == [[1, 3], [1, 6]]
    assert np.asarray(dots.get_offsets())[:, 1].tolist() == [2, 5]
    assert [text.get_text() for text in below.get_xticklabels()] == ["an uncommonly lon…", "b"]
    many = tuple(ClassScores(k, str(k), 5, k, (k,) * 5) for k in range(1000))
    panel = expert_curves({}, {}, [dataclasses.replace(made, classes=many)]).axes[1]
    assert len(panel.get_xticklabels()) < 20
    png(expert_curves({}, {}, [dataclasses.replace(scores, measure="grand")]))  # also the names can be drawn
