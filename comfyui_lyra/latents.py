"""Video latents of several camera paths, in a space that is always named."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from torch import Tensor

from .cameras.path import CameraTrajectory
from .configs import COMPRESSION
from .shapes import check_shapes

Space = Literal["diffusion", "tokenizer"]

SPACES = get_args(Space)
SIGMA_DATA = 0.5  # EDM data deviation; diffusion latents are normalised to it (teacher.md 7.1)


@dataclass(frozen=True, eq=False, kw_only=True)
class VideoLatents:
    """Latents of V videos: ``diffusion`` space (the teacher's x0) or raw ``tokenizer`` space."""

    values: Tensor  # [V, C, T, h, w]
    space: Space = "diffusion"

    def __post_init__(self) -> None:
        check_shapes(self, values="V C T h w")
        if self.space not in SPACES:
            raise ValueError(f"VideoLatents.space: '{self.space}' is neither {' nor '.join(map(repr, SPACES))}")

    def to(self, *args: Any) -> "VideoLatents":
        """Move or cast the values, as ``Tensor.to``."""
        return replace(self, values=self.values.to(*args))

    def to_tokenizer(self, mean: Tensor, std: Tensor) -> "VideoLatents":
        """Raw tokenizer latents: ``u / 0.5 * std + mean`` in float32, statistics [C, T] (decoder.md 2.2)."""
        self._expect("diffusion", mean, std)
        values = self.values.float() / SIGMA_DATA * std[..., None, None].float() + mean[..., None, None].float()
        return VideoLatents(values=values, space="tokenizer")

    def to_diffusion(self, mean: Tensor, std: Tensor) -> "VideoLatents":
        """Diffusion latents: ``0.5 * (z - mean) / std``, statistics [C, T] (teacher.md 7.1)."""
        self._expect("tokenizer", mean, std)
        values = SIGMA_DATA * (self.values.float() - mean[..., None, None].float()) / std[..., None, None].float()
        return VideoLatents(values=values, space="diffusion")

    def _expect(self, space: str, mean: Tensor, std: Tensor) -> None:
        """Raise ValueError unless the values are in ``space`` and the statistics are [C, T]."""
        if self.space != space:
            raise ValueError(f"these latents are in {self.space} space already; expected {space} space")
        wanted = tuple(self.values.shape[1:3])
        for name, statistic in (("mean", mean), ("std", std)):
            if tuple(statistic.shape) != wanted:
                raise ValueError(
                    f"latent {name}: expected [C T] = {wanted}, got {tuple(statistic.shape)}; "
                    "the tokenizer's statistics belong to another clip length"
                )


@dataclass(frozen=True, eq=False, kw_only=True)
class MultiViewLatents:
    """Latents of one scene along V camera paths, views in path order 0..V-1."""

    latents: VideoLatents
    cameras: tuple[CameraTrajectory, ...]  # the path of each view
    family: str  # which tokenizer and trained size: "lyra", "mini"; families never mix
    dynamic: bool = False  # the source moves: decode at bullet times
    provenance: dict[str, str] = field(default_factory=dict)  # model hash, seed, settings

    def __post_init__(self) -> None:
        if len(self.cameras) != self.latents.values.shape[0]:
            raise ValueError(
                f"MultiViewLatents: {self.latents.values.shape[0]} views of latents, {len(self.cameras)} camera paths"
            )

    @property
    def chunks(self) -> int:
        """How many clips the latents hold one after another: a long video is made of clips encoded each alone.

        Each begins with the frame that ends the one before, which so has a latent in both: F frames in n chunks have
        (F - 1) / 8 + n latents (teacher.md 1).
        """
        return self.latents.values.shape[2] - (len(self.cameras[0]) - 1) // COMPRESSION

    def chunk(self, index: int) -> "MultiViewLatents":
        """The latents and cameras of one of the clips."""
        count, times = self.chunks, self.latents.values.shape[2]
        if not 0 <= index < count or times % count:
            raise ValueError(
                f"chunk {index} of {times} latents for {len(self.cameras[0])} frames: they hold {max(count, 0)} chunks"
                + (f"; set chunk to one of 0 to {count - 1}" if count > 0 and not times % count else "")
            )
        length, steps = times // count, (len(self.cameras[0]) - 1) // count
        return replace(
            self,
            latents=replace(self.latents, values=self.latents.values[:, :, index * length : (index + 1) * length]),
            cameras=tuple(path[index * steps : (index + 1) * steps + 1] for path in self.cameras),
        )

    def view(self, index: int) -> "MultiViewLatents":
        """The latents of one path."""
        values = self.latents.values[index : index + 1]
        return replace(self, latents=replace(self.latents, values=values), cameras=self.cameras[index : index + 1])

    def to(self, *args: Any) -> "MultiViewLatents":
        """Move or cast latents and cameras, as ``Tensor.to``."""
        return replace(self, latents=self.latents.to(*args), cameras=tuple(c.to(*args) for c in self.cameras))
