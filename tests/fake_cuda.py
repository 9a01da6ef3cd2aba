"""The paths of a GPU with tensors that say they are on a CUDA device: shapes and dtypes, and CUDA's own rules for them.

    python tests/fake_cuda.py

No GPU is needed. Torch's CPU build knows no CUDA device; a guard of thirty lines of C++, compiled here in seconds, takes its place.
"""

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from ctypes import CDLL, RTLD_GLOBAL
from importlib.metadata import version
from pathlib import Path
from typing import Any

GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <ATen/detail/CUDAHooksInterface.h>
namespace c10::impl {
constexpr auto CUDA = DeviceType::CUDA;
struct Guard final : NoOpDeviceGuardImpl<CUDA> {
  Device exchangeDevice(Device) const override { return Device(CUDA, 0); }
  Device getDevice() const override { return Device(CUDA, 0); }
  Stream getDefaultStream(Device) const override { return Stream(Stream::DEFAULT, Device(CUDA, 0)); }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, Device(CUDA, 0)); }
  Stream exchangeStream(Stream) const noexcept override { return Stream(Stream::DEFAULT, Device(CUDA, 0)); }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
  void recordDataPtrOnStream(const DataPtr&, const Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)
}
namespace at {
struct CUDAHooks : CUDAHooksInterface {
  CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return false; }
};
REGISTER_CUDA_HOOKS(CUDAHooks)
}
"""


def stand_in_for_cuda() -> None:
    """Load the guard; before torch is imported, because that asks what devices there are."""
    found = importlib.util.find_spec("torch")
    assert found is not None and found.origin is not None
    torch = Path(found.origin).parent
    if list((torch / "lib").glob("*torch_cuda*")):
        return  # this build has its own
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or not (torch / "include" / "ATen").is_dir():
        raise SystemExit("fake-cuda: needs torch's CUDA build (no GPU), or a C++ compiler (g++, clang++) beside the CPU build")
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "guard.cpp", Path(folder) / f"guard{sysconfig.get_config_var('SHLIB_SUFFIX')}"
        source.write_text(GUARD)
        words = [
            "-std=c++20",
            "-shared",
            "-fPIC",
            f"-I{torch}/include",
            "-o",
            library,
            source,
            f"-L{torch}/lib",
            "-lc10",
            "-ltorch_cpu",
        ]
        made = subprocess.run([compiler, *words], capture_output=True, text=True)
        if made.returncode:
            said = made.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise SystemExit(
                f"fake-cuda: needs torch's CUDA build (no GPU); a stand-in for torch {version('torch')} failed: {said[0]}"
            )
        for part in ("libtorch_global_deps", "libtorch_cpu"):
            CDLL(str(torch / "lib" / f"{part}{library.suffix}"), mode=RTLD_GLOBAL)
        CDLL(str(library), mode=RTLD_GLOBAL)


def main() -> int:
    """Take every path; the number of those that fail."""
    if importlib.util.find_spec("torch") is None:
        raise SystemExit("fake-cuda: needs torch")
    stand_in_for_cuda()
    sys.path.insert(0, str(Path(__file__).parents[1]))

    import torch
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from limbeck.matching import engine
    from limbeck.runtime.memory import Count, Taken
    from tests.device_paths import PATHS

    def replaced(module: torch.nn.Module, function: Callable[[Any], Any], recurse: bool = True) -> torch.nn.Module:
        for child in module.children():
            replaced(child, function)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(function(parameter.detach()), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else function(buffer)
        return module

    class Mixed(TorchDispatchMode):
        """Tensors of the CPU are what they are, so that draws have values; those of CUDA are fake ones."""

        def __init__(self) -> None:
            super().__init__()
            self.fake = FakeTensorMode(allow_non_fake_inputs=True)

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = {key: value for key, value in (kwargs or {}).items() if key != "pin_memory"}  # which would ask a driver
            leaves = tree_leaves((args, kwargs))
            if not any(isinstance(one, FakeTensor) or getattr(one, "type", None) == "cuda" for one in leaves):
                return func(*args, **kwargs)
            if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
                return True  # nothing speaks against it
            with self.fake:
                return func(*args, **kwargs)

    # What asks the driver. Nothing is computed, so that there is nothing to wait for or to hold.
    answers: dict[str, Callable[..., Any]] = {
        "synchronize": lambda device=None: None,
        "mem_get_info": lambda device=None: (2**34, 2**34),
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "is_bf16_supported": lambda including_emulation=True: True,
        "_lazy_init": lambda: None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)

    def measured(work: Callable[[], Any], device: torch.device) -> tuple[Any, Taken]:
        with Count(device) as count:
            result = work()
        return result, Taken(count.peak, count.held)

    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) makes one of the CPU, and moves it where a mode sees it
    engine.measure = measured
    torch.nn.Module._apply = replaced  # type: ignore[method-assign]  # torch's own swaps tensors in place, which fake ones refuse

    began, failed = time.perf_counter(), Counter[str]()
    chosen = {name: path for name, path in PATHS.items() if len(sys.argv) < 2 or sys.argv[1] in name}
    for name, path in chosen.items():
        try:
            with Mixed():
                path(torch.device("cuda", 0))
        except Exception as error:  # noqa: BLE001 (all of them are to be taken)
            if "--trace" in sys.argv:
                raise
            said = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            failed[said] += 1
            print(f"failed   {name}: {said}", flush=True)
    taken = time.perf_counter() - began
    print(f"{len(chosen) - failed.total()} of {len(chosen)} paths in {taken:.0f} s, torch {torch.__version__}, fake CUDA")
    return failed.total()


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))
