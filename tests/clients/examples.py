#!/usr/bin/python3
"""The examples, run as they are against a real gateway.

    examples.py PROGRAM [--only TEXT]
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(ROOT / "clients" / "python"))
sys.path.insert(0, str(ROOT / "examples" / "python"))

from ebbgate import Retry, connect  # noqa: E402
from lib.clients import find_clients  # noqa: E402
from lib.daemon import Daemon  # noqa: E402
from lib.endpoint import Endpoint  # noqa: E402
from lib.process import PATIENCE, Program  # noqa: E402

EXAMPLES = ROOT / "examples"
QUICK = Retry(initial=0.05, maximum=0.5)


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def node():
    """The command that runs a JavaScript example here, and its environment."""
    for client in find_clients("js"):
        place = client.environment.get("EBBGATE_WS")
        path = {"NODE_PATH": str(Path(place).parent)} if place else {}
        return client.command[:-1], path
    return None, None


def chromium():
    """Path of Chromium, and the folder that has playwright-core; None when one of them is missing."""
    names = (os.environ.get("CHROMIUM", "chromium"), "chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    place = ROOT / "build/console/node_modules"  # by tests/console/setup.sh
    return (path, str(place)) if path and (place / "playwright-core").exists() else None


class Stage:
    """A gateway, its tokens, and a folder for what the examples keep."""

    def __init__(self, program):
        self.daemon = Daemon(program)

    async def __aenter__(self):
        await self.daemon.__aenter__()
        self.state = os.path.join(self.daemon.directory, "state")
        self.user = await self.daemon.token("customer", "read write")
        return self

    async def __aexit__(self, *exception):
        await self.daemon.__aexit__(*exception)

    async def environment(self, agent=None):
        token = self.user if agent is None else await self.daemon.token("worker", "agent", "--agents", agent)
        return {"EBBGATE_URL": self.daemon.url, "EBBGATE_TOKEN": token, "EBBGATE_STATE": self.state}

    async def worker(self, agent, *command, **more):
        return Program(*command, environment={**await self.environment(agent), **more})

    def session(self, agent, **options):
        return connect(self.daemon.url, agent, token=self.user, retry=QUICK, **options)

    async def known(self, agent):
        """Waits until a worker serves the agent: before its first one, the gateway does not know it."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                async with self.session(agent):
                    return
            except Exception as error:
                if getattr(error, "code", "") != "agent_not_found":
                    raise
                await asyncio.sleep(0.05)
        raise AssertionError(f"no worker for {agent} within {PATIENCE} s")


async def talk(stage, language, agent, words):
    command, environment = [sys.executable, EXAMPLES / "python/talk.py"], {}
    if language == "js":
        command, environment = node()
        command = [*command, EXAMPLES / "js/talk.mjs"]
    environment = {**environment, **await stage.environment()}
    return Program(*command, agent, *words.split(), environment=environment)


async def check_echo(stage, talking, serving):
    if serving == "js":
        command, path = node()
        worker = await stage.worker("echo", *command, EXAMPLES / "js/echo.mjs", **path)
    else:
        worker = await stage.worker("echo", sys.executable, EXAMPLES / "python/echo.py")
    async with worker:
        await stage.known("echo")
        for words in ("hello there", "and once more"):
            async with await talk(stage, talking, "echo", words) as asking:
                expect(await asking.end() == 0, asking.err)
                expect(asking.out == words + "\n", f"said {words!r}, heard {asking.out!r}")


async def check_counter(stage):
    """Neither the gateway's death nor the worker's loses or repeats a number."""
    program = [sys.executable, EXAMPLES / "python/counter.py"]
    first = await stage.worker("counter", *program, COUNTER_PAUSE="0.02")
    second = await stage.worker("counter", *program, COUNTER_PAUSE="0.02")
    async with first:
        await stage.known("counter")
        async with await talk(stage, "python", "counter", "60") as asking:
            await asking.until("10 ")
            await stage.daemon.crash()
            await asking.until("30 ")
            await first.kill()
            async with second:
                expect(await asking.end() == 0, asking.err)
        right = "".join(f"{number} " for number in range(1, 61)) + "\n"
        expect(asking.out == right, f"counted {asking.out!r}")


