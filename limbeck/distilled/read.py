"""Sets that others made, as a `DistilledSet`: what a path is decides how it is read.

    a folder with distilled.safetensors        a saved `DistilledSet`
    a folder with images_best.pt, …            what research code of trajectory matching leaves (`distilled.formats`), or
                                               what `limbeck export --to research` wrote, with about.json
    a folder with labels.npz, classes.json     what `limbeck export --to folder` wrote
    a folder of class folders                  images with hard labels
    an .npz file                               what `limbeck export --to npz` wrote, or `images` and `labels`
    a .pt file                                 tensors (`distilled.formats`), of images_best.pt with those beside it

What neither a file nor an option says is assumed (`distilled.interpret`), and the set's metadata say so. A step size that nobody
says is none of the set's own: whoever trains on the set chooses one.
"""

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from limbeck.data.arrays import holds_letters
from limbeck.data.decode import CHUNK, SUFFIXES, Lost, Whole, decode_all, notes_on, printable, read_headers
from limbeck.data.imageset import ImageSet
from limbeck.data.levels import Levels, found_levels
from limbeck.data.preprocessing import Preprocessing, preprocessing_from
from limbeck.data.registry import known_names
from limbeck.distilled.about import About, read_about
from limbeck.distilled.export import folder_names
from limbeck.distilled.foreign import ForeignOptions
from limbeck.distilled.formats import (
    BEST,
    FLOATS,
    Raw,
    array_names,
    best_files,
    check_room,
    json_values,
    load,
    names_of,
    read_arrays,
    read_best,
    read_pt,
    refusal,
    shown,
    step_size,
    within,
)
from limbeck.distilled.interpret import classes_of, images_of, labels_of, positions, resizing
from limbeck.distilled.normalised import usual_name
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import Kind, SmallSet
from limbeck.runtime.checked import unwritable
from limbeck.runtime.errors import one_line
from limbeck.runtime.executor import spread
from limbeck.runtime.files import checksum
from limbeck.runtime.located import here

TENSORS = (".pt file", "folder of .pt files")  # as research code writes them
FORMS = "a saved distilled set, a folder of images or with images_best.pt, an .npz and a .pt file are accepted"
SYN_LR = 0.01  # where nobody says one
# Of the metadata: how the step size was come by where the set did not learn it. `assumed` is nobody's; others are in `ORIGINS`.
STEP_SIZE = "step_size"


