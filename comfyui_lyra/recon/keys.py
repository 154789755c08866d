"""Names of the released splat decoders' tensors; our modules carry the same names, so nothing is renamed."""

from ..weights import Rules

RULES: Rules = ()
