#!/usr/bin/python3
"""The client libraries against a real gateway that is killed, again and again, while they talk.

    real.py PROGRAM [--client NAME] [--kills N]

Each client plays both parts: it talks to an agent that another client serves. The kills come by
progress (after so many events were told), not by time. Afterwards the application must have been told
the log, whole and once, every message must be in it once, and every turn answered once.
"""

import argparse
import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lib.clients import find_clients  # noqa: E402
from lib.daemon import Daemon  # noqa: E402
from lib.driver import Driver  # noqa: E402
from lib.sweep import Broken, check_saves, expect, same_event  # noqa: E402

PATIENCE = 300
MESSAGES = 12
TOKENS = 10
RETRY = {"initial": 0.02, "maximum": 0.2}


async def start(client):
    return await Driver(client.name, client.command, client.environment).start()


async def whole_log(driver, head):
    """The session's log as the gateway tells it, page by page."""
    events = []
    while len(events) < head:
        page = await driver.do("history", since=events[-1]["cursor"] if events else 0, limit=100)
        expect(page["events"], f"history ends at {len(events)} of {head}")
        events += page["events"]
    return events


def check_answers(log):
    messages = [event for event in log if event["type"] == "message"]
    contents = [event["data"]["content"] for event in messages]
    expect(contents == [f"m{number}" for number in range(MESSAGES)], f"messages in the log: {contents}")
    for message in messages:
        turn = [event for event in log if event.get("turn") == message["cursor"] and event is not message]
        told = [event["data"]["content"] for event in turn if event["type"] == "token_stream"]
        right = [f"{message['data']['content']}:{number} " for number in range(1, TOKENS + 1)]
        expect(told == right, f"turn {message['cursor']} has {told}")
        finals = [event for event in turn if event["type"] == "response"]
        expect(len(finals) == 1 and turn[-1] is finals[0], f"turn {message['cursor']} has {len(finals)} finals")
        expect(finals[0]["content"] == "".join(right), f"turn {message['cursor']} ended with {finals[0]}")


async def killed_gateway(daemon, talker, worker, kills):
    """One talks, one answers, the gateway dies in between; both processes live on."""
    options = {"real_sleep": True, "retry": RETRY, "random": 0.5}
    user = await daemon.token("alice", "read write", "--agents", "count")
    agent_token = await daemon.token("worker", "agent", "--agents", "count")
    program = [{"count": TOKENS}]
    serving = {**options, "agent": "count", "url": daemon.url, "token": agent_token, "program": program}
    await worker.do("serve", options={**serving, "reattach": 60})
    await talker.do("open", options={**options, "agent": "count", "url": daemon.url, "token": user})
    sends = [talker.begin("send", content=f"m{number}", message_id=f"id{number}") for number in range(MESSAGES)]
    total = MESSAGES * (TOKENS + 2)
    places = [total * number // (kills + 1) for number in range(1, kills + 1)]
    delivered = []
    finals = 0
    while finals < MESSAGES:
        event = (await talker.do("next"))["event"]
        if "cursor" not in event:
            continue
        delivered.append(event)
        finals += event["type"] == "response"
        if places and len(delivered) >= places[0]:
            places.pop(0)
            await daemon.crash()
    expect(daemon.restarts == kills, f"only {daemon.restarts} kills")
    log = await whole_log(talker, delivered[-1]["cursor"])
    cursors = [event["cursor"] for event in delivered]
    expect(cursors == list(range(1, len(log) + 1)), f"told {cursors}, the log has {len(log)}")
    for event, stored in zip(delivered, log):
        expect(same_event(event, stored), f"told {event}, stored {stored}")
    check_answers(log)
    for number, future in enumerate(sends):
        said = await future
        at = [event["cursor"] for event in log if event["type"] == "message"][number]
        expect(said.get("ok", {}).get("cursor") == at, f"send {number} gave {said}, the log says {at}")
    await talker.do("close")
    check_saves(talker)
    gaps = [note for note in talker.notes if note["note"] in ("gap", "resync")]
    expect(not gaps, f"the gateway lost something on the way: {gaps}")
    runs = [note for note in worker.notes if note["note"] == "turn"]
    expect(len(runs) == MESSAGES, f"the handler ran {len(runs)} times for {MESSAGES} turns")
    await worker.do("stop")
    expect(await daemon.stop() == 0, "the gateway did not end well")
    status, out, err = await daemon.command("verify", "--data", daemon.data)
    expect(status == 0, f"verify: {out}{err}")


async def run_pair(program, talking, serving, kills):
    async with Daemon(program) as daemon:
        talker, worker = await start(talking), await start(serving)
        try:
            await asyncio.wait_for(killed_gateway(daemon, talker, worker, kills), PATIENCE)
        except asyncio.TimeoutError:
            notes = [note for note in talker.notes + worker.notes if note["note"] != "saved"][-20:]
            raise Broken(f"not done within {PATIENCE} s; last notes {notes}; gateway: {daemon.log()[-1500:]}") from None
        finally:
            await talker.kill()
            await worker.kill()


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the ebbgate program")
    parser.add_argument("--client", help="only this client, in both parts")
    parser.add_argument("--kills", type=int, default=8)
    options = parser.parse_args()
    clients = find_clients(options.client)
    if not clients:
        print("no client can run here", file=sys.stderr)
        return 69
    failed = 0
    for index, talking in enumerate(clients):
        serving = clients[(index + 1) % len(clients)]
        name = f"{talking.name} talks, {serving.name} answers, {options.kills} kills"
        try:
            await run_pair(options.program, talking, serving, options.kills)
            print(f"passed: {name}", flush=True)
        except (Broken, AssertionError, RuntimeError) as error:
            failed += 1
            print(f"FAIL {name}\n     {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
