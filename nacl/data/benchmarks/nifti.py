"""NIfTI files, by nibabel."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nacl.data.benchmarks.stored import Stored, refuse

# Deflate makes at most 1032 bytes of one; a header that asks for more is wrong, and is not given the memory.
MOST_INFLATION = 1100
MILLIMETRES = {"meter": 1e3, "micron": 1e-3}


def read_nifti(file: Path) -> Stored:
    """The voxels of a .nii or .nii.gz file of 2, 3 or 4 axes, the last of 4 being channels.

    Spacing is the header's `pixdim`, as ITK and FSL take it; the affine is nibabel's choice of sform and qform, or None
    where neither is set.

    Raises:
        ValueError: a file that is empty, truncated or no NIfTI, or that is no volume.
    """
    import nibabel
    from nibabel.imageglobals import LoggingOutputSuppressor
    from nibabel.openers import ImageOpener

    try:
        with LoggingOutputSuppressor():  # what nibabel mends without a word is found below
            image = nibabel.load(file, mmap=False)
        with ImageOpener(file) as stream:
            pixdim = type(image.header).from_fileobj(stream, check=False)["pixdim"]
        _check_bytes(file, image)
        voxels = _scaled(image.dataobj)
        placed = bool(image.header["sform_code"] or image.header["qform_code"])
        unit = MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
    except Exception as error:  # nibabel, gzip and zlib raise errors of many kinds on corrupt files
        what = "an empty file" if file.stat().st_size == 0 else f"an unreadable one: {error}"
        refuse(file, "to be a whole NIfTI file", what, "Copy it again from its source")
    voxels = _channels_first(file, voxels)
    lengths = [abs(float(str(length))) * unit for length in pixdim[1:4]]  # 0.8, not the float32 nearest to it
    if voxels.shape[1] == 1 and lengths[2] == 0:  # a single slice need not tell how far the next one would be
        lengths[2] = 1.0
    return Stored(file, voxels, tuple(lengths[::-1]), _matrix(image.affine, unit) if placed else None)


def nifti_channels(file: Path) -> int:
    """As many channels as `read_nifti` finds, by the header alone; what nibabel raises of a bad one is not caught."""
    import nibabel
    from nibabel.imageglobals import LoggingOutputSuppressor

    with LoggingOutputSuppressor():
        shape = nibabel.load(file, mmap=False).shape
    return shape[-1] if len(shape) > 3 else 1


def _check_bytes(file: Path, image: object) -> None:
    wanted = int(np.prod(image.shape, dtype=np.float64)) * image.header.get_data_dtype().itemsize
    if wanted > MOST_INFLATION * file.stat().st_size:
        raise ValueError(f"its header asks for {wanted} bytes of voxels")


def _matrix(affine: NDArray, unit: float) -> NDArray[np.float64] | None:
    """In millimetres; None where an axis points nowhere."""
    matrix = np.array(affine, np.float64)
    matrix[:3] *= unit
    nowhere = np.isfinite(matrix).all() and np.linalg.matrix_rank(matrix[:3, :3]) < 3
    return None if nowhere else matrix


def _scaled(stored: object) -> NDArray:
    """In the file's dtype, or in float32 where the file has a scale."""
    voxels = np.asarray(stored.get_unscaled())
    voxels = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    if (stored.slope, stored.inter) == (1, 0) or voxels.dtype.kind not in "uif":
        return voxels
    voxels = voxels.astype(np.float32)
    voxels *= np.float32(stored.slope)
    voxels += np.float32(stored.inter)
    return voxels


def _channels_first(file: Path, voxels: NDArray) -> NDArray:
    """(X, Y), (X, Y, Z), (X, Y, Z, M) or ITK's (X, Y, Z, 1, M) as (M, Z, Y, X)."""
    shape = voxels.shape
    if not voxels.size:
        refuse(file, "with at least one slice", f"shape {shape}")
    if voxels.ndim == 5 and shape[3] == 1:
        voxels = voxels[:, :, :, 0]
    if voxels.ndim in (2, 3):
        voxels = voxels.reshape(*shape, *[1] * (4 - voxels.ndim), order="F")
    if voxels.ndim != 4:
        refuse(file, "of shape (X, Y), (X, Y, Z) or (X, Y, Z, channels)", shape, "Write one file a volume")
    return voxels.T
