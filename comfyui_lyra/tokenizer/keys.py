"""Names of the released tokenizer's weights -> names of diffusers' AutoencoderKLCosmos."""

from ..weights.checkpoints.prefixes import PREFIXES
from ..weights.load import Rules


def rules(levels: int = 3) -> Rules:
    """Rename table for ``levels`` resolution levels; the released decoder counts its levels from the last to the first.

    Names of diffusers pass unchanged.
    """
    return (
        (r"^((vae|first_stage_model)\.)", ""),  # inside a checkpoint of several models
        *PREFIXES,
        (r"^(ema|loss|criterion)\.", None),  # of the training: averaged weights, under names with "-", and its losses
        (r"\.(wavelets|_arange|patch_size_buffer)$", None),  # constants
        (r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1."),
        *((rf"^decoder\.up\.{i}\.", f"decoder.up_blocks.{levels - 1 - i}.") for i in range(levels)),
        (r"\.block\.(\d+)\.", r".resnets.\1."),
        (r"\.(down|up)sample\.", r".\1samplers.0."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.mid\.attn_1\.0\.", ".mid_block.attentions.0."),
        (r"\.mid\.attn_1\.1\.", ".mid_block.temp_attentions.0."),
        (r"\.([qkv])\.conv3d\.", r".to_\1."),
        (r"\.proj_out\.conv3d\.", ".to_out.0."),
        (r"\.(conv_in|conv_out|conv1|conv2)\.0\.conv3d\.", r".\1.conv_s."),
        (r"\.(conv_in|conv_out|conv1|conv2)\.1\.conv3d\.", r".\1.conv_t."),
        (r"\.nin_shortcut\.conv3d\.", ".conv_shortcut."),
        (r"\.conv3d\.", "."),  # the samplers' and those around the latents
    )
