#!/usr/bin/env python3
"""Checks every dependency against deny.toml without a network: licence, source, bans; and the house rule
that dependencies between our crates run one way. Says each offender and exits 1."""
import json
import re
import subprocess
import sys
import tomllib

ORDER = ["crypto", "format", "store", "vault", "custody", "sequencer", "fuse", "cli"]
NOT_ABOVE = {"fuse": {"custody", "sequencer"}, "sequencer": set(ORDER), "store": {"crypto", "format"}}


def licence_is_allowed(expression: str, allowed: set[str]) -> bool:
    """SPDX: OR wants one, AND wants all; `/` is the old way to write OR."""
    tokens = re.findall(r"\(|\)|[^()\s]+", expression.replace("/", " OR "))
    words: list[str] = []
    for token in tokens:
        if words and (token == "WITH" or words[-1].endswith(" WITH")):
            words[-1] += f" {token}"
        else:
            words.append(token)

    def parse_or(at: int) -> tuple[bool, int]:
        value, at = parse_and(at)
        while at < len(words) and words[at] == "OR":
            right, at = parse_and(at + 1)
            value = value or right
        return value, at

    def parse_and(at: int) -> tuple[bool, int]:
        value, at = parse_one(at)
        while at < len(words) and words[at] == "AND":
            right, at = parse_one(at + 1)
            value = value and right
        return value, at

    def parse_one(at: int) -> tuple[bool, int]:
        if words[at] == "(":
            value, at = parse_or(at + 1)
            return value, at + 1
        return words[at] in allowed, at + 1

    value, end = parse_or(0)
    return value and end == len(words)


def main() -> int:
    with open("deny.toml", "rb") as file:
        deny = tomllib.load(file)
    allowed = set(deny["licenses"]["allow"])
    banned = {entry["name"] for entry in deny["bans"]["deny"]}
    metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--locked"]))
    wrong = []
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        if package["name"] in banned:
            wrong.append(f"{name}: banned in deny.toml")
        if package["source"] is None:
            wrong += arrows(package)
            continue
        if not package["source"].startswith("registry+"):
            wrong.append(f"{name}: comes from {package['source']}, not from the registry")
        if not licence_is_allowed(package["license"] or "none", allowed):
            wrong.append(f"{name}: licence {package['license']} is not in deny.toml")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(metadata['packages'])} packages checked, {len(wrong)} refused")
    return 1 if wrong else 0


def arrows(package: dict) -> list[str]:
    """Dependencies between our crates run down only."""
    me = package["name"].removeprefix("runvault-") if package["name"] != "runvault" else "cli"
    if me not in ORDER:
        return []
    below = set(ORDER[: ORDER.index(me)]) - NOT_ABOVE.get(me, set())
    ours = {
        d["name"].removeprefix("runvault-")
        for d in package["dependencies"]
        if d["name"].startswith("runvault") and d["kind"] is None
    }
    return [f"{package['name']} must not depend on runvault-{name}" for name in sorted(ours - below)]


if __name__ == "__main__":
    sys.exit(main())
