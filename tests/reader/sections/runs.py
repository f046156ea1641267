"""8. Runs, and 9. their keys."""

import hmac
import os

from .conventions import Refusal, demand, lb, read_if, sha256, u
from .suite import expand, extract, info, open_envelope
from .texts import Note, or_null, parse_text, table, time, un64, word
from .identities import HEX16, HEX32, INT, U16, U32
from .names import decrypt_run_name

# 8. Runs

def chunk_size(value):
    demand(512 <= INT(value) <= 1 << 20 and value & (value - 1) == 0, "chunk-size")
    return value


RUN = table(vault=HEX32, run=HEX16, suite=U16, chunk=INT, kind=word("run", "loose"), commitment=HEX32, epoch=U32,
            state=table(n=INT, hash=HEX32), signer=HEX16, seq=or_null(INT), prev=or_null(HEX32),
            seals=table(n=INT, hash=or_null(HEX32)),
            after=or_null(table(run=HEX16, how=word("continues", "replaces"), seal=HEX32)), opened=time)


def parse_run_text(data):
    run = parse_text("run", data, RUN)
    demand(run["suite"] == 1, "suite")
    chunk_size(run["chunk"])
    replaces = run["after"] is not None and run["after"]["how"] == "replaces"
    demand((run["seq"] is None) == replaces and run["epoch"] > 0 and run["seq"] != 0, "not-canonical", "run.json")
    demand((run["prev"] is None) == (replaces or run["seq"] == 1), "not-canonical", "prev")
    demand((run["seals"]["hash"] is None) == (run["seals"]["n"] == 0), "not-canonical", "seals")
    return run


def verify_run(data, run_id, vault, gateways, replaced={}):
    """The fields of a run.json that one of the vault's gateways signed for this run, or the worker that the audit log
    names for it; `data` is None without one."""
    demand(data is not None, "run", "no run.json")
    note = Note(data)
    # The signer's name is read before its signature holds, and only to find the key to verify with.
    claimed = parse_run_text(note.text)
    signer, after = claimed["signer"], claimed["after"]
    if after is not None and after["how"] == "replaces":
        said = replaced.get(run_id.hex())
        demand(said, "run", "it replaces another run, and no line of the audit log names it")
        demand(said["worker"] == signer, "run", "signed by another worker than the audit log names")
        demand((said["run"], said["seal"]) == (after["run"], after["seal"]), "run", "replaces another run")
        gateway = {"sign": said["sign"], "until": None}
    else:
        gateway = next((g for g in gateways if g["id"] == signer), None)
    demand(gateway, "run", "signed by no gateway of the vault")
    run = parse_run_text(note.signed_by(signer, un64(gateway["sign"])))
    demand(run["vault"] == vault.hex(), "run", "of another vault")
    demand(run["run"] == run_id.hex(), "run", "of another run")
    until = gateway["until"]
    if until is not None:
        demand(run["seq"] is not None and run["seq"] <= until["seq"], "run", "the gateway's time is over")
        last = run["seq"] == until["seq"]
        demand(not last or sha256(note.text).hex() == until["hash"], "run", "not the gateway's last run")
    return run


# 8.1 Continuations

def parts_of(runs, admitted):
    """The runs (of kind `run`) of several parts, each with its parts in order. `runs` have the fields of run.json that
    tell, `note`, its hash, and `seal`, the hash of the run's seal or None; `admitted` is {(gateway, run): until}, with
    None for every run."""
    by_id = {run["run"]: run for run in runs}

    def first_of(run):
        """What it continues in the end; None where it only says that it does."""
        at, parts = run, [run]
        while at["after"] is not None and len(parts) <= len(runs):
            after, at = at["after"], by_id.get(at["after"]["run"])
            if at is None or after["how"] != "continues" or at["seal"] is None or at["seal"] != after["seal"]:
                return None
            parts.append(at)
        return at if at["after"] is None and all(allowed(part, at) for part in parts) else None

    def allowed(part, first):
        """Whether its signer made the first one, or was admitted when it made this one."""
        keys = [key for key in ((part["signer"], None), (part["signer"], first["run"])) if key in admitted]
        return part["signer"] == first["signer"] or any(counts(part, admitted[key]) for key in keys)

    def counts(part, until):
        if until is None or part["seq"] is None:
            return until is None
        return part["seq"] < until["seq"] or (part["seq"], part["note"]) == (until["seq"], until["hash"])

    groups = {run["run"]: [] for run in runs}
    for run in runs:
        first = first_of(run)
        if first is not None and first is not run:
            place = (run["signer"] != first["signer"], run["signer"], run["seq"], run["run"])
            groups[first["run"]].append(place)
    return [[first] + [place[-1] for place in sorted(later)] for first, later in groups.items() if later]


def keys_of(run, rk):
    """The keys of a run, whose run.json commits to the opened key."""
    keys = RunKeys(bytes.fromhex(run["run"]), rk)
    same = hmac.compare_digest(keys.commitment.hex(), run["commitment"])
    demand(same, "run", "the key is not the one that run.json commits to")
    return keys


class Closed(Exception):
    """A genuine run that holds no envelope for this identity."""


class Run:
    """A run that was opened: its descriptor, keys and name."""

    def __init__(self, directory, run_id, vault):
        self.dir, self.id, self.vault = directory, bytes.fromhex(run_id), vault
        data = read_if(directory, "run.json")
        self.descriptor = verify_run(data, self.id, vault.id, vault.state["gateways"], vault.replaced)
        self.chunk = self.descriptor["chunk"]
        self.keys = keys_of(self.descriptor, self.open_key(vault.id, vault.identity, vault.epochs))
        self.name = decrypt_run_name(self.keys.name, self.id, directory.read("name", 4095 + 64))

    def open_key(self, vault, identity, epochs):
        mine = {f"vault-{e}": key for e, key in epochs.items()} | {f"reader-{identity.id}": identity.kem}
        # Who holds the key of every epoch finds an envelope in every run.
        trouble = Refusal("run", "no envelope to a key of this vault") if epochs else Closed()
        with self.dir.dir("keys") as keys:
            for name in keys.names():
                name = os.fsdecode(name)
                if name in mine:
                    about = info("run-key", vault, f"run {self.id.hex()}", name.removeprefix("reader-"))
                    try:
                        return open_envelope(keys.read(name, 1210), mine[name], about)
                    except Refusal as refusal:
                        trouble = refusal
        raise trouble


# 9. Keys of a run

class RunKeys:
    def __init__(self, run_id, rk):
        self.prk = extract(run_id, rk)
        self.commitment = self.expand("commit")
        self.name = self.expand("names", length=64)

    def expand(self, label, *rest, length=32):
        return expand(self.prk, lb(f"runvault/1 {label}") + b"".join(rest), length)

    def slot_key(self, clear):
        return self.expand("slot", clear)

    def file_key(self, clear, epoch):
        return self.expand("file", clear, u(32, epoch))

    def journal_key(self, session):
        return self.expand("journal", session)
