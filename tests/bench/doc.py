#!/usr/bin/env python3
"""Writes docs/benchmarks.md from a run: doc.py RUN.jsonl INSTRUCTIONS.json > docs/benchmarks.md

Everything with a number in it comes from the run; the prose around it says how it was measured.
"""
import json
import sys

PEERS = ["redis", "nats", "mosquitto", "nchan", "ws", "socket.io"]
LOWER_IS_BETTER = ("ms", "µs", "bytes resident", "MiB resident", "bytes/event")

INTRO = """# Benchmarks

<!-- Made by `make bench-doc` from tests/bench/results.jsonl. Do not edit. -->

What this gateway does a second, measured beside other servers on one machine, in one run, by one
load generator. Figures of different machines, or of different runs, do not compare: look at the
ratios.

How it is measured:

- The generator (`tests/bench`) is one thread with one epoll loop. It shares the machine's cores
  with the server under test; everything goes over loopback.
- A round runs each scenario once for each server, one server at a time, each freshly started in
  an empty folder on the same disk. Shown is the median of the rounds and the range. What fills
  large logs or opens very many connections runs in the first round only.
- A publish carries 256 bytes. "n clients" have one publish in flight each, in a session (stream,
  subject, topic, channel, room) of their own.
- A log of millions of events is written first; what is measured is the group commit of the last
  ones, once a flush takes what it took before (for at most three minutes: a disk that lends speed
  for bursts asks it back).
- Fan-out: one connection publishes 100 bytes with eight in flight, n connections follow.
- An "accepted" of this gateway means: on disk (`fdatasync`), with the turn queued for the agent.

Run it: `make bench` for the gateway and the baselines, `make bench-peers` for all (installs the
other servers; see `tests/bench/bench.mk`), `make bench-instructions` for instruction counts.
"""


