"""What runs in a worker of a Ray cluster. It travels by value: nothing here may need the pack before ``bind``."""

import importlib
import importlib.util
import os
import sys
import traceback

PACK = "lyra_pack"


def bind(root: str) -> None:
    """Let ``lyra_pack`` be the pack at a path that this machine has too, or else the one that is installed here."""
    start = os.path.join(root, "__init__.py")
    if PACK in sys.modules or not os.path.isfile(start):
        return
    spec = importlib.util.spec_from_file_location(PACK, start, submodule_search_locations=[root])
    assert spec and spec.loader
    pack = sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)


class Worker:
    """An actor: it loads the models once and then makes item after item. What goes wrong is told as text."""

    def __init__(self, root: str, module: str, kind: str, fields: dict[str, object], device: str):
        self.root, self.module, self.kind, self.fields, self.device = root, module, kind, fields, device
        self.maker = None

    def start(self) -> tuple[str, str | None]:
        """Load the models: the node, and what was wrong."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        try:
            bind(self.root)
            job = getattr(importlib.import_module(f"{PACK}.{self.module}"), self.kind)(**self.fields)
            self.maker = job.maker(self.device)
        except Exception as error:
            return node, f"{error}\n{traceback.format_exc()}"
        return node, None

    def make(self, name: str) -> str | None:
        """Make an item; what was wrong, if so."""
        return importlib.import_module(f"{PACK}.comfyui_lyra.scale.work").attempt(self.maker, name)
