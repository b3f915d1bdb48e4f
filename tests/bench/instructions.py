#!/usr/bin/env python3
"""Prints instruction counts beside the recorded ones: instructions.py RUN.json RECORDED.json CALLGRIND [--record]

Before that, where they go: the functions at the head of CALLGRIND.publish50, .delivery and .replay
(of the whole run, start and end included). The counts come from `make bench-instructions`; with --record they become the recorded ones. Changes
below one percent are noise (how many commands one batch took differs a little).
"""
import json
import re
import subprocess
import sys


def functions(path):
    """Self cost by function, from callgrind_annotate's list."""
    out = subprocess.run(["callgrind_annotate", "--auto=no", "--tree=none", "--threshold=100", path], text=True, check=False,
                         capture_output=True).stdout
    cost = {}
    for count, where in re.findall(r"^ *([0-9,]+) \( *[0-9.]+%\)  (\S.*)$", out, re.M):
        where = re.sub(r" \[.*/([^/\]]*)\]", r" [\1]", where)
        name = re.sub(r"^\S*?:(?=\S)", "", where).removesuffix(" [ebbgate]")
        cost[name] = cost.get(name, 0) + int(count.replace(",", ""))
    cost.pop("PROGRAM TOTALS", None)
    return cost


def top(path, what, n=14):
    cost = functions(path)
    total = sum(cost.values()) or 1
    print(f"\n{what}: where the instructions go, of the whole run")
    for name, count in sorted(cost.items(), key=lambda item: -item[1])[:n]:
        print(f"  {count * 100 / total:5.1f} %  {name}")


def main():
    run, recorded = sys.argv[1], sys.argv[2]
    for what in ("publish50", "delivery", "replay"):
        top(f"{sys.argv[3]}.{what}", what)
    print()
    with open(run, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    now = {r["figure"]: round(r["median"]) for r in lines if r.get("unit") == "instructions"}
    try:
        with open(recorded, encoding="utf-8") as f:
            old = json.load(f)
    except FileNotFoundError:
        old = {}
    print(f"{'instructions for one':32} {'now':>10} {'recorded':>10} {'change':>8}")
    for name, n in now.items():
        change = f"{(n - old[name]) * 100 / old[name]:+.1f} %" if old.get(name) else ""
        print(f"{name:32} {n:>10,} {old.get(name, 0):>10,} {change:>8}")
    if "--record" in sys.argv:
        with open(recorded, "w", encoding="utf-8") as f:
            json.dump({**old, **now}, f, indent=2)
            f.write("\n")


if __name__ == "__main__":
    main()
