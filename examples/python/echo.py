"""The smallest agent: it says back what it hears, word by word.

    EBBGATE_TOKEN=$(ebbgate token --sub echo-worker --scope agent --agents echo) python3 echo.py
"""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients" / "python"))  # or install ebbgate
from ebbgate import agent


@agent("echo")
async def echo(turn):
    for word in re.split(r"(?<=\s)", str(turn.content)):
        yield word


if __name__ == "__main__":
    echo.run(os.environ.get("EBBGATE_URL", "ws://127.0.0.1:7070/ws"), token=os.environ.get("EBBGATE_TOKEN"))
