#!/usr/bin/env python3
"""A second reader of runvault stores, written from docs/format.md alone. Sections are numbered as there.

It reads what lies in a store that nobody is writing: it replays no journal, writes nothing there, and asks the
program runvault nothing. It opens vaults whose quorum is one custodian, for that custodian or for a reader. Owners,
ACLs, devices and set-id bits are left out: they are the store's own, and nothing binds them.

    reader.py [--identity KEYFILE] [--passphrase-file F] [--fingerprint HEX] STORE list
    reader.py [--identity KEYFILE] [--passphrase-file F] [--fingerprint HEX] STORE extract DIR
    reader.py vectors DIR

Exit codes: 0 all read, 1 something was refused (each is a line on stderr), 2 it cannot begin.
"""

import argparse
import base64
import bisect
import contextlib
import datetime
import hashlib
import hmac
import json
import os
import re
import resource
import stat
import struct
import sys
import unicodedata
from typing import NamedTuple

try:
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
except ImportError:
    sys.exit(print("reader.py needs a Python package: pip install cryptography==50.0.2", file=sys.stderr) or 2)


# 1. Conventions

class Refusal(Exception):
    """A named refusal of section 14; `about` says more."""

    def __init__(self, name, about=""):
        super().__init__(f"{name} ({about})" if about else name)
        self.name = name


def demand(holds, name, about=""):
    if not holds:
        raise Refusal(name, about)


def lb(label):
    return label.encode() + b"\0"


def u(bits, number):
    return number.to_bytes(bits // 8, "little")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def base32(data):
    return base64.b32encode(data).rstrip(b"=").lower()


def unbase32(text, refusal):
    """The bytes of a text in base32's one form."""
    try:
        data = base64.b32decode(text.upper() + b"=" * (-len(text) % 8))
    except ValueError:
        raise Refusal(refusal) from None
    demand(base32(data) == text, refusal)
    return data


class Dir:
    """A directory of the store, reached one component at a time, symlinks not followed."""

    def __init__(self, fd):
        self.fd = fd

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def dir(self, name):
        return Dir(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd))

    @contextlib.contextmanager
    def file(self, name):
        """A regular file; anything else there is not opened."""
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self.fd)
        try:
            demand(stat.S_ISREG(os.fstat(fd).st_mode), "not-canonical", "not a regular file")
            yield Stored(fd)
        finally:
            os.close(fd)

    def read(self, name, limit):
        with self.file(name) as file:
            data = file.at(0, limit + 1)
        demand(len(data) <= limit, "too-long", os.fsdecode(name))
        return data

    def names(self):
        return sorted(os.fsencode(name) for name in os.listdir(self.fd))

    def stat(self, name):
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)


