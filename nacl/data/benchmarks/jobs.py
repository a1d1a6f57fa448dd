"""How many processes may read cases at once, by the sizes of their files: a rule on memory."""

from collections.abc import Sequence
from pathlib import Path

from nacl._parallel import available_cores
from nacl.data.benchmarks.metaimage import voxels_beside
from nacl.data.benchmarks.raw import RawCase

# Bytes that volumes may take in all processes together: on two cores three processes with torch in them take 1.2 GiB
# besides, and less than 2 GiB is a promise.
MEMORY = 0.75 * 2**30
SMALL = 2**28  # bytes of volumes that one process handles in the seconds that the start of another takes
# Bytes in memory for each byte of a case's files, at most: the voxels, a copy of them while they are checked, and what
# is made of them; compressed scans take a third to a half of what their voxels do.
TIMES_PLAIN, TIMES_COMPRESSED = 4, 10
COMPRESSED = (".gz", ".h5", ".zraw", ".mha")


def fitting_jobs(cases: Sequence[RawCase]) -> int:
    """As many processes, one a core at most, as fit into `MEMORY`; one where that is done before another starts."""
    sizes = []
    for raw in cases:
        files = ((file.stat().st_size, file.suffix.lower() in COMPRESSED) for file in source_files(raw))
        sizes.append(sum(size * (TIMES_COMPRESSED if packed else TIMES_PLAIN) for size, packed in files))
    if sum(sizes) < SMALL:
        return 1
    return min(available_cores(), max(1, int(MEMORY / max(sizes))))


def source_files(raw: RawCase) -> list[Path]:
    """The files of a case that are there, those included that a header names as that of its voxels."""
    files = dict.fromkeys((*raw.images, raw.label))
    beside = (voxels_beside(file) for file in files if file.suffix.lower() in (".mhd", ".mha"))
    return [file for file in dict.fromkeys((*files, *filter(None, beside))) if file.is_file()]
