"""11. Names of files, directories, links and attributes."""

import re

from .conventions import base32, demand, lb, sha256, unbase32
from .suite import siv_open, siv_seal
from .files import DIRECTORY, File

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
SIDE_FORM = re.compile(rb"0[a-z2-7]{32}\.(name|link)")


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


def stored_name(key, directory, name):
    """The stored form of a name, which is the same each time."""
    sealed = siv_seal(key, [b"runvault/1 name", directory], name)
    return base32(sealed) if len(sealed) <= 156 else b"0" + base32(sha256(sealed)[:20])


def decrypt_run_name(key, run_id, sealed):
    name = siv_open(key, [b"runvault/1 run", run_id], sealed)
    demand(len(name) <= 4095, "bad-name")
    for component in name.split(b"/"):
        check_name(component)
    return name


# 11.3 Links and attributes

def link_side_of(stored, text):
    """The name of the side file of the link `stored`, whose stored target is `text`."""
    return b"0" + base32(sha256(stored, b"/", text)[:20]) + b".link"


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
