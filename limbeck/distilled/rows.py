"""The images of a set as rows that the library `datasets` reads: `data/train-00000-of-00001.parquet`, whose columns are

    image           8-bit PNG, for people: networks take the tensors of distilled.safetensors
    label           the class that it was made for, with its name
    probabilities   p, K numbers: the labels to train on
    logits          Y, K numbers, of soft labels

What the columns are is said twice, in the file and in the head of the card, in words that `datasets` knows since version 3.
"""

import io
import json
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

from limbeck.distilled.preview import picture, quantise
from limbeck.distilled.small_set import NamedSet
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import write_bytes

ROWS = "data/train-00000-of-00001.parquet"


def write_rows(held: NamedSet, folder: Path) -> None:
    """Write the rows of a set into its folder.

    Raises:
        UsageError: when the images have neither one channel nor three, or pyarrow is not installed.
    """
    channels = held.set.shape[0]
    require(channels in (1, 3), "set", f"{channels} channels", "images of 1 or 3 channels, which a data set of the Hub shows")
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError("set: rows for `datasets` need the extra hub: pip install 'limbeck[hub]'") from error
    floats = arrow.list_(arrow.float32())
    images = [{"bytes": _png(levels), "path": None} for levels in quantise(held.to_pixels())]
    columns = {
        "image": arrow.array(images, arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])),
        "label": arrow.array(held.set.classes.tolist(), arrow.int64()),
        "probabilities": arrow.array(held.set.probabilities().cpu().tolist(), floats),
    }
    if held.set.kind == "logits":
        columns["logits"] = arrow.array(held.set.labels.cpu().tolist(), floats)
    table = arrow.table(columns).replace_schema_metadata({"huggingface": _features(held)})
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    write_bytes(folder / ROWS, stream.getvalue())


def head(held: NamedSet) -> dict[str, Any]:
    """What the card's head says of the rows: which files they are, and what their columns are."""
    names = {"names": {str(k): name for k, name in enumerate(_names(held))}}
    columns: list[dict[str, Any]] = [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": {"class_label": names}}]
    columns += [{"name": name, "sequence": "float32"} for name in _vectors(held)]
    return {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": ROWS}]}],
        "dataset_info": {"features": columns},
    }


def _features(held: NamedSet) -> str:
    """The same as the parquet file says it, in JSON."""
    vector = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
    label = {"names": _names(held), "_type": "ClassLabel"}
    columns = {"image": {"_type": "Image"}, "label": label, **dict.fromkeys(_vectors(held), vector)}
    return json.dumps({"info": {"features": columns}})


def _vectors(held: NamedSet) -> list[str]:
    return ["probabilities", *(["logits"] if held.set.kind == "logits" else [])]


def _names(held: NamedSet) -> list[str]:
    """The names of the classes, with their numbers where two have the same, which `datasets` refuses."""
    numbered, counts = [f"{name} ({k})" for k, name in enumerate(held.class_names)], Counter(held.class_names)
    names = [own if counts[name] > 1 else name for name, own in zip(held.class_names, numbered, strict=True)]
    return numbered if len(set(names)) < len(names) else names


def _png(levels: Any) -> bytes:
    stream = io.BytesIO()
    picture(levels).save(stream, "PNG")
    return stream.getvalue()
