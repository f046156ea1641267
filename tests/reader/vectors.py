"""The vectors of tests/vectors (docs/format.md, section 15), checked by the second reader: `reader.py vectors DIR`."""

import base64
import contextlib
import hmac
import json
import os
import struct
import sys
from types import SimpleNamespace

from sections.conventions import Refusal, demand, sha256
from sections.suite import XWing, open_envelope
from sections.texts import Note, parse_text, parse_vault_json, table
from sections.identities import (
    HEX32, INT, Identity, LABEL, U32, open_key_file, parse_public_key_file, token_key, tpm_auth, tpm_key)
from sections.custody import REMOVED, RETIRED, follow, open_epochs, parse_genesis, share_hash, state_zero
from sections.runs import RunKeys, keys_of, parse_run_text, parts_of, verify_run
from sections.files import DIRECTORY, FILE, File, open_chunk, open_copy, parse_clear, stored_size
from sections.seals import parse_digests, parse_manifest, parse_pins, parse_seal_text
from sections.names import (
    decrypt_link, decrypt_name, decrypt_run_name, decrypt_xattr_name, decrypt_xattr_value, link_side_of, place_of,
    read_record)

un = bytes.fromhex


class Bytes:
    """A stored file that is in memory."""

    def __init__(self, data):
        self.data, self.size = data, len(data)

    def at(self, offset, length):
        return self.data[offset:offset + length]

    def next_data(self, offset):
        return offset


def chunks(v):
    return {"plain": open_chunk(un(v["file_key"]), v["i"], un(v["stored"])).hex()}


def headers(v):
    copy = un(v["copy"])
    clear = parse_clear(copy)
    slot = open_copy(copy, v["j"], un(v["slot_key"]))
    return {"kind": clear.kind, "log2": clear.log2, "file_id": clear.file_id.hex(), "run_id": clear.run_id.hex(),
            "seq": slot.seq, "size": slot.size, "jskip": slot.jskip, "jsession": slot.jsession.hex(),
            "writes": slot.writes, "epoch": slot.epoch, "flags": slot.flags, "place": slot.place.hex(),
            "previous": slot.previous.hex(), "holes": [[first, end - first] for first, end in slot.holes]}


def files(v):
    run, keys = un(v["run"]), RunKeys(un(v["run"]), un(v["rk"]))
    place = place_of(un(v["dir"]), FILE, un(v["name"]))
    file = File(Bytes(un(v["stored"])), 1 << v["chunk_log2"], run, keys, place)
    plain = bytearray(file.size)
    for i, piece in file.chunks():
        if isinstance(piece, Refusal):
            raise piece
        plain[i * file.c:i * file.c + len(piece)] = piece
    return {"size": len(plain), "sha256": sha256(plain).hex()}


class Directory:
    """A directory of the store that is in memory: its record, and perhaps something else."""

    def __init__(self, record, holds_more):
        self.record, self.more = record, ["else"] if holds_more else []

    @contextlib.contextmanager
    def file(self, _name):
        if self.record is None:
            raise FileNotFoundError
        yield Bytes(un(self.record))

    def names(self):
        return self.more


def directories(v):
    run_id = un(v["run"])
    run = SimpleNamespace(id=run_id, keys=RunKeys(run_id, un(v["rk"])), chunk=1 << v["chunk_log2"])
    place = place_of(un(v["dir"]), DIRECTORY, un(v["name"]))
    found = read_record(Directory(v["record"], v["holds_more"]), run, place)
    return {"id": found and found.hex()}


def lengths(v):
    demand(9 <= v["log2"] <= 20, "chunk-size")
    size, clean = stored_size(v["stored"], 1 << v["log2"])
    demand(clean, "impossible-length")
    return {"size": size}


