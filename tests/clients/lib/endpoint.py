"""A small OpenAI-compatible endpoint for the tests: streams what it is told, and notices who hangs up."""

import asyncio
import json


class Endpoint:
    def __init__(self):
        self.requests = []
        self.statuses = []  # answers for the next requests, before the good ones
        self.hold = False  # do not end the stream
        self.hung_up = asyncio.Event()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = "http://127.0.0.1:%d/v1" % self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception):
        self.server.close()

    async def serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            self.requests.append({"line": head.split("\r\n")[0], "headers": headers, "body": body})
            if self.statuses:
                writer.write(f"HTTP/1.1 {self.statuses.pop(0)} No\r\nContent-Length: 0\r\n\r\n".encode())
            else:
                await self.stream(body, reader, writer)
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # it connected and said nothing
        finally:
            writer.close()

    async def stream(self, body, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: hello\n\n")
        said = body["messages"][-1]["content"]
        text = ""
        for piece in ("You", " said: ", "“", said, "”"):
            chunk = {"choices": [{"index": 0, "delta": {"content": piece}}]}
            text += f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\n"
        data = (text + 'data: {"choices":[]}\n\n').encode()
        for start in range(0, len(data), 7):  # cut through lines and characters
            writer.write(data[start : start + 7])
            await writer.drain()
        if self.hold:
            await reader.read()
            self.hung_up.set()
        else:
            writer.write(b"data: [DONE]\n\n")
