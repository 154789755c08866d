"""GEN3C in ComfyUI's hands: a MODEL from a file's weights, and a MODEL as the teacher of Generate Latents."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.model_patcher
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...comfyui_lyra.callbacks import OnStep, no_progress
from ...comfyui_lyra.gen3c.keys import RELEASED
from ...comfyui_lyra.gen3c.sampler import Branch
from ...comfyui_lyra.weights.load import fingerprint, rename
from .model import GEN3CConfig, GEN3CModel, register
from .network import ATTENTION, EXACT, ON_BLOCK, OVERRIDE, STEP_CACHE, StepCache, unet_config

if TYPE_CHECKING:
    from ...comfyui_lyra.gen3c.load import About, Teacher  # brings diffusers, whose import takes seconds

log = logging.getLogger("lyra")


def model_of(teacher: "Teacher", attention: str = "auto", stream: bool = False) -> ModelPatcher:
    """A MODEL of core's network with a teacher's weights."""
    from ...comfyui_lyra.gen3c.load import About

    device = comfy.model_management.get_torch_device()
    known = GEN3CConfig(unet_config(teacher.config))
    known.teacher_config = teacher.config
    supported = known.supported_inference_dtypes
    cast = comfy.model_management.unet_manual_cast(teacher.dtype, device, supported)
    known.set_inference_dtype(teacher.dtype, cast, device=device)
    state = rename(teacher.network.state_dict(), RELEASED)
    model = known.get_model(state, device=torch.device("meta"))
    model.diffusion_model.load_state_dict(state, strict=True, assign=True)
    about = About(config=teacher.config, fingerprint=teacher.fingerprint, licence=teacher.licence)
    patcher = comfy.model_patcher.CoreModelPatcher  # looked up now: ComfyUI replaces it where weights can be paged
    offload = comfy.model_management.unet_offload_device()
    return described(patcher(model, load_device=device, offload_device=offload), about, attention, stream)


def model_of_file(file: Path, attention: str = "auto", stream: bool = False) -> ModelPatcher:
    """A MODEL of a quantised file, by core's own loader: its matrices stay as they are."""
    import comfy.sd  # deferred: it brings every model that core knows

    from ...comfyui_lyra.gen3c.load import read_teacher

    register()
    about = read_teacher(file)  # ValueError where a weight is missing, which core only logs
    return described(comfy.sd.load_diffusion_model(str(file)), about, attention, stream)


def described(patcher: ModelPatcher, about: "About", attention: str, stream: bool) -> ModelPatcher:
    """A MODEL that knows its file and Load Teacher's choices."""
    model = patcher.model
    model.teacher_config, model.fingerprint, model.licence = about.config, about.fingerprint, about.licence
    model.stream = stream
    if attention != "auto":
        patcher.model_options.setdefault("transformer_options", {})[ATTENTION] = attention
    return patcher


def gen3c_of(given: object) -> GEN3CModel:
    """The model of a MODEL socket; ValueError where it is another one."""
    model = getattr(given, "model", None)
    if not isinstance(model, GEN3CModel):
        raise ValueError(
            f"this MODEL is {type(model).__name__}, not GEN3C; connect Load Teacher's model, or Load Diffusion Model "
            "with a file of GEN3C"
        )
    return model


def teacher_of_model(patcher: ModelPatcher) -> "Teacher":
    """A MODEL, with its LoRAs and other patches, as ``generate`` takes a teacher; ``load`` it before use."""
    from ...comfyui_lyra.gen3c.load import Teacher

    model = gen3c_of(patcher)
    if patcher.wrappers:
        log.warning("Generate Latents leaves out what other nodes wrap around sampling, such as EasyCache; its own is "
                    "speed. KSampler runs them")  # fmt: skip
    return Teacher(
        network=CoreNetwork(patcher),
        config=model.teacher_config,
        fingerprint="-".join(filter(None, (weights_name(patcher), patches_name(patcher)))),
        dtype=model.get_dtype_inference(),
        licence=model.licence,
    )


