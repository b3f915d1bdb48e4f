#!/usr/bin/env python3
"""Prints instruction counts beside the recorded ones: instructions.py RUN.json RECORDED.json [--record]

The counts come from `make bench-instructions`; with --record they become the recorded ones. Changes
below one percent are noise (how many commands one batch took differs a little).
"""
import json
import sys


def main():
    run, recorded = sys.argv[1], sys.argv[2]
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
