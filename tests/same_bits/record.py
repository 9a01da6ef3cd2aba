"""Small seeded runs of everything, and the hashes of what they leave: a refactor proves itself by equal bits.

    python tests/same_bits/record.py           # print what this machine computes
    python tests/same_bits/record.py --write   # keep it, after a deliberate change that CHANGELOG.md names

One thread, uncompiled, on AVX2 at most. Bits are equal only between machines that round alike: `probe` tells whether they do.
"""

import hashlib
import io
import json
import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

# Before torch and its libraries are loaded.
CONDITIONS = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "LOKY_MAX_CPU_COUNT": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
KEPT = Path(__file__).with_suffix(".json")

SETTINGS = {
    "data.source": "scenes:easy",
    "data.size": "16",
    "data.per_class": "12",
    "data.val_fraction": "0.25",
    "network": "ConvNetD2-w8",
    "experts.num_experts": "2",
    "experts.train_epochs": "3",
    "experts.batch_size": "32",
    "match.syn_steps": "3",
    "match.expert_epochs": "1",
    "match.batch_syn": "7",
    "schedule.first_max_start_epoch": "1",
    "schedule.max_start_epoch": "2",
    "schedule.iterations": "4",
    "enhance.cam_every": "3",
    "outer.iterations": "6",
    "outer.checkpoint_every": "4",
    "sre2l.iterations": "3",
    "real.batch": "8",
    "real.outer_loops": "3",
    "real.inner_loops": "1",
    "ncfm.frequencies": "40",
    "engine.compile": "no",
    "eval.every": "3",
    "eval.every_seeds": "1",
    "eval.epochs": "8",
    "eval.seeds": "2",
    "eval.full_epochs": "5",
    "features": "none",  # for the eyes alone
}
METHODS = ("edf", "pad", "datm", "tesla", "ftd", "mtt", "dsa", "dc", "dm", "ncfm", "sre2l", "rded", "k-center", "herding", "random")
EDF = {"match.drop_ratio": "0.25"}
VARIANTS: dict[str, dict[str, str]] = {
    "edf random layers": {**EDF, "match.criterion": "random", "enhance.weighting": "shuffled", "enhance.cam": "average"},
    "edf uniform, constant": {**EDF, "match.criterion": "uniform", "enhance.weighting": "constant", "match.match_norm": "true"},
    "edf first, high": {**EDF, "match.criterion": "first", "enhance.cam": "smooth_gradcam_pp", "engine.kind": "truncated"},
    "edf high, unrolled": {**EDF, "match.drop_side": "high", "engine.kind": "unroll", "enhance.cam_threshold": "0.5"},
    "edf noise": {**EDF, "init": "noise", "enhance.cam": "layercam", "outer.ema_decay": "0.9", "data.zca": "true"},
    "edf centre, three": {**EDF, "init": "centre", "ipc": "3", "schedule.kind": "uniform", "eval.protocol": "dd-hard"},
    "mtt gsam, steps": {"method": "mtt", "experts.optimiser": "gsam", "experts.rate": "cosine", "eval.protocol": "kd"},
    "k-center, three": {"method": "k-center", "ipc": "3"},
    "herding, three": {"method": "herding", "ipc": "3"},
    "ncfm learned": {"method": "ncfm", "ncfm.sampling": "learned", "ncfm.sampling_lr": "0.1", "ipc": "2"},
    "mtt adamw": {"method": "mtt", "outer.img_optimiser": "adamw", "outer.lr_img": "0.01"},
    "dm resnet": {"method": "dm", "network": "ResNet18-w4", "ipc": "2"},
}
VOLATILE = {"seconds", "cpu_seconds", "peak_memory", "environment", "paths", "date", "time", "kept", "versions", "fingerprint"}
VOLATILE |= {"check"}  # of a line with its seconds


