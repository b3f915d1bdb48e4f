"""Sweeps: one conversation, broken at every place there is, with the model gateway.

Each sweep runs a conversation without faults, counts the frames, then runs it again for every frame
boundary, and for random mixtures of faults. After each run the application must have been told
exactly what the log holds.
"""

import asyncio
import random
import shutil
import tempfile
from pathlib import Path

from .driver import Driver
from .model import Faults, Model

PATIENCE = 30
MESSAGES = 4
TOKENS = 4
NOT_NOW = ["rate_limited", "queue_full", "storage_unavailable", "internal"]


class Broken(Exception):
    """An invariant did not hold."""


def expect(condition, text):
    if not condition:
        raise Broken(text)


def same_event(delivered, stored):
    """An own message that was accepted live is told without the fields only the gateway knows."""
    if delivered["type"] == "message" and delivered.get("own"):
        return delivered["cursor"] == stored["cursor"] and delivered["data"] == stored["data"]
    return {name: value for name, value in delivered.items() if name != "own"} == stored


def check_saves(driver):
    """No stored place was ever ahead of what the application had been given."""
    given = 0
    for line in driver.journal:
        if line.get("note") == "saved":
            place = line["state"]["cursor"] or 0
            expect(place <= given, f"stored place {place}, but the application had only {given}")
        elif isinstance(line.get("ok"), dict) and "event" in line["ok"]:
            given = line["ok"]["event"].get("cursor", given)


async def converse(driver, model, options=None):
    """Sends messages and reads all answers; the application must have the log, whole and once."""
    driver.forget()
    await driver.do("remember", key="a", state=None)
    opened = await driver.do("open", options={"agent": "a", "url": model.url, **(options or {})})
    sends = [
        driver.begin("send", content=f"hello {number}", message_id=f"m{number}") for number in range(MESSAGES)
    ]
    delivered = []
    finals = 0
    while finals < MESSAGES:
        event = (await driver.do("next"))["event"]
        delivered.append(event)
        finals += event["type"] == "response"
    session = opened["session"]
    for number, future in enumerate(sends):
        said = await future
        expect("ok" in said, f"send {number} failed: {said.get('error')}")
        place = model.ids[(session, f"m{number}")]
        expect(said["ok"]["cursor"] == place, f"send {number} resolved with {said['ok']}, the log says {place}")
    await driver.do("close")
    check_log(delivered, model.logs[session])
    check_saves(driver)


def check_log(delivered, log):
    cursors = [event["cursor"] for event in delivered]
    expect(cursors == [event["cursor"] for event in log], f"delivered {cursors} of {len(log)}")
    for event, stored in zip(delivered, log):
        expect(same_event(event, stored), f"delivered {event}, stored {stored}")
    messages = [event["data"]["message_id"] for event in log if event["type"] == "message"]
    expect(messages == [f"m{number}" for number in range(MESSAGES)], f"messages in the log: {messages}")


async def run(work, faults, **model_options):
    """One run with its own model; gives the frames sent and received."""
    async with Model(faults, **model_options) as model:
        try:
            await asyncio.wait_for(work(model), PATIENCE)
        except asyncio.TimeoutError:
            raise Broken(f"with {faults}: not done within {PATIENCE} s") from None
        except (Broken, AssertionError) as error:
            raise Broken(f"with {faults}: {error}") from None
        return model.sent, model.received


def random_faults(rng, sent, received):
    faults = Faults(twice=rng.random() < 0.3)
    for _ in range(rng.randint(0, 4)):
        faults.drop_after_sent.add(rng.randint(1, 2 * sent))
    for _ in range(rng.randint(0, 3)):
        faults.drop_after_received.add(rng.randint(1, 2 * received))
    for _ in range(rng.randint(0, 2)):
        faults.skip_sent.add(rng.randint(1, sent))
    for _ in range(rng.randint(0, 2)):
        faults.refuse_received[rng.randint(1, received)] = rng.choice(NOT_NOW)
    return faults


async def with_driver(client, work):
    driver = await Driver(client.name, client.command, client.environment).start()
    try:
        return await work(driver)
    finally:
        await driver.stop()


