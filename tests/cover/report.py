"""Coverage by folder, and what is missing: report.py gcovr.json

Prints each file's lines that no test ran and, where branches count, those of which an outcome was
never seen. Exit 1 when a mark is missed: lines of src/ as a whole, branches of some folders.
"""

import collections
import json
import os
import sys

LINES_OF_ALL = 90.0
BRANCHES_OF = {"src/core": 95.0, "src/wire": 95.0}


def spans(numbers):
    """1, 2, 3, 7 as "1-3, 7"."""
    out = []
    for n in numbers:
        if out and out[-1][1] == n - 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in out)


def percent(part, whole):
    return 100.0 * part / whole if whole else 100.0


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        files = json.load(f)["files"]
    sums = collections.defaultdict(lambda: [0, 0, 0, 0])
    missing = []
    for file in sorted(files, key=lambda f: f["file"]):
        name = file["file"]
        folder = os.path.dirname(name)
        unrun, untaken = [], []
        for line in file["lines"]:
            if line.get("gcovr/noncode"):
                continue
            branches = [b["count"] for b in line["branches"]]
            for total in (sums[folder], sums["src"]):
                total[0] += line["count"] > 0
                total[1] += 1
                total[2] += sum(1 for b in branches if b)
                total[3] += len(branches)
            if not line["count"]:
                unrun.append(line["line_number"])
            elif not all(branches):
                untaken.append(line["line_number"])
        if unrun:
            missing.append(f"{name}: lines {spans(unrun)}")
        if untaken and folder in BRANCHES_OF:
            missing.append(f"{name}: branches of {spans(untaken)}")

    print("What no test reaches")
    for text in missing:
        print("  " + text)
    print(f"\n{'folder':<12}{'lines':>16}{'':>8}{'branches':>16}")
    bad = []
    for folder in sorted(sums):
        run, lines, taken, branches = sums[folder]
        by_line, by_branch = percent(run, lines), percent(taken, branches)
        print(
            f"{folder:<12}{run:>8}/{lines:<7}{by_line:>7.1f}%"
            f"{taken:>8}/{branches:<7}{by_branch:>7.1f}%"
        )
        if folder == "src" and by_line < LINES_OF_ALL:
            bad.append(f"lines of src: {by_line:.1f} % of at least {LINES_OF_ALL:.0f} %")
        if folder in BRANCHES_OF and by_branch < BRANCHES_OF[folder]:
            bad.append(f"branches of {folder}: {by_branch:.1f} % of at least {BRANCHES_OF[folder]:.0f} %")
    for text in bad:
        print(f"FAILED: {text}")
    return 1 if bad else 0


sys.exit(main())
