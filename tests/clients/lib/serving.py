"""A WebSocket server on a free port, with either generation of ``websockets``: version 14 changed its interface."""

from http import HTTPStatus

import websockets
from websockets.version import version

NEW = int(version.split(".")[0]) >= 14


def fields(headers):
    """Names and values; a list of values makes a header of each."""
    return [(name, v) for name, value in headers.items() for v in (value if isinstance(value, list) else [value])]


async def serve(handler, upgrade=None):
    """Calls ``handler(ws)`` for each connection.

    ``upgrade(path)`` is asked before the handshake: None lets it go on, (status, headers) answers instead.
    """

    async def ask(connection, request):
        answer = upgrade(request.path)
        if answer is None:
            return None
        response = connection.respond(HTTPStatus(answer[0]), "")
        for name, value in fields(answer[1]):
            response.headers[name] = value
        return response

    async def ask_old(path, _headers):
        answer = upgrade(path)
        return answer and (HTTPStatus(answer[0]), fields(answer[1]), b"")

    async def handle(ws, _path=None):
        await handler(ws)

    return await websockets.serve(
        handle,
        "127.0.0.1",
        0,
        process_request=upgrade and (ask if NEW else ask_old),
        ping_interval=None,
        close_timeout=0.2,
        compression=None,
    )


def url(server):
    return "ws://127.0.0.1:%d" % next(iter(server.sockets)).getsockname()[1]


def is_open(ws):
    return ws.state.name == "OPEN"
