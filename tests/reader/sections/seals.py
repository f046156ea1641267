"""17. Sealed runs: the note, manifest, pins, digests, and a whole run compared with them."""

import hashlib
import os
import re
import stat
import struct
from typing import NamedTuple

from .conventions import Refusal, demand, sha256
from .texts import Note, or_null, parse_text, table, time, un64, utf8
from .identities import HEX16, HEX32, INT
from .files import HEADER, OVERHEAD, counting_copies, open_chunk, stored_size
from .names import ROOT, stored_name
from .runs import verify_run
from .suite import split_envelope

MANIFEST, PINS = 3, 4
SEAL = table(run=HEX16, run_note=HEX32, gateway=HEX16, n=INT, prev=or_null(HEX32), state=table(n=INT, hash=HEX32),
             files=INT, bytes=INT, manifest_sha256=HEX32, manifest_id=HEX32, pins_id=HEX32, digests_sha256=HEX32,
             sealed=time)


# 17.1 The note

def parse_seal_text(data):
    seal = parse_text("seal", data, SEAL)
    demand(seal["n"] > 0 and (seal["n"] == 1) == (seal["prev"] is None), "not-canonical", "n and prev")
    return seal


# 17.2 Manifest

class Entry(NamedTuple):
    kind: int
    mode: int
    uid: int
    gid: int
    nlink: int
    object: int
    parent: int
    first: int
    children: int
    rdev: int
    size: int
    mtime: int
    mtime_ns: int
    sha256: bytes
    name: bytes
    target: bytes
    xattrs: list


def parse_manifest(data):
    """The run's name, the text on it, and the entries."""
    demand(len(data) >= 128, "truncated", "manifest")
    magic, _, count, heap_len, name_len, about_len = struct.unpack("<8s32sIQHI", data[:58])
    demand(magic == b"rvmani/1", "magic")
    demand(not any(data[58:128]), "reserved")
    demand(count > 0 and about_len <= 1 << 20 and name_len + about_len <= heap_len, "manifest")
    length = 128 + 128 * count + heap_len
    demand(len(data) >= length, "truncated")
    demand(len(data) <= length, "trailing")
    heap, at = data[128 + 128 * count:], name_len + about_len
    about, entries = utf8(heap[name_len:at]), []
    for i in range(count):
        record = data[128 + 128 * i:256 + 128 * i]
        fields = struct.unpack("<BBHIIIIIIIQQqIHHIQ32s", record[:108])
        kind, zero, mode, *middle, mtime_ns, name_n, target_n, xattrs_n, offset, digest = fields
        demand(1 <= kind <= 7, "kind")
        demand(not zero and not any(record[108:]), "reserved")
        uid, gid, nlink, obj, parent, first, children, rdev, size, mtime = middle
        demand(mode <= 0o7777 and mtime_ns < 10**9 and offset == at, "manifest")
        demand(kind == 1 or not any(digest), "manifest")
        demand(kind in (1, 3) or size == 0, "manifest")
        demand(kind in (6, 7) or rdev == 0, "manifest")
        pieces = []
        for n in (name_n, target_n, xattrs_n):
            pieces.append(heap[at:at + n])
            demand(len(pieces[-1]) == n, "truncated")
            at += n
        name, target, xattrs = pieces[0], pieces[1], parse_attributes(pieces[2])
        entries.append(Entry(kind, mode, uid, gid, nlink, obj, parent, first, children, rdev, size, mtime, mtime_ns,
                             digest, name, target, xattrs))
    demand(at == heap_len, "manifest", "heap")
    check_tree(entries)
    return heap[:name_len], about, entries


def parse_attributes(data):
    found = []
    while data:
        demand(len(data) >= 6, "truncated")
        n, v = struct.unpack("<HI", data[:6])
        demand(v <= 65536 and 1 <= n <= 255, "manifest", "attribute")
        demand(len(data) >= 6 + n + v, "truncated")
        found.append((data[6:6 + n], data[6 + n:6 + n + v]))
        demand(len(found) < 2 or found[-2][0] < found[-1][0], "manifest", "attributes")
        data = data[6 + n + v:]
    return found


