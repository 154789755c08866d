"""The node that films a scene along new camera paths."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from comfy_api.latest import io
from torch import Tensor

from ...comfyui_lyra.configs import TeacherConfig
from ...comfyui_lyra.cost.report import generate_bytes
from ...comfyui_lyra.files.scenes.sdg_writer import NumberedStore
from ...comfyui_lyra.gen3c.modes import MODES
from ...comfyui_lyra.gen3c.sampler import SOLVERS
from ...comfyui_lyra.gen3c.text import TextEmbeddings, fit_rows, zero_text
from ...comfyui_lyra.geometry.fit import fitted
from ...comfyui_lyra.latents import MultiViewLatents
from ...comfyui_lyra.shapes import plural
from ..comfy import devices, folders, progress
from ..comfy import types as sockets
from ..comfy.tokenizers import tokenizer_of
from ..comfy.watch import Watch
from ..models.teacher import teacher_of


class GenerateLatents(io.ComfyNode):
    """Video latents along camera paths."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraGenerateLatents",
            display_name="Generate Latents",
            category="Lyra/latents",
            description="Films a picture or clip anew along each camera path with the teacher. Every finished path is "
            "stored in the output folder at once, so that a run that was stopped goes on where it was.",
            search_aliases=["gen3c", "sampler", "novel view", "camera control", "image to video", "lyra"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.MultiType.Input(
                    "teacher",
                    types=[sockets.Teacher, io.Model],
                    tooltip="From Load Teacher; or its model, or GEN3C from Load Diffusion Model, with LoRAs.",
                ),
                io.MultiType.Input(
                    "tokenizer",
                    types=[sockets.Tokenizer, io.Vae],
                    tooltip="From Load Tokenizer, or Cosmos' VAE from Load VAE.",
                ),
                sockets.Geometry.Input(
                    "geometry", tooltip="The picture or clip with its depth; brought to the teacher's size here, once."
                ),
                sockets.Cameras.Input(
                    "cameras",
                    tooltip="Paths made from this geometry, as long as the teacher's clips: 121 frames for Lyra, or "
                    "241, 361 and so on; 17 for mini.",
                ),
                io.Int.Input(
                    "seed",
                    default=1,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate="fixed",
                    tooltip="Noise to begin with. All paths share it.",
                ),
                io.Int.Input(
                    "steps",
                    default=35,
                    min=2,
                    max=200,
                    tooltip="Denoising steps of each path. 35 is Lyra's; dpmpp_2m needs about half as many. The mini "
                    "teacher does well with 12 of dpmpp_2m.",
                ),
                io.Float.Input(
                    "guidance",
                    default=1.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How strongly the points are followed: 1 is Lyra's, what other samplers call a cfg of 2. "
                    "0 takes half of the time, and is all that the mini teacher needs.",
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default="euler",
                    tooltip="euler is Lyra's own. dpmpp_2m is of second order, for fewer steps.",
                ),
                io.Float.Input(
                    "speed",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Relative change of the first block up to which a step reuses the other blocks of the last "
                    "one. 0 computes all. 0.05 to 0.1 is a start; too much blurs and drifts.",
                ),
                io.String.Input(
                    "name",
                    default="scene",
                    tooltip="Name of the folder below output/lyra, and of its files. What was made from other inputs "
                    "stays: a number is added.",
                ),
                io.Boolean.Input(
                    "resume",
                    default=True,
                    tooltip="On: finished paths that were made from the same inputs are taken over, from the folder or "
                    "one with a number. Off: begin anew, in a folder with a number if this one is there.",
                ),
                io.Boolean.Input(
                    "save_video",
                    default=True,
                    tooltip="Also write each finished path as a video (mp4) beside its latents.",
                    advanced=True,
                ),
                io.Boolean.Input(
                    "foreground_masking",
                    default=True,
                    tooltip="Hide background that shows through gaps of the stretched foreground.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=MODES[0],
                    optional=True,  # prompts in API form were saved without it
                    tooltip="Decides steps, guidance, solver, speed and attention in one; as set: the widgets do. "
                    "exact: Lyra's own, 70 passes a path. balanced: 22 passes, most with sparse attention. fast: 10. "
                    "How good the faster ones look with the released weights has not been compared.",
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="A prompt, from CLIP Text Encode with the old T5 XXL (CLIP loader, type cosmos). Lyra "
                    "works without.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What to avoid, from CLIP Text Encode. Without it, the prompt stands on both sides.",
                ),
                sockets.MogeModel.Input(
                    "moge_model",
                    optional=True,
                    tooltip="From Load MoGe Model. Only for paths longer than one clip from a single picture: it "
                    "measures where the next clip begins.",
                ),
            ],
            outputs=[
                sockets.Latents.Output("latents", tooltip="All paths, for Reconstruct Splats."),
                io.String.Output("folder", tooltip="Where they are stored, for Train Splat Decoder and Load Latents."),
            ],
        )

    @classmethod
    def execute(
        cls,
        teacher,
        tokenizer,
        geometry,
        cameras,
        seed,
        steps,
        guidance,
        solver,
        speed,
        name,
        resume,
        save_video,
        foreground_masking,
        mode="as set",
        positive=None,
        negative=None,
        moge_model=None,
    ) -> io.NodeOutput:
        """Generate, path after path; where memory runs out, again with fewer weights on the device, at last none."""
        from ...comfyui_lyra.gen3c.generate import GenerateSettings, frames_of, generate
        from ...comfyui_lyra.gen3c.modes import as_possible, in_mode, told

        tokenizer, teacher = tokenizer_of(tokenizer), teacher_of(teacher)
        search = folders.scenes() if resume else None
        store = NumberedStore(folders.scene_folder(name, not resume), rgb=save_video, search=search)
        geometry, paths = fitted(geometry, cameras, *teacher.config.trained_size)
        settings = GenerateSettings(
            steps=steps, guidance=guidance, solver=solver, seed=seed, step_cache=speed,
            foreground_masking=foreground_masking, attention=teacher.attention,
        )  # fmt: skip
        with progress.warnings() as limits:
            settings = replace(in_mode(settings, mode), linears="exact")  # core multiplies as the file's weights are
            settings = as_possible(settings, teacher.config, teacher.dtype, devices.compute_device())
        watch = Watch(cls, geometry.frames[0], paths)
        run = partial(
            generate, teacher.teacher, tokenizer.network, geometry, paths, settings=settings,
            text=text_of(positive, negative, teacher.config), device=devices.compute_device(),
            store=store, on_step=watch.on_step, on_preview=watch.on_preview, on_frames=watch.on_frames,
            on_block=watch.on_block,
        )  # fmt: skip

        def attempt(size: int) -> MultiViewLatents:
            load = partial(devices.load, teacher, tokenizer, size=teacher.room(size))
            load()
            made = run(estimate_depth=moge_model and partial(depth_by, moge_model, load))
            watch.finish(lambda: frames_of(tokenizer.network, made.view(len(paths) - 1), devices.compute_device()))
            return made

        cached = settings.step_cache > 0
        size = generate_bytes(teacher.config, tokenizer.config, len(geometry.frames), cached, teacher.dtype)
        with progress.warnings() as warnings:
            latents = devices.first_that_fits(
                partial(attempt, room) for room in (size, 2 * size, devices.total_memory())
            )
        stored = folders.below_output(store.root)
        done = [told(settings)] * (mode != MODES[0])
        renamed = [f"'{name}' is taken; these are '{store.root.name}'"] * (store.root.name != name)
        kept = f"{plural(len(paths), 'path')}: {stored}"
        progress.show_text(cls, "\n".join([kept, *done, *renamed, *limits, *warnings]))
        return io.NodeOutput(latents, stored)