class Stored:
    """The bytes of a stored file."""

    def __init__(self, fd):
        self.fd, self.size = fd, os.fstat(fd).st_size

    def at(self, offset, length):
        data = bytearray()
        while len(data) < length:
            piece = os.pread(self.fd, min(length - len(data), 1 << 20), offset + len(data))
            if not piece:
                break
            data += piece
        return bytes(data)

    def next_data(self, offset):
        """Where the next byte that is not in a hole of the store's file system may lie."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA)
        except OSError:
            return self.size


# 3. Suite 1

def extract(salt, key):
    return hmac.digest(salt, key, "sha256")


def expand(prk, info, length=32):
    out, block, n = b"", b"", 0
    while len(out) < length:
        n += 1
        block = hmac.digest(prk, block + info + bytes([n]), "sha256")
        out += block
    return out[:length]


def gcm_open(key, nonce, associated, sealed):
    try:
        return AESGCM(key).decrypt(nonce, sealed, associated)
    except (InvalidTag, ValueError):
        raise Refusal("not-authentic") from None


def siv_open(key, associated, sealed):
    try:
        return AESSIV(key).decrypt(sealed, associated)
    except (InvalidTag, ValueError):
        raise Refusal("not-authentic") from None


def verify(key, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Refusal("signature") from None


P25519 = 2**255 - 19
SMALL_ORDER = {0, 1, P25519 - 1} | {
    int.from_bytes(bytes.fromhex(y), "little") for y in (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")}


def is_sign_key(key):
    return len(key) == 32 and int.from_bytes(key, "little") % 2**255 % P25519 not in SMALL_ORDER


def is_kem_key(key):
    if len(key) != 1216:
        return False
    try:
        MLKEM768PublicKey.from_public_bytes(key[:1184])
        return True
    except ValueError:
        return False


# 3.1 X-Wing

class XWing:
    """A private key, from its seed."""

    def __init__(self, seed):
        e = hashlib.shake_256(seed).digest(96)
        self.pq, self.x = MLKEM768PrivateKey.from_seed_bytes(e[:64]), X25519PrivateKey.from_private_bytes(e[64:])
        self.public = self.pq.public_key().public_bytes_raw() + self.x.public_key().public_bytes_raw()

    def decapsulate(self, enc):
        ss_m = self.pq.decapsulate(enc[:1088])
        ss_x = self.x.exchange(X25519PublicKey.from_public_bytes(enc[1088:]))
        parts = ss_m + ss_x + enc[1088:] + self.public[1184:] + b"\\.//^\\"
        return hashlib.sha3_256(parts).digest()


# 3.2 HPKE

def hpke_open(private, enc, info, sealed):
    suite = b"HPKE\x64\x7a\x00\x01\x00\x02"

    def labeled_extract(salt, label, ikm):
        return extract(salt, b"HPKE-v1" + suite + label + ikm)

    def labeled_expand(prk, label, info, length):
        return expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)

    try:
        shared = private.decapsulate(enc)
    except ValueError:
        raise Refusal("not-authentic") from None
    context = b"\0" + labeled_extract(b"", b"psk_id_hash", b"") + labeled_extract(b"", b"info_hash", info)
    secret = labeled_extract(shared, b"secret", b"")
    key, nonce = labeled_expand(secret, b"key", context, 32), labeled_expand(secret, b"base_nonce", context, 12)
    return gcm_open(key, nonce, b"", sealed)


def info(purpose, vault, scope, to):
    return f"runvault/1 {purpose}\nvault {vault.hex()}\n{scope}\nto {to}\n".encode()


def open_envelope(data, private, about):
    """The 32 bytes that an envelope holds."""
    demand(len(data) <= 1210, "too-long", "envelope")
    for at, end, field, refusal in ((0, 8, b"rvkey/1\0", "magic"), (8, 10, u(16, 1), "suite")):
        demand(len(data) >= end, "truncated", "envelope")
        demand(data[at:end] == field, refusal, "envelope")
    demand(len(data) >= 1146, "truncated", "envelope")
    secret = hpke_open(private, data[10:1130], about, data[1130:])
    demand(len(secret) >= 32, "truncated", "secret")
    demand(len(secret) <= 32, "trailing", "secret")
    return secret


# 4. What lies where

def parse_vault_json(data):
    """The vault id that vault.json names."""
    demand(len(data) <= 4096, "too-long")
    text = utf8(data)
    value = loads(text)
    demand(type(value) is dict and type(value.get("magic")) is str, "json")
    demand(value["magic"] == "runvault", "magic")
    demand(type(value.get("version")) is int, "json")
    demand(value["version"] == 1, "version")
    demand(text.endswith("\n"), "truncated")
    fields = table(magic=any_text, version=int_to(1), vault=hex_of(32))(value)
    demand(dumps(fields) + "\n" == text, "not-canonical")
    return bytes.fromhex(fields["vault"])


# 5. Texts: types are functions that give the value or refuse it

def bad(about):
    raise Refusal("json", about)


def any_text(value):
    return value if type(value) is str else bad("not a string")


def hex_of(length):
    form = re.compile(f"[0-9a-f]{{{2 * length}}}")
    return lambda value: value if form.fullmatch(any_text(value)) else bad("not hex")


def b64(value):
    try:
        same = base64.b64encode(base64.b64decode(any_text(value), validate=True)).decode() == value
    except ValueError:
        same = False
    return value if same else bad("not base64")


def b64_key(fits):
    return lambda value: value if fits(un64(b64(value))) else bad("not a key")


def un64(value):
    return base64.b64decode(value)


def int_to(most, least=0):
    return lambda value: value if type(value) is int and least <= value <= most else bad("not such an integer")


def boolean(value):
    return value if type(value) is bool else bad("not true or false")


def clean_text(least, most):
    def check(value):
        fits = least <= len(any_text(value).encode()) <= most
        return value if fits and not any(unicodedata.category(c) == "Cc" for c in value) else bad("not such a text")
    return check


def time(value):
    try:
        parsed = datetime.datetime.strptime(any_text(value), "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        bad("not a time")
    return value if parsed.year >= 1970 and parsed.strftime("%Y-%m-%dT%H:%M:%SZ") == value else bad("not a time")


def word(*words):
    return lambda value: value if any_text(value) in words else bad("not such a word")


def or_null(kind):
    def check(value):
        return None if value is None else kind(value)
    check.absent = "null"
    return check


def left_out(kind):
    """A field that may be left out, and is never null."""
    def check(value):
        return None if value is None else kind(value)
    check.absent = "left out"
    return check


def many(kind):
    return lambda value: [kind(v) for v in value] if type(value) is list else bad("not a list")


def table(**kinds):
    """An object with just these fields; gives them in their order."""
    def check(value):
        demand(type(value) is dict and value.keys() <= kinds.keys(), "json", "unknown field")
        fields = {}
        for name, kind in kinds.items():
            absent = getattr(kind, "absent", None)
            if name not in value and absent is None:
                bad(f"no {name}")
            found = kind(value[name]) if name in value else None
            if found is not None or absent != "left out":
                fields[name] = found
        return fields
    return check


def one_of(**kinds):
    """An object with one field, whose name says what it is."""
    def check(value):
        demand(type(value) is dict and len(value) == 1 and value.keys() <= kinds.keys(), "json", "none of these")
        return {name: kinds[name](v) for name, v in value.items()}
    return check


# 5.1 JSON

def utf8(data):
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refusal("not-canonical", "not UTF-8") from None


def dumps(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def loads(line):
    def integer(digits):
        return int(digits) if len(digits) <= 20 and digits[0] != "-" else bad("integer")

    def once(pairs):
        fields = dict(pairs)
        return fields if len(fields) == len(pairs) else bad("a field twice")

    try:
        value = json.loads(line, parse_int=integer, parse_float=bad, parse_constant=bad, object_pairs_hook=once)
        dumps(value).encode()
        return value
    except (ValueError, RecursionError):
        raise Refusal("json") from None


def parse_line(line, kind):
    """The fields of an object in its one form."""
    demand(len(line.encode()) <= 1 << 20, "too-long")
    fields = kind(loads(line))
    demand(dumps(fields) == line, "not-canonical")
    return fields


def line_of(kind, data, limit=1 << 20):
    """The second line of a text of that kind."""
    demand(len(data) <= limit, "too-long", kind)
    first, newline, rest = utf8(data).partition("\n")
    demand(newline, "truncated", kind)
    version, space, found = first.removeprefix("runvault/").partition(" ")
    demand(first.startswith("runvault/") and space, "magic", kind)
    demand(version == "1", "version" if re.fullmatch("[0-9]+", version) else "magic", kind)
    demand(found == kind, "note-kind", f"not a {kind}")
    line, newline, after = rest.partition("\n")
    demand(newline, "truncated", kind)
    demand(not after, "trailing", kind)
    return line


def parse_text(kind, data, fields, limit=1 << 20):
    return parse_line(line_of(kind, data, limit), fields)


def text(kind, fields):
    return f"runvault/1 {kind}\n{dumps(fields)}\n".encode()


# 5.2 Signed notes

class Note:
    """A note, taken apart; nothing in it holds before `signed_by`."""

    def __init__(self, data):
        demand(len(data) <= 1 << 20, "too-long", "note")
        whole = utf8(data)
        demand(not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", whole), "note", "control character")
        head, empty, lines = whole.rpartition("\n\n")
        demand(empty and lines.endswith("\n"), "note", "no signature line")
        self.text = (head + "\n").encode()
        self.lines = [self.line(line) for line in lines[:-1].split("\n")]
        keys = [line[:2] for line in self.lines]
        demand(len(keys) <= 16 and len(set(keys)) == len(keys), "note", "signature lines")

    @staticmethod
    def line(line):
        parts = re.fullmatch(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)", line)
        demand(parts, "note", "signature line")
        try:
            data = un64(b64(parts[2]))
        except Refusal:
            raise Refusal("note", "base64") from None
        demand(len(data) >= 5, "note", "signature line")
        return parts[1], data[:4], data[4:]

    def signed_by(self, name, key):
        """The text, which that identity signed."""
        key_hash = sha256(name.encode(), b"\n\x01", key)[:4]
        found = [signature for n, h, signature in self.lines if (n, h) == (name, key_hash)]
        demand(found, "unsigned", name)
        verify(key, found[0], self.text)
        return self.text


# 6. Identities

HEX16, HEX32, INT = hex_of(16), hex_of(32), int_to(1 << 53)
U8, U16, U32 = int_to(0xff), int_to(0xffff), int_to(0xffff_ffff)
LABEL, SIGN, KEM = clean_text(1, 128), b64_key(is_sign_key), b64_key(is_kem_key)


def id_of(sign, kem):
    return sha256(lb("runvault/1 id"), sign, kem)[:16].hex()


class Identity:
    """A custodian or a reader, from its seed."""

    def __init__(self, seed):
        prk = extract(b"", seed)
        self.kem = XWing(expand(prk, lb("runvault/1 kem")))
        private = Ed25519PrivateKey.from_private_bytes(expand(prk, lb("runvault/1 sign")))
        self.sign = private.public_key().public_bytes_raw()
        self.id = id_of(self.sign, self.kem.public)


# 6.1 Key files

LOCKS = {
    "none": table(kind=word("none")),
    "argon2id": table(kind=word("argon2id"), salt=HEX16, m_kib=U32, t=U32, p=U32),
}
KEY_FILE = table(id=HEX16, label=LABEL, sign=SIGN, kem=KEM, vault=left_out(HEX32),
                 lock=lambda lock: LOCKS[lock["kind"]](lock), sealed=b64)


def parse_key_file(data):
    line = line_of("key", data, 16 << 10)
    loose = loads(line)
    demand(type(loose) is dict and type(loose.get("lock")) is dict, "json", "no lock")
    demand(loose["lock"].get("kind") in LOCKS, "lock" if type(loose["lock"].get("kind")) is str else "json")
    return parse_line(line, KEY_FILE)


def lock_key(lock, passphrase):
    if lock["kind"] == "none":
        return bytes(32)
    m, t, p = lock["m_kib"], lock["t"], lock["p"]
    demand(1 << 16 <= m <= 1 << 22 and 3 <= t <= 16 and 1 <= p <= 16, "crypto", "costs of the lock")
    argon = Argon2id(salt=bytes.fromhex(lock["salt"]), length=32, iterations=t, lanes=p, memory_cost=m)
    try:
        return argon.derive(passphrase())
    except MemoryError:
        raise Refusal("crypto", "not enough memory") from None


def open_key_file(data, passphrase):
    """The identity in a key file, and the vault that it names or None. `passphrase` is called if needed."""
    key = parse_key_file(data)
    demand(id_of(un64(key["sign"]), un64(key["kem"])) == key["id"], "other-key", "id")
    sealed = un64(key["sealed"])
    demand(len(sealed) >= 60, "truncated", "sealed")
    demand(len(sealed) <= 60, "trailing", "sealed")
    clear = {name: key[name] for name in ("id", "label", "sign", "kem", "vault") if name in key}
    seed = gcm_open(lock_key(key["lock"], passphrase), sealed[:12], text("key", clear), sealed[12:])
    identity = Identity(seed)
    demand(identity.id == key["id"], "other-key", "seed")
    return identity, key.get("vault"), seed


# 7. Custody
# 7.1 Genesis

CUSTODIAN = table(id=HEX16, label=LABEL, sign=SIGN, kem=KEM)
GENESIS = table(suite=U16, quorum=U8, custodians=many(CUSTODIAN), kem=KEM,
                shares=many(table(to=HEX16, x=U8, sha256=HEX32)), created=time, salt=HEX16)


def distinct(values):
    values = list(values)
    return len(set(values)) == len(values)


def check_custodians(quorum, custodians):
    demand(1 <= quorum <= len(custodians) <= 255, "state", "quorum")
    demand(distinct(c["id"] for c in custodians), "state", "a custodian twice")
    for custodian in custodians:
        demand(id_of(un64(custodian["sign"]), un64(custodian["kem"])) == custodian["id"], "state", "a custodian's id")


def check_shares(shares, custodians):
    demand([s["to"] for s in shares] == [c["id"] for c in custodians], "state", "shares")
    demand(distinct(s["x"] for s in shares) and all(s["x"] for s in shares), "state", "shares")


def parse_genesis(data):
    genesis = parse_text("genesis", data, GENESIS)
    demand(genesis["suite"] == 1, "suite")
    check_custodians(genesis["quorum"], genesis["custodians"])
    check_shares(genesis["shares"], genesis["custodians"])
    return genesis, sha256(data)


def share_hash(epoch, x, y):
    return sha256(lb("runvault/1 share"), u(32, epoch), u(8, x), y)


# 7.2 States

UNTIL = table(seq=INT, hash=or_null(HEX32), seals=INT, seals_hash=or_null(HEX32))
GATEWAYS = many(table(id=HEX16, label=LABEL, sign=SIGN, until=or_null(UNTIL)))
READERS = many(table(id=HEX16, label=LABEL, kem=KEM, standing=boolean, expires=or_null(time)))
EPOCH = table(e=U32, since=INT, kem=KEM, status=word("current", "kept"), made=INT,
              shares=many(table(to=HEX16, x=U8, env=or_null(b64), sha256=HEX32)), previous=or_null(b64))
STATE = table(n=INT, vault=HEX32, quorum=U8, custodians=many(CUSTODIAN), epochs=many(EPOCH), gateways=GATEWAYS,
              readers=READERS)


def check_state(state):
    check_custodians(state["quorum"], state["custodians"])
    epochs = state["epochs"]
    demand(epochs, "state", "no epoch")
    for i, epoch in enumerate(epochs):
        current = i + 1 == len(epochs)
        demand(epoch["e"] == i + 1, "state", "numbers of epochs")
        demand(epoch["status"] == ("current" if current else "kept"), "state", "status of an epoch")
        demand(epoch["since"] <= epoch["made"] <= state["n"], "state", "age of an epoch")
        demand((epoch["previous"] is None) == (i == 0), "state", "previous")
        if current:
            check_shares(epoch["shares"], state["custodians"])
        demand(current or not epoch["shares"], "state", "shares of a kept epoch")
        demand(all(s["env"] is not None for s in epoch["shares"]) or state["n"] == 0, "state", "no envelope")
    for people in ("gateways", "readers"):
        demand(distinct(p["id"] for p in state[people]), "state", f"one of the {people} twice")


def state_zero(genesis, vault):
    """State 0, which no file needs to tell."""
    shares = [{"to": s["to"], "x": s["x"], "env": None, "sha256": s["sha256"]} for s in genesis["shares"]]
    epoch = {"e": 1, "since": 0, "kem": genesis["kem"], "status": "current", "made": 0, "shares": shares,
             "previous": None}
    return {"n": 0, "vault": vault.hex(), "quorum": genesis["quorum"], "custodians": genesis["custodians"],
            "epochs": [epoch], "gateways": [], "readers": []}


def take_envelopes(zero, data):
    """State 0 with the envelopes of its file."""
    filled = parse_text("state", data, STATE)
    check_state(filled)
    bare = json.loads(dumps(filled))
    for share in bare["epochs"][0]["shares"]:
        share["env"] = None
    demand(bare == zero, "state", "state-0 is not the genesis's")
    return filled


# 7.3 Requests and approvals

OUTLINE = table(n=INT, quorum=U8, custodians=many(CUSTODIAN), epoch=U32, gateways=GATEWAYS, readers=READERS)
OPERATION = one_of(**{"enrol-gateway": table(gateway=HEX16), "rotate": table(epoch=U32)})
REQUEST = table(vault=HEX32, head=table(n=INT, hash=HEX32), op=OPERATION, reason=clean_text(0, 1024),
                releases_share=boolean, executor=table(kem=KEM, sign=SIGN), created=time, expires=time,
                nonce=HEX16, state=or_null(OUTLINE))
APPROVAL = table(custodian=HEX16, env_sha256=or_null(HEX32), sig=b64_key(lambda sig: len(sig) == 64))


def outline(state):
    fields = {"n": state["n"], "quorum": state["quorum"], "custodians": state["custodians"],
              "epoch": state["epochs"][-1]["e"], "gateways": state["gateways"], "readers": state["readers"]}
    return fields


# 7.4 The audit log

RETIRED = table(vault=HEX32, run=HEX16, gateway=HEX16, seq=INT, run_note=HEX32, prev=or_null(HEX32), time=time)
HEAD = table(gateway=HEX16, seq=INT, hash=or_null(HEX32), seals=INT, seals_hash=or_null(HEX32))
LINE = table(n=INT, prev=HEX32, time=time, request=REQUEST,
             result=table(state=or_null(HEX32), runs=many(RETIRED)), heads=many(HEAD),
             approvals=many(APPROVAL), executor_sig=b64_key(lambda sig: len(sig) == 64))


def verify_line(line, head, before, after):
    """Whether a line follows from the head {n, hash} and the state before it; `after` is the file of state n."""
    def chain(holds, about):
        demand(holds, "chain", f"line {line['n']}: {about}")

    request = line["request"]
    chain(line["n"] == head["n"] + 1, "number")
    chain(line["prev"] == head["hash"], "line before")
    chain(request["head"] == head, "the request is for another head")
    chain(request["vault"] == before["vault"], "vault")
    chain(request["created"] <= line["time"] <= request["expires"], "time")
    verify_approvals(line, before, chain)
    signed = dumps({name: value for name, value in line.items() if name != "executor_sig"}).encode()
    message = lb("runvault/1 executed") + sha256(signed)
    verify(un64(request["executor"]["sign"]), un64(line["executor_sig"]), message)
    result = line["result"]["state"]
    chain((result is None) == (request["state"] is None), "state missing")
    if result is None:
        chain(False, "an operation that leaves the state as it is")
    chain(after is not None, "state missing")
    chain(sha256(after).hex() == result, "hash of the state")
    state = parse_text("state", after, STATE)
    check_state(state)
    chain(state["n"] == line["n"] and state["vault"] == before["vault"], "number of the state")
    chain(outline(state) == request["state"], "state of the request")
    verify_epochs(before, state, chain)
    verify_operation(request["op"], before, state, chain)
    return state


def verify_approvals(line, before, chain):
    request, custodians = line["request"], {c["id"]: c for c in before["custodians"]}
    releases = "rotate" in request["op"]
    chain(request["releases_share"] == releases, "release of shares")
    request_hash = sha256(text("request", request))
    for approval in line["approvals"]:
        chain((approval["env_sha256"] is not None) == releases, "release of shares")
        chain(approval["custodian"] in custodians, "approved by someone else")
    chain(distinct(a["custodian"] for a in line["approvals"]), "approved twice by one custodian")
    for approval in line["approvals"]:
        released = bytes.fromhex(approval["env_sha256"]) if releases else bytes(32)
        message = lb("runvault/1 approval") + request_hash + released
        verify(un64(custodians[approval["custodian"]]["sign"]), un64(approval["sig"]), message)
    chain(len(line["approvals"]) >= before["quorum"], "quorum")


def verify_epochs(before, state, chain):
    old, new = before["epochs"], state["epochs"]
    chain(len(old) <= len(new) <= len(old) + 1, "kept epochs")
    for a, b in zip(old, new):
        chain(all(a[field] == b[field] for field in ("e", "since", "kem", "previous")), "kept epochs")
    if len(new) > len(old):
        epoch = new[-1]
        chain(epoch["since"] == epoch["made"] == state["n"] and epoch["previous"] is not None, "new epoch")
    elif new[-1]["made"] != state["n"]:
        pairs = list(zip(old[-1]["shares"], new[-1]["shares"]))
        same = all({**a, "env": b["env"]} == b and a["env"] in (None, b["env"]) for a, b in pairs)
        same = same and len(old[-1]["shares"]) == len(new[-1]["shares"])
        chain(same and old[-1]["made"] == new[-1]["made"], "shares")


def verify_operation(operation, before, state, chain):
    expected = {**outline(before), "n": state["n"]}
    if "rotate" in operation:
        chain(operation["rotate"]["epoch"] == expected["epoch"] + 1, "number of the epoch")
        chain(outline(state) == {**expected, "epoch": expected["epoch"] + 1}, "the operation changes something else")
        return
    gateway, gateways = operation["enrol-gateway"]["gateway"], state["gateways"]
    chain(gateway not in [g["id"] for g in before["gateways"]], "enrolled before")
    chain(gateways and gateways[-1]["id"] == gateway and gateways[-1]["until"] is None, "enrolment")
    chain(state["epochs"][-1]["made"] == before["epochs"][-1]["made"], "enrolment")
    same = {**expected, "gateways": before["gateways"] + gateways[-1:]}
    chain(outline(state) == same, "the operation changes something else")


def follow(zero, zero_file, log, state_file):
    """The newest state and head of a chain; `state_file(n)` gives the file of a state, or None."""
    state, head = zero, {"n": 0, "hash": zero["vault"]}
    state_hash = sha256(text("state", zero)).hex()
    if zero_file is not None:
        state = take_envelopes(zero, zero_file)
    demand(not log or log.endswith(b"\n"), "truncated", "audit.log")
    for data in log.split(b"\n")[:-1]:
        line = parse_line(utf8(data), LINE)
        state = verify_line(line, head, state, state_file(line["n"]))
        head, state_hash = {"n": line["n"], "hash": sha256(data).hex()}, line["result"]["state"]
    return state, head, state_hash


def open_epochs(identity, state):
    """The key of every epoch, {e: XWing}, for the one custodian of a quorum of 1."""
    epochs, vault = state["epochs"], bytes.fromhex(state["vault"])
    demand(state["quorum"] == 1, "share", "this reader opens quorums of one custodian")
    share = next((s for s in epochs[-1]["shares"] if s["to"] == identity.id), None)
    demand(share is not None and share["env"] is not None, "share", "no share for this identity")
    scope = f"state {epochs[-1]['made']}"
    seed = open_envelope(un64(share["env"]), identity.kem, info("share", vault, scope, identity.id))
    demand(share_hash(epochs[-1]["e"], share["x"], seed).hex() == share["sha256"], "share", "hash")
    keys = {}
    for epoch in reversed(epochs):
        key = keys[epoch["e"]] = XWing(seed)
        key.seed = seed
        demand(key.public == un64(epoch["kem"]), "share", "not the key of the epoch")
        if epoch["previous"] is not None:
            about = info("previous", vault, f"state {epoch['since']}", f"vault-{epoch['e']}")
            seed = open_envelope(un64(epoch["previous"]), key, about)
    return keys


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


class Closed(Exception):
    """A genuine run that holds no envelope for this identity."""


class Run:
    """A run that was opened: its descriptor, keys and name."""

    def __init__(self, directory, run_id, vault, state, identity, epochs):
        self.dir, self.id = directory, bytes.fromhex(run_id)
        self.descriptor = self.verified(vault, state)
        self.chunk = self.descriptor["chunk"]
        self.keys = RunKeys(self.id, self.open_key(vault, identity, epochs))
        same = hmac.compare_digest(self.keys.commitment.hex(), self.descriptor["commitment"])
        demand(same, "run", "the key is not the one that run.json commits to")
        self.name = decrypt_run_name(self.keys.name, self.id, directory.read("name", 4095 + 64))

    def verified(self, vault, state):
        try:
            note = Note(self.dir.read("run.json", 1 << 20))
        except FileNotFoundError:
            raise Refusal("run", "no run.json") from None
        # The signer's name is read before its signature holds, and only to find the key to verify with.
        signer = parse_run_text(note.text)["signer"]
        gateway = next((g for g in state["gateways"] if g["id"] == signer), None)
        demand(gateway, "run", "signed by no gateway of the vault")
        run = parse_run_text(note.signed_by(signer, un64(gateway["sign"])))
        demand(run["vault"] == vault.hex(), "run", "of another vault")
        demand(run["run"] == self.id.hex(), "run", "of another run")
        until = gateway["until"]
        demand(until is None or run["seq"] is None or run["seq"] <= until["seq"], "run", "the gateway's time is over")
        return run

    def open_key(self, vault, identity, epochs):
        mine = {f"vault-{e}": key for e, key in epochs.items()} | {f"reader-{identity.id}": identity.kem}
        trouble = Closed()
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


# 10. Files
# 10.1 Lengths

HEADER, OVERHEAD, LONGEST = 1024, 28, 1 << 60


def stored_size(length, c):
    """The plaintext bytes of a stored length, and whether the length is of the one form."""
    if length < HEADER:
        return 0, length == 0
    full, rest = divmod(length - HEADER, c + OVERHEAD)
    size = min(full * c + max(rest - OVERHEAD, 0), LONGEST)
    return size, (rest == 0 or rest > OVERHEAD) and size < LONGEST


# 10.2 Header copies

class Clear(NamedTuple):
    """The clear part of a header copy."""

    raw: bytes
    version: int
    suite: int
    log2: int
    kind: int
    file_id: bytes
    run_id: bytes


class Slot(NamedTuple):
    """The sealed state of a header copy."""

    seq: int
    size: int
    jskip: int
    jsession: bytes
    writes: int
    epoch: int
    flags: int
    place: bytes
    previous: bytes
    holes: list


FILE, DIRECTORY = 1, 2
SEVERAL_LINKS = 1


def parse_clear(copy):
    demand(any(copy), "not-authentic", "never written")
    magic, version, suite, log2, kind, zero, file_id, run_id = struct.unpack("<8sHHBBH32s16s", copy[:64])
    demand(magic == b"runvault", "magic")
    demand(version == 1, "version")
    demand(suite == 1, "suite")
    demand(9 <= log2 <= 20, "chunk-size")
    demand(kind in (1, 2, 3, 4), "kind")
    demand(zero == 0, "reserved")
    return Clear(copy[:64], version, suite, log2, kind, file_id, run_id)


def open_copy(copy, j, slot_key):
    state = gcm_open(slot_key, copy[64:76], b"\x02" + u(64, j), copy[76:])
    seq, size, jskip, jsession, writes, epoch, flags, n, place, previous = struct.unpack("<QQQ8sQIHH16s16s", state[:80])
    demand(flags & ~SEVERAL_LINKS == 0, "reserved", "flags")
    demand(n <= 21, "holes")
    holes, end = [], 0
    for first, count in struct.iter_unpack("<QQ", state[80:80 + 16 * n]):
        demand(count and (first > end or not holes) and first + count <= 1 << 64, "holes")
        end = first + count
        holes.append((first, end))
    demand(not any(state[80 + 16 * n:]), "reserved")
    return Slot(seq, size, jskip, jsession, writes, epoch, flags, place, previous, holes)


def counting_copies(stored, c, run_id, keys, kind):
    """The clear part of a file and the states of its copies that count."""
    demand(stored.size >= HEADER, "header")
    header = stored.at(0, HEADER)
    demand(len(header) == HEADER, "header")
    clears, slots, foreign = set(), [], False
    for j in (0, 1):
        copy = header[512 * j:512 * j + 512]
        try:
            clear = parse_clear(copy)
            if (1 << clear.log2, clear.kind, clear.run_id) != (c, kind, run_id):
                foreign = True
                continue
            slots.append(open_copy(copy, j, keys.slot_key(clear.raw)))
            clears.add(clear)
        except Refusal as refusal:
            foreign |= refusal.name in ("version", "suite", "chunk-size", "kind", "reserved")
    demand(slots, "foreign" if foreign else "header")
    demand(len(clears) == 1, "foreign", "two headers in one")
    return clears.pop(), slots


# 10.3 Chunks

def open_chunk(file_key, i, stored):
    demand(len(stored) > OVERHEAD, "truncated", "chunk")
    return gcm_open(file_key, stored[:12], b"\x01" + u(64, i), stored[12:])


# 10.4 Opening

class File:
    """A file that was opened: its id, its size, its chunks."""

    def __init__(self, stored, c, run_id, keys, place, kind=FILE):
        self.stored, self.c, self.size, self.id, self.holes = stored, c, 0, None, []
        if stored.size == 0 and kind == FILE:
            return
        clear, slots = counting_copies(stored, c, run_id, keys, kind)
        longest = stored_size(stored.size, c)[0]
        slots = [slot for slot in slots if slot.size <= longest]
        demand(slots, "short")
        slot = max(slots, key=lambda slot: slot.seq)
        at_place = slot.flags & SEVERAL_LINKS or place in (slot.place, slot.previous)
        self.id, self.holes, self.key = clear.file_id, slot.holes, keys.file_key(clear.raw, slot.epoch)
        self.size = longest
        if longest > slot.size:
            self.size = self.end(slot.size, longest)
        demand(at_place, "place")

    def end(self, size, longest):
        """Step 3: how far a file goes that is longer than its state says."""
        last = (longest - 1) // self.c
        i = size // self.c
        if self.readable(i) is None:
            return size
        if self.hole_end(last) or self.readable(last) is not None:
            return longest
        while i < last and (self.hole_end(i) or self.readable(i) is not None):
            i = self.hole_end(i) or i + 1
        return max(min(i, last) * self.c, size)

    def hole_end(self, i):
        """Where the listed hole ends that chunk i lies in."""
        at = bisect.bisect_right(self.holes, i, key=lambda hole: hole[0]) - 1
        return self.holes[at][1] if at >= 0 and i < self.holes[at][1] else None

    def readable(self, i):
        """The plaintext of chunk i, or None where it does not authenticate."""
        try:
            return self.chunk(i)
        except Refusal:
            return None

    def chunk(self, i):
        """The plaintext of chunk i, below the size; None where it is a hole without data."""
        length = min(self.c, self.size - i * self.c) + OVERHEAD
        data = self.stored.at(HEADER + i * (self.c + OVERHEAD), length)
        try:
            demand(len(data) == length, "chunk")
            return open_chunk(self.key, i, data)
        except Refusal:
            if self.hole_end(i) is None:
                raise Refusal("chunk", f"chunk {i}") from None
            return None

    def chunks(self):
        """(number, plaintext) of every chunk with data, (number, refusal) of those that do not hold."""
        i, count = 0, -(-self.size // self.c)
        while i < count:
            if end := self.hole_end(i):
                data = self.stored.next_data(HEADER + i * (self.c + OVERHEAD))
                i = max(i, min(end, (data - HEADER) // (self.c + OVERHEAD)))
                if i == end or i >= count:
                    continue
            try:
                plain = self.chunk(i)
            except Refusal as refusal:
                yield i, refusal
            else:
                if plain is not None:
                    yield i, plain
            i += 1


# 11. Names
# 11.1 Directories and places

ROOT = bytes(32)


def place_of(directory, kind, name):
    return sha256(lb("runvault/1 place"), directory, bytes([kind]), name)[:16]


def read_record(directory, run, place):
    """A directory's id from its record; None where it has neither record nor anything else."""
    try:
        with directory.file("_dir") as stored:
            return File(stored, run.chunk, run.id, run.keys, place, DIRECTORY).id
    except FileNotFoundError:
        demand(not directory.names(), "directory-record")
        return None


