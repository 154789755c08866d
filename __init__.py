"""ComfyUI entry point. Importing this file has no effect until ComfyUI calls the function."""


async def comfy_entrypoint():
    """Return the extension with this pack's nodes."""
    from .nodes import LyraExtension  # deferred: needs ComfyUI; pytest and the CLI do not

    return LyraExtension()
