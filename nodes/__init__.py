"""The nodes. Only this folder knows ComfyUI; each node calls one function of comfyui_lyra."""

import logging

from comfy_api.latest import ComfyExtension, io

from . import camera, camera_view, host, load, render, save

log = logging.getLogger("lyra")

NODES = (
    camera.CameraPaths,
    load.LoadCameraPaths,
    camera_view.CamerasFromCore,
    camera_view.CameraToCore,
    camera.CombineCameras,
    camera.PreviewCameras,
    load.LoadSplats,
    save.SaveSplats,
    render.CropSplats,
    render.RenderSplats,
)


class LyraExtension(ComfyExtension):
    """What ComfyUI loads."""

    async def on_load(self) -> None:
        """Let the editor find the help pages, whatever this folder is called."""
        host.serve_help()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes that this ComfyUI can show."""
        usable = [node for node in NODES if not host.missing(node)]
        for node in set(NODES) - set(usable):
            log.warning("%s needs %s; update ComfyUI to 0.25 or newer", node.__name__, ", ".join(host.missing(node)))
        return usable
