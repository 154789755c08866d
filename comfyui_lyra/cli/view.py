"""The verb that shows splats in the browser."""

import argparse
import webbrowser
from contextlib import suppress

from ..viewer.serve import make_server
from ..viewer.source import stored


def run_view(options: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    server, address = make_server(stored(options.scene), options.port)
    with server:
        print(f"{address}\nCtrl-C stops.", flush=True)
        if not options.no_browser:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):  # the way to stop it, and no mishap
            server.serve_forever()
