"""Servers on loopback that keep whoever asks them waiting."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator


@contextlib.contextmanager
def dripping() -> Iterator[str]:
    """Serve bodies that come at 20 kB/s, for ever, from one thread for all of them; yield the URL."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
    is_over = threading.Event()
    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:

        def accept() -> None:
            while not is_over.is_set():
                with contextlib.suppress(OSError):
                    client, _ = listening.accept()
                    client.sendall(head)
                    client.setblocking(False)
                    clients.append(client)

        def drip() -> None:
            while not is_over.wait(0.05):
                for client in list(clients):
                    try:
                        client.send(b"x" * 1_000)
                    except BlockingIOError:
                        pass
                    except OSError:
                        clients.remove(client)
                        client.close()

        for each in (accept, drip):
            threading.Thread(target=each, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/drip.wav"
        is_over.set()
        for client in clients:
            client.close()


@contextlib.contextmanager
def unreachable() -> Iterator[str]:
    """Yield the address of a listener whose backlog is full: the system leaves whoever connects waiting."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, contextlib.ExitStack() as waiting:
        for _ in range(8):
            filling = waiting.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listening.getsockname())
        time.sleep(0.1)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Yield the address of a server that takes connections and says nothing: no handshake, no headers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
