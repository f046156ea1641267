"""3. Suite 1: its primitives under their names, X-Wing, HPKE, envelopes."""

import hashlib
import hmac

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

from .conventions import Refusal, demand, u


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


def siv_seal(key, associated, plain):
    return AESSIV(key).encrypt(plain, associated)


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


def split_envelope(data):
    """The encapsulated key and the ciphertext of an envelope."""
    demand(len(data) <= 1210, "too-long", "envelope")
    for at, end, field, refusal in ((0, 8, b"rvkey/1\0", "magic"), (8, 10, u(16, 1), "suite")):
        demand(len(data) >= end, "truncated", "envelope")
        demand(data[at:end] == field, refusal, "envelope")
    demand(len(data) >= 1146, "truncated", "envelope")
    return data[10:1130], data[1130:]


def open_envelope(data, private, about):
    """The 32 bytes that an envelope holds."""
    enc, ciphertext = split_envelope(data)
    secret = hpke_open(private, enc, about, ciphertext)
    demand(len(secret) >= 32, "truncated", "secret")
    demand(len(secret) <= 32, "trailing", "secret")
    return secret
