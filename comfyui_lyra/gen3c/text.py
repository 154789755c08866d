"""Text embeddings of the teacher: zeros, ComfyUI's or transformers' T5, and a small file that keeps them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..configs import TeacherConfig
from ..files.atomic import replacing
from ..files.reading import reading
from ..shapes import check_shapes
from ..versions import pack_version


@dataclass(frozen=True, eq=False, kw_only=True)
class TextEmbeddings:
    """T5 embeddings of a prompt and of the negative prompt, zero beyond each one's tokens."""

    prompt: Tensor  # [1, M, D], M = TeacherConfig.text_rows
    negative: Tensor  # [1, M, D]

    def __post_init__(self) -> None:
        check_shapes(self, prompt="1 M D", negative="1 M D")


def zero_text(config: TeacherConfig) -> TextEmbeddings:
    """No text at all: zeros for both, the reference's mode without a text encoder (teacher.md 6.5)."""
    zeros = torch.zeros(1, config.text_rows, config.text_dim)
    return TextEmbeddings(prompt=zeros, negative=zeros)


def said(rows: Tensor) -> Tensor:
    """The rows [B, M, D], or none of them [B, 0, D] where all are zeros.

    Their values are zeros then, whatever attends to them gets zeros, and the layers have no biases: networks leave
    cross-attention out, 4.3 of a block's 79 TFLOP that change no bit.
    """
    return rows if rows.any() else rows[:, :0]


def fit_rows(embedding: Tensor, config: TeacherConfig, attention_mask: Tensor | None = None) -> Tensor:
    """[1, M, D] of an embedding [1, L, D]: cut or padded to the teacher's rows, zero where the mask [1, L] is.

    Cross-attention uses no mask, so the rows of zeros take part and must be there.
    """
    if embedding.ndim != 3 or embedding.shape[0] != 1 or embedding.shape[2] != config.text_dim:
        raise ValueError(
            f"text embedding: expected [1 L {config.text_dim}], got {tuple(embedding.shape)}; the teacher needs the "
            "old T5 (oldt5_xxl in ComfyUI's CLIP loader, type cosmos)"
        )
    if attention_mask is not None:
        embedding = embedding * attention_mask.to(embedding)[..., None]
    rows = embedding.new_zeros(1, config.text_rows, config.text_dim)
    count = min(embedding.shape[1], config.text_rows)
    rows[:, :count] = embedding[:, :count]
    return rows


def default_negative_prompt() -> str:
    """The negative prompt GEN3C was released with, a description of bad video."""
    from diffusers.pipelines.cosmos.pipeline_cosmos_video2world import DEFAULT_NEGATIVE_PROMPT  # imports transformers

    return DEFAULT_NEGATIVE_PROMPT


@torch.inference_mode()
def encode_text(
    folder: Path,
    config: TeacherConfig,
    prompt: str = "",
    negative: str | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> TextEmbeddings:
    """Embeddings by the T5 encoder and tokenizer in ``folder`` (google-t5/t5-11b), float32 on the CPU.

    ``negative`` None is the released negative prompt; an empty one means none, and the prompt's embedding is used.
    """
    if not (Path(folder) / "config.json").is_file():
        raise FileNotFoundError(f"no config.json in {folder}; expected a folder of T5 as google-t5/t5-11b is published")
    from transformers import AutoTokenizer, T5EncoderModel  # seconds to import, and only this needs it

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model: Any = T5EncoderModel  # its ``to`` is wrapped so that its type is lost
    encoder = model.from_pretrained(folder, local_files_only=True, dtype=dtype).to(device).eval()

    def encode(text: str) -> Tensor:
        tokens = tokenizer(
            text, padding="max_length", max_length=config.text_rows, truncation=True, return_tensors="pt"
        ).to(device)
        states = encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        return fit_rows(states.float(), config, tokens.attention_mask).cpu()

    negative = default_negative_prompt() if negative is None else negative
    embedding = encode(prompt)
    return TextEmbeddings(prompt=embedding, negative=encode(negative) if negative else embedding)


def save_text(path: Path, text: TextEmbeddings, note: str = "") -> None:
    """Write both embeddings as bfloat16 safetensors (2 MiB at full size); ``note`` says what they are of."""
    tensors = {name: getattr(text, name).bfloat16().contiguous() for name in ("prompt", "negative")}
    about = {"pack": pack_version(), "note": note}
    with replacing(path) as temporary:
        save_file(
            {name: tensor.clone() for name, tensor in tensors.items()},
            temporary,
            about,
        )


def load_text(path: Path, config: TeacherConfig) -> TextEmbeddings:
    """Read what ``save_text`` wrote; float32."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no text embeddings at {path}; make them with 'lyra encode-text', or leave text off")
    with reading(path), safe_open(path, "pt") as file:
        missing = {"prompt", "negative"} - set(file.keys())
        if missing:
            raise ValueError(f"holds no {' and no '.join(sorted(missing))}; expected a file of encode-text")
        prompt, negative = (fit_rows(file.get_tensor(name).float(), config) for name in ("prompt", "negative"))
        return TextEmbeddings(prompt=prompt, negative=negative)
