"""Many small pictures on one sheet, which a page cuts apart again, and numbers over images as colours."""

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image
from torch import Tensor

from limbeck.distilled.preview import picture

SHADES = 32  # of an activation map: enough for the eye, and small as a palette
QUALITY = 85  # of JPEG


@dataclass(frozen=True)
class Sheet:
    """How tiles lie on a sheet: `positions` of the images, `size` (height, width) of a tile, in `columns`."""

    positions: tuple[int, ...]
    size: tuple[int, int]
    columns: int

    def lay(self, tiles: list[Image.Image], mode: str) -> Image.Image:
        """The sheet of those tiles."""
        height, width = self.size
        sheet = Image.new(mode, (self.columns * width, -(-len(tiles) // self.columns) * height))
        for k, tile in enumerate(tiles):
            sheet.paste(tile, (k % self.columns * width, k // self.columns * height))
        return sheet


def heat(values: Tensor, sheet: Sheet) -> Image.Image:
    """Numbers (n, H, W) in [0, 1] as a sheet from clear to glowing."""
    from matplotlib import colormaps

    ramp = np.linspace(0, 1, SHADES)
    return _painted(values, sheet, colormaps["inferno"](0.3 + 0.65 * ramp)[:, :3], 0.8 * ramp)


def weighted(weights: Tensor, ends: tuple[float, float] | None, sheet: Sheet) -> Image.Image:
    """Weights (n, 1, H, W) as a sheet from clear, the lower of those ends, to glowing, the upper."""
    low, high = ends or (0.0, 1.0)
    return heat((weights[:, 0].float().nan_to_num() - low) / (high - low), sheet)


def signed(values: Tensor, sheet: Sheet) -> Image.Image:
    """Numbers (n, H, W) in [−1, 1] as a sheet: blue below 0, orange above, and clear at 0."""
    from matplotlib import colormaps

    ramp = np.linspace(-1, 1, SHADES - 1)  # so that one shade is 0
    return _painted((values + 1) / 2, sheet, colormaps["PuOr"](0.5 - 0.5 * ramp)[:, :3], np.abs(ramp))


def _painted(values: Tensor, sheet: Sheet, colours: np.ndarray, opacity: np.ndarray) -> Image.Image:
    """Numbers in [0, 1] as a sheet of a palette, which has colours (n, 3) and opacities (n,) in [0, 1] from 0 to 1."""
    shades = (values.clamp(0, 1) * (len(opacity) - 1)).round().byte().cpu().numpy()
    tiles = []
    for shade in shades:
        tile = Image.fromarray(shade)
        tiles.append(tile if tile.size == sheet.size[::-1] else tile.resize(sheet.size[::-1], Image.Resampling.BOX))
    laid = sheet.lay(tiles, "L")
    painted = Image.frombytes("P", laid.size, laid.tobytes())
    painted.putpalette((colours * 255).round().astype(np.uint8).tobytes())
    painted.info["transparency"] = (opacity * 255).round().astype(np.uint8).tobytes()
    return painted


def lossy(image: Image.Image) -> str:
    """The image as a JPEG data URI."""
    return _uri(image, "jpeg", quality=QUALITY, subsampling=0)


def quick(image: Image.Image) -> str:
    """The image as a PNG data URI, made in less time than the smallest would take."""
    return _uri(image, "png")


def _uri(image: Image.Image, kind: str, **how: int) -> str:
    buffer = BytesIO()
    image.save(buffer, format=kind, **how)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def within(height: int, width: int, largest: int) -> tuple[int, int]:
    """Height and width, reduced in proportion so that neither is above `largest`."""
    scale = min(1.0, largest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(levels: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """The picture of a uint8 image (H, W, C) at `size` (height, width)."""
    image = picture(levels)
    return image if size == levels.shape[:2] else image.resize((size[1], size[0]), Image.Resampling.BOX)