def computed() -> dict[str, Any]:
    """By name, what every run leaves: a hash of its bits, and the few figures that machines which round otherwise share."""
    found: dict[str, Any] = {"probe": probe()}
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import pytest
    from studies.here import in_this_process

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        root = Path(folder)
        os.environ["LIMBECK_CACHE"] = str(root / "cache")
        for method in METHODS:
            given = EDF if method == "edf" else {"method": method}
            found[method] = _run(root / "runs" / method, given)
        for number, (name, given) in enumerate(VARIANTS.items()):
            found[name] = _run(root / "runs" / f"variant-{number}", given)
        found["experts"] = _experts(root / "cache" / "experts")
        places = [str(root / "runs" / name / "distilled") for name in ("edf", "dm")]
        found["evaluate one"] = _digest(_command(["evaluate", places[0], "--seeds", "2", "--also", "ranking"])["sets"][0])
        more = ["--networks", "ConvNetD2-w8,MLP", "--seeds", "3"]
        found["evaluate two"] = _digest(_command(["evaluate", *places, *more]))
        words = ["--methods", "edf,datm,random", "--base", "scenes", "--seeds", "0,1", "--output", str(root / "compare")]
        _command(["compare", *words, *_words(SETTINGS)])
        found["compare"] = _digest({"tables": json.loads((root / "compare" / "comparison.json").read_text())["tables"]})
    return found


def probe() -> str:
    """A hash of a convolution, a product and a sum with their gradients: equal on machines that round alike."""
    import torch

    generator = torch.Generator().manual_seed(0)
    x, w, v = (torch.randn(*shape, generator=generator) for shape in ((9, 3, 16, 16), (8, 3, 3, 3), (8 * 256, 10)))
    w.requires_grad_()
    y = torch.nn.functional.conv2d(x, w, padding=1)
    z = torch.nn.functional.group_norm(y, 8).relu().flatten(1) @ v
    (gradient,) = torch.autograd.grad(z.log_softmax(1).square().sum(), w)
    return hashlib.sha256(z.detach().numpy().tobytes() + gradient.numpy().tobytes() + torch.__version__.encode()).hexdigest()[:16]


def _words(settings: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def _command(words: list[str]) -> dict[str, Any]:
    """What a command prints with `--json`."""
    from limbeck.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([*words, "--json"])
    if status:
        raise RuntimeError(f"limbeck {' '.join(words)} ended with {status}: {err.getvalue()[-2000:]}")
    result: dict[str, Any] = json.loads(out.getvalue().splitlines()[-1])
    return result


def _run(place: Path, given: dict[str, str]) -> dict[str, Any]:
    """One distillation: the hash of its set, its metrics and its accuracies, and its first loss."""
    from safetensors.torch import load_file

    results = _command(["distill", "scenes", "--output", str(place), *_words({**SETTINGS, **given})])
    bits = hashlib.sha256()
    # The best of the evaluations may be the start: what the loop has made of it is in the snapshots.
    for file in (place / "distilled" / "distilled.safetensors", *sorted((place / "snapshots").glob("*.safetensors"))):
        tensors = load_file(file)
        for name in sorted(tensors):
            bits.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    path = place / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    losses = [row["loss"] for row in rows if row["kind"] == "iteration"]
    accuracies = {name: summary["mean"] for name, summary in results["accuracy"].items()}
    kept = {"rows": rows, "accuracy": results["accuracy"], "recovery": results["recovery_ratio"]}
    return {"bits": bits.hexdigest()[:16], "metrics": _digest(kept), "first loss": losses[0] if losses else None, **accuracies}


def _experts(place: Path) -> str:
    """The parameters of every expert of every store, as they are read."""
    from limbeck.experts.store import TrajectoryStore

    bits = hashlib.sha256()
    for folder in sorted(place.iterdir()):
        if not (folder / "metadata.json").exists():
            continue
        store = TrajectoryStore(folder)
        for expert in range(2):
            for epoch in range(4):
                bits.update(store.read(expert, epoch).numpy().tobytes())
    return bits.hexdigest()[:16]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(_stable(value), sort_keys=True).encode()).hexdigest()[:16]


def _stable(value: Any) -> Any:
    """Without what differs between two runs of the same bits: times, places, versions."""
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items() if key not in VOLATILE and not str(item).startswith("/")}
    return [_stable(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    if any(os.environ.get(key) != value for key, value in CONDITIONS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **CONDITIONS})
    text = json.dumps(computed(), indent=1)
    print(text)
    if "--write" in sys.argv:
        KEPT.write_text(text + "\n", encoding="utf-8")
