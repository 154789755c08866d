"""Operations of the networks, a multiply-add counted as two."""

from ..configs import TeacherConfig


def flops(config: TeacherConfig) -> tuple[float, float]:
    """Operations of one self-attention and of a whole pass, a multiply-add counted as two (teacher.md 11.1)."""
    _, t, h, w = config.latent_shape
    tokens, width = t * h * w // 4, config.heads * config.head_dim
    scores = 4.0 * tokens**2 * width
    linears, text_scores = 2.0 * tokens * 14 * width**2, 4.0 * tokens * config.text_rows * width
    return scores, config.blocks * (scores + linears + text_scores)


def text_flops(config: TeacherConfig) -> float:
    """Operations of a pass's cross-attention to the text, which a pass without text leaves out."""
    _, t, h, w = config.latent_shape
    tokens, width = t * h * w // 4, config.heads * config.head_dim
    return config.blocks * (2.0 * tokens * 2 * width**2 + 4.0 * tokens * config.text_rows * width)
