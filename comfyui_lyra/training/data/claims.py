"""What the mini models are to show: differences of an evaluation's numbers, and what they should reach."""

from collections.abc import Mapping
from dataclasses import dataclass

Table = Mapping[str, tuple[float, float]]  # numbers by name: mean and deviation over scenes


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One number and its target; ``value`` is at least it, or at most where ``at_most``."""

    what: str
    value: float
    target: float
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Whether the target is reached; not where there is no number."""
        return self.value <= self.target if self.at_most else self.value >= self.target


def static_claims(table: Table) -> list[Claim]:
    """Of scenes at rest."""
    number = {name: mean for name, (mean, _) in table.items()}
    claims = [
        Claim(what="tokenizer, dB", value=number["a tokenizer psnr"], target=30),
        Claim(what="teacher where the picture shows it, dB", value=number["b teacher psnr_visible"], target=24),
        Claim(what="teacher in holes, dB", value=number["b teacher psnr_hole"], target=18),
        Claim(what="sharpness of the teacher", value=number["b teacher sharpness"], target=0.6),
        Claim(what="sharpness of the student", value=number["e student sharpness"], target=0.6),
        Claim(what="student against teacher, dB", value=number["f student_teacher psnr"], target=24),
        Claim(what="student against teacher, SSIM", value=number["f student_teacher ssim"], target=0.8),
    ]
    for how, what in (("", ""), ("_pooled", " over all pixels of a scene")):
        student = number[f"e student psnr{how}"]
        warp = max(number[f"c warp, holes {fill} psnr{how}"] for fill in ("black", "mean"))
        splats = number[f"d depth splats psnr{how}"]
        claims += [
            Claim(what=f"student above depth splats{what}, dB", value=student - splats, target=3),
            Claim(what=f"student above the warp{what}, dB", value=student - warp, target=3),
        ]
    if "g 1 views, unseen paths psnr" in number:
        gain = number["e student, unseen by 1 psnr"] - number["g 1 views, unseen paths psnr"]
        claims.append(Claim(what="six views above one on its unseen paths, dB", value=gain, target=2))
    alone = " alone, unseen paths psnr"
    if each := [name.removeprefix("g ").removesuffix(alone) for name in number if name.endswith(alone)]:
        gains = [number[f"e student, unseen by {name} psnr"] - number[f"g {name}{alone}"] for name in each]
        gain = sum(gains) / len(gains)
        claims.append(Claim(what="six views above one, whichever it is, on its unseen paths, dB", value=gain, target=2))
    if "e student, all splats kept psnr" in number:
        cost = number["e student, all splats kept psnr"] - number["e student psnr"]
        claims.append(Claim(what="pruning costs, dB", value=cost, target=0.5, at_most=True))
    return claims


def dynamic_claims(table: Table, static: Table | None) -> list[Claim]:
    """Of moving scenes; the first against scenes at rest, where they were measured too."""
    ratio = table["far cameras, early over last alpha"][0]
    claims = [Claim(what="alpha of early far cameras over late ones", value=ratio, target=0.9)]
    if static is not None:
        each = [
            mean for name, (mean, _) in table.items() if name.startswith("student_teacher, ") and name.endswith(" psnr")
        ]
        gap = static["f student_teacher psnr"][0] - sum(each) / len(each)
        claims.insert(
            0, Claim(what="student against teacher, below scenes at rest, dB", value=gap, target=2, at_most=True)
        )
    return claims


def markdown_claims(claims: list[Claim]) -> list[str]:
    """A table of numbers, targets and whether they are reached."""
    lines = ["| | measured | target | |", "|---|---|---|---|"]
    for claim in claims:
        bound = f"{'<=' if claim.at_most else '>='} {claim.target:g}"
        lines.append(f"| {claim.what} | {claim.value:.2f} | {bound} | {'yes' if claim.holds else '**no**'} |")
    return [*lines, ""]
