"""Names in GEN3C checkpoints -> diffusers' names (teacher.md 6.6): NVIDIA's, and FastVideo's."""

from ..weights.checkpoints.prefixes import PREFIXES

LEFT_OVER = (
    (r"^logvar\.", None),  # a training-time head
    (r"^(pos_embedder|accum_\w+)", None),  # rotary ranges, computed here; counters of the training
    (r"_extra_state$", None),  # TransformerEngine's fp8 bookkeeping
)
RULES = (
    (r"^(vae|first_stage_model|cond_stage_model|text_encoders|conditioner|(net_|model_)?ema)\.", None),  # other models
    *PREFIXES,
    *LEFT_OVER,
    (r"^x_embedder\.proj\.1\.", "patch_embed.proj."),
    (r"^extra_pos_embedder\.", "learnable_pos_embed."),
    (r"^t_embedder\.1\.", "time_embed.t_embedder."),
    (r"^affline_norm\.", "time_embed.norm."),
    (r"^final_layer\.linear\.", "proj_out."),
    (r"^final_layer\.adaLN_modulation\.", "norm_out.linear_"),
    (r"^blocks\.block(\d+)\.blocks\.0\.block\.attn\.", r"transformer_blocks.\1.attn1."),
    (r"^blocks\.block(\d+)\.blocks\.1\.block\.attn\.", r"transformer_blocks.\1.attn2."),
    (r"^blocks\.block(\d+)\.blocks\.2\.block\.layer1\.", r"transformer_blocks.\1.ff.net.0.proj."),
    (r"^blocks\.block(\d+)\.blocks\.2\.block\.layer2\.", r"transformer_blocks.\1.ff.net.2."),
    (r"^blocks\.block(\d+)\.blocks\.0\.adaLN_modulation\.", r"transformer_blocks.\1.norm1.linear_"),
    (r"^blocks\.block(\d+)\.blocks\.1\.adaLN_modulation\.", r"transformer_blocks.\1.norm2.linear_"),
    (r"^blocks\.block(\d+)\.blocks\.2\.adaLN_modulation\.", r"transformer_blocks.\1.norm3.linear_"),
    (r"\.to_([qkv])\.0\.", r".to_\1."),
    (r"\.to_([qk])\.1\.", r".norm_\1."),
    # FastVideo's, which renamed diffusers'
    (r"^affine_norm\.", "time_embed.norm."),
    (r"^final_layer\.proj_out\.", "proj_out."),
    (r"^final_layer\.adaln_modulation\.", "norm_out.linear_"),
    (r"\.adaln_modulation_self_attn\.", ".norm1.linear_"),
    (r"\.adaln_modulation_cross_attn\.", ".norm2.linear_"),
    (r"\.adaln_modulation_mlp\.", ".norm3.linear_"),
    (r"\.mlp\.fc_in\.", ".ff.net.0.proj."),
    (r"\.mlp\.fc_out\.", ".ff.net.2."),
    (r"\.to_out\.(weight|bias)$", r".to_out.0.\1"),
)

RELEASED = (  # our names -> NVIDIA's without "net.", which are ComfyUI's: the inverse
    (r"^patch_embed\.proj\.", "x_embedder.proj.1."),
    (r"^learnable_pos_embed\.", "extra_pos_embedder."),
    (r"^time_embed\.t_embedder\.", "t_embedder.1."),
    (r"^time_embed\.norm\.", "affline_norm."),
    (r"^proj_out\.", "final_layer.linear."),
    (r"^norm_out\.linear_", "final_layer.adaLN_modulation."),
    (r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj\.", r"blocks.block\1.blocks.2.block.layer1."),
    (r"^transformer_blocks\.(\d+)\.ff\.net\.2\.", r"blocks.block\1.blocks.2.block.layer2."),
    (r"^transformer_blocks\.(\d+)\.norm1\.linear_", r"blocks.block\1.blocks.0.adaLN_modulation."),
    (r"^transformer_blocks\.(\d+)\.norm2\.linear_", r"blocks.block\1.blocks.1.adaLN_modulation."),
    (r"^transformer_blocks\.(\d+)\.norm3\.linear_", r"blocks.block\1.blocks.2.adaLN_modulation."),
    (r"^transformer_blocks\.(\d+)\.attn1\.", r"blocks.block\1.blocks.0.block.attn."),
    (r"^transformer_blocks\.(\d+)\.attn2\.", r"blocks.block\1.blocks.1.block.attn."),
    (r"\.attn\.to_([qkv])\.", r".attn.to_\1.0."),
    (r"\.attn\.norm_([qk])\.", r".attn.to_\1.1."),
)
