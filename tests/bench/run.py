#!/usr/bin/env python3
"""Benchmark of reverse-tunnel systems: operator -> relay -> (NAT) device.

    run.py [--quick] [--drivers a,b] [--phases p,q] [--reps N] [--out results/peers.json]
    run.py --render results/peers.json          only writes the markdown table again

Each driver (drivers/NAME.sh) gets its own copy of the topology (own namespaces, by prefix).
CPU-bound metrics are taken one at a time, with the drivers interleaved repetition by
repetition; metrics that only wait (idle traffic, recovery) run side by side.
Results are merged into --out, so phases and drivers can be run separately.
Needs: root, bash, iproute2, nftables, conntrack, cgroup v2, OpenSSH, python3 (stdlib only).
"""
import argparse, concurrent.futures as cf, ctypes, fcntl, json, os, platform, re, signal
import statistics, subprocess, sys, tempfile, threading, time

sys.dont_write_bytecode = True  # nothing is left beside the sources
import device, files, forward

HERE = os.path.dirname(os.path.abspath(__file__))
PHASES = ["connect", "throughput", "lossy", "echo", "echonet", "sessions", "forward", "files", "footprint", "idle", "device",
          "recovery"]
DRIVERS = ["openssh", "openssh-mux", "rathole", "dropbear", "holdfast", "holdfast-jump", "before", "before-jump"]
ROLES = ["relay", "tunnel", "devsshd", "target", "client", "link"]
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
now = time.monotonic
STOP = threading.Event()  # set by SIGTERM and Ctrl-C: the side-by-side phases then end at once


def log(*a):
    print(time.strftime("%H:%M:%S"), *a, file=sys.stderr, flush=True)


def cg_root():
    for d in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if os.path.exists(d + "/cgroup.procs") and os.path.exists(d + "/cgroup.controllers"):
            return d
    sys.exit("no cgroup v2")


CG = cg_root()


class Peer:
    """One driver on its own copy of the topology."""
    live = []

    def __init__(self, driver, prefix, topo=()):
        self.driver, self.prefix, self.topo_args = driver, prefix, [str(x) for x in topo]
        self.env = dict(os.environ, BENCH_PREFIX=prefix)

    def topo(self, *args):
        return self._sh(os.path.join(HERE, "topology.sh"), *args)

    def drv(self, *args):
        return self._sh(os.path.join(HERE, "drivers", self.driver + ".sh"), *args)

    def _sh(self, *argv):
        r = subprocess.run(argv, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180)
        if r.returncode:
            raise RuntimeError(f"{self.driver}: {' '.join(argv[-3:])}: {r.stderr.strip()[-400:]}")
        return r.stdout

    def up(self):
        Peer.live.append(self)
        self.topo("up", *self.topo_args)
        self.drv("up")
        self.cmd = self.drv("cmd").splitlines()
        for role in ("client", "target"):
            os.makedirs(f"{CG}/{self.prefix}-{role}", exist_ok=True)
        return self

    def down(self):
        for f in (lambda: self.drv("down"), lambda: self.topo("down")):
            try:
                f()
            except Exception as e:  # keep cleaning
                log("down:", e)
        if self in Peer.live:
            Peer.live.remove(self)

    def popen(self, argv, role="client", **kw):
        """Starts argv in the client's namespace and cgroup; or, as `target`, in the device's and one of its own."""
        namespace = {"client": "client", "target": "dev"}[role]
        fd = os.open(f"/run/netns/{self.prefix}-{namespace}", os.O_RDONLY)
        procs = f"{CG}/{self.prefix}-{role}/cgroup.procs"

        def enter():
            libc.setns(fd, CLONE_NEWNET)
            w = os.open(procs, os.O_WRONLY)
            os.write(w, b"0")
            os.close(w)
        try:
            return subprocess.Popen(argv, preexec_fn=enter, start_new_session=True, **kw)
        finally:
            os.close(fd)

    def ssh(self, *remote, opts=(), **kw):
        """`ssh [opts] device remote...`; the driver's cmd is ssh + its options + host."""
        return self.popen([self.cmd[0], *opts, *self.cmd[1:], *remote], **kw)

    def copier(self, program, *opts):
        """`sftp` or `scp` with the options of the driver's ssh, and the host's name."""
        return [program, *opts, *self.cmd[1:-1]], self.cmd[-1]

    def cpu(self, role):
        try:
            with open(f"{CG}/{self.prefix}-{role}/cpu.stat") as f:
                return int(f.readline().split()[1]) / 1e6
        except FileNotFoundError:
            return 0.0

    def pids(self, role):
        return [int(x) for x in self.drv("pids", role).split()]