def depth_by(moge_model, load: Callable[[], None], frame: Tensor) -> Tensor:
    """Depth [H, W] of a picture [H, W, 3] by core's MoGe, inf where background; then the models are back in place."""
    found = moge_model.infer(frame.permute(2, 0, 1)[None])
    load()
    if not {"mask", "depth"} <= found.keys():
        raise ValueError(
            f"moge_model: this model finds {', '.join(found)} and no depth with its mask; connect a MoGe model of "
            "pictures from Load MoGe Model"
        )
    if not found["mask"].any():
        raise ValueError(
            "moge_model: it takes the frame at which the next clip would begin for sky alone; use paths of one clip, "
            "or others that end in view of the scene"
        )
    return torch.where(found["mask"][0], found["depth"][0], torch.inf).to(frame.device)


def text_of(positive: list | None, negative: list | None, config: TeacherConfig) -> TextEmbeddings | None:
    """Embeddings of core's CONDITIONINGs: no prompt is zeros, no negative prompt the prompt's (teacher.md 6.5)."""
    if positive is None and negative is None:
        return None
    given = {"positive": positive, "negative": negative}
    rows = [rows_of(name, conditioning, config) for name, conditioning in given.items() if conditioning is not None]
    prompt = rows[0] if positive is not None else zero_text(config).prompt
    return TextEmbeddings(prompt=prompt, negative=rows[-1])


def rows_of(socket: str, conditioning: list, config: TeacherConfig) -> Tensor:
    """The teacher's rows of what a socket brings; ValueError that names the socket where it cannot be the teacher's."""
    if len(conditioning) != 1:
        raise ValueError(
            f"{socket}: a conditioning of {len(conditioning)} prompts; connect one CLIP Text Encode to a socket"
        )
    embedding, about = conditioning[0]
    if config.family == "mini":
        raise ValueError(f"{socket}: the mini teacher was trained without prompts; disconnect positive and negative")
    try:
        return fit_rows(embedding.float().cpu(), config, about.get("attention_mask"))
    except ValueError as error:
        raise ValueError(f"{socket}: {error}") from error