async def check_counter_refuses(stage):
    async with await stage.worker("counter", sys.executable, EXAMPLES / "python/counter.py"):
        await stage.known("counter")
        async with stage.session("counter") as session:
            final = await session.ask("many").final()
            expect(final.outcome["status"] == "rejected", f"{final}")


async def check_openai(stage):
    command, path = node()
    async with Endpoint() as endpoint:
        more = {"OPENAI_BASE_URL": endpoint.url, "OPENAI_API_KEY": "secret", "OPENAI_MODEL": "tiny", **path}
        async with await stage.worker("assistant", *command, EXAMPLES / "js/openai.mjs", **more):
            await stage.known("assistant")
            async with stage.session("assistant") as session:
                answer = session.ask("Grüße")
                pieces = [piece async for piece in answer]
                expect(pieces == ["You", " said: ", "“", "Grüße", "”"], f"streamed {pieces}")
                asked = endpoint.requests[0]
                expect(asked["line"] == "POST /v1/chat/completions HTTP/1.1", asked["line"])
                expect(asked["headers"]["authorization"] == "bearer secret", "no key was sent")
                expect(asked["body"]["model"] == "tiny" and asked["body"]["stream"] is True, str(asked["body"]))
                expect(len(asked["body"]["messages"]) == 2, str(asked["body"]))
                endpoint.statuses.append(503)  # tried again by the gateway
                final = await session.ask("again").final()
                expect(final.text == "You said: “again”", f"{final}")
                roles = [message["role"] for message in endpoint.requests[-1]["body"]["messages"]]
                expect(roles == ["system", "user", "assistant", "user"], f"memory: {roles}")
                endpoint.statuses.append(400)  # not tried again
                final = await session.ask("bad").final()
                expect(final.outcome["status"] == "error", f"{final}")
                expect(len(endpoint.requests) == 4, f"{len(endpoint.requests)} requests")
                endpoint.hold = True
                answer = session.ask("endless")
                async for piece in answer:
                    if piece == "”":
                        await session.abort(reason="enough")
                expect((await answer.final()).outcome["status"] == "aborted", "not aborted")
                await asyncio.wait_for(endpoint.hung_up.wait(), 20)


async def check_inbox(stage):
    """Ann takes a question and leaves; Bob gets it, with what was said before."""
    program = [sys.executable, EXAMPLES / "python/inbox.py"]
    ann, bob = await stage.worker("support", *program, "ann"), await stage.worker("support", *program, "bob")
    async with ann:
        await ann.until("ann is here")
        async with stage.session("support") as session:
            answer = asyncio.ensure_future(session.ask("My printer burns").final())
            await ann.until("> My printer burns")
            ann.say("Which printer?")
            final = await answer
            expect(final.text == "Which printer?" and final.outcome["by"] == "ann", f"{final}")
            answer = asyncio.ensure_future(session.ask("The big one").final())
            await ann.until("> The big one")
            async with bob:
                await bob.until("bob is here")
                ann.say("/leave")
                await bob.until("> The big one")
                for text in ("(handed over)", "customer: My printer burns", "ann: Which printer?"):
                    expect(text in bob.out, f"{text!r} is not in {bob.out!r}")
                expect(await ann.end() == 0, ann.err)
                bob.say("I am on my way.")
                final = await answer
                expect(final.text == "I am on my way." and final.outcome["by"] == "bob", f"{final}")


class Chunk:
    def __init__(self, content):
        self.content = content


class FakeGraph:
    """What the adapter needs of a compiled LangGraph graph."""

    async def astream(self, asked, config, stream_mode):
        assert stream_mode == "messages"
        for piece in ("thread ", config["configurable"]["thread_id"], ": ", asked["messages"][-1][1], [], ""):
            yield Chunk(piece), {}


class FakePraison:
    """What the adapter needs of a PraisonAI agent: a blocking stream, and a memory of its own."""

    def __init__(self):
        self.count = 0

    def iter_stream(self, text):
        self.count += 1
        yield f"{self.count}. "
        yield text.upper()


