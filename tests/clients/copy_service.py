"""Writes files to the share `runs` as instruments' copy services do, and prints their hashes as JSON."""

import hashlib
import json
import sys
import threading

import smbclient

port, password = int(sys.argv[1]), sys.argv[2]
SERVER, SHARE = "127.0.0.1", r"\\127.0.0.1\runs"
WRITTEN = {}


def session():
    smbclient.register_session(SERVER, username="root", password=password, port=port, encrypt=True)


def path(name):
    return SHARE + "\\run\\" + name.replace("/", "\\")


def content(name, size):
    block = hashlib.sha256(name.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def note(name, data):
    WRITTEN[name] = hashlib.sha256(data).hexdigest()


def preallocate(name, size, piece):
    """The size first, then the pieces from the end to the beginning."""
    data = content(name, size)
    with smbclient.open_file(path(name), mode="wb", port=port):
        pass
    smbclient.truncate(path(name), size, port=port)
    with smbclient.open_file(path(name), mode="r+b", buffering=0, port=port) as file:
        for at in reversed(range(0, size, piece)):
            file.seek(at)
            file.write(data[at:at + piece])
    note(name, data)


def rename_over(name):
    """A temporary name, then the right one over an older file."""
    older, data = content("older", 10_000), content(name, 700_001)
    with smbclient.open_file(path(name), mode="wb", port=port) as file:
        file.write(older)
    with smbclient.open_file(path("renamed.tmp"), mode="wb", port=port) as file:
        file.write(data)
    smbclient.replace(path("renamed.tmp"), path(name), port=port)
    note(name, data)


def append(name):
    data = b""
    for n in range(50):
        record = content(f"{name} {n}", 200)
        with smbclient.open_file(path(name), mode="ab", port=port) as file:
            file.write(record)
        data += record
    note(name, data)


def rewrite(name):
    for n in range(5):
        data = content(f"{name} {n}", 30_000 + n)
        with smbclient.open_file(path(name), mode="wb", port=port) as file:
            file.write(data)
    note(name, data)


def timed(name):
    """Times after the data."""
    data = content(name, 12_345)
    with smbclient.open_file(path(name), mode="wb", port=port) as file:
        file.write(data)
    smbclient.utime(path(name), times=(1_700_000_000, 1_700_000_000), port=port)
    note(name, data)


def broken(name):
    """The connection breaks in the middle; the service begins the file anew."""
    data = content(name, 2_000_000)
    file = smbclient.open_file(path(name), mode="wb", buffering=0, port=port)
    file.write(data[:700_000])
    smbclient.reset_connection_cache(fail_on_error=False)
    session()
    with smbclient.open_file(path(name), mode="wb", port=port) as file:
        file.write(data)
    note(name, data)


session()
smbclient.mkdir(SHARE + "\\run", port=port)
smbclient.mkdir(path("Data"), port=port)
preallocate("Data/L001_1.cbcl", 3_000_000, 262_144)
rename_over("Data/L001_2.cbcl")
append("ExtractionMetricsOut.bin")
rewrite("QMetricsOut.bin")
timed("timed.bin")
both = [threading.Thread(target=preallocate, args=(f"Data/both_{n}.cbcl", 1_500_000, 65_536)) for n in (1, 2)]
for thread in both:
    thread.start()
for thread in both:
    thread.join()
broken("Data/broken.cbcl")
smbclient.reset_connection_cache(fail_on_error=False)
print(json.dumps(WRITTEN))
