"""Networks of the user's, by `package.module:factory`."""

import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck.networks.batch_norm import BatchNorm
from limbeck.networks.flat import flat_network
from limbeck.networks.names import build_network, check_network_name
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator

SHAPE = (3, 8, 10)
CODE = """
import torch
from torch import nn

def _made(inputs, outputs, hidden=6):
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs))

def four(channels, height, width, num_classes): return _made(channels * height * width, num_classes)
def letters(c, h, w, k, hidden=6): return _made(c * h * w, k, hidden)
def any_four(*args): return _made(args[0] * args[1] * args[2], args[3])
def one(num_classes): return _made(240, num_classes)
def one_letter(k): return _made(240, k)
def classes_first(num_classes=7, hidden=6, depth=2, norm="batch"): return _made(240, num_classes, hidden)
def by_keyword(*, num_classes): return _made(240, num_classes)
def by_any_keyword(**options): return _made(240, **{"outputs": options["num_classes"]})
def lazy(k): return nn.Sequential(nn.Flatten(), nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.Linear(6, k))
class Net(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.head = nn.Linear(240, k)
        nn.init.normal_(self.head.weight, 5.0)
        nn.init.constant_(self.head.bias, 3.0)
        self.register_buffer("noise", torch.randn(240))
    def forward(self, x): return self.head(x.flatten(1) + self.noise)
class zoo:
    net = Net
number = 3
module = nn.Linear(2, 2)
def raises(k): raise RuntimeError("first line\\nsecond line")
def nothing(k): return None
def wrong_outputs(k): return _made(240, k + 1)
def no_logits(k): return nn.Identity()
def pair(k):
    class Pair(nn.Module):
        def forward(self, x): return x, x
    return Pair()
def wrong_size(k): return _made(999, k)
def no_parameters(channels, height, width, num_classes):
    return nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(num_classes))
def other_each_time(k, count=[0]):
    count[0] += 1
    return _made(240, k, 3 + count[0])
def untold(a, b): pass
def needs_channels(channels, num_classes): pass
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with the modules `nets`, `broken` and `needy`."""
    (tmp_path / "nets.py").write_text(CODE)
    (tmp_path / "broken.py").write_text("x = = 1")
    (tmp_path / "needy.py").write_text("import nowhere_to_be_found")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("nets", "broken", "needy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["four", "letters", "any_four", "one", "one_letter", "classes_first", "by_keyword", "by_any_keyword", "lazy", "Net", "zoo.net"],
)
def test_factories_are_called_as_they_can_be(name: str, nets: Path) -> None:
    check_network_name(f"nets:{name}")
    network = flat_network(f"nets:{name}", SHAPE, 4)
    theta = network.initial(generator(0, "a"))
    assert network(theta, torch.zeros(5, *SHAPE)).shape == (5, 4)
    assert network.num_parameters == (964 if "et" in name and "letter" not in name else 240 * 6 + 6 + 12 + 28)
    sys.modules.pop("nets")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:net", r"cannot be imported: there is no module 'nowhere' in the environment or the current folder$"),
        ("nets.inner:net", r"cannot be imported: there is no module 'nets.inner' in the environment or the current folder$"),
        ("needy:net", r"cannot be imported, needy raised ModuleNotFoundError: No module named 'nowhere_to_be_found'$"),
        ("broken:net", r"cannot be imported, broken raised SyntaxError: "),
        ("nets:absent", r"cannot be imported: nets has no 'absent'$"),
        ("nets:number", r"is not a factory, it is a int$"),
        ("nets:module", r"is not a factory, it is a Linear$"),
        ("nets:raises", r"raised RuntimeError: first line$"),
        ("nets:untold", r"raised TypeError: "),
        ("nets:needs_channels", r"raised TypeError: .*'channels'"),
        ("nets:nothing", r"is not a factory of a torch Module, it makes a NoneType$"),
        ("nets:wrong_outputs", r"makes \(2, 5\) of 2 images of 3×8×10, not logits of shape \(2, 4\)$"),
        ("nets:no_logits", r"makes \(2, 3, 8, 10\) of 2 images"),
        ("nets:pair", r"makes tuple of 2 images"),
        ("nets:wrong_size", r"cannot take images of 3×8×10: RuntimeError: "),
        ("nets:no_parameters", r"is not one with parameters that require gradients$"),
        ("nets:", r"is not of the form package.module:factory$"),
        (":net", r"is not of the form package.module:factory$"),
        ("nets:a:b", r"is not of the form package.module:factory$"),
        ("nets/a:b", r"is not of the form package.module:factory$"),
        (".nets:one", r"is not of the form package.module:factory$"),
        ("nets:3", r"is not of the form package.module:factory$"),
    ],
)
def test_what_fails_is_said_in_one_line(name: str, message: str, nets: Path) -> None:
    with pytest.raises(UsageError, match=f"^network: '{name}' {message}") as error:
        flat_network(name, SHAPE, 4)
    assert "\n" not in str(error.value)
    if "form" in message:
        with pytest.raises(UsageError, match=message):
            check_network_name(name)


