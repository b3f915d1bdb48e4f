"""Comparing what came with what a scenario says.

An expected object names the fields that matter: others may be there. An expected array must match
whole. Special objects: ``{"$absent": true}`` the field is not there; ``{"$any": true}`` it is
there; ``{"$as": "x"}`` it is there and is remembered as x; ``{"$ref": "x"}`` it equals what was remembered;
``{"$has": [...]}`` an array that contains each of these; ``{"$min": n}`` a number of at least n;
``{"$not": x}`` anything but x.
"""


class Mismatch(Exception):
    """What was expected did not come."""


def check(expected, actual, names, where="$"):
    """Raises Mismatch, saying where, unless ``actual`` is as ``expected``."""
    if isinstance(expected, dict):
        if len(expected) == 1 and next(iter(expected)).startswith("$"):
            check_special(expected, actual, names, where)
            return
        if not isinstance(actual, dict):
            raise Mismatch(f"{where}: expected an object, got {actual!r}")
        for name, value in expected.items():
            if isinstance(value, dict) and value.get("$absent"):
                if name in actual:
                    raise Mismatch(f"{where}.{name}: should not be there, is {actual[name]!r}")
            elif name not in actual:
                raise Mismatch(f"{where}.{name}: missing in {actual!r}")
            else:
                check(value, actual[name], names, f"{where}.{name}")
    elif isinstance(expected, list):
        if not isinstance(actual, list) or len(actual) != len(expected):
            raise Mismatch(f"{where}: expected {expected!r}, got {actual!r}")
        for index, value in enumerate(expected):
            check(value, actual[index], names, f"{where}[{index}]")
    elif expected != actual or isinstance(expected, bool) != isinstance(actual, bool):
        raise Mismatch(f"{where}: expected {expected!r}, got {actual!r}")


def check_special(expected, actual, names, where):
    (kind, value), = expected.items()
    if kind == "$any":
        return
    if kind == "$as":
        names[value] = actual
    elif kind == "$ref":
        check(names[value], actual, names, where)
    elif kind == "$has":
        for item in value:
            if item not in (actual or []):
                raise Mismatch(f"{where}: {item!r} is not in {actual!r}")
    elif kind == "$min":
        if not isinstance(actual, (int, float)) or actual < value:
            raise Mismatch(f"{where}: expected at least {value}, got {actual!r}")
    elif kind == "$not":
        if actual == value:
            raise Mismatch(f"{where}: expected anything but {value!r}")
    else:
        raise Mismatch(f"{where}: unknown matcher {kind}")


def fill(value, names):
    """Replaces ``{"$ref": "x"}`` by what was remembered."""
    if isinstance(value, dict):
        if set(value) == {"$ref"}:
            return names[value["$ref"]]
        return {name: fill(item, names) for name, item in value.items()}
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    return value


def substitute(value, case):
    """Replaces ``{"$case": "x"}`` by the case's x; a field whose x the case lacks is left out."""
    if isinstance(value, dict):
        if set(value) == {"$case"}:
            return case[value["$case"]]
        made = {}
        for name, item in value.items():
            if isinstance(item, dict) and set(item) == {"$case"} and item["$case"] not in case:
                continue
            made[name] = substitute(item, case)
        return made
    if isinstance(value, list):
        return [substitute(item, case) for item in value]
    return value
