"""Sizes and switches of the networks, and the released presets; fields that the shell's help tells of."""

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

COMPRESSION = 8  # pixels a latent row and column, and frames a latent frame after the first (Cosmos CV8x8x8)
PATCH = 2  # latent rows and columns a token of the splat decoder

Value = TypeVar("Value")


def told(default: Value, help: str) -> Value:
    """A field of settings with what ``--help`` says: meaning and unit; of a switch that is on, what goes without it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class ReconConfig:
    """The splat decoder (Lyra's LatentRecon). Defaults are the released size."""

    family: str = "lyra"  # which tokenizer it was trained with; families never mix
    dynamic: bool = False  # told the bullet time; both released files hold the weights for it
    trained_size: tuple[int, int] = (704, 1280)  # height, width of the pictures
    trained_frames: int = 121

    width: int = 512
    blocks: int = 16
    attention_every: int = 8  # block i attends when (i + 1) is a multiple; the others are Mamba-2
    heads: int = 8  # of attention
    mlp_ratio: int = 4
    qk_norm: bool = False
    expand: int = 2  # inner channels of Mamba-2, in widths
    head_size: int = 64  # channels of a Mamba-2 head
    state: int = 256  # numbers of state a Mamba-2 channel
    latent_channels: int = 16

    pixels_per_splat: int = 8  # one splat a square of so many pixels, in every frame
    near: float = 0.1  # distances along the ray that a splat can have, scene units
    far: float = 500.0
    distance_shift: float = -1.65  # added before the sigmoid that spans near..far
    scale_cap: float = 0.3  # largest standard deviation, scene units
    keep: float = 1 - 0.8  # share of splats kept, by opacity; the released ratio, one splat fewer than 0.2

    # what the released weights were trained with (decoder.md 2.4); the network tolerates float32 rays
    bf16_plucker: bool = True  # Pluecker pictures with every operation in bfloat16
    bf16_rays: bool = True  # the splats' rays likewise, and positions in the dtype of the model instead of float32

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.expand * self.width) % self.head_size:
            raise ValueError(
                f"ReconConfig: width {self.width} must be divisible by heads {self.heads}, and {self.expand} widths "
                f"by head_size {self.head_size}"
            )
        if (PATCH * COMPRESSION) % self.pixels_per_splat:
            raise ValueError(f"ReconConfig: pixels_per_splat {self.pixels_per_splat} does not divide a 16 pixel token")
        if not 0 < self.near < self.far:
            raise ValueError(f"ReconConfig: near {self.near} and far {self.far} must satisfy 0 < near < far")


_MINI_RECON = ReconConfig(
    family="mini", trained_size=(96, 160), trained_frames=17, width=128, heads=4, head_size=32, state=64,
    pixels_per_splat=4, near=0.06, far=20.0, distance_shift=-3.0, bf16_plucker=False, bf16_rays=False,
)  # fmt: skip

RECON_PRESETS = MappingProxyType({
    "lyra_static": ReconConfig(),
    "lyra_dynamic": ReconConfig(dynamic=True),
    "mini_static": _MINI_RECON,
    "mini_dynamic": replace(_MINI_RECON, dynamic=True),
})  # fmt: skip


CHANNELS = 16  # of a video latent (Cosmos CV8x8x8)
BUFFERS = 2  # pictures of the 3D cache that the teacher is shown at once
TEACHER_INPUTS = CHANNELS + 1 + BUFFERS * 2 * CHANNELS  # [state | condition mask | frames and mask of each buffer]


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The teacher's transformer (GEN3C). Defaults are the released size, 7.2 billion weights (teacher.md 6.1)."""

    family: str = "lyra"  # which tokenizer it was trained with; families never mix
    trained_size: tuple[int, int] = (704, 1280)  # height, width of the pictures
    trained_frames: int = 121
    fps: float = 24.0

    heads: int = 32
    head_dim: int = 128
    blocks: int = 28
    adaln_rank: int = 256
    text_dim: int = 1024
    text_rows: int = 512  # always all of them: rows of zeros take part in the attention
    max_grid: tuple[int, int, int] = (128, 240, 240)  # largest latent T, h, w with a learned position
    bf16_angles: bool = True  # rotary angles with every operation in bfloat16, as the released weights were trained

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels, T, h, w of a clip of the trained size."""
        (height, width), times = self.trained_size, 1 + (self.trained_frames - 1) // COMPRESSION
        return CHANNELS, times, height // COMPRESSION, width // COMPRESSION


TEACHER_PRESETS = MappingProxyType({
    "gen3c": TeacherConfig(),
    "mini": TeacherConfig(
        family="mini", trained_size=(96, 160), trained_frames=17, heads=8, head_dim=32, blocks=5, adaln_rank=32,
        text_dim=8, text_rows=8, max_grid=(3, 12, 20), bf16_angles=False,
    ),
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The video tokenizer (Cosmos CV8x8x8-720p). Defaults are the released size."""

    family: str = "lyra"  # families never mix
    channels: int = 128  # of the encoder's first level
    multipliers: tuple[int, ...] = (2, 4, 4)  # channels of each level, outermost first, in ``channels``
    layers: int = 2  # residual blocks a level; the decoder has one more
    latent_channels: int = CHANNELS


TOKENIZER_PRESETS = MappingProxyType({  # by family
    "lyra": TokenizerConfig(),
    "mini": TokenizerConfig(family="mini", channels=80, multipliers=(1, 1, 1), layers=1),
})  # fmt: skip
