"""The small system's mirror: PORT. It answers every line, and sends each quote (UDP) back."""

from __future__ import annotations

import signal
import socket
import sys
import threading


def _quotes(port: int) -> None:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.bind(("127.0.0.1", port))
    while True:
        quote, sender = link.recvfrom(1000)
        link.sendto(quote, sender)


def _lines(client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client, client.makefile("rb") as lines:
        try:
            for line in lines:
                client.sendall(line)
        except OSError:
            return


def _accept(listening: socket.socket) -> None:
    while True:
        client, _ = listening.accept()
        threading.Thread(target=_lines, args=(client,), daemon=True).start()


def main(port: int) -> None:
    """Serve until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_quotes, args=(port,), daemon=True).start()
    threading.Thread(target=_accept, args=(socket.create_server(("127.0.0.1", port)),), daemon=True).start()
    signal.sigwait([signal.SIGTERM])


if __name__ == "__main__":
    main(int(sys.argv[1]))
