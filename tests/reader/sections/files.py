"""10. Files: lengths, header copies, chunks, and how one is opened."""

import bisect
import struct
from typing import NamedTuple

from .conventions import Refusal, demand, u
from .suite import gcm_open

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
    """The clear part of a file, the states of its copies that count, whether the other copy is damaged."""
    demand(stored.size >= HEADER, "header")
    header = stored.at(0, HEADER)
    demand(len(header) == HEADER, "header")
    clears, slots, foreign, damaged = set(), [], False, False
    for j in (0, 1):
        copy = header[512 * j:512 * j + 512]
        if not any(copy):
            damaged |= j == 0
            continue
        try:
            clear = parse_clear(copy)
            if (1 << clear.log2, clear.kind, clear.run_id) != (c, kind, run_id):
                foreign = damaged = True
                continue
            slots.append(open_copy(copy, j, keys.slot_key(clear.raw)))
            clears.add(clear)
        except Refusal as refusal:
            damaged = True
            foreign |= refusal.name in ("version", "suite", "chunk-size", "kind", "reserved")
    demand(slots, "foreign" if foreign else "header")
    demand(len(clears) == 1, "foreign", "two headers in one")
    return clears.pop(), slots, damaged


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
        clear, slots, damaged = counting_copies(stored, c, run_id, keys, kind)
        longest = stored_size(stored.size, c)[0]
        slots = [slot for slot in slots if slot.size <= longest]
        demand(slots, "short")
        slot = max(slots, key=lambda slot: slot.seq)
        at_place = slot.flags & SEVERAL_LINKS or place in (slot.place, slot.previous)
        self.id, self.holes, self.key = clear.file_id, slot.holes, keys.file_key(clear.raw, slot.epoch)
        self.size = longest
        demand(at_place, "header-copy" if damaged else "place")
        if damaged:
            demand(not slot.holes, "header-copy")
        elif longest > slot.size:
            self.size = self.end(slot.size, longest)

    def end(self, size, longest):
        """Step 3: how far a file goes that is longer than its state says."""
        last = (longest - 1) // self.c
        i = size // self.c
        if not (size % self.c == 0 and self.hole_end(i)) and self.readable(i) is None:
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