def weights_name(patcher: ModelPatcher) -> str:
    """Names a MODEL's weights without patches, for the keys of stored results; the same for the same file."""
    from ...comfyui_lyra.gen3c.load import read_teacher

    model = patcher.model
    if not model.fingerprint:
        _, arguments = getattr(patcher, "cached_patcher_init", None) or (None, ("",))
        file = Path(str(arguments[0]))
        model.fingerprint = read_teacher(file).fingerprint if file.is_file() else fingerprint(plain_state(model))
    stored = {weight.dtype for weight in model.diffusion_model.blocks.parameters()} - {model.get_dtype_inference()}
    cast = sorted(map(str, stored)) if model.model_config.quant_config is None else ()
    return "-".join([model.fingerprint, *(dtype.removeprefix("torch.") for dtype in cast)])


def plain_state(model: GEN3CModel) -> dict[str, Tensor]:
    """The weights by name."""
    return {name: weight.detach() for name, weight in model.diffusion_model.named_parameters()}


def patches_name(patcher: ModelPatcher) -> str:
    """Names what changes a MODEL's weights and attention: equal for equal LoRAs at equal strength; empty for nothing.

    ComfyUI's own ``patches_uuid`` is new at every load.
    """
    override = patcher.model_options.get("transformer_options", {}).get(OVERRIDE)
    if not patcher.patches and override is None:
        return ""
    digest = hashlib.sha256(getattr(override, "__qualname__", "").encode())
    for key in sorted(patcher.patches):
        digest.update(key.encode())
        for piece in pieces(patcher.patches[key]):
            digest.update(piece)
    return digest.hexdigest()[:16]


def pieces(value: object) -> Iterator[bytes]:
    """The bytes that a patch consists of: numbers, names, tensors, and adapters of these."""
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, list | tuple):
        for part in value:
            yield from pieces(part)
    elif hasattr(value, "weights"):  # an adapter
        yield type(value).__name__.encode()
        yield from pieces(value.weights)
    elif callable(value):
        yield getattr(value, "__qualname__", type(value).__name__).encode()
    else:
        yield repr(value).encode()


class CoreNetwork:
    """A MODEL's network, called as ``generate`` calls the library's."""

    def __init__(self, patcher: ModelPatcher):
        self._patcher = patcher
        self._caches: dict[Branch, StepCache] | None = None

    def __call__(
        self, x: Tensor, c_noise: Tensor, text: Tensor, branch: Branch = "cond", *,
        fps: float = 24.0, backend: str = "auto", on_block: OnStep = no_progress,
    ) -> Tensor:  # fmt: skip
        """F [B, 16, T, h, w] of x [B, 81, T, h, w]; see ``gen3c.dit.GEN3C.forward``."""
        model = self._patcher.model
        given = self._patcher.model_options.get("transformer_options", {})
        options = {name: value for name, value in given.items() if name != "wrappers"}
        options |= {ATTENTION: backend, EXACT: True, "cond_or_uncond": [branch != "cond"]}
        if on_block is not no_progress:
            options[ON_BLOCK] = on_block
        if self._caches is not None:
            options[STEP_CACHE] = self._caches[branch]
        dtype = model.get_dtype_inference()
        network = partial(model.diffusion_model, transformer_options=options)
        return network(x.to(dtype), c_noise.float(), context=text.to(dtype), fps=fps)

    def use_linears(self, linears: str, device: torch.device | None = None) -> None:
        """ValueError for 8 bits: here they are a property of the file, and core multiplies with them as it does."""
        if linears != "exact":
            raise ValueError(f"linears {linears}: in ComfyUI load a file of the teacher in 8 bits instead")

    @contextmanager
    def step_cache(self, threshold: float) -> Iterator[None]:
        """Skip the later blocks of a pass while the first block's change stays within ``threshold``."""
        self._caches = {"cond": StepCache(threshold), "uncond": StepCache(threshold)}
        try:
            yield
        finally:
            self._caches = None