def test_the_current_folder_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text(CODE)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    assert build_network("own_nets:one", *SHAPE, 4)(torch.zeros(2, *SHAPE)).shape == (2, 4)
    assert sys.path[-1] == str(tmp_path)
    sys.modules.pop("own_nets")


def test_initial_parameters_are_as_the_factory_makes_them(nets: Path) -> None:
    network, random = flat_network("nets:Net", SHAPE, 4), torch.get_rng_state()
    theta = network.initial(generator(0, "a"))
    weight, bias = network.parameters(theta).values()
    assert weight.mean().item() == pytest.approx(5, abs=0.2)
    assert bias.unique().tolist() == [3]
    assert torch.equal(theta, network.initial(generator(0, "a")))
    assert not torch.equal(theta, network.initial(generator(1, "a")))
    assert torch.equal(random, torch.get_rng_state())


def test_what_is_drawn_for_buffers_does_not_depend_on_the_global_generator(nets: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        first = build_network("nets:Net", *SHAPE, 4).get_buffer("noise")
        torch.randn(3)
        second = build_network("nets:Net", *SHAPE, 4).get_buffer("noise")
    assert torch.equal(first, second)
    assert first.std() > 0.5


def test_a_factory_that_makes_another_network_each_time_is_refused(nets: Path) -> None:
    network = flat_network("nets:other_each_time", SHAPE, 4)
    with pytest.raises(UsageError, match="is not a factory that makes the same network at every call"):
        network.initial(generator(0, "a"))


def test_one_module_that_a_factory_gives_again_and_again_is_left_as_it_is() -> None:
    class There(nn.Sequential):
        """On the meta device, which hands no values over as a GPU would."""

        def cpu(self) -> nn.Module:
            return self.to_empty(device="cpu")

    parts = (nn.Linear(240, 6, device="meta"), nn.BatchNorm1d(6, device="meta"), nn.Linear(6, 4, device="meta"))
    module = There(nn.Flatten(), *parts).eval()
    network = flat_network(lambda num_classes: module, SHAPE, 4)
    assert network.fresh is None and isinstance(network.module[2], BatchNorm)
    assert type(module[2]) is nn.BatchNorm1d and not any(part.training for part in module.modules())
    assert {value.device.type for value in module.parameters()} == {"meta"}
    assert network.initial(generator(0, "a")).isfinite().all()


def test_batch_norms_are_pure_and_all_can_be_pickled(nets: Path) -> None:
    network = flat_network("nets:four", SHAPE, 4)
    assert isinstance(network.module[2], BatchNorm)
    assert not any(isinstance(part, nn.BatchNorm1d) for part in network.module.modules())
    again = pickle.loads(pickle.dumps(network))
    theta, x = network.initial(generator(0, "a")), torch.randn(4, *SHAPE)
    assert torch.equal(again.initial(generator(0, "a")), theta)
    assert torch.equal(again(theta, x), network(theta, x))
