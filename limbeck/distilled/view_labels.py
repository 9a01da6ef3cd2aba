"""Labels of views: what a teacher says of every view that networks will be trained on, kept in few bytes (SRe2L, RDED).

`views.safetensors` holds E epochs of N views each, in batches as a trainer would draw them:

    index                      which image each view is of
    draw.*                     how it is seen: a `ViewDraw`, boxes in single precision (the teacher was asked about just these)
                               unless labels are exact, which go with the very boxes that a trainer would draw
    label.*                    the labels in few bytes, see `label_coding`
    digests                    of every epoch, compared when it is read
    written                    1 for every epoch that is complete

It is written epoch by epoch beside its place, so that a run that was killed goes on, and an epoch is read alone. It may be large:
in the folder of a set it is linked from where it lies, or copied where that cannot be, and to load a set only its header is read.
It may be a pool: E epochs for a training of more, whose epoch e takes those of epoch e mod E.

Yin, Xing and Shen, "Squeeze, Recover and Relabel" (SRe2L), 2023, arXiv:2306.13092; Shen and Xing, "A Fast Knowledge Distillation
Framework for Visual Recognition", 2022, arXiv:2112.01528; Xiao and He, "Are Large-scale Soft Labels Necessary for Large-scale
Dataset Distillation?", 2024, arXiv:2410.15919, who keep a pool at random where this goes round.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from limbeck import views
from limbeck.distilled.epoch_file import digest_of, write_epochs
from limbeck.distilled.label_coding import LabelCoding, decode, encode, label_error
from limbeck.distilled.view_header import FORMAT, FORMATS, Layout, ViewsHeader
from limbeck.distilled.view_packing import labels_of, named, pack, unpacked
from limbeck.parametrisations.parametrisation import Code
from limbeck.parametrisations.registry import to_dict
from limbeck.runtime.bounded import check_ordinary, inside
from limbeck.runtime.errors import UsageError, one_line, require
from limbeck.runtime.files import checksum, put_copy, read_tensor_header
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.random import Key, generator
from limbeck.runtime.ranks import Ranks
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import FileKind
from limbeck.training.images import Images
from limbeck.training.targets import TargetsWithViews
from limbeck.views import ViewDraw, Views

VIEW_LABELS = FileKind("labels of views")
VIEWS = "views.safetensors"


@dataclass(frozen=True)
class ViewsFile(Record):
    """What the metadata of a set say of its file of views: checksum, size and header."""

    sha256: str
    bytes: int
    about: ViewsHeader


@dataclass(frozen=True)
class ViewsSummary(Record):
    """What a reader of a result wants to know of the views; `pool`, of how many epochs they are kept, where it is not all."""

    LEFT_OUT: ClassVar = ("pool",)
    epochs: int
    batch_size: int
    coding: LabelCoding
    teacher: str
    bytes_per_view: dict[str, float]
    pool: int | None = None


@dataclass(frozen=True, eq=False)
class StoredViews(TargetsWithViews):
    """Views with labels in a file: targets that come with views of their own.

    Args:
        path: the file.
        about: its header.
        sha256: the checksum that the file should have, where one is known; `verify` compares.
    """

    path: Path
    about: ViewsHeader
    sha256: str | None = None

    @classmethod
    def open(cls, path: Path | str, sha256: str | None = None) -> "StoredViews":
        """The complete file at `path`: nothing of it is read but its header and which epochs it has.

        Raises:
            UsageError: when there is none, or it is broken.
        """
        path = Path(path)
        try:
            check_ordinary(path)
            about = ViewsHeader.from_dict(read_tensor_header(path, VIEW_LABELS).metadata)
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
                if known := about.is_known:
                    about.check({name: Layout.of(held.get_dtype(), held.get_shape()) for name, held in slices.items()})
                complete = bool(file.get_tensor("written").all())
        except (OSError, SafetensorError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"path: {str(path)!r} is not a sound file of labelled views ({one_line(error)})") from error
        formats = " or ".join(map(str, FORMATS))
        require(known and complete, "path", str(path), f"a complete file of labelled views in format {formats}")
        return cls(path, about, sha256)

    @property
    def epochs(self) -> int:
        """Of a training: E, or for a pool those that it is for."""
        return self.about.trained or self.about.epochs

    @property
    def pool(self) -> int | None:
        """E, where these are fewer than `epochs`."""
        return self.about.epochs if self.about.trained else None

    @property
    def bytes_per_view(self) -> dict[str, float]:
        """On disk, on average: `labels`, and `draws`, which image it is and how it is seen."""
        held = self._read(0)
        size = {name: value.element_size() * value.numel() / self.about.count for name, value in held.items()}
        labels = sum(of for name, of in size.items() if name.startswith("label."))
        return {"labels": labels, "draws": sum(size.values()) - labels}

    def verify(self) -> None:
        """Read the whole file and raise `UsageError` unless it has the checksum that it should have, where one is known."""
        same = self.sha256 in (None, checksum(self.path))
        require(same, "path", str(self.path), "what was saved: its checksum is another")

    def check(self, images: Images, code: Code | None = None) -> None:
        """Raise `UsageError` unless these are the very images whose views are labelled, or are decoded from the same."""
        self._check_shape(images)
        # Before they went by what is stored, they went by the pixels that one machine had decoded from that.
        same = self.about.images in (_identity(images, code), _identity(images))
        require(same, "path", str(self.path), "made for these images: their pixels differ")

    @classmethod
    def take(cls, folder: Path, described: ViewsFile) -> "StoredViews":
        """The views in the folder of a set, whose metadata say of them what `put` returned.

        Raises:
            ValueError, OSError: when they are not what is described.
        """
        path = inside(folder, VIEWS)
        if (size := path.stat().st_size) != described.bytes:
            raise ValueError(f"{VIEWS} has {size} bytes, not {described.bytes}")
        views = cls.open(path, described.sha256)
        if views.about != described.about:
            raise ValueError(f"{VIEWS} is another one than its metadata describe")
        return views

    def put(self, folder: Path) -> ViewsFile:
        """Bring the file into the folder of a set, linked or copied, where it is whole or not at all.

        Returns:
            What the set's metadata are to say of it.

        Raises:
            UsageError: when the file is no longer what it was when it was opened.
        """
        digest, target = checksum(self.path), folder / VIEWS
        require(self.sha256 in (None, digest), "path", str(self.path), "what was saved: its checksum is another")
        if not (target.exists() and target.samefile(self.path)):
            put_copy(self.path, target)
        return ViewsFile(digest, target.stat().st_size, self.about)

    def summary(self) -> ViewsSummary:
        """What a reader of a result wants to know."""
        about = self.about
        return ViewsSummary(self.epochs, about.batch_size, about.coding, about.teacher_name, self.bytes_per_view, self.pool)

    def problem(self, images: Tensor, num_classes: int) -> str | None:
        """What is wrong with these as views of images (N, C, H, W) of so many classes, or None."""
        found, wanted = [*images.shape, num_classes], [self.about.count, *self.about.shape, self.about.num_classes]
        return None if found == wanted else f"views must be of images and classes {found}, not {wanted}"

    def draws(self, epoch: int) -> list[tuple[Tensor, ViewDraw]]:
        """Of every batch of an epoch, from 0, which images (int64 with shape (B,)) and how they are seen."""
        return unpacked(self._read(epoch), self.about.batch_size)

    def labels(self, epoch: int) -> Tensor:
        """The logits of every view of an epoch, in the order of `draws`, float32 with shape (N, K)."""
        return decode(labels_of(self._read(epoch)), self.about.num_classes)

    def batches(self, images: Images, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The views (B, C, H, W) of an epoch and their logits (B, K), batch by batch, on the images' device.

        Raises:
            UsageError: when there are no views of that epoch, or they are of other images.
        """
        self._check_shape(images)
        held = self._read(epoch)
        labels, done = labels_of(held), 0
        for index, draw in unpacked(held, self.about.batch_size):
            part = {name: value[done : done + len(index)].to(images.device) for name, value in labels.items()}
            done += len(index)
            yield views.apply(draw, images.fetch(index)), decode(part, self.about.num_classes)

    def _check_shape(self, images: Images) -> None:
        found, wanted = [len(images), *images.shape], [self.about.count, *self.about.shape]
        require(found == wanted, "path", str(self.path), f"made for images with shape {found}, but for {wanted}")

    def _read(self, epoch: int) -> dict[str, Tensor]:
        """What the file holds of one epoch."""
        accepted = f"below the {self.epochs} epochs whose views {str(self.path)!r} has"
        require(0 <= epoch < self.epochs, "epoch", epoch, accepted)
        with safe_open(self.path, framework="pt") as file:
            held = {name: file.get_slice(name)[epoch % self.about.epochs] for name in file.keys() if name != "written"}  # noqa: SIM118 (no dict)
        known = held.pop("digests", None)  # of the first format there are none
        same = self.about.format == 1 if known is None else torch.equal(known, digest_of(held))
        require(same, "path", str(self.path), f"what was written: epoch {epoch} has changed")
        require(self.about.is_sound(held), "path", str(self.path), f"sound in epoch {epoch}")
        return held


