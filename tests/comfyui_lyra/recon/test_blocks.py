import pytest
import torch
from lyra_pack.comfyui_lyra.configs import PATCH
from lyra_pack.comfyui_lyra.recon.blocks import AttentionBlock, PatchEmbed, RMSNorm
from lyra_pack.comfyui_lyra.recon.schedule import Schedule


def test_patch_embedding_is_the_convolution_it_holds():
    embed, x = PatchEmbed(4, 8), torch.randn(2, 4, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    truth = embed.norm(embed.proj(x).flatten(2).mT)  # tokens in the order t, y, x
    assert truth.shape[1] == 3 * 4 * 6 // PATCH**2
    torch.testing.assert_close(embed(x), truth)


def test_rms_norm_rounds_bfloat16_once():
    norm = RMSNorm(32).to(torch.bfloat16)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert torch.equal(norm(x), exact.to(torch.bfloat16))


@pytest.mark.golden("decoder/attention_block*")
@pytest.mark.parametrize("segment", [7, 2**15])
def test_golden_attention_block(golden, segment, load):
    meta, schedule = golden.meta, Schedule(segment=segment)
    block = load(lambda: AttentionBlock(meta["dim"], meta["heads"], meta["mlp_ratio"], meta["qk_norm"]), golden)
    assert block.norm1.eps == block.norm2.eps == meta["norm_eps"] and meta["gelu"] == "erf"
    x = golden["x"]
    normed = block.norm1(x)
    branch = block.attend(normed, *block.attn.keys_values(normed), schedule)
    torch.testing.assert_close(branch, golden["attn_branch"], rtol=0, atol=1e-4)
    torch.testing.assert_close(block(x, schedule), golden["y"], rtol=0, atol=1e-4)