def names(v):
    key, id_, stored = un(v["key"]), un(v["id"]), un(v["stored"])
    side = un(v["side"]) if v["side"] is not None else None
    plain = {
        "name": lambda: decrypt_name(key, id_, stored, side),
        "link": lambda: decrypt_link(key, stored, side),
        "xattr-name": lambda: decrypt_xattr_name(key, id_, stored),
        "xattr-value": lambda: decrypt_xattr_value(key, id_, un(v["name"]), stored),
        "link-side": lambda: link_side_of(stored, un(v["text"])),
        "run-name": lambda: decrypt_run_name(key, id_, stored),
    }[v["what"]]()
    return {"plain": plain.hex()}


def keys(v):
    if "rk" in v:
        keys, clear = RunKeys(un(v["run"]), un(v["rk"])), un(v["clear"])
        return {"prk": keys.prk.hex(), "commitment": keys.commitment.hex(), "name_key": keys.name.hex(),
                "slot_key": keys.slot_key(clear).hex(), "file_key": keys.file_key(clear, v["epoch"]).hex(),
                "journal_key": keys.journal_key(un(v["session"])).hex()}
    if "seed" in v:
        identity = Identity(un(v["seed"]))
        return {"id": identity.id, "sign": identity.sign.hex(), "kem": identity.kem.public.hex()}
    if "x" in v:
        return {"sha256": share_hash(v["epoch"], v["x"], un(v["y"])).hex()}
    return {"place": place_of(un(v["dir"]), v["kind"], un(v["name"])).hex()}


def envelopes(v):
    return {"secret": open_envelope(un(v["envelope"]), XWing(un(v["seed"])), v["info"].encode()).hex()}


def notes(v):
    signed = Note(v["note"].encode()).signed_by(v["id"], un(v["sign"]))
    run = parse_run_text(signed)
    return {"hash": sha256(signed).hex(), "run": run["run"], "chunk": run["chunk"]}


def runs(v):
    gateways = [{**g, "sign": base64.b64encode(un(g["sign"]))} for g in v["gateways"]]
    said = v.get("replacement")
    replaced = {said["new"]: {**said, "sign": base64.b64encode(un(said["sign"]))}} if said else {}
    note = None if v["note"] is None else v["note"].encode()
    run = verify_run(note, un(v["run"]), un(v["vault"]), gateways, replaced)
    keys_of(run, un(v["rk"]))
    return {"epoch": run["epoch"], "opened": run["opened"]}


def continuations(v):
    admitted = {(gateway, run or None): until for gateway, run, until in v["admitted"]}
    return {"groups": parts_of(v["runs"], admitted)}


def texts(v):
    text = v["text"].encode()
    if v["what"] == "vault.json":
        return {"vault": parse_vault_json(text).hex()}
    if v["what"] == "key":
        identity, _, seed = open_key_file(text, lambda: un(v["passphrase"]))
        return {"id": identity.id, "seed": seed.hex()}
    if v["what"] == "token":
        return {"lock_key": token_key(un(v["shared"]), un(v["public"]), un(v["ephemeral"])).hex()}
    if v["what"] == "tpm":
        unsealed, needed = un(v["unsealed"]), un(v["with"])
        return {"lock_key": tpm_key(unsealed, needed).hex(), "auth": tpm_auth(needed).hex()}
    if v["what"] == "public":
        key = parse_public_key_file(text)
        return {"id": key["id"], "label": key["label"], "vault": key.get("vault")}
    if v["what"] == "lease":
        fields = table(holder=LABEL, host=HEX32, boot=LABEL, pid=U32, start=INT, seq=INT)
        lease = parse_text("lease", text, fields, 4096)
        return {"holder": lease["holder"], "seq": lease["seq"]}
    if v["what"] == "removed":
        removed = parse_text("removed", text, REMOVED)
        return {"run": removed["run"], "seq": removed["seq"], "seal": removed["seal"] and removed["seal"]["n"]}
    retired = parse_text("retired", text, RETIRED)
    return {"run": retired["run"], "seq": retired["seq"]}


