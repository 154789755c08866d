"""Shape checks for the domain types: letters bind once, a mismatch names the culprit; counts in words."""

from torch import Tensor


def check_shapes(owner: object, **specs: str) -> dict[str, int]:
    """Check tensor fields of a dataclass against shapes such as ``"F 3 3"``; return what each letter stands for.

    A letter binds to the first size it meets and must keep it in every later field; numbers are literal.
    Fields that are ``None`` are passed over. Raises ValueError naming the field, what came and what was expected.
    """
    bound: dict[str, int] = {}
    for field, spec in specs.items():
        tensor = getattr(owner, field)
        if tensor is None:
            continue
        where = f"{type(owner).__name__}.{field}"
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{where}: expected a tensor [{spec}], got {type(tensor).__name__}")
        letters = spec.split()
        fits = tensor.ndim == len(letters) and all(
            size == (int(letter) if letter.isdigit() else bound.get(letter, size))
            for letter, size in zip(letters, tensor.shape, strict=True)
        )
        if not fits:
            known = f" (so far {bound})" if bound else ""
            raise ValueError(f"{where}: expected [{spec}], got {tuple(tensor.shape)}{known}")
        bound.update((n, s) for n, s in zip(letters, tensor.shape, strict=True) if not n.isdigit())
    return bound


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 frame", "9 frames"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
