#!/usr/bin/env python3
"""Line coverage of src/ by fuzz target: cover.py FOLDER BINARY NAME ...

FOLDER/NAME.profdata and the program BINARYNAME belong to target NAME; FOLDER/all.profdata is their
sum. Prints, in percent of lines, the files of which all together run at least a tenth. "." is less
than one percent.
"""
import json
import os
import subprocess
import sys


def lines(profile, binaries):
    objects = [a for b in binaries[1:] for a in ("-object", b)]
    out = subprocess.run(
        ["llvm-cov", "export", "-summary-only", "-instr-profile=" + profile, binaries[0]] + objects,
        check=True, stdout=subprocess.PIPE).stdout
    return {os.path.relpath(f["filename"]): f["summary"]["lines"]
            for f in json.loads(out)["data"][0]["files"]}


def percent(part, whole):
    return 100.0 * part / whole if whole else 0.0


def main(folder, binary, names):
    table = {n: lines(os.path.join(folder, n + ".profdata"), [binary + n]) for n in names}
    whole = lines(os.path.join(folder, "all.profdata"), [binary + n for n in names])
    files = [f for f in sorted(whole) if f.startswith("src/")]
    print("%-28s%5s" % ("lines in percent", "all") + "".join("%8s" % n for n in names))
    for f in files:
        cells = [percent(table[n].get(f, {"covered": 0})["covered"], whole[f]["count"])
                 for n in names]
        if whole[f]["percent"] >= 10:
            print("%-28s%5.0f" % (f, whole[f]["percent"]) +
                  "".join("%8s" % ("%.0f" % c if c >= 1 else ".") for c in cells))
    count = sum(whole[f]["count"] for f in files)
    print("%-28s%5.0f" % ("of the %d files linked in" % len(files),
                          percent(sum(whole[f]["covered"] for f in files), count)) +
          "".join("%8.0f" % percent(sum(table[n][f]["covered"] for f in files if f in table[n]),
                                    count) for n in names))


main(sys.argv[1], sys.argv[2], sys.argv[3:])
