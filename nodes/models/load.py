"""Nodes that load a model."""

from comfy_api.latest import io

from ...comfyui_lyra.recon.load import load_recon
from ...comfyui_lyra.tokenizer.model import load_tokenizer
from ...comfyui_lyra.weights.checkpoints.state import read_about
from ..comfy import devices
from ..comfy import types as sockets
from ..comfy.patchers import Model, in_core
from ..comfy.shelf import DECODERS, TOKENIZERS


class LoadTokenizer(io.ComfyNode):
    """The video tokenizer."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraLoadTokenizer",
            display_name="Load Tokenizer",
            category="Lyra/models",
            description="Loads the video tokenizer that turns frames into latents and back: Cosmos CV8x8x8, or the "
            "small one of this pack. Core's Load VAE can load Cosmos as well; every node here takes either.",
            search_aliases=["cosmos tokenizer", "cosmos vae", "load vae", "video autoencoder", "lyra"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=TOKENIZERS.names(),
                    tooltip="A file in models/vae; those under mini come with the pack. A release's model.pt needs its "
                    "mean_std.pt in the same folder.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(devices.PRECISIONS),
                    default="auto",
                    tooltip="What it computes in. auto: bfloat16 where the GPU is fast at it, otherwise float32.",
                    advanced=True,
                ),
            ],
            outputs=[sockets.Tokenizer.Output("tokenizer", tooltip="For every node that encodes or decodes frames.")],
        )

    @classmethod
    def validate_inputs(cls, file=None):
        """Say before the run that the file is missing."""
        return TOKENIZERS.is_there(file)

    @classmethod
    def fingerprint_inputs(cls, file=None, *_, **__):
        """Load again when the file has changed, or another that belongs to it."""
        return TOKENIZERS.state_of(file)

    @classmethod
    def execute(cls, file, precision) -> io.NodeOutput:
        """Read the weights; they stay in RAM until a node needs them."""
        path = TOKENIZERS.path(file)
        network = load_tokenizer(path).to(devices.precision(precision))
        licence = read_about(path).get("licence", "")
        return io.NodeOutput(Model(patcher=in_core(network), config=network.config, file=file, licence=licence))


class LoadRecon(io.ComfyNode):
    """The splat decoder."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraLoadRecon",
            display_name="Load Splat Decoder",
            category="Lyra/models",
            description="Loads Lyra's splat decoder, which turns the latents of several camera paths into Gaussian "
            "splats: a static one for still scenes, a dynamic one for scenes that move.",
            search_aliases=["lyra static", "lyra dynamic", "latent to gaussians", "reconstruction model", "3dgs"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=DECODERS.names(),
                    tooltip="A file in models/lyra; those under mini come with the pack. The released ones keep their "
                    "names, lyra_static.pt and lyra_dynamic.pt, which tell them apart.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(devices.PRECISIONS),
                    default="auto",
                    tooltip="What it computes in. auto: bfloat16 where the GPU is fast at it, otherwise float32.",
                    advanced=True,
                ),
            ],
            outputs=[sockets.Recon.Output("recon", tooltip="For Reconstruct Splats.")],
        )

    @classmethod
    def validate_inputs(cls, file=None):
        """Say before the run that the file is missing."""
        return DECODERS.is_there(file)

    @classmethod
    def fingerprint_inputs(cls, file=None, *_, **__):
        """Load again when the file has changed, or another that belongs to it."""
        return DECODERS.state_of(file)

    @classmethod
    def execute(cls, file, precision) -> io.NodeOutput:
        """Read the weights; they stay in RAM until a node needs them."""
        path = DECODERS.path(file)
        network = load_recon(path).to(devices.precision(precision))
        licence = read_about(path).get("licence", "")
        return io.NodeOutput(Model(patcher=in_core(network), config=network.config, file=file, licence=licence))
