"""Phase forward: what goes through one `ssh -N -L`, how many connections a second, and how soon one stands.

The target is on the device (traffic.py), who connects is in the operator's namespace.
"""
import os, subprocess

TRAFFIC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "traffic.py")
TARGET, LOCAL = 7700, 7800  # three ports each
RTT = 100

ROWS = [("forward_down_MBps", "device to client, RTT 0, MB/s"), ("forward_up_MBps", "client to device, RTT 0, MB/s"),
        ("forward_rate_1_per_s", "connections/s, one after the other"), ("forward_rate_10_per_s", "connections/s, 10 at a time"),
        (f"forward_first_rtt{RTT}_ms", f"a connection's first byte, RTT {RTT} ms, ms")]


class Forward:
    """A target on the device and an `ssh -N -L` to it, while the block lasts."""
    def __init__(self, bench, peer):
        self.bench, self.peer, self.running = bench, peer, []

    def __enter__(self):
        quiet = dict(stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        target = self.peer.popen([TRAFFIC, "serve", str(TARGET)], role="target", stdout=subprocess.PIPE, **quiet)
        self.running.append(target)
        if target.stdout.readline() != b"listening\n":
            raise RuntimeError("the target does not listen")
        opts = ["-N", "-o", "ExitOnForwardFailure=yes"]
        for at in range(3):
            opts += ["-L", f"127.0.0.1:{LOCAL + at}:127.0.0.1:{TARGET + at}"]
        self.running.append(self.peer.ssh(opts=opts, stdout=subprocess.DEVNULL, **quiet))
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            self.bench.stop(process)

    def run(self, what, at, *numbers, limit=90):
        """Seconds, as traffic.py prints them."""
        argv = [TRAFFIC, what, str(LOCAL + at), *map(str, numbers)]
        q = self.peer.popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = q.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{what}: not done after {limit} s")
        finally:
            self.bench.stop(q)
        if q.returncode:
            raise RuntimeError(f"{what}: {err.strip().splitlines()[-1:]}")
        return [float(x) for x in out.split()]


def measure(bench, a):
    def near(p, field):
        with Forward(bench, p) as f:
            f.run("first", 0, 1)
            for metric, what, at, numbers, amount, unit in (
                    ("forward_down_MBps", "down", 1, [a.forward_bulk], a.forward_bulk / 1e6, "MB/s"),
                    ("forward_up_MBps", "up", 2, [a.forward_bulk], a.forward_bulk / 1e6, "MB/s"),
                    ("forward_rate_1_per_s", "rate", 0, [a.forward_connections, 1], a.forward_connections, "connections/s"),
                    ("forward_rate_10_per_s", "rate", 0, [a.forward_connections, 10], a.forward_connections, "connections/s")):
                try:
                    with bench.Noise() as n:
                        seconds = f.run(what, at, *numbers)[0]
                    field.add(p.driver, metric, amount / seconds, unit, n.share)
                except RuntimeError as error:
                    bench.log(f"  {p.driver} {error}")
                    field.add(p.driver, metric, None, unit)

    def far(p, field):
        with Forward(bench, p) as f:
            f.run("first", 0, 1)
            with bench.Noise() as n:
                seconds = f.run("first", 0, 5)
            for value in seconds:
                field.add(p.driver, f"forward_first_rtt{RTT}_ms", value * 1000, "ms", n.share)

    for topo, what, reps in (([], near, a.reps), (["--rtt", RTT], far, min(a.reps, 2))):
        peers = bench.up_all(a, topo, bench.alone(a))
        bench.interleave(a, peers, reps, what).store(a.res)
        for p in peers:
            p.down()
