"""`README.md`: a card that tells a person what a distilled set is, and the Hugging Face Hub where to file it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from limbeck.accuracy import TITLES, Accuracies, Accuracy, percent, protocol_name
from limbeck.data.preprocessing import describe
from limbeck.distilled import coded
from limbeck.distilled.rows import head as head_of_rows
from limbeck.distilled.small_set import NamedSet
from limbeck.runtime.fingerprint import encodable
from limbeck.runtime.records import Record
from limbeck.runtime.tables import markdown_code, markdown_text

METHODS = {
    "edf": "EDF (Emphasize Discriminative Features)",
    "edf-plus": "EDF with four images in every slot",
    "pad": "PAD (Prioritize Alignment in Dataset Distillation)",
    "datm": "DATM (Difficulty-Aligned Trajectory Matching)",
    "tesla": "TESLA (trajectory matching in constant memory)",
    "ftd": "FTD (Flat Trajectory Distillation)",
    "mtt": "MTT (Matching Training Trajectories)",
    "dsa": "DSA (Differentiable Siamese Augmentation)",
    "dc": "DC (gradient matching)",
    "dm": "DM (distribution matching)",
    "ncfm": "NCFM (Neural Characteristic Function Matching)",
    "sre2l": "SRe2L (Squeeze, Recover and Relabel)",
    "cda": "CDA (Curriculum Data Augmentation of SRe2L)",
    "sre2l++": "SRe2L++ (SRe2L from real patches, with crops from large to small)",
    "fadrm": "FADRM (Fast and Accurate Data Residual Matching)",
    "rded": "RDED (Realistic, Diverse and Efficient Dataset Distillation)",
    "rded-hard": "RDED's crops with hard labels",
    "ccs": "CCS (Coverage-centric Coreset Selection)",
    "forgetting": "selection by forgetting events",
    "el2n": "selection by EL2N",
    "moderate": "Moderate Coreset",
    "k-means": "selection of the images nearest to k-means' centres",
    "k-center": "k-center selection",
    "herding": "herding selection",
    "random": "random selection",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


# Of the metadata: what whoever publishes a set says of it, and how well one of the zoo does.
LICENCE, FIGURE = "licence", "figure"
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, kw_only=True)
class Figure(Record):
    """What the card of a set of the zoo promises.

    Args:
        accuracy: of networks trained on the set.
        command: that measures it.
        processor: what kind of one has the same bits: what it is, and torch's instructions and version.
    """

    accuracy: Accuracy
    command: str
    processor: Mapping[str, str]


def card(held: NamedSet, with_rows: bool = False) -> str:
    """The card of a distilled set, Markdown with a YAML head; `with_rows` lie beside it (`distilled.rows`)."""
    import yaml

    source = PurePath(str(_setting(held, "data", "source") or "")).name  # of a path the last part: the rest is nobody's business
    method = METHODS.get(str(held.metadata.get("method")), held.metadata.get("method"))
    head = {
        "pretty_name": f"{_plain(source or 'Images')}, distilled to {len(held.set)} images",
        "tags": ["dataset-distillation", "dataset-condensation", "limbeck"],
        "task_categories": ["image-classification"],
        "size_categories": [next((size for limit, size in _SIZES if len(held.set) < limit), "n>1M")],
        **_licence(held),
        **(head_of_rows(held) if with_rows else {"viewer": False}),  # the Hub would take preview.png for the data
    }
    parts = [
        "---\n" + yaml.safe_dump(head, allow_unicode=True, sort_keys=False) + "---",
        f"# {markdown_text(head['pretty_name'])}",
        f"{len(held.set)} synthetic images of {len(held.class_names)} classes ({_amount(held)}), made by dataset distillation"
        + (f" of `{markdown_code(source)}`" if source else "")
        + ": a network trained on them alone is meant to come close to one trained on the images they were distilled from.",
        "![The distilled images, a row for each class](preview.png)",
        _table([("", ""), *_facts(held, method, source)]),
        figure_of(held),
        results_of(held),
        _loading(held).format(values=f"(N, C, H, W) = {tuple(held.set.images.shape)}", labels=_LABELS[held.set.kind]),
        _AS_ROWS if with_rows else "",
        "## Classes\n\n" + "\n".join(f"{k}. {markdown_text(name)}" for k, name in enumerate(held.class_names)),
        _details(held),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_LABELS = {
    "logits": "`distilled.labels` are soft labels as logits (N, K); `distilled.probabilities()` is their softmax",
    "hard": "`distilled.labels` are one-hot rows (N, K)",
}

_LOADING = """## Loading

