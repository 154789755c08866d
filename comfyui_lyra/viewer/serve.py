"""The page on a server of this machine alone, for scenes too large for one file or not worth one."""

import json
import secrets
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from urllib.parse import urlsplit

from .html import PAGE
from .pack import pack
from .source import Stored

HOST = "127.0.0.1"
KINDS = {".html": "text/html", ".css": "text/css", ".mjs": "text/javascript"}  # of the page's files


def make_server(scene: Stored, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """A server of a scene and its address, which nobody can guess; port 0 takes a free one.

    Each moment is read and packed when the page asks for it, one at a time.
    """
    about, start = scene.describe()
    token, lock = secrets.token_urlsafe(9), Lock()

    def answer(name: str) -> tuple[bytes, str] | None:
        if name == "scene.json":
            return json.dumps(about).encode(), "application/json"
        if name in (f"{index}.bin" for index in range(len(scene.files))):
            with lock:
                file = scene.files[int(name.removesuffix(".bin"))]
                return pack(scene.read(file), start.c2w[0, :3, 3]), "application/octet-stream"
        file = PAGE / (name or "index.html")
        if file.parent == PAGE and file.suffix in KINDS and file.is_file():
            return file.read_bytes(), KINDS[file.suffix]
        return None

    class Handler(BaseHTTPRequestHandler):
        """Answers below the token only."""

        def do_GET(self) -> None:  # noqa: N802, D102  the library's name
            path, found = urlsplit(self.path).path, None
            try:
                if path.startswith(f"/{token}/"):
                    found = answer(path.removeprefix(f"/{token}/"))
                body, kind = found or (b"not here", "text/plain")
                status = 200 if found else 404
            except (ValueError, OSError) as error:
                body, kind, status = str(error).encode(), "text/plain", 500
            self.send_response(status)
            for header, value in {
                "Content-Type": f"{kind}; charset=utf-8",
                "Content-Length": str(len(body)),
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
            }.items():
                self.send_header(header, value)
            self.end_headers()
            with suppress(ConnectionError):  # the page was closed meanwhile
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing of each request."""

    server = ThreadingHTTPServer((HOST, port), Handler)
    server.daemon_threads = True
    return server, f"http://{HOST}:{server.server_address[1]}/{token}/?scene=scene.json"
