import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import TokenizerConfig
from lyra_pack.comfyui_lyra.latents import VideoLatents
from lyra_pack.comfyui_lyra.tokenizer.files import read_statistics
from lyra_pack.comfyui_lyra.tokenizer.model import (
    CosmosTokenizer,
    build_autoencoder,
    load_autoencoder,
    load_tokenizer,
    save_tokenizer,
    to_uint8,
)
from lyra_pack.comfyui_lyra.tokenizer.protocol import Tokenizer
from lyra_pack.comfyui_lyra.tokenizer.streaming import HAAR_LEVELS, haar, inverse_haar
from lyra_pack.comfyui_lyra.weights.checkpoints.state import read_about
from lyra_pack.comfyui_lyra.weights.load import rename
from safetensors.torch import save_file


def reference(golden) -> CosmosTokenizer:
    """The golden tokenizer: weights in released names, statistics that do not matter."""
    weights = golden.other("tokenizer_weights")
    meta = weights.meta["config"]
    config = TokenizerConfig(
        channels=meta["channels"],
        multipliers=tuple(meta["channels_mult"]),
        layers=meta["num_res_blocks"],
        latent_channels=meta["latent_channels"],
    )
    state = {name: weights[name] for name in weights}
    ones = torch.ones(config.latent_channels, 1)
    return CosmosTokenizer(config, load_autoencoder(config, state, weights.name), ones, ones)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * max(1, expected.abs().max().item()))


@pytest.mark.golden("teacher/tokenizer")
def test_encoding_and_decoding_agree_with_the_reference(golden):
    tokenizer = reference(golden)
    close(tokenizer.encode(golden["video"]), golden["latent"])
    close(tokenizer.decode(golden["latent"]), golden["recon"])
    close(tokenizer.decode(golden["rand_latent"]), golden["rand_decode"])


@pytest.mark.golden("teacher/tokenizer")
def test_the_first_frame_and_the_first_latent_stand_alone(golden):
    tokenizer = reference(golden)
    alone = tokenizer.encode(golden["video"][:, :, :1])
    close(alone, golden["latent_first_frame_only"])
    assert torch.equal(alone, tokenizer.encode(golden["video"])[:, :, :1])
    alone = tokenizer.decode(golden["latent"][:, :, :1])
    close(alone, golden["recon_first_latent_only"])
    assert torch.equal(alone, tokenizer.decode(golden["latent"])[:, :, :1])


@pytest.mark.golden("teacher/tokenizer")
def test_the_haar_patches_are_the_reference_s(golden):
    (video,) = golden["video"].transpose(1, 2)  # [F, 3, H, W]
    padded = torch.cat((video[:1].expand(2**HAAR_LEVELS - 1, -1, -1, -1), video))
    patches = haar(padded)
    close(patches.transpose(0, 1)[None], golden["patched"])
    close(inverse_haar(patches), padded)


@pytest.mark.golden("teacher/tokenizer_weights")
def test_the_constants_that_the_rename_table_drops_are_ours(golden):
    for key in golden:
        if key.endswith(".wavelets"):  # sum and difference over sqrt 2; with another sqrt 2 a level, over 2
            torch.testing.assert_close(golden[key], torch.full((2,), 0.5**0.5))
        elif key.endswith("._arange"):
            assert golden[key].tolist() == [0, 1]
        elif key.endswith(".patch_size_buffer"):
            assert golden[key].item() == 2**HAAR_LEVELS


@pytest.mark.golden("teacher/latent_norm")
def test_latents_are_normalised_as_in_the_reference(golden):
    """bfloat16: the generator rounds statistics and each of three operations; ours is float32 and rounded nowhere."""
    channels = golden.meta["C"]
    mean, std = (golden[key].reshape(channels, -1)[:, : golden.meta["latent_T"]] for key in ("mean_flat", "std_flat"))
    raw = VideoLatents(values=golden["raw_encoder_latent"], space="tokenizer")
    diffusion = raw.to_diffusion(mean, std)
    torch.testing.assert_close(diffusion.values, golden["diffusion_latent"], rtol=1e-6, atol=1e-6)
    rounding = 2**-8 * (1 + (raw.values.abs().amax() + mean.abs().amax()) / std.amin()).item()
    torch.testing.assert_close(diffusion.values, golden["diffusion_latent_bf16"], rtol=2**-7, atol=rounding)
    torch.testing.assert_close(diffusion.to_tokenizer(mean, std).values, golden["decoder_input"], rtol=1e-6, atol=1e-6)
    still = VideoLatents(values=golden["raw_encoder_latent"][:, :, :1], space="tokenizer")
    still = still.to_diffusion(golden["image_mean"][:, None], golden["image_std"][:, None])
    torch.testing.assert_close(still.values, golden["image_path_diffusion_latent"], rtol=1e-6, atol=1e-6)