def custody(v):
    genesis, vault = parse_genesis(v["genesis"].encode())
    states = {int(n): text.encode() for n, text in v["states"].items()}
    state, head, state_hash, admitted, _ = follow(state_zero(genesis, vault), states.get(0),
                                     "".join(v["audit_log"]).encode(), states.get)
    epochs = open_epochs([Identity(un(seed)) for seed in v["seeds"]], state)
    return {"vault": vault.hex(), "head": head, "state": state_hash,
            "epochs": [key.seed.hex() for key in epochs.values()],
            "admitted": [[gateway, run or "", admitted[gateway, run or None]]
                         for gateway, run in sorted((gateway, run or "") for gateway, run in admitted)]}


def quorum(v):
    return custody(v)


def records(v):
    """Section 12. Readers replay nothing; that the page is enough to read a record, this shows."""
    data, key = un(v["bytes"]), RunKeys(un(v["run"]), un(v["rk"])).journal_key(un(v["session"]))
    demand(data[:8] == b"rvredo/1", "magic")
    demand(len(data) >= 110, "truncated")
    length, number, session, file_id, epoch, chunk, size, path, blob = struct.unpack("<IQ16s32sIQQHI", data[8:94])
    demand(blob <= 1_048_604, "too-long")
    demand(length == -(-(110 + path + blob) // 512) * 512, "not-canonical")
    demand(len(data) >= length, "truncated")
    body = data[:length]
    tag = hmac.digest(key, body[:94] + body[110:], "sha256")[:16]
    demand(hmac.compare_digest(tag, body[94:110]), "not-authentic")
    demand(not any(body[110 + path + blob:]), "reserved")
    return {"number": number, "session": session.hex(), "file_id": file_id.hex(), "epoch": epoch, "chunk": chunk,
            "size_after": None if size == 2**64 - 1 else size, "path": body[110:110 + path].hex(),
            "blob": body[110 + path:110 + path + blob].hex(), "used": length}


def seals(v):
    if v["what"] == "note":
        note = parse_seal_text(v["text"].encode())
        return {"n": note["n"], "files": note["files"], "manifest_id": note["manifest_id"]}
    if v["what"] == "manifest":
        name, about, entries = parse_manifest(un(v["bytes"]))
        return {"name": name.hex(), "about": about, "names": [e.name.hex() for e in entries],
                "sizes": [e.size for e in entries]}
    if v["what"] == "pins":
        pinned, nonces = parse_pins(un(v["bytes"]))
        return {"entries": [[p[0].hex(), *p[1:]] for p in pinned], "nonces": len(nonces)}
    return {"paths": [path for path, _, _ in parse_digests(v["text"].encode())]}


CHECKS = {check.__name__: check for check in (
    chunks, headers, files, directories, lengths, names, keys, envelopes, notes, runs, continuations, seals, texts, custody,
    quorum, records)}
# The word list of BIP-39 is not on the page; the reader shows vault ids in hex.
NOT_CHECKED = {"words"}


def resolve(value, shared):
    """`{"text": n}` stands for a text that several vectors use."""
    if isinstance(value, dict):
        if value.keys() == {"text"}:
            return shared[value["text"]]
        return {name: resolve(v, shared) for name, v in value.items()}
    return [resolve(v, shared) for v in value] if isinstance(value, list) else value


def main(arguments):
    if len(arguments) != 1:
        print("reader.py vectors DIR", file=sys.stderr)
        return 2
    failed = counted = 0
    for name in sorted(os.listdir(arguments[0])):
        with open(os.path.join(arguments[0], name), encoding="utf-8") as file:
            suite = json.load(file)
        check = CHECKS[name.removesuffix(".json")]
        for vector in suite["vectors"]:
            try:
                output, outcome = check(resolve(vector["input"], suite.get("texts", {}))), "ok"
            except Refusal as refusal:
                output, outcome = None, refusal.name
            wanted = {k: v for k, v in vector.get("output", {}).items() if k not in NOT_CHECKED}
            counted += 1
            if outcome != vector["outcome"] or (outcome == "ok" and output != wanted):
                failed += 1
                print(f"{name} {vector['name']}: {outcome}, {vector['outcome']} expected", file=sys.stderr)
    print(f"{counted - failed} of {counted} vectors hold")
    return 1 if failed or not counted else 0
