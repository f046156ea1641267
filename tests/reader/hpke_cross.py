"""Answers what the Rust test asks of another library: X-Wing HPKE, Ed25519, AES-SIV, AES-GCM, HKDF, Argon2id.

Requests are a JSON list in the file named by the first argument, binary in hex; answers go to stdout in their order.
HPKE is opened twice: by the package's own suite, and by the formulas of docs/format.md as reader.py has them.
"""

import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sections import suite

SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
un = bytes.fromhex


def kem_public(seed):
    return suite.XWing(un(seed)).public


def hpke_seal(public, info, plain):
    public = un(public)
    key = hpke.MLKEM768X25519PublicKey(MLKEM768PublicKey.from_public_bytes(public[:1184]),
                                       X25519PublicKey.from_public_bytes(public[1184:]))
    return SUITE.encrypt(un(plain), key, un(info))


def hpke_open(seed, info, sealed):
    private, sealed = suite.XWing(un(seed)), un(sealed)
    plain = SUITE.decrypt(sealed, hpke.MLKEM768X25519PrivateKey(private.pq, private.x), un(info))
    assert plain == suite.hpke_open(private, sealed[:1120], un(info), sealed[1120:])
    return plain


def sign_public(seed):
    return Ed25519PrivateKey.from_private_bytes(un(seed)).public_key().public_bytes_raw()


def sign(seed, message):
    return Ed25519PrivateKey.from_private_bytes(un(seed)).sign(un(message))


def verify(public, message, signature):
    try:
        Ed25519PublicKey.from_public_bytes(un(public)).verify(un(signature), un(message))
        return b"\1"
    except InvalidSignature:
        return b"\0"


def siv_seal(key, associated, plain):
    return AESSIV(un(key)).encrypt(un(plain), [un(a) for a in associated])


def siv_open(key, associated, sealed):
    return AESSIV(un(key)).decrypt(un(sealed), [un(a) for a in associated])


def gcm_seal(key, nonce, associated, plain):
    return AESGCM(un(key)).encrypt(un(nonce), un(plain), un(associated))


def hkdf(salt, key, info, length):
    return HKDF(hashes.SHA256(), length, un(salt), un(info)).derive(un(key))


def argon2id(passphrase, salt, m_kib, t, p):
    return Argon2id(salt=un(salt), length=32, iterations=t, lanes=p, memory_cost=m_kib).derive(un(passphrase))


OPERATIONS = {f.__name__: f for f in (kem_public, hpke_seal, hpke_open, sign_public, sign, verify, siv_seal, siv_open,
                                      gcm_seal, hkdf, argon2id)}

with open(sys.argv[1], encoding="utf-8") as file:
    requests = json.load(file)
print(json.dumps([OPERATIONS[request.pop("op")](**request).hex() for request in requests]))