def check_tree(entries):
    top = entries[0]
    demand(top.kind == 2 and top.parent == 0 and not top.name, "manifest", "top")
    following = 1
    for i, e in enumerate(entries):
        demand(e.children == 0 or e.kind == 2, "manifest", "children")
        demand((e.kind == 3) == bool(e.target) and len(e.target) <= 4095, "manifest", "target")
        demand(e.kind != 3 or e.size == len(e.target), "manifest", "size")
        if e.object != i:
            demand(e.object < i and e.kind != 2 and not e.xattrs, "manifest", "link")
            first = entries[e.object]
            demand(first.object == e.object, "manifest", "link")
            same = first._replace(parent=e.parent, name=e.name, xattrs=[])
            demand(same == e, "manifest", "link")
        demand(e.first == (following if e.children else 0), "manifest", "children")
        children = entries[following:following + e.children]
        demand(len(children) == e.children, "manifest", "children")
        demand(all(c.parent == i for c in children), "manifest", "parent")
        names = [c.name for c in children]
        demand(all(a < b for a, b in zip(names, names[1:])), "manifest", "order")
        for name in names:
            demand(1 <= len(name) <= 255 and name not in (b".", b"..") and not set(name) & {0, 47}, "manifest", "name")
        following += e.children
    demand(following == len(entries), "manifest", "children")


# 17.3 Pins

def parse_pins(data):
    """(id, epoch, first, chunks) of each entry, and the nonces."""
    demand(len(data) >= 128, "truncated", "pins")
    magic, entries, zero, nonces = struct.unpack("<8sIIQ", data[:24])
    demand(magic == b"rvpins/1", "magic")
    demand(not zero and not any(data[24:128]), "reserved")
    end = 128 + 12 * nonces
    demand(len(data) == end + 64 * entries, "truncated", "pins")
    pinned = []
    for i in range(entries):
        file_id, epoch, zero, first, chunks = struct.unpack("<32sIIQQ", data[end + 64 * i:end + 64 * i + 56])
        demand(not zero and not any(data[end + 64 * i + 56:end + 64 * i + 64]), "reserved")
        pinned.append((file_id, epoch, first, chunks))
    return pinned, [data[128 + 12 * i:140 + 12 * i] for i in range(nonces)]


# 17.4 Digests

ENVELOPE = re.compile(r"vault-[1-9][0-9]*|(?:reader|worker)-[0-9a-f]{32}")
PATH = re.compile(r"(?:[a-z0-9_.-]+/)*[a-z0-9_.-]+")
LINE = re.compile(r"(?:(?P<file>[0-9a-f]{64})  |# (?:(?P<kind>dir|fifo|socket|char|block)|link (?P<link>[0-9a-f]{64})) )"
                  r"(?P<path>.*)")


def parse_digests(data):
    """(path, kind, hash or None), sorted."""
    text = utf8(data)
    demand(text.endswith("\n"), "truncated", "digests")
    lines = []
    for line in text[:-1].split("\n"):
        found = LINE.fullmatch(line)
        demand(found, "digests", "line")
        path = found["path"]
        demand(PATH.fullmatch(path) and not {".", ".."} & set(path.split("/")), "digests", "path")
        kind = "file" if found["file"] else "link" if found["link"] else found["kind"]
        lines.append((path, kind, found["file"] or found["link"]))
    demand(all(a[0].encode() < b[0].encode() for a, b in zip(lines, lines[1:])), "digests", "order")
    return lines


def verify_note(data, run_id, described, run, vault):
    """The fields of a seal's note, and the hash of its text, which is of the run with that run.json: by the signer of
    that, or a gateway that was admitted to it."""
    note, admitted = Note(data), vault.admitted
    signer = parse_seal_text(note.text)["gateway"]
    made = signer == run["signer"]
    demand(made or (signer, run_id) in admitted, "seal", "of a gateway that may not seal it")
    said = vault.replaced.get(run_id)
    if made and said is not None and said["worker"] == signer:
        gateway = {"sign": said["sign"], "until": {"seals": 1, "seals_hash": sha256(note.text).hex()}}
    else:
        gateway = next((g for g in vault.state["gateways"] if g["id"] == signer), None)
    demand(gateway is not None, "seal", "of a gateway that may not seal it")
    text = note.signed_by(signer, un64(gateway["sign"]))
    seal = parse_seal_text(text)
    for end in filter(None, [gateway["until"], None if made else admitted[signer, run_id]]):
        demand(seal["n"] <= end["seals"], "seal", "the gateway's time is over")
        last = seal["n"] == end["seals"]
        demand(not last or sha256(text).hex() == end["seals_hash"], "seal", "not the gateway's last seal")
    run_note = sha256(Note(described).text).hex()
    demand((seal["run"], seal["run_note"]) == (run_id, run_note), "seal", "of another run")
    return seal, sha256(text).hex()


