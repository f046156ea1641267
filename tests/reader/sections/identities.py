"""6. Identities and their key files."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from .conventions import Refusal, demand, lb, sha256
from .suite import XWing, expand, extract, gcm_open, is_kem_key, is_sign_key
from .texts import (
    Note, b64, b64_key, clean_text, hex_of, int_to, left_out, line_of, loads, many, or_null, parse_line, parse_text,
    table, text, time, told_by, un64, utf8, word)

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

NAME, POINT = clean_text(0, 128), b64_key(lambda b: len(b) == 65 and b[0] == 4)
PART = b64_key(lambda b: 1 <= len(b) <= 512)
SEALED = told_by("mechanism", {
    "ecdh-p256": table(mechanism=word("ecdh-p256"), public=POINT, ephemeral=POINT),
    "rsa-oaep-sha1": table(mechanism=word("rsa-oaep-sha1"), sealed=b64_key(lambda b: 256 <= len(b) <= 512)),
})
WITH = told_by("kind", {
    "value": table(kind=word("value"), value=b64_key(lambda b: len(b) == 32)),
    "argon2id": table(kind=word("argon2id"), salt=HEX16, m_kib=U32, t=U32, p=U32),
})


def pcrs(value):
    numbers = many(int_to(23))(value)
    demand(numbers == sorted(set(numbers)), "json", "PCRs in order")
    return numbers


def token_key(shared, public, ephemeral):
    return expand(extract(b"", shared), lb("runvault/1 pkcs11") + ephemeral + public)


def tpm_key(unsealed, needed):
    return expand(extract(needed, unsealed), lb("runvault/1 tpm2 lock"))


def tpm_auth(needed):
    return expand(extract(b"", needed), lb("runvault/1 tpm2 auth"))


LOCKS = {
    "none": table(kind=word("none")),
    "argon2id": table(kind=word("argon2id"), salt=HEX16, m_kib=U32, t=U32, p=U32),
    "pkcs11": table(kind=word("pkcs11"), token=NAME, serial=NAME, key=NAME, id=b64_key(lambda b: len(b) <= 64),
                    sealed=SEALED),
    "tpm2": table(kind=word("tpm2"), public=PART, private=PART, pcrs=pcrs,
                  **{"with": WITH}),
}
HARDWARE = ("pkcs11", "tpm2")
KEY_FILE = table(id=HEX16, label=LABEL, sign=SIGN, kem=KEM, vault=left_out(HEX32),
                 lock=lambda lock: LOCKS[lock["kind"]](lock), sealed=b64)


HEAD = table(n=INT, hash=HEX32)
KEPT = table(vault=HEX32, head=HEAD,
             share=or_null(table(epoch=U32, made=INT, share=table(to=HEX16, x=U8, env=or_null(b64), sha256=HEX32))),
             approved=or_null(table(request=HEX32, head=HEAD, expires=time)))


COPY = b"runvault/1 genesis\n"


def parse_copy(data):
    """The copy of custody/ behind a key file: {"genesis", "state-0", "lines": [(line, state or None)]}, bytes each."""
    demand(len(data) <= 64 << 20, "too-long", "copy of custody/")
    utf8(data)

    def line():
        nonlocal data
        first, end, data = data.partition(b"\n")
        demand(end, "truncated", "copy of custody/")
        return first + end

    def two(first):
        if not data.startswith(first):
            return None
        return line() + line()

    copy = {"genesis": two(COPY), "state-0": two(b"runvault/1 state\n"), "lines": []}
    demand(copy["genesis"] and copy["state-0"], "magic", "copy of custody/")
    while data:
        one = line()
        demand(one.startswith(b"{"), "magic", "copy of custody/")
        copy["lines"].append((one, two(b"runvault/1 state\n")))
    return copy


def parse_key_file(data):
    at = data.find(b"\n" + COPY) + 1
    data, copy = (data[:at], data[at:]) if at else (data, None)
    demand(len(data) <= 16 << 10, "too-long", "key file")
    if copy is not None:
        parse_copy(copy)
    first, second = (data.split(b"\n", 2) + [b"", b""])[:2]
    own = data[:len(first) + len(second) + 2]
    line = line_of("key", own, 16 << 10)
    loose = loads(line)
    demand(type(loose) is dict and type(loose.get("lock")) is dict, "json", "no lock")
    demand(loose["lock"].get("kind") in LOCKS, "lock" if type(loose["lock"].get("kind")) is str else "json")
    key = parse_line(line, KEY_FILE)
    if len(data) > len(own):
        note = Note(data[len(own):])
        note.signed_by(key["id"], un64(key["sign"]))
        parse_text("kept", note.text, KEPT)
    return key


def lock_key(lock, passphrase):
    if lock["kind"] == "none":
        return bytes(32)
    demand(lock["kind"] not in HARDWARE, "hardware", "this reader reaches neither tokens nor TPMs")
    m, t, p = lock["m_kib"], lock["t"], lock["p"]
    demand(1 << 16 <= m <= 1 << 22 and 3 <= t <= 16 and 4 <= p <= 16, "crypto", "costs of the lock")
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


# 6.2 Public key files

PUBLIC_KEY = table(id=HEX16, label=LABEL, sign=SIGN, kem=KEM, vault=left_out(HEX32))


def parse_public_key_file(data):
    """The fields of a public key file, which its own key signed."""
    demand(len(data) <= 16 << 10, "too-long", "public key file")
    note = Note(data)
    # The keys are believed before the signature holds only to verify it.
    key = parse_text("public", note.text, PUBLIC_KEY)
    demand(id_of(un64(key["sign"]), un64(key["kem"])) == key["id"], "other-key", "id")
    note.signed_by(key["id"], un64(key["sign"]))
    return key
