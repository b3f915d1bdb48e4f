#!/usr/bin/python3
"""Conformance of the client libraries: every scenario and every sweep, with every client.

    run.py [--client js|js-ws|js-global|python] [--only TEXT] [--seed N] [--rounds N] [--list]

Exits 0 when everything went as the scenarios say, 1 when something did not, 69 when a client cannot run here.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lib.clients import find_clients  # noqa: E402
from lib.driver import Driver  # noqa: E402
from lib.match import substitute  # noqa: E402
from lib.script import play  # noqa: E402
from lib.sweep import SWEEPS  # noqa: E402

HERE = Path(__file__).resolve().parent


def scenarios():
    """Every scenario, with its cases spread out."""
    for path in sorted((HERE / "scenarios").glob("*.json")):
        for scenario in json.loads(path.read_text("utf-8")):
            if path.stem == "agent":
                scenario["role"] = "agent"
            for case in scenario.get("cases", [None]):
                made = scenario if case is None else substitute({**scenario, "cases": None}, case)
                name = scenario["name"] if case is None else f"{scenario['name']}: {case['name']}"
                yield {**made, "name": f"{path.stem}: {name}"}


class Report:
    def __init__(self):
        self.passed = 0
        self.failed = []

    def failure(self, client, name, error):
        self.failed.append(name)
        print(f"FAIL {client}: {name}\n     {error}", flush=True)


async def run_scenarios(client, options, report):
    driver = await Driver(client.name, client.command, client.environment).start()
    try:
        for scenario in scenarios():
            if options.only and options.only not in scenario["name"]:
                continue
            if not set(scenario.get("needs", [])) <= client.abilities:
                continue
            try:
                await play(scenario, driver)
                report.passed += 1
            except Exception as error:
                report.failure(client.name, scenario["name"], f"{type(error).__name__}: {error}")
                for note in driver.notes[-12:]:
                    print(f"     {json.dumps(note)}")
                await driver.kill()
                driver = await Driver(client.name, client.command, client.environment).start()
    finally:
        await driver.stop()


async def run_sweeps(client, options, report):
    for name, sweep in SWEEPS.items():
        if options.only and options.only not in name:
            continue
        try:
            count = await sweep(client, options.seed, options.rounds)
            report.passed += count
        except Exception as error:
            report.failure(client.name, name, f"{type(error).__name__}: {error}")


def unheard(loop, context):
    """websockets 10 stumbles over a server that closes while a client's handshake is under way: no matter here."""
    if "transfer_data_task" not in str(context.get("exception")):
        loop.default_exception_handler(context)


async def main():
    asyncio.get_running_loop().set_exception_handler(unheard)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--client", help="only this client")
    parser.add_argument("--only", help="only scenarios and sweeps whose name has this in it")
    parser.add_argument("--seed", type=int, default=1, help="where the random sweeps begin")
    parser.add_argument("--rounds", type=int, default=30, help="how many random schedules each")
    parser.add_argument("--list", action="store_true", help="name the scenarios and sweeps")
    options = parser.parse_args()
    names = [scenario["name"] for scenario in scenarios()] + list(SWEEPS)
    if options.list:
        print("\n".join(names))
        return 0
    if options.only and not any(options.only in name for name in names):
        print(f"FAIL no scenario or sweep has {options.only} in its name")
        return 1
    clients = find_clients(options.client)
    if not clients:
        print("no client can run here", file=sys.stderr)
        return 69
    code = 0
    for client in clients:
        report = Report()
        await run_scenarios(client, options, report)
        await run_sweeps(client, options, report)
        print(f"{client.name}: {report.passed} passed, {len(report.failed)} failed", flush=True)
        if report.failed or report.passed == 0:
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
