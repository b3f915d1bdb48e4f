#!/usr/bin/python3
"""The quick starts, run as they are printed: their files are saved under the names they give, their `sh`
blocks run in one shell, only the gateway's address is another.

    docs.py PROGRAM [--only TEXT]
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from examples import Stage, chromium, expect, node  # noqa: E402
from lib.process import Program  # noqa: E402

PAGES = ROOT / "docs" / "quickstart"


def files(page, stage, directory):
    """Saves what the page says "Save as" of."""
    found = re.findall(r"Save as `([^`]+)`:\n\n```\w+\n(.*?)^```$", page, re.S | re.M)
    expect(found, "no file in this page")
    for name, text in found:
        expect("127.0.0.1:7070" in text, f"{name} does not name the gateway")
        Path(directory, name).write_text(text.replace("127.0.0.1:7070", stage.daemon.listen), "utf-8")


def promised(page, command):
    """What the page says that a command prints."""
    said = re.search(r"^\$ .*" + re.escape(command) + r"\n(.*?)```", page, re.S | re.M)
    expect(said, f"the page does not show {command}")
    return said.group(1)


async def pair(stage, page, directory, command, suffix, environment):
    """An agent's file and a talker's, whatever the language."""
    files(page, stage, directory)
    worker = await stage.daemon.token("worker", "agent", "--agents", "greeter")
    agent = Program(*command, f"agent.{suffix}", environment={**environment, "EBBGATE_TOKEN": worker}, directory=directory)
    right = promised(page, f"talk.{suffix} world")
    async with agent:
        await stage.known("greeter")
        async with Program(
            *command, f"talk.{suffix}", "world", environment={**environment, "EBBGATE_TOKEN": stage.user}, directory=directory
        ) as talk:
            expect(await talk.end() == 0, talk.err)
            expect(talk.out == right, f"promised {right!r}, printed {talk.out!r}")


async def check_node(stage, page, directory):
    command, path = node()
    if command is None:
        return "skipped: no node with a WebSocket here"
    Path(directory, "node_modules/@ebbgate").mkdir(parents=True)
    os.symlink(ROOT / "clients/js", Path(directory, "node_modules/@ebbgate/client"))
    if path:  # as npm does it: the library is a link, `ws` lies beside the program only
        os.symlink(Path(path["NODE_PATH"], "ws"), Path(directory, "node_modules/ws"))
    Path(directory, "package.json").write_text(json.dumps({"private": True}), "utf-8")
    await pair(stage, page, directory, command[:1] + [part for part in command[1:] if part.startswith("--")], "mjs", {})
    return None


async def check_python(stage, page, directory):
    await pair(stage, page, directory, [sys.executable], "py", {"PYTHONPATH": str(ROOT / "clients/python")})


def shout(stage, environment):
    return Program(stage.daemon.program, "agent", "--id", "shout", "--exec", "tr", "a-z", "A-Z", environment=environment)


# Ctrl-C for a stream: once the answer is complete, as a reader of the page would.
CTRL_C = """
curl() {
    case "$*" in
    *event-stream*)
        : > stream # grep may come before curl's own redirection
        command curl "$@" > stream & pid=$!
        until grep -q '"status":"final".*}$' stream; do sleep 0.05; done
        kill -INT $pid; wait $pid || true
        cat stream ;;
    *) command curl "$@" ;;
    esac
}
"""


async def check_curl(stage, page, directory):
    expect("ebbgate agent --id shout --exec tr a-z A-Z" in page, "the page starts another agent")
    script = "set -eu -m\n" + CTRL_C + "\n".join(re.findall(r"```sh\n(.*?)```", page, re.S))
    script = script.replace("127.0.0.1:7070", stage.daemon.listen)
    bin_directory = Path(directory, "bin")
    bin_directory.mkdir()
    os.symlink(os.path.abspath(stage.daemon.program), bin_directory / "ebbgate")
    path = f"{bin_directory}:{os.environ['PATH']}"
    async with shout(stage, await stage.environment("shout")):
        await stage.known("shout")
        async with Program(
            "bash", "-c", script, directory=directory, environment={"PATH": path, "EBBGATE_DATA": stage.daemon.data}
        ) as shell:
            expect(await shell.end() == 0, f"{shell.out[-1000:]}{shell.err[-1000:]}")
        said = shell.out
        expect('"cursor":1,"turn":1,"duplicate":false' in said, said)
        streamed = re.findall(r"^id: (\d+)$", said, re.M)
        expect(streamed == ["1", "2", "3", "3"], f"streamed {streamed}")
        expect(said.count('"status":"final","content":"HELLO"') == 3, said)
        expect('"no_active_turn"' in said and '"status":"ready"' in said, said)


async def check_browser(stage, page, directory):
    command, _ = node()
    browser = chromium()
    if command is None or browser is None:
        return "skipped: needs node, chromium and the package playwright-core"
    files(page, stage, directory)
    shutil.copytree(ROOT / "clients/js/src", Path(directory, "ebbgate"))
    serving = Program(sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0", directory=directory)
    async with serving, shout(stage, await stage.environment("shout")):
        await serving.until("http://127.0.0.1:")
        await stage.known("shout")
        base = serving.out.split("(")[1].split(")")[0]
        environment = {"PAGE": f"{base}#{stage.user}", "CHROMIUM": browser[0], "PLAYWRIGHT": browser[1]}
        async with Program(command[0], HERE / "page.mjs", environment=environment) as script:
            expect(await script.end() == 0, script.err[-1500:])
    return None


CHECKS = {"node": check_node, "python": check_python, "curl": check_curl, "browser": check_browser}


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the ebbgate program")
    parser.add_argument("--only", choices=CHECKS, help="only this page")
    options = parser.parse_args()
    failed = 0
    for name, check in CHECKS.items():
        if options.only and options.only != name:
            continue
        directory = tempfile.mkdtemp(prefix="ebbgate-docs-")
        try:
            async with Stage(options.program) as stage:
                page = (PAGES / f"{name}.md").read_text("utf-8")
                said = await asyncio.wait_for(check(stage, page, directory), 120)
            print(f"{said or 'passed'}: quick start {name}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAIL quick start {name}\n     {type(error).__name__}: {error}", flush=True)
        finally:
            shutil.rmtree(directory)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