def stop(p):
    """Ends a process that we started, with its session (e.g. the ssh -W of a ProxyJump)."""
    try:
        os.killpg(p.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    for f in (p.stdin, p.stdout):
        try:
            f and f.close()
        except OSError:
            pass
    p.wait()


# ---------------------------------------------------------------- machine noise
def busy_ticks():
    v = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
    return (sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK")


class Noise:
    """Share of the machine that other processes used during a measurement (0..1)."""
    def __enter__(self):
        self.t, self.b, self.o = now(), busy_ticks(), self.own()
        return self

    def own(self):
        t = os.times()
        return sum(p.cpu(r) for p in Peer.live for r in ROLES) + sum(t[:4])

    def __exit__(self, *a):
        wall = max(now() - self.t, 0.05)
        # children's time shows up twice for waited-for children in our cgroups: take the difference as a floor
        self.share = max(0.0, min(1.0, (busy_ticks() - self.b - (self.own() - self.o)) / wall / os.cpu_count()))


def wait_quiet(limit=15):
    """Waits until others use < 20 % of the machine (or gives up: the noise is recorded anyway)."""
    end = now() + limit
    while now() < end:
        with Noise() as n:
            time.sleep(0.3)
        if n.share < 0.2:
            return


# ---------------------------------------------------------------- results
class Results:
    """What this run measured; save() merges it into the file (several runs may share one)."""
    def __init__(self, path):
        self.path, self.lock = path, threading.Lock()
        self.meta, self.info, self.problems, self.metrics = {}, {}, {}, {}

    def set(self, driver, metric, values, unit, noise=None, **extra):
        vals = [v for v in values if v is not None]
        e = {"unit": unit, "n": len(vals), "failed": len(values) - len(vals)}
        if vals:
            e.update(median=round(statistics.median(vals), 4), min=round(min(vals), 4), max=round(max(vals), 4),
                     values=[round(v, 4) for v in vals])
        if noise:
            e["other_cpu_median"] = round(statistics.median(noise), 2)
            e["other_cpu_max"] = round(max(noise), 2)
        e.update(extra)
        with self.lock:
            self.metrics.setdefault(driver, {})[metric] = e
        log(f"  {driver:12} {metric:28} {e.get('median', 'FAILED')} {unit} [{e.get('min', '')}..{e.get('max', '')}]"
            + (f" failed {e['failed']}" if e["failed"] else "") + (f" other-cpu {e['other_cpu_median']}" if noise else ""))

    def save(self):
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        with self.lock, open(self.path, "a+") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            f.seek(0)
            try:
                d = json.load(f)
            except ValueError:
                d = {"meta": {}, "drivers": {}}
            d["meta"].update(self.meta)
            for n in {*self.info, *self.problems, *self.metrics}:
                e = d["drivers"].setdefault(n, {"metrics": {}})
                if n in self.info:
                    e["info"] = self.info[n]
                if n in self.problems:
                    e["problems"] = self.problems[n]
                e["metrics"].update(self.metrics.get(n, {}))
            f.seek(0)
            f.truncate()
            json.dump(d, f, indent=1)
            f.flush()
            write_md(self.path, d)


def write_md(path, d):
    with open(os.path.splitext(path)[0] + ".md", "w") as f:
        f.write(render(d))


def pct(vals, p):
    s = sorted(vals)
    return s[min(len(s) - 1, int(round(p / 100 * (len(s) - 1))))]


class Field(dict):
    """Collects repetition values per (driver, metric) and stores them at the end of a phase."""
    def add(self, driver, metric, value, unit, noise=None):
        e = self.setdefault((driver, metric), {"v": [], "u": unit, "n": []})
        e["v"].append(value)
        if noise is not None:
            e["n"].append(noise)

    def store(self, res):
        for (d, m), e in self.items():
            res.set(d, m, e["v"], e["u"], e["n"])


def up_all(a, topo=(), drivers=None):
    """All drivers up on the same kind of network; those that fail are reported and left out."""
    peers = []
    for i, d in enumerate(a.drivers if drivers is None else drivers):
        p = Peer(d, f"{a.prefix}{i}", topo)
        try:
            peers.append(p.up())
        except Exception as e:
            log("NOT UP:", e)
            a.res.problems.setdefault(d, []).append(str(e)[:300])
            p.down()
    return peers


def interleave(a, peers, reps, measure):
    """measure(peer, field) for each repetition and driver in turn; returns the field."""
    f = Field()
    for rep in range(reps):
        for p in (peers if rep % 2 == 0 else peers[::-1]):
            wait_quiet(a.quiet)
            try:
                measure(p, f)
            except Exception as e:
                log(f"  {p.driver}: {type(e).__name__}: {e}")
    return f


# ---------------------------------------------------------------- a. connect
def one_exec(p, opts=(), limit=30):
    t = now()
    q = p.ssh("true", opts=opts, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        rc = q.wait(limit)
    except subprocess.TimeoutExpired:
        rc = -1
        stop(q)
    return now() - t if rc == 0 else None


def phase_connect(a):
    base = {}
    for rtt in (0, 50, 200):
        peers = up_all(a, ["--rtt", rtt])
        for p in peers:  # warm up: page cache, mux master
            one_exec(p)

        def m(p, f):
            with Noise() as n:
                t = one_exec(p)
            f.add(p.driver, f"connect_rtt{rtt}_ms", t and t * 1000, "ms", n.share)
        f = interleave(a, peers, a.reps_connect, m)
        f.store(a.res)
        for p in peers:
            v = [x for x in f.get((p.driver, f"connect_rtt{rtt}_ms"), {"v": []})["v"] if x]
            if not v:
                continue
            if rtt == 0:
                base[p.driver] = statistics.median(v)
            else:
                a.res.set(p.driver, f"connect_roundtrips_rtt{rtt}", [(statistics.median(v) - base.get(p.driver, 0)) / rtt],
                          "total RTTs", note="(time at this RTT - time at RTT 0) / RTT")
        for p in peers:
            p.down()


# ---------------------------------------------------------------- b. throughput
def transfer(p, direction, size, limit):
    """Moves `size` bytes after the session is up; returns (seconds, cpu seconds by role)."""
    if direction == "down":  # device -> client
        q = p.ssh(f"head -c {size} /dev/zero", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    else:
        q = p.ssh("echo R; cat >/dev/null; echo D", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    killer = threading.Timer(limit, lambda: stop(q))
    killer.start()
    try:
        first = os.read(q.stdout.fileno(), 1)  # the session works from here on
        c0, t0 = {r: p.cpu(r) for r in ROLES}, now()
        if direction == "down":
            sink = subprocess.Popen(["wc", "-c"], stdin=q.stdout, stdout=subprocess.PIPE)
            moved = int(sink.communicate()[0]) + len(first)
        else:
            os.read(q.stdout.fileno(), 1)  # the newline after R
            src = subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=q.stdin)
            q.stdin.close()
            done = os.read(q.stdout.fileno(), 1)
            src.wait()
            moved = size if done == b"D" else 0
        t = now() - t0
        q.wait()
        cpu = {r: p.cpu(r) - c0[r] for r in ROLES}
    finally:
        killer.cancel()
        stop(q)
    if moved < size:
        raise RuntimeError(f"moved {moved} of {size}")
    return t, cpu


def throughput(a, peers, full, tag, reps, limit, with_cpu):
    def m(p, f):
        for d in ("down", "up"):
            try:
                size = full
                if with_cpu:  # a slow system moves less, about 4 s worth
                    probe, _ = transfer(p, d, full // 16, limit)
                    size = max(full // 16, min(full, int(full / 16 / probe * 4)))
                with Noise() as n:
                    t, cpu = transfer(p, d, size, limit)
            except Exception as e:
                log(f"  {p.driver} {tag} {d}: {e}")
                f.add(p.driver, f"{tag}_{d}_MBps", None, "MB/s")
                continue
            f.add(p.driver, f"{tag}_{d}_MBps", size / t / 1e6, "MB/s", n.share)
            if with_cpu:
                for r, name in (("relay", "relay"), ("tunnel", "device_tunnel"), ("devsshd", "device_sshd"), ("client", "client")):
                    f.add(p.driver, f"cpu_{name}_{d}_s_per_GB", cpu[r] / size * 1e9, "CPU s/GB", n.share)
    f = interleave(a, peers, reps, m)
    f.store(a.res)


def phase_throughput(a):
    peers = up_all(a)
    throughput(a, peers, a.bulk, "tput_rtt0", a.reps, 120, True)
    for p in peers:
        p.down()


def phase_lossy(a):
    for cc, tag in (("cubic", "tput_rtt80_loss1"), ("bbr", "tput_rtt80_loss1_bbr")):
        if cc not in a.cc:
            continue
        peers = up_all(a, ["--rtt", 80, "--loss", 1, "--cc", cc])
        throughput(a, peers, a.bulk_lossy, tag, a.reps, 90, False)
        for p in peers:
            p.down()


# ---------------------------------------------------------------- c. keystroke echo
class Typist:
    """A PTY session running cat; types bytes and times their echoes (first in, first out)."""
    def __init__(self, p, opts=()):
        self.q = p.ssh("stty raw -echo; echo READY; exec cat", opts=("-tt", *opts),
                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.sent, self.got, self.eof = [], [], None
        buf = b""
        guard = threading.Timer(30, lambda: stop(self.q))
        guard.start()
        while b"READY" not in buf:
            c = os.read(self.q.stdout.fileno(), 4096)
            if not c:
                raise RuntimeError("typing session did not start")
            buf += c
        guard.cancel()
        time.sleep(0.3)
        os.set_blocking(self.q.stdout.fileno(), False)
        while True:  # the rest of READY's line
            try:
                if not os.read(self.q.stdout.fileno(), 4096):
                    break
            except BlockingIOError:
                break
        os.set_blocking(self.q.stdout.fileno(), True)
        self.th = threading.Thread(target=self._read, daemon=True)
        self.th.start()

    def _read(self):
        fd = self.q.stdout.fileno()
        while True:
            try:
                c = os.read(fd, 4096)
            except OSError:
                c = b""
            t = now()
            if not c:
                self.eof = t
                return
            self.got.extend([t] * len(c))

    def key(self):
        self.sent.append(now())
        try:
            os.write(self.q.stdin.fileno(), b"x")
        except OSError:
            self.eof = self.eof or now()

    def type(self, n, period=0.05):
        t = now()
        for i in range(n):
            self.key()
            t += period
            time.sleep(max(0, t - now()))
        end = now() + 10
        while len(self.got) < len(self.sent) and now() < end and self.eof is None:
            time.sleep(0.02)
        return [(g - s) * 1000 for s, g in zip(self.sent, self.got)]

    def close(self):
        stop(self.q)


def echo(a, peers, tag, keys, bulk=None, reps=None):
    """bulk: None, or the remote command whose output floods device -> client meanwhile."""
    def m(p, f):
        ty = Typist(p)
        b = sink = None
        try:
            if bulk:
                b = p.ssh(bulk, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                sink = subprocess.Popen(["cat"], stdin=b.stdout, stdout=subprocess.DEVNULL)
                time.sleep(2.5)
            with Noise() as n:
                v = ty.type(keys)
        finally:
            ty.close()
            if b:
                stop(b)
                sink.wait()
        if len(v) < keys:
            log(f"  {p.driver} {tag}: only {len(v)} of {keys} echoes")
        for q in (50, 95, 99):
            f.add(p.driver, f"echo_{tag}_p{q}_ms", pct(v, q) if v else None, "ms", n.share)
    interleave(a, peers, reps or a.reps, m).store(a.res)


def phase_echo(a):
    peers = up_all(a)
    echo(a, peers, "rtt0_idle", a.keys)
    echo(a, peers, "rtt0_bulk", a.keys, bulk="cat /dev/zero")
    for p in peers:
        p.down()


def phase_echonet(a):
    """Echo where the network, not the CPU, is the limit (may run beside phase lossy)."""
    peers = up_all(a, ["--rtt", 40, "--rate", 20])
    echo(a, peers, "rtt40_20mbit_bulk", a.keys, bulk="cat /dev/zero")
    for p in peers:
        p.down()
    peers = up_all(a, ["--rtt", 80, "--loss", 2])
    echo(a, peers, "rtt80_loss2", a.keys * 2)
    for p in peers:
        p.down()


# ---------------------------------------------------------------- g. sessions
def phase_sessions(a):
    peers = up_all(a)
    total, width = a.sessions, 10

    def burst(p, opts):
        with cf.ThreadPoolExecutor(width) as ex:
            t = now()
            r = list(ex.map(lambda _: one_exec(p, opts), range(total)))
            return now() - t, sum(x is None for x in r)

    def m(p, f):
        with Noise() as n:
            t, bad = burst(p, ())
        f.add(p.driver, "sessions_per_s", (total - bad) / t if bad < total else None, "sessions/s", n.share)
        f.add(p.driver, "sessions_failed", bad, "of %d" % total)
        if p.driver.endswith("-mux"):
            return
        # the same, multiplexed over one connection
        path = os.path.join(tempfile.gettempdir(), f"rtb-{p.prefix}-%C")
        opts = ("-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={path}")
        one_exec(p, opts)
        with Noise() as n:
            t, bad = burst(p, opts)
        f.add(p.driver, "sessions_mux_per_s", (total - bad) / t if bad < total else None, "sessions/s", n.share)
        f.add(p.driver, "sessions_mux_failed", bad, "of %d" % total)
        q = p.ssh(opts=("-O", "exit", "-o", f"ControlPath={path}"), stdin=subprocess.DEVNULL,
                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        q.wait(10)
    interleave(a, peers, a.reps, m).store(a.res)
    for p in peers:
        p.down()


# ---------------------------------------------------------------- h. forward, i. files
def alone(a):
    """Drivers without ControlMaster, whose set-up would be left out; and dropbear serves no files."""
    return [d for d in a.drivers if not d.endswith("-mux") and d != "dropbear"]


def phase_forward(a):
    forward.measure(sys.modules[__name__], a)


def phase_files(a):
    files.measure(sys.modules[__name__], a)


# ---------------------------------------------------------------- d. footprint
def mem(pids):
    """Sum over processes, in KiB: RSS, PSS, private."""
    rss = pss = priv = 0
    for pid in pids:
        try:
            for line in open(f"/proc/{pid}/smaps_rollup"):
                k, _, v = line.partition(":")
                if k == "Rss":
                    rss += int(v.split()[0])
                elif k == "Pss":
                    pss += int(v.split()[0])
                elif k in ("Private_Clean", "Private_Dirty"):
                    priv += int(v.split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return rss, pss, priv


def slope(xs, ys):
    mx, my = statistics.mean(xs), statistics.mean(ys)
    return sum((x - mx) * (y - my) for x, y in zip(xs, ys)) / sum((x - mx) ** 2 for x in xs)


def binary_facts(path):
    with tempfile.TemporaryDirectory() as d:
        out = os.path.join(d, "b")
        stripped = os.path.getsize(out) if subprocess.run(["strip", "-o", out, path], capture_output=True).returncode == 0 else None
    ldd = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
    libs = [l for l in re.findall(r"(/\S+)\s+\(0x", ldd)]
    return {"file": os.path.basename(path), "bytes": os.path.getsize(path), "stripped": stripped,
            "libs": len(libs), "libs_bytes": sum(os.path.getsize(os.path.realpath(l)) for l in libs),
            "lib_names": [os.path.basename(l) for l in libs]}


def phase_footprint(a):
    for i, d in enumerate(a.drivers):
        if d.endswith("-mux"):
            continue  # the same processes as without
        p = Peer(d, f"{a.prefix}{i}")
        try:
            p.up()
            facts = [binary_facts(b) for b in p.drv("binaries").split()]
            a.res.set(d, "agent_binary_KiB", [sum(x["stripped"] or x["bytes"] for x in facts) / 1024], "KiB stripped",
                      files=facts, libs=sum(x["libs"] for x in facts))
            a.res.set(d, "agent_binary_libs_KiB", [sum(x["libs_bytes"] for x in facts) / 1024], "KiB of shared libraries")
            time.sleep(3)
            for role, name in (("tunnel", "device_tunnel"), ("devsshd", "device_sshd")):
                r, s, v = mem(p.pids(role))
                a.res.set(d, f"{name}_rss_KiB", [r], "KiB")
                a.res.set(d, f"{name}_pss_KiB", [s], "KiB")
                a.res.set(d, f"{name}_private_KiB", [v], "KiB")
            xs, ys, total = [0], [mem(p.pids("relay"))], 0
            a.res.set(d, "relay_base_pss_KiB", [ys[0][1]], "KiB")
            for n in a.tunnels:
                p.drv("down")
                p.drv("up")
                p.drv("tunnels", str(n))
                time.sleep(2)
                xs.append(n)
                ys.append(mem(p.pids("relay")))
            for k, name in ((0, "rss"), (1, "pss"), (2, "private")):
                a.res.set(d, f"relay_per_tunnel_{name}_KiB", [slope(xs, [y[k] for y in ys])], "KiB/tunnel",
                          at=dict(zip(map(str, xs), [y[k] for y in ys])))
        except Exception as e:
            log(f"  {d}: {e}")
        finally:
            p.down()


# ---------------------------------------------------------------- e. idle traffic
def phase_idle(a):
    peers = up_all(a)
    time.sleep(10)  # let the session that tested reachability go

    def one(p):
        c0, t0 = list(map(int, p.topo("counters").split())), now()
        if STOP.wait(a.idle_s):
            return
        c1, t = list(map(int, p.topo("counters").split())), now() - t0
        d = [y - x for x, y in zip(c0, c1)]
        megabytes, packets = per_day(c0, c1, t)
        a.res.set(p.driver, "idle_MB_per_day", [megabytes], "MB/day (IP bytes, both ways)",
                  packets=d[0] + d[2], bytes_up=d[1], bytes_down=d[3], seconds=round(t, 1))
        a.res.set(p.driver, "idle_packets_per_min", [packets], "packets/min")
    with cf.ThreadPoolExecutor(len(peers) or 1) as ex:
        list(ex.map(one, [p for p in peers if not p.driver.endswith("-mux")]))
    for p in peers:
        p.down()


# ---------------------------------------------------------------- h. the device's processes
SETTLE_S = 10   # until the session that tested reachability has gone, and the tunnel has found its MTU
SESSIONS = 8    # shells that stay open


def per_day(before, after, seconds):
    """IP bytes both ways, in MB a day, and packets a minute, from two readings of the NAT's counters."""
    packets, total = ((after[i] - before[i]) + (after[i + 2] - before[i + 2]) for i in (0, 1))
    return total / seconds * 86400 / 1e6, packets / seconds * 60


def phase_device(a):
    """One system at a time: what they share (libraries, the machine's own shells) would lower each other's PSS."""
    for i, d in enumerate(a.drivers):
        if d.endswith("-mux") or d.endswith("-jump"):
            continue  # the same processes as without
        if STOP.is_set():
            return
        p = Peer(d, f"{a.prefix}{i}")
        try:
            p.up()
            if not STOP.wait(SETTLE_S):
                device_idle(a, p)
                device_sessions(a, p)
        except Exception as e:
            log(f"  {d}: {type(e).__name__}: {e}")
            a.res.problems.setdefault(d, []).append(str(e)[:300])
        finally:
            p.down()


def device_cgroups(p):
    return [f"{CG}/{p.prefix}-{role}" for role in device.ROLES]


def device_idle(a, p):
    own = device.own(device.pids(device_cgroups(p)))
    with Noise() as noise:
        woken, cpu = device.switches(own), sum(p.cpu(r) for r in device.ROLES)
        count, t = list(map(int, p.topo("counters").split())), now()
        if STOP.wait(a.idle_s):
            return
        seconds = now() - t
        used = sum(p.cpu(r) for r in device.ROLES) - cpu
        woken = device.woken(woken, device.switches(device.own(device.pids(device_cgroups(p)))))
        megabytes, packets = per_day(count, list(map(int, p.topo("counters").split())), seconds)
    noise, seconds = [noise.share], round(seconds, 1)
    processes = device.pids(device_cgroups(p))
    kinds = {k: v for k, v in device.memory_by_kind(processes).items() if k != "shell"}
    a.res.set(p.driver, "dev_idle_pss_KiB", [sum(kinds.values())], "KiB", of=kinds)
    a.res.set(p.driver, "dev_idle_rss_KiB", [sum(device.memory(x)[0] for x in device.own(processes))], "KiB")
    a.res.set(p.driver, "dev_wakeups_per_min", [woken / seconds * 60], "a minute", noise, seconds=seconds)
    a.res.set(p.driver, "dev_idle_cpu_percent", [used / seconds * 100], "% of a core", noise, seconds=seconds)
    a.res.set(p.driver, "dev_idle_MB_per_day", [megabytes], "MB/day (IP bytes, both ways)", seconds=seconds)
    a.res.set(p.driver, "dev_idle_packets_per_min", [packets], "packets/min", seconds=seconds)


def device_sessions(a, p):
    """Shells in terminals, each over a connection of its own, that stay open."""
    before = device.memory_by_kind(device.pids(device_cgroups(p)))
    shells = []
    try:
        for _ in range(SESSIONS):
            q = p.ssh(opts=("-tt",), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            shells.append(q)
            q.stdin.write(b"echo at-'work'\n")
            q.stdin.flush()
            seen = b""
            while b"at-work" not in seen:
                got = os.read(q.stdout.fileno(), 4096)
                if not got:
                    raise RuntimeError("a session ended early")
                seen += got
        if STOP.wait(SETTLE_S):
            return
        after = device.memory_by_kind(device.pids(device_cgroups(p)))
    finally:
        for q in shells:
            stop(q)
    grown = {k: (v - before.get(k, 0)) / SESSIONS for k, v in after.items()}
    shell = grown.pop("shell", 0)
    a.res.set(p.driver, "dev_session_pss_KiB", [sum(grown.values())], "KiB a session", sessions=SESSIONS,
              of={k: round(v, 1) for k, v in grown.items()})
    a.res.set(p.driver, "dev_session_shell_pss_KiB", [shell], "KiB a session", sessions=SESSIONS)


# ---------------------------------------------------------------- f. recovery
SCENARIOS = {
    # name: (topology options, event)
    "rebind_rst": (["--midstream", "pass"], lambda p: p.topo("rebind", "ip")),
    "rebind_blackhole": (["--midstream", "drop"], lambda p: p.topo("rebind", "ip")),
    "relay_restart": ([], lambda p: p.drv("restart-relay")),
    "link_down_20s": ([], None),
}


def recover(a, d, scenario, prefix, limit):
    """Returns (seconds until reachable or None, seconds the live session stalled or None if it died)."""
    topo, event = SCENARIOS[scenario]
    p = Peer(d, prefix, topo)
    tries, ty = [], None
    try:
        p.up()
        ty = Typist(p)
        if len(ty.type(3)) < 3:
            raise RuntimeError("live session does not echo")
        base = len(ty.got)
        t0 = now()
        if scenario == "link_down_20s":
            p.topo("link", "down")
            while now() - t0 < 20:
                ty.key()
                time.sleep(1)
            base_up = now()
            p.topo("link", "up")
            t0 = base_up  # times count from the moment the link is back
        else:
            event(p)
        reach, next_try, next_key, give_up = None, now(), now(), now() + limit
        stall = None
        settle = None
        while now() < give_up:
            if STOP.is_set():
                raise RuntimeError("stopped")
            t = now()
            if t >= next_key and ty.eof is None:
                ty.key()
                next_key = t + 1
            if stall is None and len(ty.got) > base:
                stall = ty.got[base] - t0
            if reach is None:
                if t >= next_try and len(tries) < 12:
                    tries.append((t, p.ssh("true", opts=("-o", "ConnectTimeout=10"), stdin=subprocess.DEVNULL,
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)))
                    next_try = t + (1 if t - t0 < 30 else 2 if t - t0 < 60 else 5) if not a.sparse else t + a.sparse
                for at, q in tries[:]:
                    rc = q.poll()
                    if rc == 0:
                        reach, settle = now() - t0, now() + 8
                        break
                    if rc is not None or t - at > 12:
                        stop(q)
                        tries.remove((at, q))
            elif stall is not None or ty.eof or t > settle:
                break
            time.sleep(0.05)
        return reach, stall
    finally:
        for _, q in tries:
            stop(q)
        if ty:
            ty.close()
        p.down()


def phase_recovery(a):
    jobs, f, survived = [], Field(), {}
    for rep in range(a.reps_recovery):
        for s in a.scenarios.split(","):
            for d in a.drivers:
                if not d.endswith("-mux"):
                    jobs.append((d, s))

    def one(ij):
        i, (d, s) = ij
        if STOP.is_set():
            return
        try:
            reach, stall = recover(a, d, s, f"{a.prefix}r{i}", a.recover_limit)
        except Exception as e:
            log(f"  {d} {s}: {type(e).__name__}: {e}")
            return
        log(f"  {d} {s}: reachable after {reach and round(reach, 1)} s, live session "
            + (f"went on after {stall:.1f} s" if stall is not None else "died"))
        with a.res.lock:
            f.add(d, f"recover_{s}_sparse_s" if a.sparse else f"recover_{s}_s", reach, "s until reachable")
            survived.setdefault((d, s), []).append(stall)
    with cf.ThreadPoolExecutor(a.parallel) as ex:
        list(ex.map(one, enumerate(jobs)))
    f.store(a.res)
    for d, m in f:
        a.res.metrics[d][m]["limit"] = a.recover_limit
    for (d, s), v in survived.items():
        if a.sparse:
            continue
        a.res.set(d, f"session_survived_{s}", [1 if x is not None else 0 for x in v], "1 = yes",
                  stall_s=[x and round(x, 1) for x in v])


# ---------------------------------------------------------------- markdown
ROWS = [
    ("connect", [("connect_rtt0_ms", "RTT 0, ms"), ("connect_rtt50_ms", "RTT 50, ms"), ("connect_rtt200_ms", "RTT 200, ms"),
                 ("connect_roundtrips_rtt200", "round trips (of the whole path)")]),
    ("throughput", [("tput_rtt0_down_MBps", "device to client, RTT 0, MB/s"), ("tput_rtt0_up_MBps", "client to device, RTT 0, MB/s"),
                    ("tput_rtt80_loss1_down_MBps", "device to client, RTT 80 ms, 1 % loss, MB/s"),
                    ("tput_rtt80_loss1_up_MBps", "client to device, RTT 80 ms, 1 % loss, MB/s"),
                    ("tput_rtt80_loss1_bbr_down_MBps", "same with TCP BBR everywhere, device to client, MB/s"),
                    ("tput_rtt80_loss1_bbr_up_MBps", "same with TCP BBR everywhere, client to device, MB/s"),
                    ("cpu_relay_down_s_per_GB", "relay CPU, down, s/GB"), ("cpu_relay_up_s_per_GB", "relay CPU, up, s/GB"),
                    ("cpu_device_tunnel_down_s_per_GB", "device tunnel CPU, down, s/GB"),
                    ("cpu_device_tunnel_up_s_per_GB", "device tunnel CPU, up, s/GB"),
                    ("cpu_device_sshd_down_s_per_GB", "device SSH server CPU, down, s/GB"),
                    ("cpu_device_sshd_up_s_per_GB", "device SSH server CPU, up, s/GB"),
                    ("cpu_client_down_s_per_GB", "operator CPU, down, s/GB"), ("cpu_client_up_s_per_GB", "operator CPU, up, s/GB")]),
    ("keystroke echo", [(f"echo_{t}_p{q}_ms", f"{n}, p{q}, ms") for t, n in (
        ("rtt0_idle", "RTT 0, idle"), ("rtt0_bulk", "RTT 0, bulk in a 2nd session"),
        ("rtt40_20mbit_bulk", "RTT 40 ms, 20 Mbit/s, bulk in a 2nd session"),
        ("rtt80_loss2", "RTT 80 ms, 2 % loss")) for q in (50, 95, 99)]),
    ("sessions", [("sessions_per_s", "exec sessions/s, 10 at a time"), ("sessions_failed", "of which failed"),
                  ("sessions_mux_per_s", "the same over one connection"), ("sessions_mux_failed", "of which failed")]),
    ("`ssh -N -L`", forward.ROWS),
    ("files", files.ROWS),
    ("footprint", [("agent_binary_KiB", "device tunnel binary, stripped, KiB"), ("agent_binary_libs_KiB", "its shared libraries, KiB"),
                   ("device_tunnel_rss_KiB", "device tunnel RSS, KiB"), ("device_tunnel_pss_KiB", "device tunnel PSS, KiB"),
                   ("device_tunnel_private_KiB", "device tunnel private memory, KiB"),
                   ("device_sshd_pss_KiB", "device SSH server PSS, KiB"),
                   ("relay_base_pss_KiB", "relay PSS with one tunnel, KiB"),
                   ("relay_per_tunnel_pss_KiB", "relay PSS per idle tunnel, KiB"),
                   ("relay_per_tunnel_private_KiB", "relay private memory per idle tunnel, KiB")]),
    ("the device's processes: tunnel and SSH server", [
        ("dev_idle_pss_KiB", "PSS, idle with a tunnel up, KiB"), ("dev_idle_rss_KiB", "RSS, the same, KiB"),
        ("dev_session_pss_KiB", "PSS more for an open shell, without the shell, KiB"),
        ("dev_session_shell_pss_KiB", "the shell itself, KiB"),
        ("dev_wakeups_per_min", "wake-ups a minute, idle"), ("dev_idle_cpu_percent", "processor, idle, % of a core"),
        ("dev_idle_MB_per_day", "traffic, idle, MB a day"), ("dev_idle_packets_per_min", "packets a minute, idle")]),
    ("idle traffic", [("idle_MB_per_day", "MB/day"), ("idle_packets_per_min", "packets/min")]),
    ("recovery", [(f"{k}_{s}{u}", f"{n}: {t}") for s, n in (
        ("rebind_rst", "NAT rebinding, far end resets"), ("rebind_blackhole", "NAT rebinding, silent"),
        ("relay_restart", "relay killed and restarted"), ("link_down_20s", "device link down 20 s (from link up)"))
        for k, u, t in (("recover", "_s", "s until reachable"), ("recover", "_sparse_s", "the same, tried only every 20 s"), ("session_survived", "", "live session survived"))]),
]


def render(d):
    order = {n: i for i, n in enumerate(DRIVERS)}
    names = sorted((n for n in d["drivers"] if d["drivers"][n]["metrics"]), key=lambda n: order.get(n, 99))
    out = ["# Benchmark results", "", "Median [min..max] of the repetitions. Made by `bench/run.py`; all values are in the JSON file beside.",
           "`*`: in the median repetition other processes used more than 25 % of the machine.", ""]
    m = d["meta"]
    if m:
        out += ["Machine: " + ", ".join(f"{k} {v}" for k, v in m.items()), ""]
    for n in names:
        if d["drivers"][n].get("info"):
            out.append(f"- {d['drivers'][n]['info']}")
        for x in d["drivers"][n].get("problems", []):
            out.append(f"  - problem: {x}")
    out.append("")
    out += [f"Note: {x}\n" for x in d.get("notes", [])]  # added by hand

    def num(x):
        if 0 < abs(x) < 0.01:
            return f"{x:.2g}"
        return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}".rstrip("0").rstrip(".")

    def cell(n, k):
        e = d["drivers"][n]["metrics"].get(k)
        if not e:
            return "-"
        if "median" not in e:
            return f"> {e['limit']} (all {e['failed']})" if "limit" in e else "failed"
        if k.startswith("session_survived"):
            s = [x for x in e.get("stall_s", []) if x is not None]
            return f"{sum(e['values']):.0f} of {e['n']}" + (f" (stall {num(min(s))}..{num(max(s))} s)" if s else "")
        s = num(e["median"])
        if e["n"] > 1 and e["min"] != e["max"]:
            s += f" [{num(e['min'])}..{num(e['max'])}]"
        if e.get("failed"):
            s += f" ({e['failed']} failed)"
        return s + ("*" if e.get("other_cpu_median", 0) > 0.25 else "")
    out += ["| metric | " + " | ".join(names) + " |", "|" + " --- |" * (len(names) + 1)]
    for title, rows in ROWS:
        if not any(k in d["drivers"][n]["metrics"] for n in names for k, _ in rows):
            continue
        out.append(f"| **{title}** |" + " |" * len(names))
        for k, label in rows:
            if any(k in d["drivers"][n]["metrics"] for n in names):
                out.append(f"| {label} | " + " | ".join(cell(n, k) for n in names) + " |")
    return "\n".join(out + ratios(d, names) + since(d)) + "\n"


def ratios(d, names):
    """How much better than OpenSSH's chain: of the medians of one run, where there is an aim for that."""
    medians = {n: {k: e.get("median") for k, e in d["drivers"][n]["metrics"].items()} for n in names}
    base, out = medians.get("openssh", {}), []
    others = [n for n in names if n != "openssh"]
    for k, label in forward.ROWS + files.ROWS:
        if not base.get(k) or not any(medians[n].get(k) for n in others):
            continue
        more = is_more_better(d["drivers"]["openssh"]["metrics"][k]["unit"])
        cells = [f"{v / base[k] if more else base[k] / v:.2f}" if (v := medians[n].get(k)) else "-" for n in others]
        out.append(f"| {label} | " + " | ".join(cells) + " |")
    head = ["", "Beside OpenSSH's chain, ratios of the medians; over 1 is better. Aim: none below 1.0, small files over 100 ms clearly above.", "",
            "| metric | " + " | ".join(others) + " |", "|" + " --- |" * (len(others) + 1)]
    return head + out if out else []


def is_more_better(unit):
    return unit.endswith("/s")


def since(d):
    """Today's programs beside those of the earlier commit: of the medians of one run, each metric that both have."""
    pairs = [(n, b) for n, b in (("holdfast", "before"), ("holdfast-jump", "before-jump"))
             if all(d["drivers"].get(x, {}).get("metrics") for x in (n, b))]
    if not pairs:
        return []
    out = ["", "Beside the earlier commit, ratios of the medians; over 1 is better. Aim: none below 0.95.", "",
           "| metric | " + " | ".join(n for n, _ in pairs) + " |", "|" + " --- |" * (len(pairs) + 1)]
    for _, rows in ROWS:
        for k, label in rows:
            cells = []
            for n, b in pairs:
                new, old = (d["drivers"][x]["metrics"].get(k, {}) for x in (n, b))
                v, o = new.get("median"), old.get("median")
                r = "-" if not v or not o else f"{v / o if is_more_better(new['unit']) else o / v:.2f}"
                noisy = max(new.get("other_cpu_median", 0), old.get("other_cpu_median", 0)) > 0.25
                cells.append(r + ("*" if noisy and r != "-" else ""))
            if any(c != "-" for c in cells):
                out.append(f"| {label} | " + " | ".join(cells) + " |")
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--quick", action="store_true", help="fewer repetitions, smaller sizes (a few minutes)")
    ap.add_argument("--drivers", default=",".join(DRIVERS))
    ap.add_argument("--phases", default=",".join(PHASES))
    ap.add_argument("--reps", type=int)
    ap.add_argument("--out", default=os.path.join(HERE, "results", "peers.json"))
    ap.add_argument("--prefix", default="rtb", help="of the namespaces")
    ap.add_argument("--parallel", type=int, default=6, help="recovery runs side by side")
    ap.add_argument("--cc", default="cubic,bbr", help="TCP congestion controls for phase lossy (the others use cubic)")
    ap.add_argument("--sparse", type=float, default=0, metavar="S",
                    help="phase recovery tries to connect only every S seconds (stored as a metric of its own)")
    ap.add_argument("--idle", type=float, metavar="S", help="how long phases idle and device look on (120; --quick: 60)")
    ap.add_argument("--scenarios", default=",".join(SCENARIOS), help="of phase recovery")
    ap.add_argument("--render", metavar="JSON")
    a = ap.parse_args()
    if a.render:
        return write_md(a.render, json.load(open(a.render)))
    if os.geteuid():
        sys.exit("needs root (network namespaces)")
    q = a.quick
    a.drivers, phases = a.drivers.split(","), a.phases.split(",")
    a.reps = a.reps or (2 if q else 5)
    a.reps_connect = 3 if q else max(a.reps, 7)
    a.reps_recovery = 1 if q else min(a.reps, 3)
    a.bulk = (32 if q else 256) << 20
    a.bulk_lossy = (1 if q else 4) << 20
    a.cc = a.cc.split(",")
    a.keys, a.sessions = (60, 30) if q else (120, 100)
    a.forward_bulk, a.forward_connections = (64 << 20, 200) if q else (256 << 20, 500)
    a.files_large, a.files_small, a.files_far = (32 << 20, 300, 8) if q else (128 << 20, 2000, 20)
    a.tunnels = (10, 20) if q else (50, 100, 200)
    a.idle_s, a.recover_limit, a.quiet = (60, 150, 2) if q else (120, 420, 4)
    a.idle_s = a.idle or a.idle_s
    a.res = Results(a.out)
    a.res.meta.update(cpus=os.cpu_count(), kernel=platform.release().split("-")[0],
                           date=time.strftime("%Y-%m-%d"), quick=q)
    for d in a.drivers:
        r = subprocess.run([os.path.join(HERE, "drivers", d + ".sh"), "info"], capture_output=True, text=True)
        if r.returncode:
            log(f"{d} is not available: {(r.stdout + r.stderr).strip()[:200]}")
        else:
            a.res.info[d] = r.stdout.strip()
    a.drivers = [d for d in a.drivers if d in a.res.info]

    def on_signal(sig, _):
        STOP.set()
        sys.exit(128 + sig)
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        for ph in phases:
            log("== phase", ph)
            t = now()
            globals()["phase_" + ph](a)
            if STOP.is_set():
                break
            a.res.save()
            log(f"== phase {ph} took {now() - t:.0f} s")
    finally:
        for p in Peer.live[:]:
            p.down()
        if not STOP.is_set():
            a.res.save()


if __name__ == "__main__":
    main()
