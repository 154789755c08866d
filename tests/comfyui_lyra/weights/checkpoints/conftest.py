"""Names as others write them: our tables backwards, written down on their own."""

import re

import pytest

FASTVIDEO = (
    (r"^time_embed\.norm\.", "affine_norm."), (r"\.to_out\.0\.", ".to_out."),
    (r"\.norm1\.linear_", ".adaln_modulation_self_attn."), (r"\.norm2\.linear_", ".adaln_modulation_cross_attn."),
    (r"\.norm3\.linear_", ".adaln_modulation_mlp."), (r"\.ff\.net\.0\.proj\.", ".mlp.fc_in."),
    (r"\.ff\.net\.2\.", ".mlp.fc_out."), (r"^proj_out\.", "final_layer.proj_out."),
    (r"^norm_out\.linear_", "final_layer.adaln_modulation."),
)  # fmt: skip
NVIDIA = (
    (r"\.attn([12])\.to_([qkv])\.", r".attn\1.to_\2.0."), (r"\.attn([12])\.norm_([qk])\.", r".attn\1.to_\2.1."),
    (r"^transformer_blocks\.(\d+)\.attn1\.", r"blocks.block\1.blocks.0.block.attn."),
    (r"^transformer_blocks\.(\d+)\.attn2\.", r"blocks.block\1.blocks.1.block.attn."),
    (r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj\.", r"blocks.block\1.blocks.2.block.layer1."),
    (r"^transformer_blocks\.(\d+)\.ff\.net\.2\.", r"blocks.block\1.blocks.2.block.layer2."),
    (r"^transformer_blocks\.(\d+)\.norm1\.linear_", r"blocks.block\1.blocks.0.adaLN_modulation."),
    (r"^transformer_blocks\.(\d+)\.norm2\.linear_", r"blocks.block\1.blocks.1.adaLN_modulation."),
    (r"^transformer_blocks\.(\d+)\.norm3\.linear_", r"blocks.block\1.blocks.2.adaLN_modulation."),
    (r"^patch_embed\.proj\.", "x_embedder.proj.1."), (r"^learnable_pos_embed\.", "extra_pos_embedder."),
    (r"^time_embed\.t_embedder\.", "t_embedder.1."), (r"^time_embed\.norm\.", "affline_norm."),
    (r"^proj_out\.", "final_layer.linear."), (r"^norm_out\.linear_", "final_layer.adaLN_modulation."),
    (r"^", "net."),
)  # fmt: skip


def renamed(state: dict, table: tuple) -> dict:
    found = {}
    for name, tensor in state.items():
        for pattern, replacement in table:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    assert len(found) == len(state)
    return found


@pytest.fixture(scope="session")
def fastvideo():
    """Our teacher's state in FastVideo's names."""
    return lambda state: renamed(state, FASTVIDEO)


@pytest.fixture(scope="session")
def nvidia():
    """Our teacher's state in NVIDIA's names."""
    return lambda state: renamed(state, NVIDIA)