def label_views(
    path: Path,
    teacher: nn.Module,
    images: Images,
    how: Views,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    key: tuple[Key, ...],
    coding: LabelCoding = LabelCoding(),
    pool: int | None = None,
    name: str = "",
    after_epoch: Callable[[int], None] = lambda count: None,
    code: Code | None = None,
    ranks: Ranks = Ranks(),
) -> StoredViews:
    """Draw the views that a training would draw, ask the teacher about them, and keep both in the file `path`.

    The views are those of `train` with the same seed, key and batch size, so that stored labels can take a teacher's place. What
    an earlier call with equal arguments has written is not made again. Of several ranks each asks about an epoch of its own, and
    the first one writes.

    Args:
        path: where; another file there is replaced.
        teacher: a classifier on the images' device; asked in evaluation mode and left as it was.
        images: N images as the network takes them.
        how: the views.
        epochs: E.
        batch_size: views per batch; the last batch of an epoch may be smaller.
        seed, key: name the draws.
        coding: of the labels.
        pool: of how many epochs the views are kept, to be used again for the others; None, or E or more, keeps all.
        name: the teacher's, noted in the file.
        after_epoch: told how many epochs are complete.
        code: what the images are decoded from, where that is stored in their place.
        ranks: that all call this alike.

    Raises:
        UsageError: for values that are not accepted, see `Views`, `LabelCoding` and `encode`.
        Failure: when the teacher's logits are not finite.
    """
    for what, value in (("epochs", epochs), ("batch_size", batch_size), ("images", len(images))):
        require(value >= 1, what, value, "at least 1")
    # Every batch of a file has a draw of the same parts.
    require(how.mix == "none" or how.mix_share in (0, 1), "mix_share", how.mix_share, "0 or 1 where views are labelled beforehand")
    with evaluating(teacher), torch.no_grad():
        num_classes = teacher(images.fetch(torch.zeros(1, dtype=torch.int64))).shape[1]
        kept = min(epochs, pool or epochs)
        about = ViewsHeader(
            format=FORMAT,
            count=len(images),
            shape=tuple(images.shape),
            epochs=kept,
            batch_size=batch_size,
            num_classes=num_classes,
            views=how,
            coding=coding,
            draws=(seed, *key),
            images=_identity(images, code),
            teacher=_module_fingerprint(teacher),
            teacher_name=name,
            trained=epochs if kept < epochs else None,
        )
        if (stored := ranks.told(lambda: _made(path, about))) is not None:
            return stored

        def packed(epoch: int) -> dict[str, Tensor]:
            """The order of an epoch's images and the views of its batches, keyed as the trainer's are."""
            order = torch.randperm(len(images), generator=generator(seed, *key, "order", epoch))
            draws, shape = generator(seed, *key, "augment", epoch), images.shape
            drawn = [views.draw(how, draws, (len(index), *shape)) for index in order.split(batch_size)]
            return pack(order, drawn, batch_size, coding.exact)

        def labelled(epoch: int) -> dict[str, Tensor]:
            held = packed(epoch)
            labels = [encode(teacher(views.apply(draw, images.fetch(index))), coding) for index, draw in unpacked(held, batch_size)]
            return held | named({part: torch.cat([label[part] for label in labels]) for part in labels[0]})

        one = encode(torch.zeros(1, num_classes), coding)
        blank = packed(0) | named({name: value.expand(len(images), *value.shape[1:]) for name, value in one.items()})
        write_epochs(path, blank, about.to_dict(), VIEW_LABELS, labelled, after_epoch, ranks)
    return ranks.told(lambda: StoredViews.open(path))