def load(path):
    figures, facts = {}, {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            r = json.loads(line)
            if "fact" in r:
                facts[r["who"], r["fact"]] = r["text"]
            else:
                figures[r["who"], r["figure"]] = r
    return figures, facts


def number(x):
    if x >= 1000:
        return f"{x:,.0f}"
    return f"{x:.3g}" if x < 100 else f"{x:.0f}"


def value(r):
    if r is None:
        return "–"
    text = number(r["median"])
    if "p50_us" in r:
        text += f"<br>{number(r['p50_us'])} / {number(r['p99_us'])} µs"
    return text


def table(head, rows):
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(out + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def machine(facts):
    mine = {key: text for (who, key), text in facts.items() if who == "machine"}
    text = "## The machine\n\n" + table(["", ""], [list(item) for item in mine.items()])
    # The run itself makes a load of about two: the generator and one server.
    if max(float(mine.get(f"load at {when}", 0)) for when in ("start", "end")) > 3.5:
        text += "\nOther work ran on the machine during this run. It spreads over all servers, as "
        text += "rounds go by, but the figures are lower and wider than the machine gives alone.\n"
    return text


def meanings(facts):
    rows = []
    for who in PEERS:
        if (who, "left out") in facts:
            rows.append([who, facts.get((who, "version"), ""), "left out: " + facts[who, "left out"]])
        elif (who, "version") in facts:
            rows.append([who, facts[who, "version"], facts[who, "acknowledgement"]])
    if not rows:
        return ""
    text = "## What an acknowledgement means\n\nNot the same everywhere, so equal figures are not "
    text += "equal service.\n\n"
    rows.insert(0, ["ebbgate", facts.get(("ebbgate", "version"), ""),
                    "`accepted`: the message and its turn are flushed to disk; it keeps its place "
                    "in the session's log, and its id makes a repeat harmless"])
    return text + table(["server", "version", "its acknowledgement"], rows)


def beside(figures):
    present = [p for p in PEERS if any(who == p for who, _ in figures)]
    names = []
    for who, name in figures:
        if who in present and name not in names:
            names.append(name)
    if not names:
        return ""
    rows = []
    for name in names:
        unit = next(r["unit"] for (w, n), r in figures.items() if n == name and w in present)
        rows.append([f"{name}, {unit}"] +
                    [value(figures.get((who, name))) for who in ["ebbgate"] + present])
    text = "## Beside other servers\n\nMedians; below them p50 / p99 of the time to the "
    text += "acknowledgement. A dash: it has no such thing.\n\n"
    text += table([""] + ["ebbgate"] + present, rows)
    text += "\n`new connections welcomed`: this gateway verifies a signed token for each, the "
    text += "others check nothing. For Socket.IO, `replay` is connection state recovery.\n"
    return text


def own(figures):
    rows = []
    for (who, name), r in figures.items():
        if who in ("ebbgate", "machine") and r["unit"] != "instructions":
            p = [number(r["p50_us"]), number(r["p99_us"])] if "p50_us" in r else ["", ""]
            spread = f"{number(r['min'])} – {number(r['max'])}" if r["rounds"] > 1 else ""
            rows.append([name, number(r["median"]), r["unit"], spread, str(r["rounds"])] + p)
    head = ["", "median", "", "range", "rounds", "p50 µs", "p99 µs"]
    text = "## The gateway and the baselines\n\n"
    text += "The baselines say what this machine gives at best: one flush of 512 appended bytes; "
    text += "group commit into the same schema without a network (`raw`); echo through the same "
    text += "reactors without core and disk. `longest stall` is the longest time in which no "
    text += "client at all got an answer: what a checkpoint costs at worst.\n\n"
    return text + table(head, rows)


class Aims:
    """Aims as ratios or bounds on figures of one run; what was not measured is not shown."""

    def __init__(self, figures):
        self.figures = figures
        self.rows = []

    def get(self, who, name, key="median"):
        r = self.figures.get((who, name))
        return r.get(key) if r else None

    def add(self, what, have, aim, more=True, unit=""):
        if have is None or aim is None:
            return
        met = have >= aim if more else have <= aim
        sign = "≥" if more else "≤"
        self.rows.append([what, f"{number(have)}{unit}", f"{sign} {number(aim)}{unit}",
                          "reached" if met else "**behind**"])

    def ratio(self, what, name, who, other, aim):
        a, b = self.get("ebbgate", name), self.get(who, other)
        self.add(what, a / b if a and b else None, aim, unit=" ×")


def against(figures):
    a = Aims(figures)
    flush = "fdatasync of 512 appended bytes"
    pipe = "publish, 1 connection, 100 in flight"
    raw = "raw group commit, 500 sessions, batch 500"
    paced = "latency at 2,000 messages/s"
    a.ratio("publish, 500 clients, beside redis", "publish, 500 clients", "redis",
            "publish, 500 clients", 1.3)
    a.ratio("publish, 500 clients, beside our own echo", "publish, 500 clients", "ebbgate",
            "echo, 500 clients", 0.6)
    a.ratio("publish, 50 clients, beside redis", "publish, 50 clients", "redis",
            "publish, 50 clients", 2)
    a.ratio("publish, 1 client, beside redis", "publish, 1 clients", "redis",
            "publish, 1 clients", 1)
    a.ratio("publish, 1 client, beside the bare flush", "publish, 1 clients", "machine", flush, 0.5)
    a.ratio("100 in flight on one connection, beside redis", pipe, "redis", pipe, 1)
    a.ratio("100 in flight on one connection, beside NATS", pipe, "nats", pipe, 1)
    a.ratio("whole turns, beside raw group commit", "whole turns, 200 sessions", "ebbgate", raw, 0.5)
    for n in (100, 1000):
        a.add(f"fan-out, {n} followers", a.get("ebbgate", f"fan-out, {n} followers"), 1e6, unit="/s")
    p50 = a.get("machine", flush, "p50_us")
    a.add("p50 at 2,000 messages/s", a.get("ebbgate", paced, "p50_us"),
          2 * p50 + 60 if p50 else None, False, " µs")
    a.add("p99 at 2,000 messages/s, beside redis", a.get("ebbgate", paced, "p99_us"),
          a.get("redis", paced, "p99_us"), False, " µs")
    a.add("replay of 10,000 events to one", a.get("ebbgate", "replay 10,000 events to one"), 15,
          False, " ms")
    a.add("replay of 1,000 events to each of 100",
          a.get("ebbgate", "replay 1,000 events to each of 100"), 150, False, " ms")
    a.add("5,000 clients resume after kill -9",
          a.get("ebbgate", "5000 clients resume after kill -9"), 3000, False, " ms")
    quiet = a.get("ebbgate", "live traffic before that, 99th percentile")
    storm = a.get("ebbgate", "live traffic during that, 99th percentile")
    a.add("live traffic meanwhile, 99th percentile beside quiet",
          storm / quiet if quiet and storm else None, 10, False, " ×")
    a.add("new connections with a signed token", a.get("ebbgate", "new connections welcomed"),
          12000, unit="/s")
    a.add("memory of an idle connection with its session", a.get("ebbgate", "idle connection"),
          1536, False, " bytes")
    a.add("the same, 19,000 connections", a.get("ebbgate", "idle connection, 19,000 of them"), 1536,
          False, " bytes")
    a.add("memory of an idle gateway", a.get("ebbgate", "idle gateway"), 15, False, " MiB")
    for name in [n for w, n in figures if w == "ebbgate" and n.startswith("start, ") and "sessions" in n]:
        sessions = int(name.split()[1])
        a.add(f"start with {sessions:,} sessions", a.get("ebbgate", name), 100, False, " ms")
    sizes = [n.rsplit(" ", 2)[1:] for w, n in figures if n.startswith("group commit, log of")]
    if len(sizes) > 1:
        first, last = sizes[0][0], sizes[-1][0]
        for what in ("group commit", "replay"):
            x = a.get("ebbgate", f"{what}, log of {first} events")
            y = a.get("ebbgate", f"{what}, log of {last} events")
            a.add(f"{what}: log of {last} beside {first}", y / x if x and y else None, 0.8,
                  unit=" ×")
        a.add(f"on disk beside the event, log of {last}",
              a.get("ebbgate", f"on disk beside the event, log of {last}"), 60, False, " bytes")
    if not a.rows:
        return ""
    return ("## Against the aims\n\nComputed from this run, so a busy moment of the machine shows.\n\n"
            + table(["", "measured", "aim", ""], a.rows))


def instructions(path):
    try:
        with open(path, encoding="utf-8") as f:
            counts = json.load(f)
    except FileNotFoundError:
        return ""
    text = "## Instructions\n\nOf the whole process in user space, under callgrind. These hardly "
    text += "differ from run to run; `make bench-instructions` prints them with the change since "
    text += "these were recorded, and by function.\n\n"
    return text + table(["one", "instructions"], [[k, f"{v:,}"] for k, v in counts.items()])


def main():
    figures, facts = load(sys.argv[1])
    parts = [INTRO, machine(facts), meanings(facts), against(figures), beside(figures),
             own(figures), instructions(sys.argv[2])]
    print("\n".join(p for p in parts if p).rstrip())


if __name__ == "__main__":
    main()
