#!/usr/bin/env python3
"""Compares the JSON guard with node's JSON.parse and python's json on tricky inputs.

    compare.py GUARD

The guard is stricter than RFC 8259 in known ways: depth above 32, duplicate keys, U+0000 and lone
surrogates. Python's parser, with those rules and RFC 8259's own put on top, has to give the same
verdict on every input; node's on every input that breaks none of the extra rules. The inputs are
a list of hand-picked ones and every small change of them: each byte removed, doubled, replaced by
bytes that matter, and each cut. Exit 1 on the first differences.
"""
import base64
import json
import os
import re
import subprocess
import sys
import tempfile

DEPTH = 32

SEEDS = [
    b'{"a":1,"b":[true,false,null,-1.5e+10],"c":{"d":"e"}}',
    b' \t\r\n{ "a" : [ 1 , 2 ] } \n',
    rb'["\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\uD83D\uDE00"]',
    '["é€😀\u007f\u2028\ufeff\uffff"]'.encode(),
    b"[0,-0,0.0,1.0,1e5,1E-5,0e0,123456789012345678901234567890,1e999,-1e-999]",
    rb'{"a":1,"\u0061b":2,"\u0062":{"a":1}}',
    rb'["\ud800","\udc00x","\ud800\ud800","\udc00\ud800"]',
    rb'"\ud83d\ude00"',
    rb'"\u0001\u001f\u0020"',
    b"\xef\xbb\xbf{}",
    b'"\xc0\xaf"', b'"\xc1\xbf"', b'"\xe0\x80\x80"', b'"\xe0\xa0\x80"', b'"\xed\x9f\xbf"',
    b'"\xed\xa0\x80"', b'"\xed\xbf\xbf"', b'"\xee\x80\x80"', b'"\xf0\x8f\xbf\xbf"',
    b'"\xf0\x90\x80\x80"', b'"\xf4\x8f\xbf\xbf"', b'"\xf4\x90\x80\x80"', b'"\xf5\x80\x80\x80"',
    b'"\xff"', b'"\x80"', b'"\xe2\x82"', b'"\xe2\x82\xac"',
    b"nul", b"nulll", b"NaN", b"[NaN]", b"Infinity", b"-Infinity", b"[-Infinity]", b"TRUE",
    b"+1", b"01", b"-01", b"1.", b".5", b"-", b"-.5", b"1e", b"1e+", b"0x10", b"1_000", b"1 2",
    b"1,2", b"'a'", b"{a:1}", b"{'a':1}", b"[1,]", b"[,1]", b"[,]", b'{"a":1,}', b'{,"a":1}',
    b'{"a"}', b'{"a":}', b'{:1}', b'{"a":1 "b":2}', b"[1 2]", b"[1}", b'{"a":1]', b"]", b"}",
    b"[]]", b"{}}", b"[[]", b"", b" ", b"\n", b"\x0b1", b"\x0c[]", b"[]\x0c", b"\xc2\xa0[]",
    b"[]\x00", b"\x00", b"[\x00]", b'"\x00"', b'"a\x01b"', b'"a\tb"', b'"a\nb"', b'"\x7f"',
    b"// x\n1", b"/* x */1", b"[1]//", b"#", b'"\\x41"', b'"\\u12"', b'"\\u12G4"', b'"\\U0041"',
    b'"\\"', b'"\\', b'"', b'"a', b"'", b"\\", b"\xe2\x80\xa8[]", b"[]\xe2\x80\xa8",
    "[１]".encode(), "[٣]".encode(), b"1e1.5", b"--1", b"1-1", b"1e--1", b"0.0.0", b"00", b"-00",
    b"[" * DEPTH + b"]" * DEPTH, b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1),
    b'{"a":' * DEPTH + b"1" + b"}" * DEPTH, b'{"a":' * (DEPTH + 1) + b"1" + b"}" * (DEPTH + 1),
    b'{"":1,"":2}', b'{"a":1,"A":2}', b'{"__proto__":1,"constructor":2}',
    rb'{"\u00e9":1,"' + "é".encode() + b'":2}', rb'{"e\u0301":1,"\u00e9":2}',
    b'{' + b",".join(b'"k%d":%d' % (i, i) for i in range(40)) + b"}",
    b'{' + b",".join(b'"k%d":%d' % (i, i) for i in range(40)) + b',"k3":0}',
    b'[{' + b",".join(b'"k%d":{"k%d":1}' % (i, i) for i in range(20)) + b'},{"k1":1}]',
    b'"' + b"abcdefgh" * 9 + b"\\n" + b"x" * 7 + b'"',
]