# 11.2 Encrypted names

SHORT_FORM, LONG_FORM = re.compile(rb"[a-z2-7]{28,250}"), re.compile(rb"0[a-z2-7]{32}")
SIDE_FORM = re.compile(rb"(0[a-z2-7]{32}\.name|([a-z2-7]{28,250}|0[a-z2-7]{32})\.link)")


def sealed_of(stored, side, bounds):
    """The AES-SIV output behind a stored text of the long form."""
    demand(side is not None and bounds[0] <= len(side) <= bounds[1], "side-file")
    demand(b"0" + base32(sha256(side)[:20]) == stored, "side-file")
    return side


def check_name(name):
    demand(1 <= len(name) <= 255 and name not in (b".", b"..") and not set(name) & {0, 0x2f}, "bad-name")
    return name


def decrypt_name(key, directory, stored, side):
    if LONG_FORM.fullmatch(stored):
        sealed = sealed_of(stored, side, (157, 271))
    else:
        demand(SHORT_FORM.fullmatch(stored), "foreign-name")
        sealed = unbase32(stored, "foreign-name")
    return check_name(siv_open(key, [b"runvault/1 name", directory], sealed))


def decrypt_run_name(key, run_id, sealed):
    name = siv_open(key, [b"runvault/1 run", run_id], sealed)
    demand(len(name) <= 4095, "bad-name")
    for component in name.split(b"/"):
        check_name(component)
    return name


