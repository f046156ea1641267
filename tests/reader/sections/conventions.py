"""1. Conventions: refusals, bytes, and what lies in a directory of the store."""

import base64
import contextlib
import hashlib
import os
import stat


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


def read_if(directory, name, limit=1 << 20):
    try:
        return directory.read(name, limit)
    except FileNotFoundError:
        return None
