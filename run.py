"""Two commands that need nothing but Python: ``python run.py demo`` and ``python run.py test``.

Each makes ``.venv`` beside this file, installs what it needs there (the tests also pytest and its like), and runs. The
second time it starts at once. Words after the command go on to it: ``python run.py test -m "not slow"``,
``python run.py test --long`` (more mutations, more kills, and with COMFYUI_DIR the soak), ``python run.py demo --out
pictures``. The tests are spread over up to four processes; ``-n 0`` runs them in one, for a debugger say.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "lyra-installed"
TORCH = "torch==2.13.0"  # what the tests were last run with; users of ComfyUI keep their own
COMMANDS = {
    "demo": ["-m", "lyra_pack.comfyui_lyra", "demo"],
    "test": ["-m", "pytest", "-n", str(min(4, os.cpu_count() or 1))],
}
NEEDS = {"demo": ".", "test": ".[dev]"}  # what pip installs for each; the latter holds the former


def wanted(command: str) -> str:
    """Fingerprint of everything that decides what is installed for a command."""
    lists = ((ROOT / name).read_text() for name in ("requirements.txt", "pyproject.toml"))
    parts = [TORCH, sys.version, NEEDS[command], *lists]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def call(step: str, remedy: str, *command: "str | Path") -> None:
    """Run one installation step in the open; on failure say what to do and stop."""
    print(f"\n== {step}", flush=True)
    if subprocess.run([str(word) for word in command], cwd=ROOT).returncode:
        sys.exit(f"\n{step} failed. {remedy}")


def install(command: str) -> None:
    """Make .venv and install what a command needs into it, unless that has been done already."""
    if STAMP.exists() and STAMP.read_text() in (wanted(command), wanted("test")):
        return
    if not PYTHON.exists():
        print(f"== Making {VENV}", flush=True)
        try:
            venv.create(VENV, with_pip=True, clear=VENV.exists())
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"Making {VENV} failed: {error}\nOn Debian and Ubuntu: sudo apt install python3-venv, then again.")
    # Not compiled: half the time goes into modules of which a fifth is ever imported. One call: all is resolved once.
    pip = (PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile")
    again = "Check the network and the free disk (about 6 GB with a CUDA build of torch), then run the same again."
    call("Installing torch (the large one), the project and its other needs", again, *pip, TORCH, "-e", NEEDS[command])
    STAMP.write_text(wanted(command))


def main() -> int:
    """Install if needed, then hand over to the command."""
    if sys.version_info < (3, 10):
        sys.exit(f"Python {sys.version.split()[0]} is too old: 3.10 or newer is needed (python3.11 run.py ...).")
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"{__doc__}\nusage: python run.py {{{','.join(COMMANDS)}}} ...")
    install(sys.argv[1])
    # Threads sleep while they wait for each other: where others want the cores too, spinning takes ten times as long.
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what pip left uncompiled would be compiled at every start
    return subprocess.run([str(PYTHON), *COMMANDS[sys.argv[1]], *sys.argv[2:]], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
