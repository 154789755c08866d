"""GEN3C as core's model: sampling numbers, conditions, memory, and how core's loaders know its files."""

import comfy.conds
import comfy.model_base
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch
from torch import Tensor

from ...comfyui_lyra.configs import BUFFERS, CHANNELS, TEACHER_PRESETS, TeacherConfig
from ...comfyui_lyra.cost.report import TEACHER_NUMBERS
from ...comfyui_lyra.gen3c.keys import LEFT_OVER
from ...comfyui_lyra.gen3c.sampler import CONDITION_SIGMA, SIGMA_DATA, SIGMA_MAX, SIGMA_MIN, condition_noise
from ...comfyui_lyra.weights.load import rename
from ..comfy import devices
from .latents import FORMATS, GEN3CLatents
from .network import GEN3CDiT, unet_config

WARPS = BUFFERS * 2 * CHANNELS  # channels
SAMPLED = TEACHER_NUMBERS + 1  # a hidden number: an H200's peak is 4.4 GiB above the weights in KSampler, 4.0 in a pass
FIRST_TIME = 2**30  # bytes that are no tensors of the first pass; an H200 with 12 GiB free lacked 0.43 GiB in it
LAYERS = 4  # largest matrices that core holds at once while it streams: two on their way, one in use, one patched
FIRST, WARP_LATENTS, NOISE, ALONE = "gen3c_first", "gen3c_warps", "gen3c_noise", "gen3c_alone"  # of a CONDITIONING


class Alone(comfy.conds.CONDConstant):
    """A condition that core never batches: both branches at once would double the peak and gain nothing."""

    def can_concat(self, other) -> bool:
        """No."""
        return False


