"""Which clients can run on this machine, and how."""

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DRIVERS = Path(__file__).resolve().parents[1] / "drivers"

#: Where the optional package `ws` may be: installed beside the client, or by Debian's node-ws.
WS_PLACES = [ROOT / "clients/js/node_modules/ws", ROOT / "node_modules/ws", Path("/usr/share/nodejs/ws")]


@dataclass
class Client:
    name: str
    command: list
    abilities: set
    environment: dict = field(default_factory=dict)


def _node_global(node):
    """The flags with which this Node has a WebSocket of its own, or None."""
    for flags in ([], ["--experimental-websocket"]):
        probe = subprocess.run(
            [node, *flags, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if probe.returncode == 0:
            return flags
    return None


def find_clients(only=None):
    """Every client, or the named one. What cannot run is said, not skipped in silence."""
    found = []
    node = shutil.which("node")
    driver = str(DRIVERS / "driver.mjs")
    if node is None:
        print("js: there is no node here", file=sys.stderr)
    else:
        ws = next((place for place in WS_PLACES if place.exists()), None)
        if ws is not None:
            found.append(Client("js-ws", [node, driver], {"http", "eager"}, {"EBBGATE_WS": str(ws)}))
        flags = _node_global(node)
        if flags is not None:
            found.append(Client("js-global", [node, "--no-warnings", *flags, driver], {"eager"}))
        if ws is None and flags is None:
            print("js: this node has no WebSocket; install node-ws", file=sys.stderr)
    found.append(Client("python", [sys.executable, str(DRIVERS / "driver.py")], {"http", "cancel"}))
    return [client for client in found if only is None or client.name == only or client.name.split("-")[0] == only]