def _made(path: Path, about: ViewsHeader) -> StoredViews | None:
    """What is there already; None where nothing is, nothing sound or something else."""
    with suppress(UsageError):
        if replace((stored := StoredViews.open(path)).about, format=FORMAT) == about:
            return stored
    return None


def stored_error(
    stored: StoredViews, teacher: nn.Module, images: Images, epoch: int = 0, temperature: float = 1.0
) -> dict[str, float]:
    """`label_error` of one epoch: the teacher is asked about its views again.

    Args:
        stored: the labelled views.
        teacher: the one that labelled them.
        images: those that the views are of.
        epoch: from 0.
        temperature: that both sides' logits are divided by.
    """
    with evaluating(teacher), torch.no_grad():
        logits = [teacher(views.apply(draw, images.fetch(index))).cpu() for index, draw in stored.draws(epoch)]
    return label_error(torch.cat(logits), labels_of(stored._read(epoch)), temperature)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """`module` in evaluation mode inside the block; every part has its own mode again after it."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _identity(images: Images, code: Code | None = None) -> str:
    """Of the images, by what a set's file has of them (`coded.py`): a decoder rounds as the machine does."""
    if code is not None and to_dict(code.decoder.parametrisation) is not None:
        return code.fingerprint
    parts = torch.arange(len(images)).split(256)
    return fingerprint([array_fingerprint(images.fetch(index).cpu().numpy()) for index in parts])


def _module_fingerprint(module: nn.Module) -> str:
    state = {name: value.detach().float().cpu().numpy() for name, value in module.state_dict().items()}
    return fingerprint(str(module), {name: array_fingerprint(value.reshape(-1)) for name, value in state.items()})