BYTES = [b"\x00", b"\x1f", b" ", b'"', b"\\", b",", b":", b"0", b"1", b"-", b"+", b".", b"e", b"u",
         b"[", b"]", b"{", b"}", b"\x80", b"\xc3", b"\xed", b"\xf0", b"\xff", b"d", b"t", b"/"]


def inputs():
    seen = set()
    for seed in SEEDS:
        for text in variants(seed):
            if text not in seen:
                seen.add(text)
                yield text


def variants(seed):
    yield seed
    for i in range(len(seed)):
        yield seed[:i]
        yield seed[:i] + seed[i + 1:]
        yield seed[:i] + seed[i:i + 1] + seed[i:]
        for byte in BYTES:
            yield seed[:i] + byte + seed[i + 1:]
            if len(seed) < 60:
                yield seed[:i] + byte + seed[i:]


class Extra(Exception):
    """Breaks a rule that the protocol adds to RFC 8259."""


def strict_pairs(pairs):
    if len({k for k, _ in pairs}) != len(pairs):
        raise Extra("duplicate key")
    for key, _ in pairs:
        check_text(key)
    return dict(pairs)


def check_text(text):
    if "\x00" in text:
        raise Extra("U+0000")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise Extra("lone surrogate")


def check_values(value, depth):
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, (list, dict)):
        if depth == DEPTH:
            raise Extra("nested too deep")
        for one in value.values() if isinstance(value, dict) else value:
            check_values(one, depth + 1)


def no_constant(word):
    raise ValueError(word)


def python_verdict(data):
    """ok, refused (RFC 8259) or extra (the protocol's own rules)."""
    try:
        text = data.decode("utf-8")
        # What python's parser takes but RFC 8259 has not: whitespace is fine there, digits are
        # those of ASCII only, a byte order mark is no whitespace.
        outside = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text, flags=re.S)
        if not outside.isascii():
            raise ValueError("not ASCII outside strings")
        check_values(json.loads(text, object_pairs_hook=strict_pairs, parse_constant=no_constant,
                                parse_int=str, parse_float=str), 0)
    except Extra:
        return "extra"
    except (ValueError, RecursionError):
        return "refused"
    return "ok"


def guard_verdicts(guard, texts):
    feed = b"".join(b"%d\n%s" % (len(t), t) for t in texts)
    out = subprocess.run([guard], input=feed, stdout=subprocess.PIPE, check=True).stdout
    return out.decode().splitlines()


def node_verdicts(texts):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "texts.json")
        with open(path, "w", encoding="ascii") as f:
            json.dump([base64.b64encode(t).decode() for t in texts], f)
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "node.js")
        out = subprocess.run(["node", script, path], stdout=subprocess.PIPE, check=True).stdout
    return out.decode().splitlines()


def main():
    texts = list(inputs())
    guard = guard_verdicts(sys.argv[1], texts)
    node = node_verdicts(texts)
    if len(guard) != len(texts) or len(node) != len(texts):
        sys.exit("FAILED: a parser stopped half way")
    differences = 0
    counts = {"ok": 0, "refused": 0, "extra": 0}
    for text, g, n in zip(texts, guard, node):
        p = python_verdict(text)
        counts[p] += 1
        same = (g == "ok") == (p == "ok") and (n == "ok") == (p == "ok" or p == "extra")
        # What breaks both kinds of rules: python sees one first, node only RFC 8259's.
        if p == "extra" and g != "ok":
            same = True
        if not same:
            differences += 1
            print(f"differs: guard {g}; node {n}; python {p}: {text!r}")
            if differences == 20:
                break
    if differences:
        sys.exit("FAILED: the parsers differ")
    print(f"passed: {len(texts)} texts, {counts['ok']} accepted by all, "
          f"{counts['refused']} refused by all, {counts['extra']} refused by the protocol's rules")


main()
