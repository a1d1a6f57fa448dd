"""MetaImage files (.mhd with .raw or .zraw, .mha), by SimpleITK."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nacl.data.benchmarks.nifti import MOST_INFLATION
from nacl.data.benchmarks.stored import Stored, refuse

CHANNELS = "ElementNumberOfChannels"
HEADER_BYTES = 65536  # a header is a dozen lines of text
ITEM_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
LOCAL = ("LOCAL", "Local", "local")  # as ITK has it
TO_RAS = np.diag([-1.0, -1.0, 1.0])  # ITK's axes point left, posterior and superior


def read_metaimage(file: Path) -> Stored:
    """The voxels of a MetaImage of 2 or 3 axes, with any number of channels.

    Raises:
        ValueError: a file that is empty, truncated or no MetaImage, that is no volume, or that says that its voxels
            lie in another folder.
    """
    import SimpleITK

    try:
        _check_bytes(file)
        image = SimpleITK.ReadImage(str(file), imageIO="MetaImageIO")  # by its name alone, not of .MHA
    except (RuntimeError, ArithmeticError, LookupError, OSError, ValueError) as error:
        what = "an empty file" if file.stat().st_size == 0 else f"an unreadable one: {str(error).splitlines()[-1]}"
        refuse(file, "to be a whole MetaImage", what, "Copy it again from its source")
    axes = image.GetDimension()
    if axes not in (2, 3):
        refuse(file, "of 2 or 3 axes", axes, "Write one file a volume")
    voxels = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        voxels = voxels[..., None]
    voxels = np.moveaxis(voxels, -1, 0)
    if axes == 2:
        voxels = voxels[:, None]
    lengths = [*image.GetSpacing(), 1.0][:3]
    matrix = np.eye(4)
    matrix[:axes, :axes] = np.reshape(image.GetDirection(), (axes, axes))
    matrix[:axes, 3] = image.GetOrigin()
    matrix[:3, :3] *= lengths
    matrix[:3] = TO_RAS @ matrix[:3]
    return Stored(file, voxels, tuple(map(float, lengths[::-1])), matrix)


def metaimage_channels(file: Path) -> int:
    """As many channels as `read_metaimage` finds, by the header alone.

    Raises:
        LookupError, ValueError, OSError: it is a bad one, or tells of more voxels than there are.
    """
    _check_bytes(file)
    return int(_header(file)[0].get(CHANNELS, 1))


def voxels_beside(file: Path) -> Path | None:
    """The file beside a header that it says to hold its voxels; None where they are in its own, or it is a bad one."""
    try:
        return _voxels_file(file, _header(file)[0]) if file.is_file() else None
    except (OSError, ValueError):
        return None


def _check_bytes(file: Path) -> None:
    """Raise ValueError unless the voxels lie beside the header and are as many bytes as it says.

    ITK would say so of a short file on the terminal, from which no caller can keep it.
    """
    header, end = _header(file)
    beside = _voxels_file(file, header)
    if beside is None:
        found = file.stat().st_size - end - 1
    elif beside.is_file():
        found = beside.stat().st_size
    else:
        raise ValueError(f"its voxels should be in {beside.name}, which is no file")
    voxels = math.prod(map(int, header["DimSize"].split())) * int(header.get(CHANNELS, 1))
    kind = header["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")
    wanted = voxels * ITEM_BYTES[kind if kind in ITEM_BYTES else kind.removeprefix("U")]
    if header.get("CompressedData", "").lower() == "true":
        wanted = max(int(header.get("CompressedDataSize", 0)), wanted // MOST_INFLATION)
    if found < wanted:
        raise ValueError(f"{found} bytes of voxels where its header tells of {wanted}")


def _voxels_file(file: Path, header: Mapping[str, str]) -> Path | None:
    """The file of the voxels, None where the header's has them.

    Raises:
        ValueError: it is not one file beside the header. ITK takes "LIST" and names with "%" for many files.
    """
    place = header["ElementDataFile"]
    if place in LOCAL:
        return None
    if place in ("", ".", "..") or Path(place).name != place or place.startswith("LIST") or "%" in place:
        raise ValueError(f"its voxels lie at {place!r}, not in a file beside it")
    return file.parent / place


def _header(file: Path) -> tuple[dict[str, str], int]:
    """The values of the header by their keys, and the byte where it ends: with the line that tells of the voxels.

    Raises:
        ValueError: no line does.
    """
    with file.open("rb") as stream:
        start = stream.read(HEADER_BYTES)
    found: dict[str, str] = {}
    end = -1
    for line in start.split(b"\n"):
        end += 1 + len(line)
        key, *value = re.split("[=:]", line.decode("utf-8", "replace"), maxsplit=1)
        found[key.strip()] = "".join(value).strip()
        if key.strip() == "ElementDataFile":
            return found, end
    raise ValueError("no line of its header is ElementDataFile = ...")
