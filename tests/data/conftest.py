"""What the tests of the sources share."""

from pathlib import Path

import pytest
from data.imagenet_tree import build_tree


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic ImageNet; nobody changes it."""
    return build_tree(tmp_path_factory.mktemp("imagenet"))
