"""The system under test of quickfix.toml: trades with QuickFIX, books each fill durably, once.

And survives kill -9.

Usage: quickfix_client.py FOLDER EXCHANGE_HOST EXCHANGE_PORT PORT [MODE]. On PORT it takes orders as lines `ID
SYMBOL SIDE PRICE QUANTITY` (side 1 buy, 2 sell; price in ticks, 0: at market) and answers `ID yes` once the
exchange has accepted, `ID no` when it will not. QuickFIX keeps sequence numbers in files and asks for what
it missed; a fill counts as taken only after it is on disk, so a crash in between brings it again, and its
ExecID tells that it is known.

MODE is how clients get it wrong: `reset` logs on with ResetOnLogon=Y, so that nobody asks for what was
missed; `forgetful` looks at no ExecID, and when it is told to stop it dies in the callback that has just
booked a fill, before QuickFIX has noted the delivery.
"""

# ruff: noqa: N802, ARG002, D102 - QuickFIX gives the names of its callbacks; the class says what they are

import json
import os
import signal
import socketserver
import sys
import threading
import time
from functools import partial
from pathlib import Path

import quickfix as fix

SETTINGS = """
[DEFAULT]
ConnectionType=initiator
FileStorePath={folder}/store
StartTime=00:00:00
EndTime=00:00:00
HeartBtInt=5
ReconnectInterval=1
UseDataDictionary=N
SocketNodelay=Y
[SESSION]
BeginString=FIX.4.4
SenderCompID=FIRM
TargetCompID=PAPEREX
SocketConnectHost={host}
SocketConnectPort={port}
ResetOnLogon={reset}
"""


class Fills:
    """The durable list. A line that a kill cut short is taken off: the exchange sends it again."""

    def __init__(self, path):
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        text = os.pread(self._file, 1 << 30, 0)
        whole = text[: text.rfind(b"\n") + 1]
        os.ftruncate(self._file, len(whole))
        os.lseek(self._file, 0, os.SEEK_END)
        self._known = {json.loads(line)["exec_id"] for line in whole.splitlines()}
        self.forgetful = self.die_next = False

    def book(self, fill):
        if self.forgetful or fill["exec_id"] not in self._known:
            os.write(self._file, json.dumps(fill).encode() + b"\n")
            os.fdatasync(self._file)
            self._known.add(fill["exec_id"])
            if self.die_next:
                os.kill(os.getpid(), signal.SIGKILL)


class Client(fix.Application):
    """QuickFIX calls these methods from its own thread."""

    def __init__(self, folder):
        super().__init__()
        self.session, self.logged_on = None, threading.Event()
        self._folder = folder
        self.fills, self._waiting = Fills(folder / "fills.jsonl"), {}

    def onCreate(self, session):
        self.session = session

    def onLogon(self, session):
        self.logged_on.set()
        self._tell("logged_on")

    def onLogout(self, session):
        self.logged_on.clear()
        self._tell("logged_out")

    def _tell(self, event):
        with (self._folder / "events.jsonl").open("a") as events:
            events.write(json.dumps({"mono_ns": time.monotonic_ns(), "event": event}) + "\n")

    def toAdmin(self, message, session):
        if message.getHeader().getField(35) == "A":
            self._tell("logging_on")

    def fromAdmin(self, message, session): ...

    def toApp(self, message, session):
        if message.getHeader().isSetField(43):
            raise fix.DoNotSend  # an old order must not be sent late: a gap fill takes its place

    def fromApp(self, message, session):
        if message.getHeader().getField(35) != "8":
            return
        kind, cl_ord_id = message.getField(150), message.getField(11)
        if kind == "F":
            fill = {"exec_id": message.getField(17), "cl_ord_id": cl_ord_id, "symbol": message.getField(55)}
            price = round(float(message.getField(31)) * 10_000)
            self.fills.book({**fill, "quantity": int(message.getField(32)), "price": price})
        elif answer := self._waiting.pop(cl_ord_id, None):
            answer("no" if kind == "8" else "yes")

    def send(self, cl_ord_id, wanted, answer):
        if not self.logged_on.is_set():
            answer("no")
            return
        self._waiting[cl_ord_id] = answer
        fix.Session.sendToTarget(order(cl_ord_id, *wanted), self.session)


def order(cl_ord_id, symbol, side, price, quantity):
    message, price = fix.Message(), int(price)
    message.getHeader().setField(8, "FIX.4.4")
    message.getHeader().setField(35, "D")
    moment = time.strftime("%Y%m%d-%H:%M:%S", time.gmtime())
    kind = {40: "2", 44: f"{price / 10_000:.2f}"} if price else {40: "1"}
    fields = {11: cl_ord_id, 1: "FIRM", 55: symbol, 54: side, 60: moment, 38: quantity, 59: "3", **kind}
    for tag, value in fields.items():
        message.setField(tag, value)
    return message


class OrderEntry(socketserver.StreamRequestHandler):
    """One connection of somebody who gives orders."""

    def handle(self):
        for line in self.rfile:
            name, *wanted = line.decode().split()
            cl_ord_id = f"{self.server.epoch}-{name}"
            self.server.client.send(cl_ord_id, wanted, lambda word, name=name: self.answer(name, word))

    def answer(self, name, word):
        try:  # noqa: SIM105 - the plain form
            self.wfile.write(f"{name} {word}\n".encode())
        except OSError:
            pass  # nobody waits for it any more


def main(folder, host, exchange_port, port, mode=""):
    folder.mkdir(exist_ok=True)
    epoch = len(list(folder.glob("life-*"))) + 1
    (folder / f"life-{epoch}").touch()
    reset = "Y" if mode == "reset" else "N"
    text = SETTINGS.format(folder=folder, host=host, port=exchange_port, reset=reset)
    (folder / "client.cfg").write_text(text)
    settings = fix.SessionSettings(str(folder / "client.cfg"))
    client, stop = Client(folder), threading.Event()
    initiator = fix.SocketInitiator(client, fix.FileStoreFactory(settings), settings)
    client.fills.forgetful = mode == "forgetful"
    how_to_stop = partial(setattr, client.fills, "die_next", True) if client.fills.forgetful else stop.set
    signal.signal(signal.SIGTERM, lambda *_: how_to_stop())
    initiator.start()
    client.logged_on.wait()
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), OrderEntry) as server:
        server.daemon_threads, server.client, server.epoch = True, client, epoch
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stop.wait()
        initiator.stop()  # logs out; what is still to come is sent again at the next logon
        server.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
