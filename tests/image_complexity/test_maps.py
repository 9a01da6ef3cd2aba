"""Maps at the layer's resolution against plain loops, and at the image's against `saliency`."""

import numpy as np
import pytest
import torch
from image_complexity.material import tiny
from reference.grad_cam import grad_cam, to_unit

from limbeck.image_complexity.maps import blend, look
from limbeck.runtime.random import generator
from limbeck.saliency.maps import TorchCam


def some_images(number: int = 4, size: int = 8) -> torch.Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_grad_cam_at_the_layers_resolution() -> None:
    network, x = tiny().double(), some_images()
    classes = torch.tensor([0, 1, 2, 1])
    seen = look(network, x, classes, ["pool"], "gradcam", generator(0))
    expected = [to_unit(grad_cam(x[i], network.front, network.back, int(classes[i]))) for i in range(4)]
    assert seen.maps[0].shape == (4, 4, 4)
    assert np.abs(seen.maps[0].numpy() - expected).max() < 1e-12
    assert max(active.max() for active in expected) == 1
    torch.testing.assert_close(seen.logits, network(x))
    torch.testing.assert_close(seen.features, network.front(x).mean((2, 3)))


@pytest.mark.parametrize("cam", ["gradcam", "smooth_gradcam_pp", "layercam"])
@pytest.mark.parametrize("layers", [["pool"], ["body", "pool"]])
def test_at_the_images_resolution_they_are_those_of_saliency(cam: str, layers: list[str]) -> None:
    network, x = tiny(), some_images().float()
    classes = torch.tensor([2, 0, 1, 1])
    expected = TorchCam(cam, "+".join(layers))(network, x, classes, generator(0, "noise"))
    seen = look(network, x, classes, layers, cam, generator(0, "noise"))
    torch.testing.assert_close(blend(seen.maps, (8, 8)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cam", ["gradcam", "smooth_gradcam_pp"])
def test_without_classes_maps_are_for_the_predicted_ones(cam: str) -> None:
    network, x = tiny(), some_images().float() * 4
    network.head.bias -= network(x).mean(0)  # else it says one class of all
    predicted = network(x).argmax(1)
    assert len(predicted.unique()) > 1
    free, bound = (look(network, x, ids, ["pool"], cam, generator(0)) for ids in (None, predicted))
    assert torch.equal(free.maps[0], bound.maps[0])


def test_the_global_generator_stays_where_it_was() -> None:
    before = torch.random.get_rng_state()
    look(tiny(), some_images().float(), None, ["pool"], "smooth_gradcam_pp", generator(0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_blend_takes_the_finest_layer_and_the_mean() -> None:
    coarse, fine = torch.ones(1, 1, 1), torch.tensor([[[0.0, 1.0], [0.5, 0.0]]])
    assert blend([coarse, fine]).tolist() == [[[0.5, 1.0], [0.75, 0.5]]]
    assert blend([coarse, fine], (3, 3)).shape == (1, 3, 3)