```python
from limbeck import DistilledSet
from torch.utils.data import DataLoader

distilled = DistilledSet.load(".")  # this folder; verifies it
loader = DataLoader(distilled.as_dataset(), batch_size=128, shuffle=True)
for images, probabilities in loader:
    ...  # loss = torch.nn.functional.cross_entropy(network(images), probabilities)
pixels = distilled.to_pixels()  # in [0, 1], to look at
```

`distilled.images`, {values}, are as they were optimised, which is what a network takes; {labels}.
Prepare test images with `distilled.preprocessing.forward(pixels)`, and train with step size `distilled.syn_lr`.

Without Limbeck, the tensors are in one safetensors file:

```python
from safetensors.torch import load_file

tensors = load_file("distilled.safetensors")  # images, labels, classes, syn_lr and preprocessing.*
```"""


_AS_ROWS = """As rows, with the images as 8-bit copies, rounded and cut to what can be seen:

```python
from datasets import load_dataset

rows = load_dataset(".", split="train")  # this folder, or the name of its repository on the Hub
rows[0]["image"], rows[0]["label"], rows[0]["probabilities"]
```"""


def _licence(held: NamedSet) -> dict[str, str]:
    """The licence as the Hub's head has it: `unknown` unless somebody has given one."""
    given = str(held.metadata.get(LICENCE) or "unknown")
    return {"license": given if _IDENTIFIER.fullmatch(given) else "other"}


def figure_of(held: NamedSet) -> str:
    """The figure of a set of the zoo, and where an evaluation finds it again."""
    if (noted := held.metadata.get(FIGURE)) is None:
        return ""
    figure = Figure.from_dict(noted)
    kind = ", ".join(f"{key} {value}" for key, value in figure.processor.items())
    return (
        f"## Figure\n\n**{markdown_text(figure.accuracy)}**, 95 % interval {markdown_text(figure.accuracy.interval)}, "
        f"{markdown_text(figure.accuracy.n or '–')} networks, which `{markdown_code(figure.command)}` finds again: to the bit on "
        f"the same kind of processor ({markdown_text(kind)}), within the interval elsewhere."
    )


def _loading(held: NamedSet) -> str:
    """How to read the files; of decoded images only what they are decoded from is there."""
    if coded.described(held.set) is None:
        return _LOADING
    return _LOADING.replace("# images, labels", "# stored (of which Limbeck decodes the images), labels")


def _facts(held: NamedSet, method: Any, source: str) -> list[tuple[str, str]]:
    channels, height, width = held.set.shape
    network = _setting(held, "network")
    return [
        ("Method", markdown_text(method or "unknown")),
        ("Data it was distilled from", f"`{markdown_code(source)}`" if source else "unknown"),
        ("Network it was made for", markdown_text(network or "unknown")),
        ("Images", f"{len(held.set)}, {_amount(held)}"),
        ("Size", f"{height} × {width} pixels, {channels} channel{'s' * (channels > 1)}"),
        ("Labels", {"logits": "soft (logits)", "hard": "hard"}[held.set.kind]),
        *([("Stored", markdown_text(held.set.code))] if held.set.code else []),
        *_views(held),
        ("Step size η to train with", f"{held.set.syn_lr:.6g}"),
        ("Preprocessing", describe(held.preprocessing)),
        ("Licence", markdown_text(held.metadata.get(LICENCE) or "unknown")),
    ]


