"""How a forward pass of the splat decoder is carried out; never what it computes."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Choices that change time and memory only."""

    segment: int = 2**15  # tokens at a time, wherever tokens need not meet; states are carried across
    checkpoint: bool = False  # training: recompute each block in the backward pass instead of keeping its insides
    scan: str = "auto"  # backend of ssd_scan
    conv: str = "auto"  # backend of causal_conv
    attention: str = "auto"  # backend of attention; those not exact deviate

    def __post_init__(self) -> None:
        if self.segment < 1:
            raise ValueError(f"Schedule.segment: {self.segment} tokens at a time; at least 1")

    def spans(self, length: int) -> list[slice]:
        """The segments of a sequence."""
        return [slice(start, min(start + self.segment, length)) for start in range(0, length, self.segment)]


DEFAULT = Schedule()
