"""Names of the released splat decoders' tensors; our modules carry the same names, so only wrappers come off."""

from ..weights.checkpoints.prefixes import PREFIXES
from ..weights.load import Rules

RULES: Rules = PREFIXES
