"""What a network is built for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The arguments of `nacl.models.build_model`, once found to be in order; each builder takes those it needs."""

    in_channels: int
    num_classes: int
    filters: int
    encoder: str
    weights: str
    patch: tuple[int, ...]
    spacing: tuple[float, ...]

    @property
    def axes(self) -> int:
        """2 for slices, 3 for volumes."""
        return len(self.patch)