# 11.3 Links and attributes

def decrypt_link(key, stored, side):
    if LONG_FORM.fullmatch(stored):
        sealed = sealed_of(stored, side, (640, 4111))
    else:
        sealed = unbase32(stored, "foreign-name")
        demand(len(sealed) <= 639, "not-canonical")
    target = siv_open(key, [b"runvault/1 link"], sealed)
    demand(target and 0 not in target, "bad-name")
    return target


def decrypt_xattr_name(key, file_id, stored):
    demand(stored.startswith(b"user.rv."), "foreign-name")
    sealed = unbase32(stored[len(b"user.rv."):], "foreign-name")
    name = siv_open(key, [b"runvault/1 xattr", file_id], sealed)
    demand(name and 0 not in name, "bad-name")
    demand(len(name) <= 130, "too-long")
    return name


def decrypt_xattr_value(key, file_id, name, stored):
    return siv_open(key, [b"runvault/1 xattr", file_id, name], stored)


# 16. A reader, step by step

class Vault:
    """A store that was opened: its newest state, and the keys that an identity gives."""

    def __init__(self, path, options):
        self.root = Dir(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        named = parse_vault_json(self.root.read("vault.json", 4096))
        with self.root.dir("custody") as custody:
            genesis, self.id = parse_genesis(custody.read("genesis", 1 << 20))
            demand(named == self.id, "state", "vault.json names another vault")
            pin = (options.fingerprint or self.id.hex()).lower()
            demand(pin == self.id.hex(), "state", "another vault than the fingerprint's")
            self.state, self.head, _ = follow(state_zero(genesis, self.id), read_if(custody, "state-0"),
                                              read_if(custody, "audit.log", 1 << 30) or b"",
                                              lambda n: read_if(custody, f"state-{n}"))
            self.identity = self.open_identity(custody, options)
        custodian = self.identity.id in [c["id"] for c in self.state["custodians"]]
        self.epochs = open_epochs(self.identity, self.state) if custodian else {}
        self.foreign = self.closed = 0

    def open_identity(self, custody, options):
        if options.identity:
            with open(options.identity, "rb") as file:
                data = file.read((16 << 10) + 1)
        else:
            with custody.dir("locks") as locks:
                data = read_if(locks, "owner-0", 16 << 10) or locks.read("owner-1", 16 << 10)
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
            yield Run(directory, name, self.id, self.state, self.identity, self.epochs)


def read_if(directory, name, limit=1 << 20):
    try:
        return directory.read(name, limit)
    except FileNotFoundError:
        return None


def read_passphrase(options):
    demand(options.passphrase_file, "lock", "the key file is locked: --passphrase-file")
    with open(options.passphrase_file, "rb") as file:
        return file.read(4097).split(b"\n")[0].removesuffix(b"\r")


class Extraction:
    """Plaintext written below one directory, which nobody else writes to."""

    def __init__(self, vault, out, refuse):
        self.vault, self.out, self.refuse, self.links = vault, out, refuse, {}

    def run(self, run, to_top):
        target, path = os.dup(self.out.fd), b""
        folders = [] if to_top else run.name.split(b"/")
        for i, folder in enumerate(folders):
            last = i + 1 == len(folders)
            try:
                os.mkdir(folder, dir_fd=target)
            except FileExistsError:
                if last:
                    folder = folder[:200] + b"~" + run.id.hex()[:8].encode()
                    os.mkdir(folder, dir_fd=target)
            inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=target)
            os.close(target)
            target, path = inner, os.path.join(path, folder)
        with Dir(target) as out, run.dir.dir("tree") as tree:
            self.children(run, tree, ROOT, out, path)
            if not to_top:
                self.attributes(run, tree.fd, ROOT, out.fd, os.fstat(tree.fd))

    def children(self, run, tree, directory, out, path):
        for stored in tree.names():
            if not SHORT_FORM.fullmatch(stored) and not LONG_FORM.fullmatch(stored):
                self.vault.foreign += stored != b"_dir" and not SIDE_FORM.fullmatch(stored)
                continue
            shown = path + b"/<" + stored + b">"
            try:
                side = read_if(tree, stored + b".name", 271) if stored[:1] == b"0" else None
                name = decrypt_name(run.keys.name, directory, stored, side)
                shown = os.path.join(path, name)
                self.child(run, tree, directory, stored, name, out, shown)
            except (Refusal, OSError, RecursionError) as refusal:
                self.refuse(shown, refusal)

    def child(self, run, tree, directory, stored, name, out, path):
        status = tree.stat(stored)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            with tree.dir(stored) as inner:
                place = place_of(directory, DIRECTORY, name)
                self.directory(run, inner, read_record(inner, run, place), name, out, path)
        elif kind == stat.S_IFREG:
            with tree.file(stored) as data:
                file = File(data, run.chunk, run.id, run.keys, place_of(directory, FILE, name))
                if not self.linked(status, out, name, path):
                    self.file(run, file, name, out, path)
        elif self.linked(status, out, name, path):
            return
        elif kind == stat.S_IFLNK:
            target = os.fsencode(os.readlink(stored, dir_fd=tree.fd))
            side = read_if(tree, stored + b".link", 4111) if LONG_FORM.fullmatch(target) else None
            os.symlink(decrypt_link(run.keys.name, target, side), name, dir_fd=out.fd)
            os.utime(name, ns=(status.st_mtime_ns,) * 2, dir_fd=out.fd, follow_symlinks=False)
        elif kind in (stat.S_IFIFO, stat.S_IFSOCK):
            os.mknod(name, kind | 0o600, dir_fd=out.fd)
            os.chmod(name, status.st_mode & 0o777, dir_fd=out.fd)
            os.utime(name, ns=(status.st_mtime_ns,) * 2, dir_fd=out.fd, follow_symlinks=False)
        else:
            print(f"{shown_path(path)}: a device, left out", file=sys.stderr)

    def linked(self, status, out, name, path):
        """Several names of one stored object become several names of one extracted one."""
        first = self.links.setdefault((status.st_dev, status.st_ino), path) if status.st_nlink > 1 else path
        if first != path:
            os.link(first, name, src_dir_fd=self.out.fd, dst_dir_fd=out.fd, follow_symlinks=False)
        return first != path

    def directory(self, run, tree, directory, name, out, path):
        os.mkdir(name, 0o700, dir_fd=out.fd)
        with out.dir(name) as inner:
            if directory is not None:
                self.children(run, tree, directory, inner, path)
            self.attributes(run, tree.fd, directory, inner.fd, os.fstat(tree.fd))

    def file(self, run, file, name, out, path):
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=out.fd)
        try:
            for i, plain in file.chunks():
                if isinstance(plain, Refusal):
                    self.refuse(path, plain)
                    continue
                while plain:
                    done = os.pwrite(fd, plain, i * run.chunk)
                    demand(done == len(plain), "chunk", "short write")
                    plain = plain[done:]
            os.ftruncate(fd, file.size)
            self.attributes(run, file.stored.fd, file.id, fd, os.fstat(file.stored.fd))
        finally:
            os.close(fd)

    def attributes(self, run, stored, file_id, fd, status):
        """Extended attributes, mode and times. No setuid: nothing in a store vouches for a mode."""
        for attribute in map(os.fsencode, os.listxattr(stored) if file_id is not None else ()):
            if attribute.startswith(b"user.rv."):
                try:
                    name = decrypt_xattr_name(run.keys.name, file_id, attribute)
                    value = os.getxattr(stored, attribute)
                    value = decrypt_xattr_value(run.keys.name, file_id, name, value)
                    if name.startswith(b"user."):
                        os.setxattr(fd, name, value)
                except (Refusal, OSError) as refusal:
                    self.refuse(b"an attribute", refusal)
        os.fchmod(fd, status.st_mode & 0o1777)
        os.utime(fd, ns=(status.st_mtime_ns,) * 2)


def shown_path(path):
    """A name for a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in os.fsdecode(path)).encode(
        "utf-8", "backslashreplace").decode()


def main():
    if sys.argv[1:2] == ["vectors"]:
        import vectors
        return vectors.main(sys.argv[2:])
    parser = argparse.ArgumentParser(description="Reads a runvault store without runvault.")
    parser.add_argument("--identity", metavar="KEYFILE", help="a key file outside the store")
    parser.add_argument("--passphrase-file", metavar="F", help="its first line unlocks the key file")
    parser.add_argument("--fingerprint", metavar="HEX", help="the vault id that is expected")
    parser.add_argument("store")
    parser.add_argument("command", choices=["list", "extract"])
    parser.add_argument("dir", nargs="?", help="where to extract to: new, or empty")
    options = parser.parse_args()
    if (options.command == "extract") != (options.dir is not None):
        parser.error("extract takes a directory, list none")
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
