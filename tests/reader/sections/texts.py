"""5. Texts: JSON in its one form, signed notes; and vault.json (4)."""

import base64
import datetime
import json
import re
import unicodedata

from .conventions import Refusal, demand, sha256
from .suite import verify

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


def told_by(field, tables):
    """One of several tables: a field of theirs says which."""
    def check(value):
        which = value.get(field) if type(value) is dict else None
        return tables[which](value) if type(which) is str and which in tables else bad(f"no {field} that is known")
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


# 4. What lies where

def parse_vault_json(data):
    """The vault id that vault.json names."""
    demand(len(data) <= 4096, "too-long")
    text = utf8(data)
    value = loads(text)
    demand(type(value) is dict and type(value.get("magic")) is str, "json")
    demand(value["magic"] == "runvault", "magic")
    demand(type(value.get("version")) is int, "json")
    demand(value["version"] == 3, "version")
    demand(text.endswith("\n"), "truncated")
    fields = table(magic=any_text, version=int_to(3), vault=hex_of(32))(value)
    demand(dumps(fields) + "\n" == text, "not-canonical")
    return bytes.fromhex(fields["vault"])
