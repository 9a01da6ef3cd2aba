"""Networks of a user's own, of images of 3×16×16."""

from torch import Tensor, nn


class Linear(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 16 * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1))
        return logits


class LeNet(Linear):
    """One by the name of one of Limbeck's."""
