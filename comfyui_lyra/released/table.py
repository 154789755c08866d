"""Released weights: what there is, how large it is, and how a whole file is known.

Upstream calls several files ``model.pt``: our folders and names keep them apart. Hashes are those of the reference's
own download programs; where none is known, the hub's is what a download is checked against.
"""

from dataclasses import dataclass
from types import MappingProxyType

NVIDIA = (
    "NVIDIA Open Model License (https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license)"
    ". It ends the right to use a model whose guardrail is bypassed without a substantially similar one; this pack "
    "runs the models without one, as the reference's own data programs do"
)
GEN3C_LICENCE = f"{NVIDIA}; see also the model card, whose terms have changed"
TOKENIZER_FOLDER = "vae/cosmos_cv8x8x8_720p"
TOKENIZER_REVISION = "b6af495317c76f287a4131e9299936b1533f5f9f"


@dataclass(frozen=True, kw_only=True)
class ReleasedFile:
    """One file of a release."""

    source: str  # where it lies in the repository
    name: str  # what we call it
    size: str  # for people, as far as it is known; the hub tells exactly
    md5: str | None = None


@dataclass(frozen=True, kw_only=True)
class Release:
    """Files of one repository of the Hugging Face hub."""

    repo: str
    folder: str  # below the folder of all weights, as ComfyUI names it
    licence: str
    files: tuple[ReleasedFile, ...]
    revision: str = "main"  # a commit where the reference names one

    def __str__(self) -> str:
        files = ", ".join(f"{file.source} ({file.size}) as {self.folder}/{file.name}" for file in self.files)
        return f"https://huggingface.co/{self.repo}: {files}. Licence: {self.licence}"


STATISTICS = ReleasedFile(
    source="mean_std.pt", name="mean_std.pt", size="10 kB", md5="f07680ad7eefae57d698778e2a0c7c96"
)
RELEASES = MappingProxyType(
    {
        "gen3c": Release(  # NVIDIA's teacher in half the size, and no pickle
            repo="FastVideo/GEN3C-Cosmos-7B-Diffusers",
            folder="diffusion_models",
            licence=GEN3C_LICENCE,
            files=(
                ReleasedFile(
                    source="transformer/model.safetensors",
                    name="gen3c_cosmos_7b_bf16.safetensors",
                    size="14.5 GB, bfloat16",
                ),
            ),
        ),
        "gen3c-float32": Release(
            repo="nvidia/GEN3C-Cosmos-7B",
            folder="diffusion_models",
            licence=GEN3C_LICENCE,
            revision="9bcfdb4f3924f41376daeadf6200826c12a3bf8e",
            files=(
                ReleasedFile(
                    source="model.pt",
                    name="gen3c_cosmos_7b.pt",
                    size="28.95 GB, float32",
                    md5="38644bf823aa5272acef60cfad8bc0f7",
                ),
            ),
        ),
        "tokenizer": Release(
            repo="nvidia/Cosmos-Tokenize1-CV8x8x8-720p",
            folder=TOKENIZER_FOLDER,
            licence=NVIDIA,
            revision=TOKENIZER_REVISION,
            files=(
                ReleasedFile(source="model.pt", name="cosmos_cv8x8x8_720p.pt", size="0.6 to 1.5 GB"),
                STATISTICS,
            ),
        ),
        "tokenizer-jit": Release(  # the same weights as TorchScript, whose hashes are known
            repo="nvidia/Cosmos-Tokenize1-CV8x8x8-720p",
            folder=TOKENIZER_FOLDER,
            licence=NVIDIA,
            revision=TOKENIZER_REVISION,
            files=(
                ReleasedFile(
                    source="encoder.jit",
                    name="encoder.jit",
                    size="about 0.1 GB, unconfirmed",
                    md5="f5834d03645c379bc0f8ad14b9bc0299",
                ),
                ReleasedFile(
                    source="decoder.jit",
                    name="decoder.jit",
                    size="about 0.1 GB, unconfirmed",
                    md5="ff21a63ed817ffdbe4b6841111ec79a8",
                ),
                STATISTICS,
            ),
        ),
        "tokenizer-comfy": Release(  # one file, statistics inside; that its weights are the 720p ones is not known
            repo="comfyanonymous/cosmos_1.0_text_encoder_and_VAE_ComfyUI",
            folder="vae",
            licence=NVIDIA,
            files=(
                ReleasedFile(
                    source="vae/cosmos_cv8x8x8_1.0.safetensors",
                    name="cosmos_cv8x8x8_1.0.safetensors",
                    size="211 MB",
                ),
            ),
        ),
        "lyra": Release(
            repo="nvidia/Lyra",
            folder="lyra",
            licence=NVIDIA,
            files=(
                ReleasedFile(
                    source="lyra_static.pt",
                    name="lyra_static.pt",
                    size="66 MB in bfloat16 or 131 MB in float32",
                    md5="28ddd05011b33350c70edab02c23c602",
                ),
                ReleasedFile(
                    source="lyra_dynamic.pt",
                    name="lyra_dynamic.pt",
                    size="66 or 131 MB",
                    md5="91c1b3920332287ed161bc47a1fd7077",
                ),
            ),
        ),
        "t5": Release(
            repo="google-t5/t5-11b",
            folder="text_encoders/t5-11b",
            licence="Apache License 2.0",
            files=(
                ReleasedFile(source="config.json", name="config.json", size="1 kB"),
                ReleasedFile(source="tokenizer.json", name="tokenizer.json", size="1.4 MB"),
                ReleasedFile(source="spiece.model", name="spiece.model", size="0.8 MB"),
                ReleasedFile(
                    source="pytorch_model.bin",
                    name="pytorch_model.bin",
                    size="45.2 GB",
                    md5="f890878d8a162e0045a25196e27089a3",
                ),
            ),
        ),
        "moge": Release(
            repo="Comfy-Org/MoGe",
            folder="geometry_estimation",
            licence="MIT",
            files=(
                ReleasedFile(
                    source="geometry_estimation/moge_2_vitl_normal_fp16.safetensors",
                    name="moge_2_vitl_normal_fp16.safetensors",
                    size="662 MB",
                ),
            ),
        ),
        "da3": Release(
            repo="Comfy-Org/Depth-Anything-3",
            folder="geometry_estimation",
            licence="Apache License 2.0",
            files=(
                ReleasedFile(
                    source="geometry_estimation/depth_anything_3_base.safetensors",
                    name="depth_anything_3_base.safetensors",
                    size="542 MB",
                ),
            ),
        ),
        "depth-anything": Release(  # V2, the small one: what --depth auto takes
            repo="depth-anything/Depth-Anything-V2-Small-hf",
            folder="depth_anything/v2_small",
            licence="Apache License 2.0",
            files=(
                ReleasedFile(source="config.json", name="config.json", size="1 kB"),
                ReleasedFile(source="model.safetensors", name="model.safetensors", size="99 MB"),
            ),
        ),
    }
)
