"""The parts without the rest: with torch, numpy, safetensors and what these bring, and nothing else that Limbeck depends on.

One process for all of it, as other packages cannot be put out of reach of this one.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from distilled.samples import sample_set

from limbeck.runtime.missing import PACKAGES

ENOUGH = ("torch", "numpy", "safetensors")
# What reads recipes, draws or writes pages; all other public names are there without the rest.
WHOLE = {"compare", "figures_of", "film", "reproduce", "Reproduction", "write_report"}
PYPROJECT = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
DEPENDENCIES = re.findall(r'^    "([\w-]+)', PYPROJECT.partition("dependencies = [")[2].partition("\n]")[0], re.MULTILINE)

BLOCKED = """
import sys
from importlib.machinery import PathFinder

class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in {blocked!r} else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""

PARTS = """
import json, torch, limbeck

absent = []
for name in limbeck.__all__:
    try:
        getattr(limbeck, name)
    except limbeck.Failure as error:
        absent.append(name)

network = limbeck.flat_network("ConvNetD2-w4", (3, 8, 8), 2)
x = torch.rand(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
y, eta = torch.eye(2, dtype=torch.float64)[[0, 1, 0, 1]], torch.tensor(0.1, dtype=torch.float64)
start, target = (network.initial(torch.Generator().manual_seed(seed)).double() for seed in (1, 2))
step = limbeck.StudentStep(network, limbeck.soft_cross_entropy)
draws = limbeck.draw_steps(x.shape, batch_syn=2, steps=3, augmentation=limbeck.Dsa("flip_crop_color"), seed=0, iteration=0)
loss = limbeck.MatchingLoss(start, target, limbeck.LowLossDropout(0.25))
[exact], [unroll] = (way(limbeck.InnerLoop(step, start, draws), x, y, eta, loss) for way in (limbeck.Exact(), limbeck.Unroll()))
deviation = float((exact.images - unroll.images).abs().max() / unroll.images.abs().max())

held = limbeck.DistilledSet.load(sys.argv[1]).set.images.sum().item()
pixels, labels = torch.rand(8, 3, 8, 8).numpy(), torch.arange(8).numpy() % 2
classes = limbeck.ImageSet.from_arrays(pixels, labels, pixels, labels).num_classes
try:
    module = network.with_parameters(start.float())
    limbeck.TorchCam()(module, x.float(), y.argmax(1), torch.Generator())
    said = ""
except limbeck.Failure as error:
    said = str(error)
found = {"absent": absent, "deviation": deviation, "held": held, "classes": classes, "said": said}
print(json.dumps(found))
"""


def names(requirements: list[str]) -> set[str]:
    """The packages of requirements that go with no extra, spelt alike."""
    return {re.sub("[-_.]+", "-", re.split(r"[^\w.-]", one)[0]).lower() for one in requirements if "extra ==" not in one}


def with_all_they_need(packages: set[str]) -> set[str]:
    found, todo = set[str](), set(packages)
    while todo:
        name = todo.pop()
        found.add(name)
        try:
            todo |= names(requires(name) or []) - found
        except PackageNotFoundError:  # for another system or Python
            continue
    return found


def out_of_reach() -> set[str]:
    """The modules of what Limbeck depends on and torch, numpy and safetensors do not."""
    blocked = with_all_they_need(names(DEPENDENCIES)) - with_all_they_need(set(ENOUGH))
    return {module for module, owners in packages_distributions().items() if names(owners) & blocked}


def test_the_parts_need_three_packages(tmp_path: Path) -> None:
    held = sample_set()
    held.save(tmp_path / "set")
    assert {"PIL", "yaml", "scipy", "rich"} < out_of_reach() and not {"torch", "typing_extensions"} & out_of_reach()
    code = BLOCKED.format(blocked=out_of_reach()) + PARTS
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "set")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["absent"]) == WHOLE
    assert 0 < found["deviation"] < 1e-12
    assert found["held"] == pytest.approx(held.set.images.sum().item())
    assert found["classes"] == 2
    assert found["said"].startswith("torchcam is not installed, which this needs: pip install torchcam brings it")


def test_every_dependency_has_its_sentence() -> None:
    assert set(PACKAGES.values()) == set(DEPENDENCIES) - {*ENOUGH, "typing-extensions", "jinja2"}  # these two come with torch


def test_others_are_left_alone() -> None:
    """A package that is not there is not there, for whoever tries; and what others look for is theirs to say."""
    code = BLOCKED.format(blocked={"yaml"}) + (
        "import limbeck\nfrom importlib.util import find_spec\nassert find_spec('yaml') is None\n"
        "try:\n    import yaml\nexcept ModuleNotFoundError as error:\n    assert type(error) is ModuleNotFoundError, error\n"
        "try:\n    import limbeck.recipes\nexcept limbeck.Failure as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pyyaml is not installed")


def test_limbeck_may_ask_what_is_there() -> None:
    """`find_spec` imports nothing, and answers None, wherever it is called."""
    code = BLOCKED.format(blocked={"yaml"}) + (
        "import limbeck\nfrom importlib.util import find_spec\n"
        "inside = {'__name__': 'limbeck.inside', 'find_spec': find_spec}\n"
        "exec('found = find_spec(\"yaml\")', inside)\nassert inside['found'] is None\n"
        "try:\n    exec('import yaml', inside)\nexcept limbeck.Failure as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pyyaml is not installed")