@pytest.mark.golden("teacher/latent_norm")
def test_views_are_denormalised_as_lyra_loads_them(golden):
    channels, frames = golden.meta["C"], golden.meta["latent_T"]
    mean, std = (golden[key].reshape(channels, -1)[:, :frames] for key in ("mean_flat", "std_flat"))
    for values, key in (
        (golden["diffusion_latent"], "lyra_denormalised_one_view"),
        (golden["lyra_input_two_views_stacked"].unflatten(0, (-1, channels)), "lyra_denormalised_two_views"),
    ):
        raw = VideoLatents(values=values).to_tokenizer(mean, std).values  # [V, C, T, h, w]
        torch.testing.assert_close(raw.transpose(1, 2).flatten(0, 1), golden[key], rtol=1e-6, atol=1e-6)


@pytest.mark.golden("teacher/preprocess")
def test_decoded_pictures_are_truncated_to_bytes_as_in_the_reference(golden):
    for video in golden["decode_raw"]:
        assert torch.equal(to_uint8(video).int(), golden["decode_u8_fp32"])
        assert torch.equal(to_uint8(video.bfloat16()).int(), golden["decode_u8_bf16"])


def released_names(tokenizer: CosmosTokenizer) -> dict[str, torch.Tensor]:
    """The weights in the names of the release, by the README's table read backwards."""
    backwards = (
        (r"\.mid_block\.resnets\.0\.", ".mid.block_1."), (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
        (r"\.mid_block\.attentions\.0\.", ".mid.attn_1.0."), (r"\.mid_block\.temp_attentions\.0\.", ".mid.attn_1.1."),
        (r"\.down_blocks\.", ".down."), (r"\.up_blocks\.0\.", ".up.2."), (r"\.up_blocks\.1\.", ".up.1."),
        (r"\.up_blocks\.2\.", ".up.0."), (r"\.resnets\.", ".block."), (r"\.(down|up)samplers\.0\.", r".\1sample."),
        (r"\.to_([qkv])\.", r".\1.conv3d."), (r"\.to_out\.0\.", ".proj_out.conv3d."),
        (r"\.conv_s\.", ".0.conv3d."), (r"\.conv_t\.", ".1.conv3d."), (r"\.conv_shortcut\.", ".nin_shortcut.conv3d."),
        (r"(sample\.conv\d|quant_conv)\.", r"\1.conv3d."),
    )  # fmt: skip
    return rename(tokenizer.autoencoder.state_dict(), backwards)


@pytest.fixture
def release(tiny, tmp_path) -> Path:
    """A folder like the released one: model.pt, two halves of it, and mean_std.pt."""
    state = released_names(tiny)
    torch.save((tiny.mean.flatten(), tiny.std.flatten()), tmp_path / "mean_std.pt")
    torch.save({"model": state}, tmp_path / "model.pt")
    encoder = {name for name in state if name.startswith(("encoder.", "quant_conv."))}
    torch.save({name: state[name] for name in encoder}, tmp_path / "encoder.pt")
    torch.save({name: state[name] for name in state.keys() - encoder}, tmp_path / "decoder.pt")
    return tmp_path


@pytest.mark.parametrize("files", [["model.pt"], ["encoder.pt", "decoder.pt"], ["encoder.pt"]])
def test_released_files_give_the_network_and_its_statistics(tiny, release, files):
    loaded = load_tokenizer(*(release / file for file in files), config=tiny.config)
    assert torch.equal(loaded.mean, tiny.mean)
    assert torch.equal(loaded.std, tiny.std)
    assert loaded.identity == tiny.identity
    video = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    assert torch.equal(loaded.encode(video), tiny.encode(video))


def test_a_saved_tokenizer_loads_with_its_size_statistics_and_family(tiny, tmp_path):
    save_tokenizer(tiny, tmp_path / "t.safetensors", licence="Apache-2.0")
    loaded = load_tokenizer(tmp_path / "t.safetensors")
    assert (loaded.config, loaded.identity) == (tiny.config, tiny.identity)
    assert torch.equal(loaded.std, tiny.std)
    about = read_about(tmp_path / "t.safetensors")
    assert (about["family"], about["licence"]) == ("tiny", "Apache-2.0")


def test_statistics_inside_a_file_of_comfyui_are_found(tiny, tmp_path):
    state = released_names(tiny) | {"latent_mean": tiny.mean.flatten(), "latent_std": tiny.std.flatten()}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "cosmos.safetensors")
    loaded = load_tokenizer(tmp_path / "cosmos.safetensors", config=tiny.config)
    assert torch.equal(loaded.mean, tiny.mean) and torch.equal(loaded.std, tiny.std)
    assert loaded.identity == tiny.identity