def _views(held: NamedSet) -> list[tuple[str, str]]:
    """What there is about augmented views, in a row, or nothing."""
    if held.set.views is None:
        return []
    facts = held.set.views.summary()
    size = sum(facts.bytes_per_view.values())
    kept = facts.coding.dtype + (f", the {facts.coding.top} likeliest classes" if facts.coding.top else "")
    teacher = f" of {markdown_text(facts.teacher)}" if facts.teacher else ""
    epochs = f"{facts.epochs} epochs in batches of {facts.batch_size}"
    text = f"logits{teacher} for {epochs} ({kept}, {size:.0f} bytes a view): `distilled.view_batches(epoch)`"
    return [("Labels of augmented views", text)]


def results_of(held: NamedSet) -> str:
    """The results, where the set was evaluated, and those of later evaluations.

    Raises:
        Exception: of some kind, where what the metadata hold in their place is none.
    """
    results = held.metadata.get("evaluation") or {}
    accuracies = Accuracies.from_dict(results.get("accuracy"))
    rows = [
        (TITLES[name], markdown_text(row), markdown_text(row.interval), markdown_text(row.n or "–"))
        for name, row in accuracies.items()
    ]
    parts = []
    if rows:
        under = f" under the protocol {markdown_text(protocol_name(results['protocol']))}" if results.get("protocol") else ""
        parts.append(f"Test accuracy of fresh networks, mean ± standard deviation over n of them{under}:")
        parts.append(_table([("Trained on", "Accuracy", "95 % interval", "n"), *rows]))
    if isinstance(ratio := results.get("recovery_ratio"), (int, float)):
        parts.append(f"Recovery ratio (distilled / full): **{percent(ratio)}**.")
    if said := accuracies.best_on_test:
        parts.append(f"{markdown_text(said)}.")
    if said := accuracies.step_sizes:
        parts.append(f"Step sizes: {markdown_text(said)}.")
    parts += [f"Warning: {markdown_text(one.get('text'))}." for one in results.get("doubts") or ()]
    if later := _later(held):
        parts.append("Evaluated later:")
        columns = ("Protocol", "Network", "Distilled", "Random, as many", "Full data", "n", "Limbeck")
        parts.append(_table([columns, *later]))
    return "\n\n".join(["## Results", *parts]) if parts else ""


def _later(held: NamedSet) -> list[tuple[str, ...]]:
    """A row for every network of every later evaluation."""
    rows = []
    for evaluation in held.metadata.get("evaluations") or []:
        protocol = markdown_text(protocol_name(evaluation.get("protocol")))
        version = markdown_text((evaluation.get("environment") or {}).get("limbeck", "–"))
        networks = {str(evaluation.get("network", "–")): evaluation} | (evaluation.get("networks") or {})
        for name, record in networks.items():
            found = Accuracies.from_dict(record.get("accuracy"))
            values = [markdown_text(found[key]) for key in ("distilled", "random", "full")]
            rows.append((protocol, markdown_text(name), *values, markdown_text(found.distilled.n or "–"), version))
    return rows


def _details(held: NamedSet) -> str:
    """Everything else that is known, as JSON."""
    known = {key: value for key, value in encodable(held.metadata).items() if key not in ("evaluation", "evaluations", FIGURE)}
    if not known:
        return ""
    content = json.dumps(known, indent=2, ensure_ascii=False)
    summary = "<details>\n<summary>All settings, seeds, versions and fingerprints</summary>"
    return f"## Settings\n\n{summary}\n\n```json\n{content}\n```\n\n</details>"


def _amount(held: NamedSet) -> str:
    even = len(held.set) == held.set.ipc * len(held.class_names)
    return f"{held.set.ipc} per class" if even else f"at most {held.set.ipc} per class"


def _setting(held: NamedSet, *keys: str) -> Any:
    """A setting in the metadata, or None."""
    value: Any = encodable(held.metadata.get("settings") or {})
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _plain(value: Any) -> str:
    """One line of text."""
    return " ".join(str(value).split())