def read_set(
    path: Path | str, data: ImageSet, preprocessing: Preprocessing, *, options: ForeignOptions = ForeignOptions()
) -> DistilledSet:
    """The set at `path`, whoever made it.

    Args:
        path: a file or folder of one of the forms above.
        data: the images it is to be tested on; they say classes and shape.
        preprocessing: of the data's training split; it prepares pixels.
        options: how to understand what the files leave open; a saved `DistilledSet` leaves nothing open.

    Returns:
        The set. Unless it was saved by Limbeck, its metadata are `method` (None), `origin` (`name` of the path, `kind`, `sha256` of
        the file, or of the lines that `sha256sum` prints for several), `assumed`, a list of sentences, and, where no file says the
        step size, `step_size`: `given` by the options or `assumed` to be 0.01.

    Raises:
        UsageError: when the path is none of these, a file is broken, hostile or leaves a doubt, or classes or size are not those of
            the data; the message is one line. Nothing in any file is executed.
    """
    path = Path(os.path.expanduser(here("path", str(path))))
    reading = _Reading(path, data, preprocessing, options)
    files = {".npz": reading.npz, ".pt": reading.pt, ".pth": reading.pt}
    try:
        if path.is_dir():
            return DistilledSet.load(path) if DistilledSet.is_at(path) else reading.folder()
        if path.is_file() and path.suffix.lower() in files:
            return files[path.suffix.lower()]()
        raise refusal(path, f"is {'another kind of file' if path.exists() else 'not there'}; {FORMS}")
    except OSError as error:
        raise refusal(path, f"cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise refusal(path, "needs more memory than there is") from error


@dataclass(frozen=True)
class _Reading:
    """One set while it is read; `assumed` gathers what no file says."""

    path: Path
    data: ImageSet
    preprocessing: Preprocessing
    options: ForeignOptions
    assumed: list[str] = field(default_factory=list)
    step_size: dict[str, str] = field(default_factory=dict)

    def folder(self) -> DistilledSet:
        if best_files(self.path):
            return self.best()
        if inner := [folder for folder in self.folders() if best_files(folder)]:
            if len(inner) > 1:
                raise refusal(self.path, f"holds sets in {shown(folder.name for folder in inner)}; give one of these folders")
            return replace(self, path=inner[0]).folder()
        if (self.path / "labels.npz").exists() or (self.path / "classes.json").exists():
            return self.exported_folder()
        return self.class_folders()

    def best(self, images_file: Path | None = None) -> DistilledSet:
        raw, files = read_best(self.path, images_file)
        about, notes = read_about(self.path)
        self.assumed.extend(notes)
        return self.exported_research(raw, files, about) if about else self.understood("folder of .pt files", raw, files)

    def pt(self) -> DistilledSet:
        if BEST.fullmatch(self.path.name) and isinstance(load(self.path), Tensor):  # labels and η lie in files beside it
            return replace(self, path=self.path.parent).best(self.path)
        return self.understood(".pt file", read_pt(self.path), [self.path])

    def npz(self) -> DistilledSet:
        names = array_names(self.path)
        if names >= {"images_float", "labels", "label_kind", "preprocessing"}:
            return self.exported_npz()
        arrays = self.arrays(self.path, ("images", "labels"), ("syn_lr", "lr", "class_names"))
        rate, named = arrays.get("syn_lr", arrays.get("lr")), arrays.get("class_names")
        raw = Raw(
            self.tensor("images", arrays["images"]),
            self.tensor("labels", arrays["labels"]),
            None if rate is None else self.rate(rate),
            None if named is None else self.texts("class_names", named),
        )
        return self.understood(".npz file", raw, [self.path])

    def exported_npz(self) -> DistilledSet:
        """What `export_npz` wrote."""
        needed = ("images_float", "labels", "label_kind", "classes", "class_names", "syn_lr", "preprocessing")
        own = ("preprocessing_mean", "preprocessing_std", "preprocessing_matrix", "preprocessing_inverse_matrix")
        arrays = self.arrays(self.path, needed, own)
        held = {name.removeprefix("preprocessing_"): self.tensor(name, arrays[name]) for name in own if name in arrays}
        images = self.tensor("images_float", arrays["images_float"])
        if images.dtype not in FLOATS:
            raise refusal(self.path, f"holds images_float as {images.dtype}; floats are accepted")
        parts = (images.float(), self.tensor("labels", arrays["labels"]).float(), self.tensor("classes", arrays["classes"]))
        preprocessing = preprocessing_from(self.text("preprocessing", arrays["preprocessing"]), held)
        kind, names = self.text("label_kind", arrays["label_kind"]), self.texts("class_names", arrays["class_names"])
        return self.made(".npz export", [self.path], kind, *parts, self.rate(arrays["syn_lr"]), names, preprocessing)

    def exported_folder(self) -> DistilledSet:
        """What `export_folder` wrote."""
        archive, described = within(self.path, self.path / "labels.npz"), within(self.path, self.path / "classes.json")
        arrays = self.arrays(archive, ("labels", "classes", "files", "syn_lr"))
        names, kind = self.names_in(described)
        files = [within(self.path, self.path / file) for file in self.texts("files", arrays["files"])]
        if (held := sum(len(self.images_in(folder)) for folder in self.folders())) != len(set(files)):
            raise refusal(self.path, f"holds {held} images in its folders, where labels.npz lists {len(set(files))}")
        self.assumed.append("images are 8-bit copies, rounded and cut to [0, 1]")
        parts = (self.decoded(files), self.tensor("labels", arrays["labels"]).float(), self.tensor("classes", arrays["classes"]))
        return self.made("folder export", [described, archive, *files], kind, *parts, self.rate(arrays["syn_lr"]), names)

    def exported_research(self, raw: Raw, files: list[Path], about: About) -> DistilledSet:
        """What `export_research` wrote, and research code may have gone on from since."""
        images, labels, classes, names = raw.images, raw.labels, about.classes, about.class_names
        if images.dtype not in FLOATS:
            raise refusal(files[0], f"holds images as {images.dtype}, where about.json says what a network takes: floats")
        if about.kind == "hard":
            numbers = not labels.is_floating_point() and labels.ndim == 1
            if not (numbers and bool(((labels >= 0) & (labels < len(names))).all())):
                raise refusal(files[1], f"holds no class numbers below {len(names)}, where about.json says hard labels")
            labels, classes = one_hot(labels.long(), len(names)), labels.long()
        rate = about.syn_lr
        if raw.syn_lr is not None and torch.tensor(rate, dtype=torch.float32).item() != raw.syn_lr:
            self.assumed.append(f"the step size {raw.syn_lr:.6g} of {files[-1].name} is taken, not the {rate:.6g} of about.json")
            rate = raw.syn_lr
        parts = (about.kind, images.float(), labels.float(), classes, rate, names, about.preprocessing)
        return self.made("research export", [*files, *about.files], *parts)

    def class_folders(self) -> DistilledSet:
        """Images in folders that are called as the classes are."""
        found = {folder.name: self.images_in(folder) for folder in self.folders()}
        if not found:
            raise refusal(self.path, f"holds neither a set nor class folders; {FORMS}")
        order = self.folders_of_classes(list(found))
        if empty := [name for name in order if not found[name]]:
            raise refusal(self.path, f"has no images in {shown(empty)}")
        files = [file for name in order for file in found[name]]
        classes = torch.tensor([k for k, name in enumerate(order) for _ in found[name]])
        labels, rate = one_hot(classes, self.data.num_classes).float(), self.chosen_rate(None)
        return self.made("folder of images", files, "hard", self.decoded(files), labels, classes, rate)

    def understood(self, form: str, raw: Raw, files: list[Path]) -> DistilledSet:
        """The set that arrays without a description mean."""
        data, options = self.data, self.options
        usual = usual_name(data) if form in TENSORS else None
        how = (self.preprocessing, options.normalised, options.resize, usual)
        images, preprocessing, notes = images_of(self.path, raw.images, data.shape, *how)
        (labels, more), kind = labels_of(self.path, raw.labels, len(images), data.num_classes, options.labels)
        order = raw.class_names or options.class_order
        if order is not None:
            labels = labels[:, positions(self.path, order, data.class_names)]
        else:
            more = [*more, "labels are taken to count the classes in the order of the data"]
        classes, grounds = (labels.argmax(1), []) if kind == "hard" else classes_of(labels)
        self.assumed.extend([*raw.notes, *notes, *more, *grounds])
        if raw.class_names and options.class_order and tuple(options.class_order) != raw.class_names:
            self.assumed.append("the order of classes in the file is taken, not the one that was given")
        return self.made(form, files, kind, images, labels, classes, self.chosen_rate(raw.syn_lr), preprocessing=preprocessing)

    def made(
        self,
        form: str,
        files: list[Path],
        kind: str,
        images: Tensor,
        labels: Tensor,
        classes: Tensor,
        syn_lr: float,
        class_names: tuple[str, ...] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> DistilledSet:
        """The set of these parts; what is not among them is the data's."""
        if form.endswith("export"):  # the files say what options would
            self.assumed.extend(f"{name} is not needed: the files say it" for name in self.options.given if name != "resize")
        origin = {"name": printable(self.path.resolve().name), "kind": form, "sha256": self.checksum(files)}
        if images.ndim != 4:
            raise refusal(self.path, f"holds images with shape {tuple(images.shape)}; (N, C, H, W) is accepted")
        try:
            held = DistilledSet(
                set=SmallSet(images, labels, classes, syn_lr, cast(Kind, kind)),
                preprocessing=preprocessing or self.preprocessing,
                class_names=class_names or self.data.class_names,
                metadata={"method": None, "origin": origin, "assumed": self.assumed, **self.step_size},
            )
            held.try_inverse()
            return held
        except ValueError as error:
            raise refusal(self.path, f"holds what is no sound set: {one_line(error)}") from error

    def checksum(self, files: list[Path]) -> str:
        """SHA-256 of a file; of several that of the lines that `sha256sum` prints."""
        sums = [(checksum(file), file) for file in files]
        if files == [self.path]:
            return sums[0][0]
        lines = (f"{found}  {printable(file.relative_to(self.path).as_posix())}\n" for found, file in sums)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def chosen_rate(self, stated: float | None) -> float:
        """η: what the file says, else what the options say, else 0.01."""
        asked = self.options.syn_lr
        if stated is None:
            self.step_size[STEP_SIZE] = "assumed" if asked is None else "given"
        if stated is None and asked is None:
            self.assumed.append("no file says the step size: it has none of its own")
        if stated is not None and asked not in (None, stated):
            self.assumed.append(f"the step size {stated:.6g} in the file is taken, not the {asked:.6g} that was given")
        return stated or asked or SYN_LR

    def folders(self) -> list[Path]:
        """The class folders, sorted, without hidden ones and those that archives leave behind."""
        found = sorted(entry for entry in self.path.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))
        if astray := [entry.name for entry in found if entry.is_symlink()]:
            raise refusal(self.path, f"holds the link {shown(astray[:1])}; folders are accepted")
        return found

    def images_in(self, folder: Path) -> list[Path]:
        """The image files in a folder and the folders in it, sorted; links to folders are not followed."""
        found = []
        for at, inner, files in os.walk(folder):
            if astray := [name for name in inner if Path(at, name).is_symlink()]:
                raise refusal(self.path, f"holds the link {shown(astray[:1])}; folders are accepted")
            found += [Path(at, name) for name in files if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")]
        return [within(self.path, file) for file in sorted(found)]

    def folders_of_classes(self, folders: list[str]) -> list[str]:
        """The folder of each of the data's classes: called like it, as an export calls it, or by its WordNet id."""
        names, known = self.data.class_names, known_names()
        wnids = {name: wnid for wnid, name in known.items()}
        for spelled in (names, folder_names(names), [wnids.get(name, name) for name in names], [known.get(n, n) for n in names]):
            if len(set(spelled)) == len(spelled) and set(spelled) == set(folders):
                return list(spelled)
        order = self.options.class_order
        if order is not None and len(order) == len(folders):
            return [folders[k] for k in positions(self.path, order, names)]
        positions(self.path, folders, names)
        raise AssertionError("the folders are not called as the classes are")

    def decoded(self, files: list[Path]) -> Tensor:
        """The images in the files as a network takes them, with shape (N, C, H, W)."""
        channels, height, width = self.data.shape
        if not files:
            raise refusal(self.path, "holds no images")
        sizes = {(header.height, header.width) for header in read_headers(files) if header is not None}
        for sides in sorted(sizes - {(height, width)}):
            self.assumed.append(resizing(self.path, sides, (height, width), self.options.resize))
        check_room(self.path, len(files) * height * width * (3 + 8 * channels))
        found = self.whole(files, self.data.levels)
        spans, levels = [image.span for image in found if image.span], self.data.levels
        if spans and levels is None:  # only now is it known how far they reach together
            levels = found_levels(spans)
            found = self.whole(files, levels)
        lost = [Lost(kind, 1, [file.name]) for file, image in zip(files, found, strict=True) for kind in image.losses]
        notes = notes_on(lost, spans, levels, len(files), self.data.levels is not None)
        self.assumed.extend(note.partition(": ")[2] for note in notes)
        pixels = np.empty((len(files), channels, height, width), dtype=np.uint8)
        for row, (file, image) in enumerate(zip(files, found, strict=True)):
            if channels == 1 and not (image.pixels == image.pixels[:1]).all():
                name = file.relative_to(self.path).as_posix()
                raise refusal(self.path, f"holds {shown([name])} in colour, where the data are grey")
            pixels[row] = image.pixels[:channels]
        return self.preprocessing.prepare(torch.from_numpy(pixels))

    def whole(self, files: list[Path], levels: Levels | None) -> list[Whole]:
        """The images in the files, in bytes."""
        chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
        made = list[Whole]()
        with spread(partial(decode_all, self.data.shape[1:], "squash", levels=levels), chunks, None) as parts:
            for file, found in zip(files, (found for part in parts for found in part), strict=True):
                if isinstance(found, str):
                    name = file.relative_to(self.path).as_posix()
                    raise refusal(self.path, f"holds {shown([name])}, which cannot be read: {found}")
                made.append(found)
        return made

    def arrays(self, archive: Path, needed: Collection[str], others: Collection[str] = ()) -> dict[str, np.ndarray]:
        """The arrays of these names; the `needed` ones are there."""
        found = read_arrays(archive, {*needed, *others})
        if missing := [name for name in needed if name not in found]:
            raise refusal(archive, f"lacks {', '.join(missing)}")
        return found

    def tensor(self, name: str, array: np.ndarray) -> Tensor:
        if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
            raise refusal(self.path, f"holds {name} as {array.dtype}; integers or floats are accepted")
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch computes little with the wider ones
            array = np.minimum(array.astype(np.uint64), np.uint64(np.iinfo(np.int64).max)).astype(np.int64)
        return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))

    def rate(self, array: np.ndarray) -> float:
        return step_size(self.path, array.item() if array.size == 1 else f"{array.size} numbers")

    def texts(self, name: str, array: np.ndarray) -> tuple[str, ...]:
        if array.dtype.kind != "U" or array.ndim != 1:
            raise refusal(self.path, f"holds {name} as {array.dtype} with shape {array.shape}; text with shape (N,) is accepted")
        if not holds_letters(array):
            raise refusal(self.path, f"holds {name} with what is no Unicode text")
        found: tuple[str, ...] = tuple(array.tolist())
        if broken := [text for text in found if unwritable(text)]:
            raise refusal(self.path, f"holds {name} with {shown(broken[:1])}, which is no Unicode text")
        return found

    def text(self, name: str, array: np.ndarray) -> str:
        found = self.texts(name, array.reshape(-1))
        return found[0] if len(found) == 1 else f"{len(found)} words"

    def names_in(self, file: Path) -> tuple[tuple[str, ...], str]:
        """The names of the classes and the kind of the labels, as `classes.json` has them."""
        names, kind = json_values(file, "class_names", "label_kind")
        if not isinstance(kind, str) or names is ...:
            raise refusal(file, "does not say class_names and label_kind")
        return names_of(file, names), kind
