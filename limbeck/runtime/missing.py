"""What is said where a package is not installed that Limbeck would import.

The parts of Limbeck need torch, numpy and safetensors, and import whatever else where they use it. Who has installed the parts
alone (`pip install --no-deps limbeck`) reads there, in place of Python's "No module named 'PIL'", which package it is and what
brings it. The import machinery asks `Missing` last, once nobody has found the module, and it speaks up for imports that stand in
Limbeck's own code alone: for everybody else a package that is not there is not there. Packages of extras have a sentence where
they are imported.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from limbeck.runtime.errors import Failure

# What comes with Limbeck, beside torch and numpy and safetensors: the package by the module that is imported.
PACKAGES = {
    "PIL": "pillow",
    "joblib": "joblib",
    "jsonargparse": "jsonargparse",
    "matplotlib": "matplotlib",
    "psutil": "psutil",
    "rich": "rich",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "threadpoolctl": "scikit-learn",
    "torchcam": "torchcam",
    "yaml": "pyyaml",
}


class NotInstalled(Failure, ModuleNotFoundError):
    """A package that Limbeck would import is not installed; the message names it, and what brings it.

    Example:
        >>> isinstance(NotInstalled("pillow is not installed"), ImportError)
        True
    """


class Missing(MetaPathFinder):
    """Finds nothing, and says so in a sentence where it is Limbeck that imports."""

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        module = fullname.partition(".")[0]
        if module not in PACKAGES or module in sys.modules or not _asked_by_limbeck():
            return None
        package = PACKAGES[module]
        said = f"{package} is not installed, which this needs: pip install {package} brings it, pip install limbeck all at once"
        raise NotInstalled(said)


def _asked_by_limbeck() -> bool:
    """Whether the import that is going on stands in a module of Limbeck's."""
    frame = sys._getframe(2)
    while (name := str(frame.f_globals.get("__name__"))).startswith("importlib.") and frame.f_back is not None:
        if name == "importlib.util":  # `find_spec` asks whether it is there
            return False
        frame = frame.f_back
    return name.startswith("limbeck.")


def say_what_is_missing() -> None:
    """Have `Missing` asked from now on."""
    if not any(isinstance(finder, Missing) for finder in sys.meta_path):
        sys.meta_path.append(Missing())
