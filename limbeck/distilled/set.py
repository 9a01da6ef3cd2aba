"""The distilled set: a `SmallSet` of synthetic images, the way back to pixels, and what is known of it.

On disk it is a folder, written whole or not at all:

    distilled.safetensors   images (or `stored`, see `coded`), labels, classes, syn_lr, preprocessing.*
    metadata.json           "set": the tensors' checksum, shapes and names; beside it method, settings, seeds, versions,
                            fingerprints, evaluation, and a checksum of all that it says
    views.safetensors       labels of augmented views, where there are any, see `view_labels`
    README.md               a card for people and for the Hugging Face Hub
    preview.png             the images

Nothing in it is ever unpickled.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from limbeck.accuracy import TITLES, Accuracies
from limbeck.distilled import coded
from limbeck.distilled.contents import (
    CARD,
    CODED,
    FORMAT,
    METADATA,
    PREFIX,
    PREVIEW,
    SET,
    TENSORS,
    VIEWS_KEY,
    Description,
    assembled,
    check_said,
    reason,
)
from limbeck.distilled.formats import refusal
from limbeck.distilled.small_set import Kind, NamedSet
from limbeck.distilled.view_labels import StoredViews, ViewsFile
from limbeck.runtime.bounded import inside, read_bytes
from limbeck.runtime.disk import naming, of_disk
from limbeck.runtime.errors import DiskFailure, UsageError, require
from limbeck.runtime.files import checksum, new_folder, read_json, restore, write_json, write_tensors, write_text
from limbeck.runtime.fingerprint import encodable, fingerprint, plain
from limbeck.runtime.kept import cache_root
from limbeck.runtime.located import change, here, origin
from limbeck.runtime.locks import Lock, lock
from limbeck.runtime.memory import free_memory
from limbeck.runtime.published import put_folder
from limbeck.runtime.remote import forget
from limbeck.runtime.room import told
from limbeck.runtime.sealed import CHECKSUM, KIND, OF
from limbeck.runtime.urls import is_url
from limbeck.training.images import TensorImages


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DistilledSet(NamedSet):
    """A small set, as it was optimised.

    Args:
        set: images, float32, and labels, float32, `logits` or `hard`; with η, and with labels of views where there are any.
        preprocessing: what leads from pixels to the images, and back.
        class_names: K names.
        metadata: JSON types: method, settings, seeds, versions, fingerprints (of data and experts), evaluation (`accuracy`,
            `recovery_ratio`, `protocol`, … as in a run's results.json) and evaluations, a list of later ones. `set` and
            `views` are taken.

    Raises:
        ValueError: when these do not fit together, or a number is not finite.

    >>> from limbeck import SmallSet
    >>> from limbeck.data.preprocessing import Identity
    >>> small = SmallSet.of_classes(torch.rand(4, 3, 8, 8), torch.tensor([0, 0, 1, 1]), 2, syn_lr=0.01)
    >>> held = DistilledSet(set=small, preprocessing=Identity(), class_names=("ant", "bee"))
    >>> DistilledSet.load(held.save("tiny"))
    DistilledSet(4 images 3×8×8, hard of 2 classes, η = 0.01, method None)
    """

    def __post_init__(self) -> None:
        if problem := _problem(self):
            raise ValueError(problem)

    def __len__(self) -> int:
        return len(self.set)

    def __repr__(self) -> str:
        labels = f"{self.set.kind} of {self.num_classes} classes, η = {self.syn_lr:.4g}"
        return (
            f"DistilledSet({len(self)} images {'×'.join(map(str, self.shape))}, {labels}, method {self.metadata.get('method')!r})"
        )

    def _repr_html_(self) -> str:
        """The images in a notebook, and how well networks do that were trained on them."""
        from limbeck.distilled.preview import preview
        from limbeck.runtime.tables import picture, table

        sheet = preview(self)
        accuracies = Accuracies.from_dict((self.metadata.get("evaluation") or {}).get("accuracy"))
        rows = [(TITLES[name], str(accuracy)) for name, accuracy in accuracies.items()]
        return f"<p>{escape(repr(self))}</p>{picture(sheet, sheet.height)}{table(rows) if rows else ''}"

    @property
    def images(self) -> Tensor:
        """X, with shape (N, C, H, W), as the network takes them (preprocessed)."""
        return self.set.images

    @property
    def labels(self) -> Tensor:
        """Y, with shape (N, K): logits, or one-hot rows, as `label_kind` says."""
        return self.set.labels

    @property
    def label_kind(self) -> Kind:
        """`logits` or `hard`."""
        return self.set.kind

    @property
    def classes(self) -> Tensor:
        """The class each image was made for, int64 with shape (N,)."""
        return self.set.classes

    @property
    def syn_lr(self) -> float:
        """η."""
        assert self.set.syn_lr is not None, "checked when the set was made"
        return self.set.syn_lr

    @property
    def views(self) -> StoredViews | None:
        """A teacher's labels of augmented views, where the set has any."""
        return self.set.views

    @property
    def num_classes(self) -> int:
        """K."""
        return self.set.num_classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        return self.set.shape

    @property
    def ipc(self) -> int:
        """The greatest number of images that a class has."""
        return self.set.ipc

    def probabilities(self) -> Tensor:
        """The labels as a distribution over the classes, with shape (N, K)."""
        return self.set.probabilities()

    def try_inverse(self) -> None:
        """Raise ValueError unless the preprocessing leads back from these images to pixels."""
        try:
            pixels = self.preprocessing.inverse(self.images[:1])
        except RuntimeError as error:
            raise ValueError("the preprocessing does not fit the images") from error
        if pixels.shape != self.images[:1].shape or not bool(pixels.isfinite().all()):
            raise ValueError("the preprocessing does not lead back to pixels")

    def as_dataset(self) -> TensorDataset:
        """An ordinary data set of (image (C, H, W) as the network takes it, class probabilities (K,)).

        `torch.nn.functional.cross_entropy` takes such probabilities as targets.
        """
        return TensorDataset(self.images, self.probabilities())

    def view_batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Views of an epoch, from 0, with the teacher's logits on them, batch by batch: (B, C, H, W) and (B, K).

        Raises:
            UsageError: when the set has no labels of views, or none for that epoch.
        """
        if self.views is None:
            raise UsageError("views: this set has no labels of views")
        return self.views.batches(TensorImages(self.images), epoch)

    def save(self, path: Path | str) -> Path | str:
        """Write the folder `path`, replacing a distilled set that is there; a crash leaves the old one or the new one.

        A URL such as `s3://bucket/set` is a folder, too: it gets a version of its own.

        Raises:
            UsageError: when something else is there, or nothing can be written there.
            Failure: when another process publishes to the same URL at the same time, and was faster.
            DiskFailure: when the disk is full, read-only or gone.
        """
        try:
            if is_url(str(path)):
                put_folder("output", str(path), self._save)
                return str(path)
            return self._save(Path(path))
        except OSError as error:
            if of_disk(error):
                raise DiskFailure(told(error)) from error
            raise UsageError(f"output: {str(path)!r} cannot be written: {error.strerror or error}") from error

    def _save(self, path: Path) -> Path:
        from limbeck.distilled.card import card
        from limbeck.distilled.preview import preview

        free = not path.exists() or (path / TENSORS).exists() or (path.is_dir() and not any(path.iterdir()))
        require(free, "output", str(path), "a new folder, an empty one or a distilled set")
        with new_folder(path) as folder:
            decoded_by = coded.described(self.set)
            about = Description(
                FORMAT if decoded_by is None else CODED,
                tuple(self.images.shape),
                tuple(self.labels.shape),
                self.label_kind,
                self.preprocessing.kind,
                self.syn_lr,
                self.class_names,
                decoded_by,
            ).to_dict()
            tensors = {**coded.tensors_of(self.set), "labels": self.labels, "classes": self.classes}
            tensors["syn_lr"] = torch.tensor(self.syn_lr, dtype=torch.float64)
            tensors |= {PREFIX + name: tensor for name, tensor in self.preprocessing.tensors().items()}
            write_tensors(folder / TENSORS, tensors, about)
            described: dict[str, Any] = {"set": {"sha256": checksum(folder / TENSORS), **about}}
            if self.views is not None:
                described[VIEWS_KEY] = self.views.put(folder)
            write_json(folder / METADATA, described | self.metadata, SET)
            write_text(folder / CARD, card(self))
            with naming(folder / PREVIEW):
                preview(self).save(folder / PREVIEW)
        return path

    @classmethod
    def load(cls, path: Path | str) -> "DistilledSet":
        """Read and verify the folder `path`: checksum, shapes, types, finite values, classes, label kind; of labels of views size
        and header (`StoredViews.verify` reads them whole).

        Raises:
            UsageError: when the folder is no distilled set or not the one that was saved.
        """
        forget(str(path))  # what was published since is read
        path = Path(here("path", str(path)))
        with _readable(path):
            restore(path)
            require(path.is_dir(), "path", str(path), "a folder that holds a distilled set")
        try:
            metadata = read_json(inside(path, METADATA), SET)
            described = metadata.pop(VIEWS_KEY, None)
            views = None if described is None else StoredViews.take(path, ViewsFile.from_dict(described))
            content = read_bytes(inside(path, TENSORS), free_memory(torch.device("cpu")))
            found = assembled(metadata, content, views)
            held = cls(set=found.set, preprocessing=found.preprocessing, class_names=found.class_names, metadata=found.metadata)
            held.try_inverse()
            check_said(held)
            return held
        except MemoryError as error:
            raise UsageError(f"path: {str(path)!r} needs more memory than there is") from error
        except Exception as error:  # a file that is no good leads to whatever its bytes lead to
            raise UsageError(f"path: {str(path)!r} is not a sound distilled set: {reason(error)}") from error

    @staticmethod
    def is_at(path: Path | str) -> bool:
        """Whether the folder `path` holds a distilled set, sound or not.

        Raises:
            UsageError: when the system does not let it be looked at.
        """
        path = Path(here("path", str(path)))
        with _readable(path):
            return (path / TENSORS).is_file() and (path / METADATA).is_file()

    @classmethod
    def append_evaluation(cls, path: Path | str, evaluation: dict[str, Any]) -> None:
        """Add an evaluation to the list `evaluations` in the metadata of the set in `path`, and to its card, not to its tensors.

        What is there already is not added; what differs in `further` alone adds its measurements to those of the one that is there.

        Raises:
            UsageError: when there is no sound set.
            OSError: when the folder cannot be written to.
        """
        path = Path(here("path", str(path)))
        if (url := origin(path)) is not None:
            change("path", url, lambda copy: cls.append_evaluation(copy, evaluation))
            return
        with _lock(path):
            held = cls.load(path)
            known = list(held.metadata.get("evaluations") or ())
            # One that was stopped when it had noted its result finds the same again, and so do several at a time.
            joined = _joined(known, plain(evaluation))
            if encodable(joined) != encodable(known):
                held.metadata["evaluations"] = joined
                _note(path, held)

    @classmethod
    def add_views(cls, path: Path | str, views: StoredViews) -> None:
        """Add labels of views to the set in `path`, which has none; its tensors stay as they are, and a crash adds nothing.

        Raises:
            UsageError: when there is no sound set, it has such labels already, or the views are of other images.
            OSError: when the folder cannot be written to.
        """
        path = Path(path)
        with _lock(path):
            held = cls.load(path)
            require(held.views is None, "path", str(path), "a set without labels of views")
            views.check(TensorImages(held.images), held.set.code)
            _note(path, replace(held, set=replace(held.set, views=views)), {VIEWS_KEY: views.put(path)})


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Inside the block a place that the system does not let anybody look at is refused."""
    try:
        yield
    except OSError as error:
        raise refusal(path, f"cannot be read: {error.strerror or error}") from error


def _joined(known: list[dict[str, Any]], found: dict[str, Any]) -> list[dict[str, Any]]:
    """The evaluations, with another one or with what else it measured."""
    alike = [encodable({**one, "further": {}}) == encodable({**found, "further": {}}) for one in known]
    if True not in alike:
        return [*known, found]
    one = known[number := alike.index(True)]
    more = {**(one.get("further") or {}), **(found.get("further") or {})}
    return [*known[:number], {**one, "further": more} if more else one, *known[number + 1 :]]


def _lock(path: Path) -> Lock:
    """Held by whoever changes the metadata of the set in `path`."""
    return lock(cache_root() / "locks" / fingerprint(str(path.resolve())))


def _note(path: Path, held: DistilledSet, described: Mapping[str, Any] = {}) -> None:
    """Write the metadata of `held` and its card into its folder; what they say of the files stays, but for `described`."""
    from limbeck.distilled.card import card
    from limbeck.distilled.rows import ROWS

    stored = read_json(path / METADATA, SET)
    kept = {key: stored[key] for key in ("set", VIEWS_KEY) if key in stored}
    write_json(path / METADATA, {**kept, **described, **held.metadata}, SET)
    write_text(path / CARD, card(held, with_rows=(path / ROWS).is_file()))


def _problem(held: DistilledSet) -> str | None:
    """What is wrong with a set, or None."""
    small, names = held.set, held.class_names
    if small.images.dtype != torch.float32 or small.labels.dtype != torch.float32:
        return f"images and labels must be float32, not {small.images.dtype} and {small.labels.dtype}"
    if not names or not all(isinstance(name, str) for name in names):
        return "class_names must be strings, one for each class"
    if small.num_classes != len(names):
        return f"labels must be float32 {[len(small), len(names)]}, not {list(small.labels.shape)}"
    if small.kind == "probabilities":
        return "label_kind 'probabilities' is not logits or hard: log p are the logits of p"
    if small.syn_lr is None:
        return "syn_lr is missing"
    taken = sorted({"set", VIEWS_KEY, KIND, OF, CHECKSUM} & held.metadata.keys())
    return f"metadata must not use the key {taken[0]!r}" if taken else None
