"""16, step 6: the plaintext of runs, written below a directory."""

import os
import stat
import sys

from .conventions import Dir, Refusal, demand, read_if
from .files import DIRECTORY, FILE, File
from .names import (
    LONG_FORM, ROOT, SHORT_FORM, SIDE_FORM, decrypt_link, decrypt_name, decrypt_xattr_name, decrypt_xattr_value,
    link_side_of, place_of, read_record)


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
            os.symlink(self.target(run, tree, stored), name, dir_fd=out.fd)
            os.utime(name, ns=(status.st_mtime_ns,) * 2, dir_fd=out.fd, follow_symlinks=False)
        elif kind in (stat.S_IFIFO, stat.S_IFSOCK):
            os.mknod(name, kind | 0o600, dir_fd=out.fd)
            os.chmod(name, status.st_mode & 0o777, dir_fd=out.fd)
            os.utime(name, ns=(status.st_mtime_ns,) * 2, dir_fd=out.fd, follow_symlinks=False)
        else:
            print(f"{shown_path(path)}: a device, left out", file=sys.stderr)

    def target(self, run, tree, stored):
        """Of a link; read again where its side file is not there: another link may have taken its place."""
        side = None
        for _ in range(3):
            text = os.fsencode(os.readlink(stored, dir_fd=tree.fd))
            if not LONG_FORM.fullmatch(text):
                break
            side = read_if(tree, link_side_of(stored, text), 4111)
            if side is not None:
                break
        return decrypt_link(run.keys.name, text, side)

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