class GEN3CModel(comfy.model_base.BaseModel):
    """The network with GEN3C's conditions, which come from GEN3C Conditioning by way of CONDITIONING."""

    def __init__(self, model_config: "GEN3CConfig", config: TeacherConfig, device: torch.device | None = None):
        super().__init__(model_config, comfy.model_base.ModelType.EDM, device=device, unet_model=GEN3CDiT)
        self.teacher_config = config
        self.fingerprint = ""  # of the weights as stored, where whoever loaded them knows it
        self.licence = ""
        self.stream = False  # leave the device's memory to others

    def concat_cond(self, **kwargs) -> Tensor:
        """[B, 65, T, h, w]: 1 on the condition frame, then the warps, which the negative has none of."""
        noise, warps = kwargs["noise"], kwargs.get(WARP_LATENTS)
        if warps is None:
            warps = noise.new_zeros(1, WARPS, *noise.shape[2:])
        if warps.shape[2:] != noise.shape[2:]:
            raise ValueError(
                f"this LATENT has size (T, h, w) {tuple(noise.shape[2:])}, the conditions {tuple(warps.shape[2:])}; "
                "sample the latent of GEN3C Conditioning"
            )
        mask = torch.zeros_like(noise[:, :1])
        mask[:, :, 0] = 1
        return torch.cat((mask, comfy.utils.repeat_to_batch_size(warps.to(mask), len(noise))), dim=1)

    def extra_conds(self, **kwargs) -> dict:
        """What a branch of guidance is shown: text, warps, the picture's latent and a little noise on it."""
        first, noise = kwargs.get(FIRST), kwargs["noise"]
        if first is None:
            raise ValueError(
                "this conditioning knows no first picture; connect positive and negative of GEN3C Conditioning to "
                "the sampler, and prompts to that node"
            )
        found = super().extra_conds(**kwargs)
        seed = (kwargs.get("seed") or 0) % 2**32  # numpy's generator takes no more
        found["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        found["fps"] = comfy.conds.CONDConstant(kwargs.get("frame_rate", self.teacher_config.fps))
        found[FIRST] = comfy.conds.CONDRegular(first.to(noise))
        found[NOISE] = comfy.conds.CONDRegular(condition_noise((1, *noise.shape[1:]), seed)[:, :, :1].to(noise))
        found[ALONE] = Alone(None)
        return found

    def _apply_model(self, x, t, *args, **kwargs) -> Tensor:
        """The clip as it looks at x [B, 16, T, h, w] and sigma t [B]; frame 0 is the picture, before and after.

        The reference leaves frame 0 to the network in the last steps (sigma <= 0.001); here the picture stays, and the
        other frames agree to 3e-5.
        """
        first, noise = kwargs.pop(FIRST).to(x), kwargs.pop(NOISE).to(x)
        kwargs.pop(ALONE, None)
        sigma = t.view(-1, 1, 1, 1, 1).float()
        spread = (CONDITION_SIGMA**2 + SIGMA_DATA**2) ** 0.5
        shown = (first + CONDITION_SIGMA * noise) / spread * (sigma**2 + SIGMA_DATA**2) ** 0.5
        shown = shown.to(x).expand(len(x), -1, -1, -1, -1)
        x0 = super()._apply_model(torch.cat((shown, x[:, :, 1:]), dim=2), t, *args, **kwargs)
        return torch.cat((first.to(x0).expand(len(x0), -1, -1, -1, -1), x0[:, :, 1:]), dim=2)

    def memory_required(self, input_shape, cond_shapes=None) -> float:
        """Bytes that sampling [B, 16, T, h, w] takes beside the weights."""
        batch, (frames, height, width), config = input_shape[0], input_shape[2:], self.teacher_config
        channels = config.heads * config.head_dim
        hidden = batch * frames * height * width // 4 * channels
        matrix = 4 * channels**2  # of the MLP; where weights stream, those on their way take room too
        size = (SAMPLED * hidden + LAYERS * matrix) * self.get_dtype_inference().itemsize + FIRST_TIME
        return max(size, devices.total_memory()) if self.stream else size


class GEN3CConfig(comfy.supported_models_base.BASE):
    """What core knows of GEN3C's files."""

    unet_config = {"image_model": "cosmos", "in_channels": 81}
    unet_extra_config = {}
    sampling_settings = {"sigma_data": SIGMA_DATA, "sigma_max": SIGMA_MAX, "sigma_min": SIGMA_MIN}
    latent_format = GEN3CLatents
    supported_inference_dtypes = [torch.bfloat16, torch.float32]
    vae_key_prefix = ["vae."]
    text_encoder_key_prefix = ["text_encoders."]
    teacher_config = None  # of whoever knows it; core's loaders leave it to the weights' shapes

    def get_model(self, state_dict, prefix="", device=None) -> GEN3CModel:
        """The model for these weights, not loaded; ValueError where they are of no known size."""
        config = self.teacher_config or config_of(state_dict, prefix)
        self.unet_config = {**self.unet_config, **unet_config(config)}
        self.latent_format = FORMATS.get(config.family, GEN3CLatents)()
        return GEN3CModel(self, config, device=device)

    def process_unet_state_dict(self, state_dict) -> dict:
        """Without what a training left behind."""
        return rename(state_dict, LEFT_OVER)


def config_of(state: dict, prefix: str = "") -> TeacherConfig:
    """The known teacher of the size of these weights in released names."""
    blocks = len({name.removeprefix(prefix).split(".")[1] for name in state if name.startswith(f"{prefix}blocks.")})
    names = ("blocks.block0.blocks.0.block.attn.to_q.1.weight", "x_embedder.proj.1.weight",
             "blocks.block0.blocks.1.block.attn.to_k.0.weight")  # fmt: skip
    head_dim, width, text = (state[prefix + name].shape[axis] for name, axis in zip(names, (0, 0, 1), strict=True))
    found = (blocks, width // head_dim, head_dim, text)
    for config in TEACHER_PRESETS.values():
        if found == (config.blocks, config.heads, config.head_dim, config.text_dim):
            return config
    raise ValueError(
        f"these weights look like GEN3C's, but have {blocks} blocks of {width // head_dim} heads of {head_dim}, which "
        "no known one has; use Load Teacher, which reads the size from the file"
    )


def register() -> None:
    """Let core's Load Diffusion Model know GEN3C's files, the released and quantised ones."""
    if GEN3CConfig not in comfy.supported_models.models:
        comfy.supported_models.models.append(GEN3CConfig)