async def boundaries(work, **model_options):
    """A run without faults, then one for each frame boundary in each direction; gives how many."""
    sent, received = await run(work, Faults(), **model_options)
    for number in range(1, sent + 1):
        await run(work, Faults(drop_after_sent={number}), **model_options)
    for number in range(1, received + 1):
        await run(work, Faults(drop_after_received={number}), **model_options)
    return 1 + sent + received


async def sweep_session(client, seed, rounds):
    return await with_driver(client, lambda driver: boundaries(lambda model: converse(driver, model)))


async def sweep_session_holes(client, seed, rounds):
    async def all_holes(driver):
        async def work(model):
            await converse(driver, model)

        sent, _ = await run(work, Faults(), heartbeat_ms=40)
        for number in range(1, sent + 1):
            await run(work, Faults(skip_sent={number}), heartbeat_ms=40)
        return 1 + sent

    return await with_driver(client, all_holes)


async def sweep_session_random(client, seed, rounds):
    async def all_rounds(driver):
        async def work(model):
            await converse(driver, model, {"send_window": 2, "max_queued": 3})

        sent, received = await run(work, Faults(), heartbeat_ms=40)
        for number in range(seed, seed + rounds):
            faults = random_faults(random.Random(number), sent, received)
            if faults.refuse_received:
                faults.refuse_received = {}  # a window of 2 may let one overtake a refused one: tested with 1
            await run(work, faults, heartbeat_ms=40)
        return 1 + rounds

    return await with_driver(client, all_rounds)


async def sweep_session_refusals(client, seed, rounds):
    async def all_rounds(driver):
        async def work(model):
            await converse(driver, model)

        sent, received = await run(work, Faults(), heartbeat_ms=40)
        for number in range(seed, seed + rounds):
            await run(work, random_faults(random.Random(number), sent, received), heartbeat_ms=40)
        return 1 + rounds

    return await with_driver(client, all_rounds)


async def crash_once(client, directory, after, commit):
    """The application is killed after so many events; a new one goes on from its files."""

    async def work(model):
        options = {"agent": "a", "url": model.url, "store_directory": directory}
        told = []
        for last in (after, 4 * MESSAGES):
            driver = await Driver(client.name, client.command, client.environment).start()
            told.append([])
            try:
                await driver.do("open", options=options)
                for number in range(MESSAGES):
                    driver.begin("send", content=f"hello {number}", message_id=f"m{number}")
                while not told[-1] or told[-1][-1] < last:
                    told[-1].append((await driver.do("next"))["event"]["cursor"])
                if commit:
                    await driver.do("commit")
            finally:
                await driver.kill()
        again = told[1][0]
        expect(told[0] == list(range(1, after + 1)), f"before the crash: {told[0]}")
        expect(told[1] == list(range(again, 4 * MESSAGES + 1)), f"after the crash: {told[1]}")
        expect(again == after + 1 if commit else again <= after + 1, f"killed after {after}, went on with {again}")
        messages = [event["data"]["message_id"] for event in model.logs["s1"] if event["type"] == "message"]
        expect(messages == [f"m{number}" for number in range(MESSAGES)], f"messages in the log: {messages}")

    await run(work, Faults())


async def sweep_session_crash(client, seed, rounds):
    places = range(1, 4 * MESSAGES)
    for after in places:
        directory = tempfile.mkdtemp(prefix="ebbgate-clients-")
        try:
            await crash_once(client, directory, after, commit=after % 2 == 0)
        finally:
            shutil.rmtree(directory)
    return len(places)


async def sweep_store_fails(client, _seed, _rounds):
    """A place that cannot be written: it is told, the messages go on, and each try takes its file away again."""
    directory = tempfile.mkdtemp(prefix="ebbgate-clients-")

    async def work(model):
        driver = await Driver(client.name, client.command, client.environment).start()
        try:
            await driver.do("open", options={"agent": "a", "url": model.url, "store_directory": directory})
            await driver.do("commit")  # the saves so far are done
            Path(directory, "a.json").unlink()
            Path(directory, "a.json").mkdir()  # no file can take its place
            for number in range(2):
                await driver.do("send", content="hello", message_id=f"m{number}")
            await driver.do("close")
            errors = [line for line in driver.journal if line.get("note") == "error"]
            expect(errors and all(line["code"] == "store_failed" for line in errors), f"told: {errors}")
        finally:
            await driver.kill()
        left = sorted(path.name for path in Path(directory).iterdir())
        expect(left == ["a.json"], f"left behind: {left}")

    try:
        await run(work, Faults())
    finally:
        shutil.rmtree(directory)
    return 1


