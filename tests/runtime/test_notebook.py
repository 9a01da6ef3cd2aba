"""What a notebook shows of values; the example notebook, executed."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from distilled.samples import sample_set, summary
from PIL import Image

import limbeck
from limbeck.data.imageset import ImageSet
from limbeck.distilled.preview import preview

NOTEBOOK = Path(__file__).parents[2] / "examples" / "distil.ipynb"


def pictures(html: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(found))) for found in re.findall(r"data:image/png;base64,([^\"]+)", html)]


def test_an_image_set_shows_counts_and_examples_of_every_class() -> None:
    x = np.arange(24 * 64 * 3, dtype=np.uint64).astype(np.uint8).reshape(24, 8, 8, 3)
    made = ImageSet.from_arrays(x, np.arange(24) % 2, x[:4], [0, 1, 0, 1], class_names=("<b>", "cat"))
    assert repr(made) == "ImageSet('arrays', 22 + 2 + 4 images 3×8×8, 2 classes)"
    html = made._repr_html_()
    assert "<td>&lt;b&gt;</td><td>11</td><td>1</td><td>2</td>" in html and "<b>" not in html
    first, second = pictures(html)
    assert first.size == second.size == (80, 8)
    shown = made.train.images(made.train.of_class(1)[:2]).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(np.asarray(second)[:, :16], np.concatenate(list(shown.numpy()), axis=1))
    many = ImageSet.from_arrays(x[..., 0], np.arange(24) % 12, x[:12, ..., 0], np.arange(12), val_fraction=0)
    assert "… and 2 more" in many._repr_html_() and len(pictures(many._repr_html_())) == 10


def test_a_distilled_set_shows_its_images_and_accuracies() -> None:
    held = sample_set(
        names=("<i>", "mole", "newt"), metadata={"method": "edf", "evaluation": {"accuracy": {"distilled": summary(0.4)}}}
    )
    assert repr(held) == "DistilledSet(6 images 3×8×10, logits of 3 classes, η = 0.01235, method 'edf')"
    html = held._repr_html_()
    (sheet,) = pictures(html)
    assert sheet.size == preview(held).size
    assert "<td>Distilled images</td><td>40.0 ± 1.2 %</td>" in html
    assert "<table>" not in sample_set()._repr_html_()


@pytest.mark.skipif(not hasattr(limbeck, "ImageSet"), reason="the notebook speaks to the public names")
def test_the_notebook_runs() -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    torch.set_num_threads(1)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs"
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    shown = ["".join(output.get("data", {}).get("text/html", "")) for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("data:image/png" in html for html in shown) >= 2, "the set and the result show themselves"
    assert any("<table" in html for html in shown)
