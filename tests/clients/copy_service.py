"""The machine of a copy service: makes calls that it reads from stdin on the share `runs`, by SMB.

A call is a line of JSON and as many bytes as its `bytes` says; so is an answer, which has `error`, an errno, where the
call failed. One file is open at a time: another one needs another process, which is another client to the server.
"""

import errno
import json
import sys
import time

import smbclient
from smbclient._io import SMBFileTransaction, set_info
from smbprotocol.exceptions import EndOfFile, SMBException, SMBOSError
from smbprotocol.file_info import FileAttributes, FileBasicInformation
from smbprotocol.header import NtStatus

PORT, PASSWORD = int(sys.argv[1]), sys.argv[2]
SERVER = "127.0.0.1"
MODES = {"anew": "wb", "keep": "a+b", "append": "ab"}
# Between 1601, which Windows counts from, and 1970, in seconds.
EPOCH = 11_644_473_600
# smbd denies an open during which another file got the name, from any file system: a viewer opens again.
AGAIN = 20
ATTRIBUTES = FileAttributes.FILE_ATTRIBUTE_ARCHIVE | FileAttributes.FILE_ATTRIBUTE_NOT_CONTENT_INDEXED


def connect():
    return smbclient.register_session(SERVER, username="root", password=PASSWORD, port=PORT, encrypt=True)


def path(name):
    return f"\\\\{SERVER}\\runs\\" + name.replace("/", "\\")


class Service:
    def __init__(self):
        self.session = connect()
        self.file = None

    def open(self, call, _):
        self.file = smbclient.open_file(path(call["path"]), mode=MODES[call["how"]], buffering=0,
                                        share_access="rwd", port=PORT)
        return {"size": self.file.fd.end_of_file}

    def resize(self, call, _):
        self.file.truncate(call["size"])

    def read_from(self, call, _):
        self.file.seek(call["offset"])
        return self.file.readall()

    def write(self, call, data):
        self.file.seek(call["offset"])
        while data:
            data = data[self.file.write(data):]

    def stamp(self, call, _):
        """The source's time and attributes in one call, as CopyFileEx sets them."""
        info = FileBasicInformation()
        info["last_write_time"] = (call["seconds"] + EPOCH) * 10_000_000
        info["file_attributes"] = ATTRIBUTES
        with SMBFileTransaction(self.file) as transaction:
            set_info(transaction, info)

    def close(self, _call, _):
        file, self.file = self.file, None
        file.close()

    def drop_link(self, _call, _):
        """The cable is pulled: nothing is closed, nobody logs off."""
        self.file = None
        self.session.connection.disconnect(close=False)
        self.session = connect()

    def make_dirs(self, call, _):
        smbclient.makedirs(path(call["path"]), exist_ok=True, port=PORT)

    def rename_over(self, call, _):
        smbclient.replace(path(call["path"]), path(call["to"]), port=PORT)

    def read(self, call, _):
        for _ in range(AGAIN):
            try:
                return self.read_once(call)
            except SMBOSError as error:
                if error.ntstatus != NtStatus.STATUS_ACCESS_DENIED:
                    raise
                time.sleep(0.05)
        return self.read_once(call)

    def read_once(self, call):
        with smbclient.open_file(path(call["path"]), mode="rb", buffering=0, share_access="rwd", port=PORT) as file:
            try:
                return file.readall()
            except EndOfFile:
                # It was made shorter meanwhile.
                return b""

    def answer(self, call, data):
        try:
            done = getattr(self, call["call"])(call, data)
        except (OSError, SMBException) as error:
            return {"error": getattr(error, "errno", None) or errno.EIO, "what": str(error)}, b""
        return ({}, done) if isinstance(done, bytes) else (done or {}, b"")


service = Service()
for line in sys.stdin.buffer:
    asked = json.loads(line)
    said, content = service.answer(asked, sys.stdin.buffer.read(asked.get("bytes", 0)))
    sys.stdout.buffer.write(json.dumps(said | {"bytes": len(content)}).encode() + b"\n" + content)
    sys.stdout.buffer.flush()
