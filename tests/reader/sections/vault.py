"""16. A reader, step by step: a store that is opened."""

import contextlib
import os
import re

from .conventions import Dir, Refusal, demand, read_if
from .texts import parse_vault_json
from .identities import open_key_file
from .custody import follow, open_epochs, parse_genesis, state_zero
from .runs import Closed, Run


class Vault:
    """A store that was opened: its newest state, and the keys that an identity gives."""

    def __init__(self, path, options):
        self.root = Dir(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        named = parse_vault_json(self.root.read("vault.json", 4096))
        with self.custody(options) as custody:
            genesis, self.id = parse_genesis(custody.read("genesis", 1 << 20))
            demand(named == self.id, "state", "vault.json names another vault")
            pin = (options.fingerprint or self.id.hex()).lower()
            demand(pin == self.id.hex(), "state", "another vault than the fingerprint's")
            self.operations = []
            self.state, self.head, _, self.admitted, self.replaced = follow(
                state_zero(genesis, self.id), read_if(custody, "state-0"),
                read_if(custody, "audit.log", 1 << 30) or b"",
                lambda n: read_if(custody, f"state-{n}"), lambda n: read_if(custody, f"line-{n}", 4 << 20),
                self.operations.append)
            identities = self.open_identities(custody, options)
        self.identity = identities[0]
        custodians = [c["id"] for c in self.state["custodians"]]
        shares = [identity for identity in identities if identity.id in custodians]
        self.epochs = open_epochs(shares, self.state) if shares else {}
        self.foreign = self.closed = 0

    def custody(self, options):
        if options.custody is None:
            return self.root.dir("custody")
        return Dir(os.open(options.custody, os.O_RDONLY | os.O_DIRECTORY))

    def open_identities(self, custody, options):
        found = []
        for path in options.identity:
            with open(path, "rb") as file:
                found.append(file.read((16 << 10) + (64 << 20) + 1))
        if not found:
            with custody.dir("locks") as locks:
                found.append(read_if(locks, "owner-0", 16 << 10) or read_if(locks, "owner-1", 16 << 10))
            demand(found != [None], "lock", "no key file in custody/locks: --identity KEYFILE")
        return [self.open_identity(data, options) for data in found]

    def open_identity(self, data, options):
        identity, vault, _ = open_key_file(data, lambda: read_passphrase(options))
        demand(vault in (None, self.id.hex()), "state", "the key file is of another vault")
        return identity

    def runs(self, refuse):
        """Every run that opens; `refuse(name, refusal)` for the others."""
        with self.root.dir("runs") as runs:
            for name in map(os.fsdecode, runs.names()):
                if not re.fullmatch("[0-9a-f]{32}", name):
                    self.foreign += 1
                    continue
                try:
                    with self.run(name) as run:
                        yield run
                except Closed:
                    self.closed += 1
                except (Refusal, OSError) as refusal:
                    refuse(f"runs/{name}", refusal)

    @contextlib.contextmanager
    def run(self, name):
        with self.root.dir("runs") as runs, runs.dir(name) as directory:
            yield Run(directory, name, self)


def read_passphrase(options):
    demand(options.passphrase_file, "lock", "the key file is locked: --passphrase-file")
    with open(options.passphrase_file, "rb") as file:
        return file.read(1 << 20).split(b"\n")[0].removesuffix(b"\r")