async def check_adapters(stage):
    from langgraph_agent import graph_agent
    from praisonai_agent import praison_agent

    token = await stage.daemon.token("worker", "agent", "--agents", "graph,praison")
    servers = [
        graph_agent("graph", FakeGraph()).start(stage.daemon.url, token=token),
        praison_agent("praison", FakePraison).start(stage.daemon.url, token=token),
    ]
    for server in servers:
        await server.ready()
    async with stage.session("graph") as session:
        final = await session.ask("hi").final()
        expect(final.text == f"thread {session.id}: hi", f"{final}")
    async with stage.session("praison") as session:
        texts = [(await session.ask(text).final()).text for text in ("a", "b")]
        expect(texts == ["1. A", "2. B"], f"{texts}")
    for server in servers:
        await server.stop()


async def check_exec(stage):
    """The recipes, through the gateway's own `agent --exec`."""
    environment = {"SHELL_AGENT_DIR": os.path.join(stage.daemon.directory, "shell")}
    for agent, script, asked in (
        ("words", "words.py", [("to be or not to be", "6 words in turn 1, attempt 1.\nto: 2\nbe: 2\nor: 1\n")]),
        ("shell", "shell.sh", [("touch a b", ""), ("ls", "a\nb\n"), ("rm a", "I know:"), ("echo x=1", "x=1\n"), ("ls; ls", "Only letters,")]),
    ):
        command = [stage.daemon.program, "agent", "--id", agent, "--exec", EXAMPLES / "exec" / script]
        async with await stage.worker(agent, *command, **environment):
            await stage.known(agent)
            async with stage.session(agent) as session:
                for message, right in asked:
                    final = await session.ask(message).final()
                    said = final.text.strip().startswith(right.strip()) if right else final.text == ""
                    expect(said and final.outcome["status"] == "ok", f"{message!r} gave {final}")


async def check_web(stage):
    """The chat page in a browser: stream, reload, restart of the gateway."""
    command, _ = node()
    browser = chromium()
    if command is None or browser is None:
        return "skipped: needs node, chromium and the package playwright-core"
    serving = Program(sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0", directory=ROOT)
    counting = await stage.worker("counter", sys.executable, EXAMPLES / "python/counter.py", COUNTER_PAUSE="0.05")
    async with serving, counting:
        await serving.until("http://127.0.0.1:")
        base = serving.out.split("(")[1].split("/)")[0]
        await stage.known("counter")
        environment = {"PAGE": f"{base}/examples/web/", "CHROMIUM": browser[0], "PLAYWRIGHT": browser[1]}
        environment.update(await stage.environment())
        async with Program(command[0], HERE / "web.mjs", environment=environment) as script:
            await script.until("restart the gateway")
            await stage.daemon.crash()
            script.say("restarted")
            status = await script.end()
            expect(status == 0, f"{script.out[-1500:]}{script.err[-1500:]}")
    return None


CHECKS = {
    "echo in Python, talk in Python": lambda stage: check_echo(stage, "python", "python"),
    "echo in Python, talk in JavaScript": lambda stage: check_echo(stage, "js", "python"),
    "echo in JavaScript, talk in Python": lambda stage: check_echo(stage, "python", "js"),
    "counter under kill -9 of both sides": check_counter,
    "counter refuses what is no number": check_counter_refuses,
    "OpenAI-compatible endpoint": check_openai,
    "support inbox with hand-over": check_inbox,
    "LangGraph and PraisonAI adapters": check_adapters,
    "agent --exec recipes": check_exec,
    "web chat page": check_web,
}


async def run_check(program, check):
    async with Stage(program) as stage:
        try:
            return await asyncio.wait_for(check(stage), 180)
        except BaseException:
            print(f"     the gateway's log ends with:\n{stage.daemon.log()[-1500:]}")
            raise


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the ebbgate program")
    parser.add_argument("--only", help="only checks whose name has this in it")
    options = parser.parse_args()
    with_node = node()[0] is not None
    failed = 0
    checks = {name: check for name, check in CHECKS.items() if not options.only or options.only in name}
    if not checks:
        print(f"FAIL no check has {options.only} in its name")
        return 1
    for name, check in checks.items():
        if not with_node and ("JavaScript" in name or "OpenAI" in name or "web" in name):
            print(f"skipped: {name} (no node with a WebSocket here)")
            continue
        try:
            said = await run_check(options.program, check)
            print(f"{said or 'passed'}: {name}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAIL {name}\n     {type(error).__name__}: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(main()))
