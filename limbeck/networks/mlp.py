"""MLP: two hidden layers of 128 units with ReLU, as Zhao, Mopuri and Bilen, 2020, arXiv:2006.05929, have it."""

from torch import Tensor, nn


class MLP(nn.Module):
    """Three linear layers over all pixels.

    Args:
        channels: C of the images.
        height: H of the images.
        width_pixels: W of the images.
        num_classes: K.
        width: units of each hidden layer.
    """

    def __init__(self, channels: int, height: int, width_pixels: int, num_classes: int, *, width: int = 128) -> None:
        super().__init__()
        pixels = channels * height * width_pixels
        self.hidden = nn.Sequential(nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.classifier = nn.Linear(width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The input of the classifier, with shape (N, D), for images with shape (N, C, H, W)."""
        hidden: Tensor = self.hidden(x.flatten(1))
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        """Logits with shape (N, K) for images with shape (N, C, H, W)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits
