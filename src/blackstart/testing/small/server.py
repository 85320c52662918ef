"""The small system's server: PORT FOLDER MIRROR_PORT [LATE_S]. It keeps lines, synced before it says `yes`.

`read` answers all of them as one JSON list, `status` what it knows of itself. Its state: `state/lines`, the
journal; `state/beats`, which it writes and syncs all the time; `state/limits`, written once. Its rows lie in
`memory`, a mapped file. What it cannot write it answers with `no`. It starts late where that is asked for.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import struct
import sys
import threading
import time
import zlib

ROW = struct.Struct("<QI")  # a value, and its checksum
COUNT, LIMIT = 0, 1
LIMITS = "".join(f"limit {number} is {number * 100}\n" for number in range(20)).encode()
_PAUSE_S = 0.005
_BEATS = 4096


class Rows:
    """Checksummed rows in shared memory. A row that fails its check is healed from what is known."""

    def __init__(self, path: str) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(handle, 2 * ROW.size)
        self._memory = mmap.mmap(handle, 2 * ROW.size)
        os.close(handle)
        self.healed = 0
        self.put(LIMIT, 1000)

    def put(self, row: int, value: int) -> None:
        """Write a row."""
        ROW.pack_into(self._memory, row * ROW.size, value, zlib.crc32(value.to_bytes(8, "little")))

    def check(self, row: int, value: int) -> None:
        """See that a row still holds the value, and heal it if it does not."""
        found, checksum = ROW.unpack_from(self._memory, row * ROW.size)
        if found != value or checksum != zlib.crc32(value.to_bytes(8, "little")):
            self.healed += 1
            self.put(row, value)


class Journal:
    """Lines in a file. One that was cut short is taken off at the start; one that fails leaves no trace."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        text = os.pread(self._file, 1 << 30, 0)
        self._size = text.rfind(b"\n") + 1
        os.ftruncate(self._file, self._size)
        self.count = text.count(b"\n")
        self._turn = threading.Lock()

    def append(self, line: bytes) -> None:
        """Write a line, and wait until the disk has it. Raises OSError."""
        with self._turn:
            try:
                self._write(line)
                os.fdatasync(self._file)
            except OSError:
                os.ftruncate(self._file, self._size)
                raise
            self._size += len(line)
            self.count += 1

    def _write(self, line: bytes) -> None:
        if os.pwrite(self._file, line, self._size) < len(line):
            raise OSError("a short write")

    def read(self) -> list[bytes]:
        """Return all lines."""
        return os.pread(self._file, self._size, 0).splitlines()


class Server:
    """Everything together; each task has a thread."""

    def __init__(self, port: int, folder: str, mirror: int) -> None:
        state = f"{folder}/state"
        os.makedirs(state, exist_ok=True)  # noqa: PTH103 - pathlib would double the start time
        self.journal = Journal(f"{state}/lines")
        self.rows = Rows(f"{folder}/memory")
        self.rows.put(COUNT, self.journal.count)
        self.limits_healed = _limits(f"{state}/limits")
        self._beats = os.open(f"{state}/beats", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.beats = self.failed = self.mirrored = self.echoed = 0
        self._mirror = mirror
        self._listening = socket.create_server(("127.0.0.1", port))

    def run(self) -> None:
        """Serve until SIGTERM."""
        for task in (self._beat, self._quote, self._tell, self._watch, self._accept):
            threading.Thread(target=task, daemon=True).start()
        signal.sigwait([signal.SIGTERM])

    def _beat(self) -> None:
        while True:
            try:
                os.pwrite(self._beats, b"%08d\n" % self.beats, 9 * self.beats % _BEATS)
                os.fdatasync(self._beats)
                self.beats += 1
            except OSError:
                self.failed += 1
            time.sleep(_PAUSE_S)

    def _quote(self) -> None:
        """Send a quote to the mirror again and again, and count those that come back."""
        self._quotes = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        number = 0
        while True:
            number += 1
            try:
                self._quotes.sendto(b"quote %8d" % number, ("127.0.0.1", self._mirror))
                while self._quotes.recv(100, socket.MSG_DONTWAIT):
                    self.echoed += 1
            except OSError:  # nothing there yet, or nobody at the other end
                time.sleep(_PAUSE_S)

    def _tell(self) -> None:
        """Tell the mirror of everything, again and again, each time on a connection that lives."""
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self._mirror), timeout=1.0) as line:
                    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    line.sendall(self._words())
                    while line.recv(1000):
                        self.mirrored += 1
                        time.sleep(_PAUSE_S)
                        line.sendall(self._words())
            except OSError:
                time.sleep(_PAUSE_S)

    def _words(self) -> bytes:
        return b"%8d lines\n" % self.journal.count

    def _watch(self) -> None:
        """See to the rows in between."""
        while True:
            self.rows.check(COUNT, self.journal.count)
            time.sleep(_PAUSE_S)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()
            except (RuntimeError, OSError):  # no memory for it: this client has to come again
                client = None
                time.sleep(_PAUSE_S)

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, client.makefile("rb") as lines:
            for line in lines:
                try:
                    client.sendall(self._answer(line))
                except OSError:
                    return

    def _answer(self, line: bytes) -> bytes:
        if line == b"read\n":
            return b"[" + b",".join(self.journal.read()) + b"]\n"
        if line == b"status\n":
            return json.dumps(self._status()).encode() + b"\n"
        try:
            self.journal.append(line)
        except OSError as error:
            return f"no: {error}\n".encode()
        self.rows.put(COUNT, self.journal.count)
        return b"yes\n"

    def _status(self) -> dict[str, int]:
        counts = {"beats": self.beats, "failed": self.failed}
        heard = {"mirrored": self.mirrored, "echoed": self.echoed}
        healed = {"rows_healed": self.rows.healed, "limits_healed": self.limits_healed}
        return {"wall_ns": time.time_ns(), **counts, **heard, **healed}


def _limits(path: str) -> int:
    """Write the limits where they are not what they should be; returns whether they were damaged."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - see above
            found = file.read()
    except FileNotFoundError:
        found = b""
    if found == LIMITS:
        return 0
    with open(f"{path}.new", "wb") as file:  # noqa: PTH123 - see above
        file.write(LIMITS)
    os.replace(f"{path}.new", path)  # noqa: PTH105 - see above
    return int(bool(found))


def _ended(what: threading.ExceptHookArgs) -> None:
    """End as a whole when a thread does: half a server would hang."""
    threading.__excepthook__(what)
    os._exit(1)


if __name__ == "__main__":
    threading.excepthook = _ended
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    time.sleep(float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)  # noqa: PLR2004 - the optional one
    Server(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])).run()