def check_turns(model, restarts=False):
    """Each turn's tokens are there once, in order, then one final; turns follow each other."""
    for session, log in model.logs.items():
        for message in [event for event in log if event["type"] == "message"]:
            mine = [event for event in log if event["turn"] == message["cursor"] and event is not message]
            if restarts:
                begun = [index for index, event in enumerate(mine) if event["type"] == "retry_stream"]
                mine = mine[begun[-1] + 1 :] if begun else mine
            said = [event["data"]["content"] for event in mine if event["type"] == "token_stream"]
            right = [f"{message['data']['content']}:{number} " for number in range(1, TOKENS + 1)]
            expect(said == right, f"{session}, turn {message['cursor']}: {said}")
            expect([event["type"] for event in mine[-1:]] == ["response"], f"{session}: ends with {mine[-1:]}")
            expect(mine[-1]["content"] == "".join(right), f"{session}: final {mine[-1]['content']!r}")
        finals = [event["turn"] for event in log if event["type"] == "response"]
        expect(finals == sorted(set(finals)), f"{session}: finals for turns {finals}")


def all_answered(model):
    return not model.turns and all(log for log in model.logs.values())


async def serve_turns(driver, model):
    driver.forget()
    program = [{"count": TOKENS}]
    options = {"agent": "a", "url": model.url, "concurrency": 2, "emit_window": 2, "program": program}
    for number in range(2):
        model.post("s1", f"one-{number}")
        model.post("s2", f"two-{number}")
    await driver.do("serve", options=options)
    await model.until(lambda: all_answered(model))
    await driver.do("stop")
    check_turns(model)
    turns = [(note["session"], note["turn"]) for note in driver.notes if note["note"] == "turn"]
    expect(len(turns) == len(set(turns)) == 4, f"the handler ran for {turns}")


async def sweep_agent(client, seed, rounds):
    async def both(driver):
        count = 0
        for confirm_final in (True, False):
            count += await boundaries(
                lambda model: serve_turns(driver, model), confirm_final=confirm_final, self_answering=False
            )
        return count

    return await with_driver(client, both)


async def sweep_agent_random(client, seed, rounds):
    async def all_rounds(driver):
        async def work(model):
            await serve_turns(driver, model)

        sent, received = await run(work, Faults(), self_answering=False)
        for number in range(seed, seed + rounds):
            faults = random_faults(random.Random(number), sent, received)
            faults.skip_sent = set()
            faults.refuse_received = {}
            await run(work, faults, self_answering=False)
        return 1 + rounds

    return await with_driver(client, all_rounds)


async def sweep_agent_crash(client, seed, rounds):
    """The worker is killed after each number of events in the log; another process takes over."""

    async def crash(after):
        async def work(model):
            model.post("s1", "one")
            options = {"agent": "a", "url": model.url, "program": [{"count": TOKENS}], "emit_window": 1}
            first = await Driver(client.name, client.command, client.environment).start()
            first.begin("serve", options=options)
            await model.until(lambda: len(model.logs["s1"]) >= after)
            await first.kill()
            second = await Driver(client.name, client.command, client.environment).start()
            try:
                await second.do("serve", options=options)
                await model.until(lambda: all_answered(model))
            finally:
                await second.kill()
            check_turns(model, restarts=True)

        await run(work, Faults(), self_answering=False)

    for after in range(1, TOKENS + 2):
        await crash(after)
    return TOKENS + 1


SWEEPS = {
    "sweep: a conversation, dropped at every frame boundary": sweep_session,
    "sweep: a conversation, every live event lost once": sweep_session_holes,
    "sweep: a conversation, random faults, narrow queue": sweep_session_random,
    "sweep: a conversation, random faults and refusals": sweep_session_refusals,
    "sweep: an application killed after every event": sweep_session_crash,
    "sweep: a store that cannot be written": sweep_store_fails,
    "sweep: an agent, dropped at every frame boundary": sweep_agent,
    "sweep: an agent, random faults": sweep_agent_random,
    "sweep: a worker killed after every event": sweep_agent_crash,
}
