"""Names of the released splat decoders' tensors; our modules carry the same names, so only wrappers come off."""

from ..checkpoints.prefixes import PREFIXES
from ..weights import Rules

RULES: Rules = PREFIXES
