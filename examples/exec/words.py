#!/usr/bin/env python3
"""Any script is an agent: it reads the message on stdin, what it prints is the answer.

    ebbgate agent --id words --exec ./words.py
"""

import os
import sys
from collections import Counter

words = sys.stdin.read().split()
print(f"{len(words)} words in turn {os.environ['EBBGATE_TURN']}, attempt {os.environ['EBBGATE_ATTEMPT']}.")
for word, count in Counter(word.lower().strip(".,;:!?") for word in words).most_common(3):
    print(f"{word}: {count}", flush=True)
