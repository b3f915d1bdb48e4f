"""Conformance driver of the Python client: commands as JSON lines on stdin, results and notes
as JSON lines on stdout. It decides nothing; what is right is in the scenarios."""

import asyncio
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "clients" / "python"))

from ebbgate import Agent, Emit, FileStore, Final, MemoryStore, Retry, TurnFailed, connect  # noqa: E402


def out(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def note(name, **fields):
    out({"note": name, **fields})


def told(error):
    fields = ("next_step", "retry_after_seconds", "field", "close_code", "http_status")
    said = {name: getattr(error, name, None) for name in fields}
    return {"code": getattr(error, "code", type(error).__name__), "message": str(error), **said}


def raising(callback):
    def call(value):
        callback(value)
        raise RuntimeError("a mistake in a callback")

    return call


class LoggedStore(MemoryStore):
    slow = False
    gates = []

    async def save(self, key, state):
        if self.slow:
            await asyncio.sleep(0.05)
        if self.gates:
            await self.gates.pop(0).wait()
        note("saved", state=state)
        super().save(key, state)


class Driver:
    def __init__(self):
        self.memory = LoggedStore()
        self.session = None
        self.server = None
        self.gates = {}

    def gate(self, name):
        return self.gates.setdefault(name, asyncio.Event())

    def common(self, options):
        retry = options.get("retry", {})
        made = {
            "retry": Retry(
                initial=retry.get("initial", 0.5),
                maximum=retry.get("maximum", 30.0),
                attempts=retry.get("attempts"),
                random=lambda: options.get("random", 0),
            ),
            "handshake_timeout": options.get("handshake_timeout", 10),
            "on_status": lambda status: note(
                "status",
                state=status["state"],
                code=getattr(status.get("error"), "code", None),
                delay=status.get("delay"),
            ),
            "on_error": lambda error: note("error", **told(error)),
        }
        if options.get("raising"):  # callbacks that raise after they told
            asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
            for name in ("on_status", "on_error"):
                made[name] = raising(made[name])
        if not options.get("real_sleep"):

            async def sleep(delay):
                note("sleep", seconds=delay)
                await asyncio.sleep(0.001)

            made["sleep"] = sleep
        token = options.get("token")
        if isinstance(token, str):
            made["token"] = token
        elif isinstance(token, list):
            tokens = list(token)

            async def fresh(reason):
                note("token", reason=reason)
                if not tokens:
                    raise RuntimeError("no more tokens")
                token = tokens.pop(0)
                if token is None:
                    await asyncio.Event().wait()
                return token

            made["token"] = fresh
        return made

    async def open(self, options):
        self.gates = {}
        made = self.common(options)
        for name in ("session", "create", "key", "capabilities", "since", "max_queued", "send_window"):
            if name in options:
                made[name] = options[name]
        self.memory.slow = options.get("slow_store", False)
        self.memory.gates = [self.gate(f"save {number + 1}") for number in range(options.get("gated_saves", 0))]
        directory = options.get("store_directory")
        made["store"] = FileStore(directory) if directory else self.memory
        made["on_gap"] = lambda gap: note("gap", **gap)
        made["on_resync"] = lambda resync: note("resync", **resync)
        self.session = await connect(options["url"], options["agent"], **made)
        return {"session": self.session.id}

    async def perform(self, turn, program):
        note("turn", session=turn.session_id, turn=turn.turn, attempt=turn.attempt, content=turn.content)
        try:
            for step in program:
                if "yield" in step:
                    yield step["yield"]
                elif "emit" in step:
                    yield Emit(**step["emit"])
                    if step.get("spoil"):
                        step["emit"]["data"]["spoilt"] = True
                elif "count" in step:
                    for number in range(1, step["count"] + 1):
                        yield f"{turn.content}:{number} "
                elif "wait" in step:
                    await self.gate(step["wait"]).wait()
                elif "cancel" in step:
                    raise asyncio.CancelledError
                elif "history" in step:
                    page = await turn.history(**step["history"])
                    note("history", cursors=[event["cursor"] for event in page.events])
                elif "throw" in step:
                    if step.get("plain"):
                        raise RuntimeError(step["throw"])
                    wait = step.get("retry_after_seconds")
                    raise TurnFailed(step["throw"], retry=step.get("retry"), retry_after_seconds=wait)
                elif "final" in step:
                    yield Final(step["final"], step.get("outcome"))
        except asyncio.CancelledError:
            note("stopped", turn=turn.turn, code=turn._run.cancelled.code if turn.aborted else None)
            raise

    async def serve(self, options):
        self.gates = {}
        made = self.common(options)
        for name in ("concurrency", "emit_window", "extend_every", "reattach"):
            if name in options:
                made[name] = options[name]
        agent = Agent(options["agent"], lambda turn: self.perform(turn, options["program"]))
        self.server = agent.start(options["url"], **made)
        await self.server.ready()
        return {"worker": self.server.worker_id}

    async def perform_operation(self, command):
        op = command["op"]
        session = self.session
        if op == "remember":
            if command["state"] is None:
                self.memory.remove(command["key"])
            else:
                MemoryStore.save(self.memory, command["key"], command["state"])
        elif op == "stored":
            return self.memory.load(command["key"])
        elif op == "open":
            return await self.open(command["options"])
        elif op == "send":
            sending = asyncio.ensure_future(
                session.send(command["content"], message_id=command.get("message_id"), metadata=command.get("metadata"))
            )
            if command.get("cancelled"):
                await asyncio.sleep(0)
                sending.cancel()
                await asyncio.wait({sending})
                return None
            if command.get("spoil"):
                await asyncio.sleep(0)
                command["content"]["spoilt"] = True
            result = await sending
            return {
                "message_id": result.message_id,
                "cursor": result.cursor,
                "turn": result.turn,
                "duplicate": result.duplicate,
                "aborted": result.aborted,
            }
        elif op == "ask":
            answer = session.ask(command["content"], message_id=command.get("message_id"))
            pieces = []
            async for piece in answer:
                pieces.append(piece)
                if len(pieces) == command.get("only"):
                    break
            final = await answer.final()
            return {
                "pieces": pieces,
                "text": final.text,
                "content": final.content,
                "outcome": final.outcome,
                "cursor": final.cursor,
            }
        elif op == "next":
            try:
                return {"event": await session.__anext__()}
            except StopAsyncIteration:
                return {"done": True}
        elif op == "commit":
            await session.commit()
        elif op == "close":
            await session.close(commit=command.get("commit", True))
        elif op == "leave":
            await session.leave()
        elif op == "abort":
            turn = await session.abort(turn=command.get("turn"), reason=command.get("reason"))
            return {"aborted": turn is not None, "turn": turn}
        elif op == "history":
            page = await session.history(
                since=command.get("since"), before=command.get("before"), limit=command.get("limit")
            )
            return {"events": page.events, "oldest_cursor": page.oldest_cursor, "cursor": page.cursor}
        elif op == "ack":
            session.ack(command.get("cursor"))
        elif op == "presence":
            session.presence(command["status"], command.get("data"))
        elif op == "typing":
            session.typing()
        elif op == "pending":
            return [message["message_id"] for message in session.pending]
        elif op == "serve":
            return await self.serve(command["options"])
        elif op == "block":
            time.sleep(command["seconds"])
        elif op == "let":
            self.gate(command["gate"]).set()
        elif op == "publish":
            cursor = await self.server.publish(
                command["session"], command["event"], command["data"], id=command.get("event_id")
            )
            return {"cursor": cursor}
        elif op == "agent_history":
            await self.server.history(command["session"])
        elif op == "stop":
            await self.server.stop(**({"timeout": 0} if command.get("now") else {}))
        elif op == "closed":
            await self.server.closed()
        else:
            raise ValueError(f"unknown operation {op}")
        return None

    async def obey(self, command):
        try:
            out({"id": command["id"], "ok": await self.perform_operation(command)})
        except Exception as error:
            out({"id": command["id"], "error": told(error)})


async def main():
    driver = Driver()
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    tasks = set()
    while True:
        line = await reader.readline()
        if not line:
            break
        task = asyncio.ensure_future(driver.obey(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