# A whole run

class Seal:
    """The seal of a run that was opened."""

    def __init__(self, run):
        self.run, vault = run, run.vault
        with run.dir.dir("seal") as seal:
            described = run.dir.read("run.json", 1 << 20)
            self.note, _ = verify_note(seal.read("seal.note", 1 << 20), run.id.hex(), described, run.descriptor, vault)
            if run.id.hex() in vault.replaced:
                self.check_origin(seal, vault)
            digests = seal.read("digests", 1 << 31)
            demand(sha256(digests).hex() == self.note["digests_sha256"], "digests", "not what the seal names")
            self.digests = parse_digests(digests)
            manifest = self.part(seal, "manifest", MANIFEST)
            demand(sha256(manifest).hex() == self.note["manifest_sha256"], "manifest", "not what the seal names")
            self.name, self.about, self.entries = parse_manifest(manifest)
            self.pinned, self.nonces = parse_pins(self.part(seal, "pins", PINS))
            demand(len(self.pinned) == len(self.entries), "manifest", "pins")

    def check_origin(self, seal, vault):
        """What the gateways of the first run signed, of which this one has the content still."""
        said = vault.replaced[self.run.id.hex()]
        while said["run"] in vault.replaced:
            said = vault.replaced[said["run"]]
        try:
            described, note = (seal.read(name, 1 << 20) for name in ("origin.run", "origin.note"))
        except FileNotFoundError:
            raise Refusal("seal", "nothing is kept of the run that was sealed first") from None
        first = verify_run(described, bytes.fromhex(said["run"]), vault.id, vault.state["gateways"])
        origin, origin_hash = verify_note(note, said["run"], described, first, vault)
        demand(origin_hash == said["seal"], "seal", "not the seal that the audit log says was replaced")
        same = all(origin[field] == self.note[field] for field in ("manifest_sha256", "files", "bytes"))
        demand(same, "seal", "another content than was sealed first")

    def part(self, seal, name, kind):
        """The plaintext of a file of the seal."""
        run = self.run
        with seal.file(name) as stored:
            clear, slots, _ = counting_copies(stored, run.chunk, run.id, run.keys, kind)
            demand(clear.file_id.hex() == self.note[f"{name}_id"], "place", name)
            size, whole = stored_size(stored.size, run.chunk)
            slot = max(slots, key=lambda slot: slot.seq)
            demand(whole and size == slot.size, "short", name)
            key = run.keys.file_key(clear.raw, slot.epoch)
            return b"".join(pieces(stored, key, run.chunk, size))

    def verify(self, refuse):
        """Compares what is stored with the digests, and what it says with manifest and pins."""
        for path, kind, digest in self.digests:
            try:
                demand(self.stored(path) == (kind, digest), "digests", "changed")
            except FileNotFoundError:
                refuse(path.encode(), Refusal("digests", "missing"))
            except (Refusal, OSError) as refusal:
                refuse(path.encode(), refusal)
        signed = {path for path, _, _ in self.digests}
        with self.run.dir.dir("seal") as seal:
            for path in below(seal, "seal"):
                if path not in signed | {"seal/seal.note", "seal/digests"}:
                    refuse(path.encode(), Refusal("digests", "added"))
        self.beside({path: digest for path, _, digest in self.digests}, refuse)
        with self.run.dir.dir("tree") as tree:
            for path in below(tree, "tree"):
                if path not in signed:
                    refuse(path.encode(), Refusal("digests", "added"))
            self.directory(0, tree, ROOT, b"", refuse)
        return self.note["files"]

    def beside(self, signed, refuse):
        """17.5: what lies beside the tree and the seal."""
        replaces = self.run.id.hex() in self.run.vault.replaced
        parts = {"run.json", "name", "tree", "keys", "seal", "lease"}
        for name in map(os.fsdecode, self.run.dir.names()):
            of_workers = name == "partial" or name.startswith(("worker-vault-", "seal.new-"))
            if not (name in parts or name.startswith(".tmp-") or replaces and of_workers):
                refuse(name.encode(), Refusal("digests", "added"))
        with self.run.dir.dir("keys") as keys:
            for name in map(os.fsdecode, keys.names()):
                path = f"keys/{name}"
                try:
                    if name.startswith(".tmp-"):
                        continue
                    demand(ENVELOPE.fullmatch(name) and self.is_known(*name.split("-")), "digests", "added")
                    envelope = keys.read(name, 1210)
                    _, sealed = split_envelope(envelope)
                    demand(len(sealed) >= 48, "truncated", "secret")
                    demand(len(sealed) <= 48, "trailing", "secret")
                    same = signed.get(f"seal/{name}", sha256(envelope).hex()) == sha256(envelope).hex()
                    demand(same, "digests", "another than in the seal")
                except (Refusal, OSError) as refusal:
                    refuse(path.encode(), refusal)

    def is_known(self, kind, who):
        """Whether the log says whom an envelope is for."""
        vault, run = self.run.vault, self.run.id.hex()
        if any("recover" in op for op in vault.operations):
            return True
        if kind == "vault":
            return int(who) <= vault.state["epochs"][-1]["e"]
        if kind == "reader":
            return any(op.get("add-reader", {}).get("reader", {}).get("id") == who for op in vault.operations)
        return any(one["worker"] == who and run in (one["run"], new) for new, one in vault.replaced.items())

    def stored(self, path):
        """The kind of what lies at a path of the run's directory, and its hash."""
        *folders, name = path.split("/")
        directory = self.run.dir
        opened = []
        try:
            for folder in folders:
                directory = directory.dir(folder)
                opened.append(directory)
            mode = directory.stat(name).st_mode
            if stat.S_ISLNK(mode):
                return "link", sha256(os.fsencode(os.readlink(name, dir_fd=directory.fd))).hex()
            if stat.S_ISREG(mode):
                whole = hashlib.sha256()
                with directory.file(name) as file:
                    for at in range(0, file.size, 1 << 20):
                        whole.update(file.at(at, 1 << 20))
                return "file", whole.hexdigest()
            kinds = {stat.S_IFDIR: "dir", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFCHR: "char"}
            return kinds.get(stat.S_IFMT(mode), "block"), None
        finally:
            for directory in reversed(opened):
                os.close(directory.fd)

    def directory(self, i, tree, directory_id, path, refuse):
        """The entries of one directory, found by their encrypted names."""
        run, top = self.run, self.entries[i]
        for n in range(top.first, top.first + top.children):
            entry = self.entries[n]
            shown = path + b"/" + entry.name if path else entry.name
            try:
                stored = stored_name(run.keys.name, directory_id, entry.name)
                if entry.kind == 2:
                    with tree.dir(stored) as inner:
                        self.directory(n, inner, self.pinned[n][0], shown, refuse)
                elif entry.kind == 1:
                    with tree.file(stored) as file:
                        self.content(entry, file)
            except FileNotFoundError:
                refuse(shown, Refusal("seal", "missing"))
            except (Refusal, OSError) as refusal:
                refuse(shown, refusal)

    def content(self, entry, stored):
        """A file as the seal says, without its header: by its pins."""
        run = self.run
        file_id, epoch, first, chunks = self.pinned[entry.object]
        demand(stored_size(stored.size, run.chunk) == (entry.size, True), "impossible-length")
        demand(chunks == -(-entry.size // run.chunk), "manifest", "pins")
        clear = struct.pack("<8sHHBBH32s16s", b"runvault", 1, 1, run.chunk.bit_length() - 1, 1, 0, file_id, run.id)
        nonces = self.nonces[first:first + chunks]
        demand(len(nonces) == chunks, "manifest", "pins")
        whole = hashlib.sha256()
        for plain in pieces(stored, run.keys.file_key(clear, epoch), run.chunk, entry.size, nonces):
            whole.update(plain)
        demand(whole.digest() == entry.sha256, "manifest", "content")


def pieces(stored, key, c, size, nonces=None):
    """The plaintext of each chunk; with `nonces`, of that version and no other."""
    for i in range(-(-size // c)):
        length = min(c, size - i * c)
        if nonces is not None and not any(nonces[i]):
            yield bytes(length)
            continue
        data = stored.at(HEADER + i * (c + OVERHEAD), length + OVERHEAD)
        demand(len(data) == length + OVERHEAD, "chunk", f"chunk {i}")
        demand(nonces is None or data[:12] == nonces[i], "chunk", f"chunk {i} is of another time")
        try:
            yield open_chunk(key, i, data)
        except Refusal:
            raise Refusal("chunk", f"chunk {i}") from None


def below(directory, path):
    for name in directory.names():
        child = f"{path}/{os.fsdecode(name)}"
        yield child
        if stat.S_ISDIR(directory.stat(name).st_mode):
            with directory.dir(name) as inner:
                yield from below(inner, child)
