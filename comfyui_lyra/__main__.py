"""``python -m lyra_pack.comfyui_lyra`` is the ``lyra`` command."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
