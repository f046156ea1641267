#!/usr/bin/env python3
"""A second reader of runvault stores, written from docs/format.md alone. Sections are numbered as there.

It reads what lies in a store that nobody is writing: it replays no journal, writes nothing there, and asks the
program runvault nothing. It opens a vault for as many custodians as its quorum, each with --identity, or for a reader.
Owners, ACLs, devices and set-id bits are left out: they are the store's own, and nothing binds them.

    reader.py [--identity KEYFILE] [--passphrase-file F] [--custody DIR] [--fingerprint HEX] STORE list
    reader.py [--identity KEYFILE] [--passphrase-file F] [--custody DIR] [--fingerprint HEX] STORE extract DIR
    reader.py [--identity KEYFILE] [--passphrase-file F] [--custody DIR] [--fingerprint HEX] STORE verify
    reader.py vectors DIR

`verify` compares every sealed run with its seal.

Exit codes: 0 all read, 1 something was refused (each is a line on stderr), 2 it cannot begin.
"""

import argparse
import os
import resource
import sys

try:
    from sections.conventions import Dir, Refusal, demand
    from sections.vault import Vault
    from sections.extraction import Extraction, shown_path
    from sections.seals import Seal
except ImportError as missing:
    if not (missing.name or "").startswith("cryptography"):
        raise
    sys.exit(print("reader.py needs a Python package: pip install cryptography==50.0.2", file=sys.stderr) or 2)


def main():
    if sys.argv[1:2] == ["vectors"]:
        import vectors
        return vectors.main(sys.argv[2:])
    parser = argparse.ArgumentParser(description="Reads a runvault store without runvault.")
    parser.add_argument("--identity", metavar="KEYFILE", action="append", default=[],
                        help="a key file outside the store; once for each custodian of a quorum")
    parser.add_argument("--passphrase-file", metavar="F", help="its first line unlocks the key file")
    parser.add_argument("--custody", metavar="DIR", help="the store's custody/, where it lies elsewhere")
    parser.add_argument("--fingerprint", metavar="HEX", help="the vault id that is expected")
    parser.add_argument("store")
    parser.add_argument("command", choices=["list", "extract", "verify"])
    parser.add_argument("dir", nargs="?", help="where to extract to: new, or empty")
    options = parser.parse_args()
    if (options.command == "extract") != (options.dir is not None):
        parser.error("extract takes a directory, list and verify none")
    sys.setrecursionlimit(10_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    refused = []

    def refuse(what, refusal):
        what = what if isinstance(what, str) else shown_path(what)
        cause = refusal.strerror if isinstance(refusal, OSError) else refusal
        refused.append(what)
        print(f"{what}: {cause}", file=sys.stderr)

    try:
        vault = Vault(options.store, options)
        if options.command == "list":
            list_runs(vault, refuse)
        elif options.command == "verify":
            verify_runs(vault, refuse)
        else:
            extract_all(vault, options.dir, refuse)
    except (Refusal, OSError) as refusal:
        print(f"{options.store}: {refusal}", file=sys.stderr)
        return 2
    for count, what in ((vault.foreign, "foreign names left out"), (vault.closed, "runs closed to this identity")):
        if count:
            print(f"{count} {what}", file=sys.stderr)
    return 1 if refused else 0


def list_runs(vault, refuse):
    print(f"vault {vault.id.hex()}, state {vault.state['n']}, epoch {vault.state['epochs'][-1]['e']}")
    for gateway in vault.state["gateways"]:
        print(f"gateway {gateway['id']} {gateway['label']}")
    for run in vault.runs(refuse):
        print(f"{run.descriptor['kind']} {run.id.hex()} {run.descriptor['opened']} {shown_path(run.name)}")


def verify_runs(vault, refuse):
    for run in vault.runs(refuse):
        if "seal" not in map(os.fsdecode, run.dir.names()):
            continue
        try:
            files = Seal(run).verify(refuse)
            print(f"{run.id.hex()} {shown_path(run.name)}: {files} files compared with the seal")
        except (Refusal, OSError) as refusal:
            refuse(f"runs/{run.id.hex()}/seal", refusal)


def extract_all(vault, path, refuse):
    """One loose run, the one opened first, fills the top; every other run has a folder."""
    os.makedirs(path, 0o700, exist_ok=True)
    demand(not os.listdir(path), "not-canonical", f"{path} is not empty")
    runs = [(run.descriptor["kind"] != "loose", run.descriptor["opened"], run.id) for run in vault.runs(refuse)]
    with Dir(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as out:
        extraction = Extraction(vault, out, refuse)
        for i, (has_folder, _, run_id) in enumerate(sorted(runs)):
            try:
                with vault.run(run_id.hex()) as run:
                    extraction.run(run, to_top=i == 0 and not has_folder)
            except (Refusal, OSError) as refusal:
                refuse(f"runs/{run_id.hex()}", refusal)


if __name__ == "__main__":
    sys.exit(main())
