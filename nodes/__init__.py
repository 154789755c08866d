"""The nodes. Only this folder knows ComfyUI; each node calls one function of comfyui_lyra."""

from comfy_api.latest import ComfyExtension, io

from .camera import paths as camera
from .camera import view as camera_view
from .comfy import folders
from .geometry import preview_cache, sample
from .geometry import sources as geometry
from .geometry import vipe as load_vipe
from .latents import generate, latents
from .models import check, plan, teacher
from .models import load as load_models
from .native import conditioning
from .native import model as native
from .splats import evaluate, explore, load, reconstruct, refine, render, save, save_sequence
from .training import train

NODES = (
    camera.CameraPaths,
    load.LoadCameraPaths,
    save.SaveCameraPaths,
    camera_view.CamerasFromCore,
    camera_view.CameraToCore,
    camera.CombineCameras,
    camera.PreviewCameras,
    load.LoadSplats,
    save.SaveSplats,
    render.CropSplats,
    render.RenderSplats,
    explore.ExploreSplats,
    load_models.LoadTokenizer,
    load_models.LoadRecon,
    latents.LoadLatents,
    latents.SaveLatents,
    latents.LatentsToCore,
    latents.LatentsFromCore,
    latents.DecodeLatents,
    reconstruct.Reconstruct,
    reconstruct.SelectTime,
    refine.RefineSplats,
    save_sequence.SaveSplatSequence,
    plan.Plan,
    check.Check,
    sample.SampleScene,
    geometry.GeometryFromMoGe,
    geometry.GeometryFromDA3,
    geometry.GeometryFromDepth,
    load_vipe.LoadViPE,
    preview_cache.PreviewCache,
    teacher.LoadTeacher,
    conditioning.GEN3CConditioning,
    generate.GenerateLatents,
    evaluate.Evaluate,
    train.TrainRecon,
)


class LyraExtension(ComfyExtension):
    """What ComfyUI loads."""

    async def on_load(self) -> None:
        """Let the editor find help pages and viewer, whatever this folder is called, and ComfyUI the models folder.

        What is remembered between starts lies in ComfyUI's user folder from now on, and core's Load Diffusion Model
        knows GEN3C's files.
        """
        folders.serve_help()
        folders.serve_viewer()
        folders.add_model_folder()
        folders.keep_memory()
        native.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes."""
        return list(NODES)
