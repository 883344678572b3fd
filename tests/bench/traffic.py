#!/usr/bin/env python3
"""What passes through a forward: a target on the device, and who connects to it.

    traffic.py serve PORT             on PORT a byte to each who connects, on PORT+1 as many as are asked for,
                                      on PORT+2 all that is announced, and then a byte; prints a line when it listens
    traffic.py down PORT BYTES        seconds from the connection to the last byte
    traffic.py up PORT BYTES          seconds from the connection to the word that the last byte is there
    traffic.py rate PORT COUNT WIDTH  seconds for so many connections, WIDTH at a time
    traffic.py first PORT COUNT       seconds from each connection, one after the other, to its first byte

Each waits until something listens on PORT. Standard library only.
"""
import concurrent.futures as cf, socket, struct, sys, threading, time

HERE, PIECE = "127.0.0.1", 256 << 10
LENGTH = struct.Struct("!Q")


def exactly(s, count):
    data = b""
    while len(data) < count:
        more = s.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def drain(s, count):
    """Reads so many bytes, and keeps none."""
    room = memoryview(bytearray(PIECE))
    while count:
        got = s.recv_into(room[:min(PIECE, count)])
        if not got:
            raise EOFError(f"{count} bytes are missing")
        count -= got


def flood(s, count):
    zeros = memoryview(bytes(PIECE))
    while count:
        count -= s.send(zeros[:min(PIECE, count)])


def greet(s):
    s.sendall(b"!")


def source(s):
    flood(s, LENGTH.unpack(exactly(s, LENGTH.size))[0])


def sink(s):
    drain(s, LENGTH.unpack(exactly(s, LENGTH.size))[0])
    s.sendall(b"!")


def serve(port):
    def accept(listener, handle, aside):
        def one(s):
            with s:
                try:
                    handle(s)
                except OSError as error:
                    print(error, file=sys.stderr)
        while True:
            s = listener.accept()[0]
            threading.Thread(target=one, args=(s,), daemon=True).start() if aside else one(s)
    # A byte is not worth a thread: it would be measured as well.
    for at, (handle, aside) in enumerate(((greet, False), (source, True), (sink, True))):
        listener = socket.create_server((HERE, port + at), backlog=512)
        threading.Thread(target=accept, args=(listener, handle, aside), daemon=True).start()
    print("listening", flush=True)
    threading.Event().wait()


def connect(port):
    return socket.create_connection((HERE, port), timeout=60)


def wait_for(port):
    end = time.monotonic() + 30
    while True:
        try:
            return connect(port).close()
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def touch(port):
    """One connection, to its end. Gives the seconds to its first byte."""
    t = time.monotonic()
    with connect(port) as s:
        if s.recv(1) != b"!":
            raise EOFError("no byte came")
        first = time.monotonic() - t
        if s.recv(1):
            raise EOFError("it goes on")
    return first


def main(what, port, *numbers):
    port, numbers = int(port), [int(n) for n in numbers]
    if what == "serve":
        return serve(port)
    wait_for(port)
    t = time.monotonic()
    if what == "down":
        with connect(port) as s:
            s.sendall(LENGTH.pack(numbers[0]))
            drain(s, numbers[0])
    elif what == "up":
        with connect(port) as s:
            s.sendall(LENGTH.pack(numbers[0]))
            flood(s, numbers[0])
            exactly(s, 1)
    elif what == "rate":
        with cf.ThreadPoolExecutor(numbers[1]) as threads:
            list(threads.map(touch, [port] * numbers[0]))
    elif what == "first":
        return print(*[touch(port) for _ in range(numbers[0])])
    else:
        sys.exit(__doc__)
    print(time.monotonic() - t)


if __name__ == "__main__":
    main(*sys.argv[1:])