def test_weights_that_do_not_belong_are_refused(tiny, release):
    (release / "encoder.pt").rename(release / "half.pt")
    with pytest.raises(ValueError, match=r"half.pt does not fit AutoencoderKLCosmos: \d+ missing"):
        load_tokenizer(release / "half.pt", config=tiny.config)
    with pytest.raises(ValueError, match="belongs to a model of another size"):
        load_tokenizer(release / "model.pt", config=replace(tiny.config, channels=16))
    with pytest.raises(ValueError, match="does not fit AutoencoderKLCosmos"):  # the release's size is the default
        load_tokenizer(release / "model.pt")
    (release / "mean_std.pt").unlink()
    with pytest.raises(FileNotFoundError, match="mean_std.pt belongs beside its weights: download it too"):
        load_tokenizer(release / "model.pt", config=tiny.config)


@pytest.mark.parametrize("content", [torch.zeros(8), (torch.zeros(8),), (torch.zeros(9), torch.zeros(9)), {"a": 1}])
def test_statistics_of_another_form_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "mean_std.pt")
    with pytest.raises(ValueError, match="mean_std.pt is no pair of tensors with a multiple of 4 values each"):
        read_statistics(tmp_path / "mean_std.pt", channels=4)


def test_statistics_are_channel_major(tmp_path):
    torch.save((torch.arange(8.0), torch.arange(8.0) + 1), tmp_path / "mean_std.pt")
    mean, std = read_statistics(tmp_path / "mean_std.pt", channels=4)
    assert mean.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert std.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    with pytest.raises(ValueError, match=r"mean \(4, 2\) and std \(4, 2\), expected \[16 T\] each"):
        CosmosTokenizer(TokenizerConfig(), torch.nn.Identity(), mean, std)


def test_identity_names_weights_statistics_and_precision(tiny):
    torch.manual_seed(0)
    cast = CosmosTokenizer(tiny.config, copy.deepcopy(tiny.autoencoder), tiny.mean, tiny.std).bfloat16()
    assert cast.identity == tiny.identity.replace("float32", "bfloat16") != tiny.identity
    assert cast.mean.dtype == torch.float32
    others = (
        CosmosTokenizer(tiny.config, build_autoencoder(tiny.config), tiny.mean, tiny.std),
        CosmosTokenizer(tiny.config, tiny.autoencoder, tiny.mean + 1, tiny.std),
    )
    assert len({tiny.identity, *(other.identity for other in others)}) == 3


def test_the_tokenizer_has_what_the_protocol_names(tiny):
    names = Tokenizer.__annotations__.keys() | {"encode", "decode"}
    assert all(hasattr(tiny, name) for name in names)
    latents = tiny.encode(torch.zeros(1, 3, 1 + 2 * tiny.time_compression, tiny.space_compression, 16))
    assert latents.shape == (1, tiny.latent_channels, 3, 1, 2)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 10, 16, 16), "video of 10 frames; the tokenizer takes 1, 9, 17"),
        ((1, 3, 0, 16, 16), "video of 0 frames"),
        ((1, 3, 9, 16, 20), "video of 20x16; the tokenizer takes multiples of 8"),
        ((1, 4, 9, 16, 16), r"video: expected \[B 3 F H W\], got \(1, 4, 9, 16, 16\)"),
        ((3, 9, 16, 16), r"video: expected \[B 3 F H W\]"),
    ],
)
def test_videos_of_other_shapes_are_refused(tiny, shape, message):
    with pytest.raises(ValueError, match=message):
        tiny.encode(torch.zeros(shape))


def test_latents_of_other_shapes_are_refused(tiny):
    with pytest.raises(ValueError, match=r"latents: expected \[B 4 T h w\], got \(1, 4, 0, 2, 2\)"):
        tiny.decode(torch.zeros(1, 4, 0, 2, 2))
    with pytest.raises(ValueError, match=r"latents: expected \[B 4 T h w\], got \(1, 16, 2, 2, 2\)"):
        tiny.decode(torch.zeros(1, 16, 2, 2, 2))
