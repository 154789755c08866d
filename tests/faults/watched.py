"""Runs verbs of the shell command and tells, as JSON, what they wrote and whether they tried what is promised never.

``python watched.py`` reads {"verbs": [[word, ...], ...]} from standard input. Python itself reports each file that it
opens for writing, each name that it changes, each process and each connection (its audit events).

What libraries do while they are imported is not watched: torch makes its compiler's cache folder, urllib3 asks by
binding a loopback socket whether there is IPv6.
"""

import importlib.util
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("lyra_pack", ROOT / "__init__.py")
pack = sys.modules["lyra_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {  # event -> which of its arguments are names that change
    "os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.link": (1,), "os.symlink": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "os.setxattr": (0,),
}  # fmt: skip
NEVER = {
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile",
    "socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request", "pickle.find_class", "webbrowser.open",
}  # fmt: skip
written: set[str] = set()
tried: list[str] = []


def watch(event: str, arguments: tuple) -> None:
    """Take down what an audit event says."""
    if event == "open" and arguments[2] & WRITES:
        note(arguments[0])
    for index in CHANGES.get(event, ()):
        note(arguments[index])
    if event in NEVER:
        tried.append(f"{event}{arguments!r}"[:300])


def note(place: object) -> None:
    if not isinstance(place, int):  # a number stands for what was opened by name before
        written.add(os.path.realpath(os.fsdecode(place)))


if __name__ == "__main__":
    from lyra_pack.comfyui_lyra.cli import main
    from lyra_pack.comfyui_lyra.gen3c import dit  # noqa: F401  diffusers and what it brings

    verbs = json.load(sys.stdin)["verbs"]
    sys.addaudithook(watch)
    with redirect_stdout(sys.stderr):
        codes = [main(words) for words in verbs]
    json.dump({"codes": codes, "written": sorted(written), "tried": tried}, sys.stdout)
