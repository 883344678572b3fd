"""Phase files: OpenSSH's own sftp and scp, from and to a device, all files on a tmpfs.

At RTT 0 whole commands are measured, with connecting, as people wait for them. Over a link OpenSSH's client asks
for one file after the other, and what a file costs are round trips: there some files are enough, the same command with an
empty folder is taken off, and what is told is the time of one file.
"""
import concurrent.futures as cf, os, shutil, statistics, subprocess, tempfile, time

SMALL, RTT, TMPFS = 3000, 100, "/dev/shm"
# name, what people call it, program, whether it comes from the device
SMALL_COPIES = [("sftp_get", "sftp get -r", "sftp", True), ("sftp_put", "sftp put -r", "sftp", False),
                ("scp_get", "scp -r, device to client", "scp", True), ("scp_put", "scp -r, client to device", "scp", False)]
ROWS = [("files_large_get_MBps", "sftp get, one large file, MB/s"), ("files_large_put_MBps", "sftp put, one large file, MB/s"),
        *((f"files_small_{k}_per_s", f"{what}, small files, RTT 0, files/s") for k, what, _, _ in SMALL_COPIES),
        *((f"files_far_{k}_ms", f"{what}, RTT {RTT} ms, ms a file of 3 kB") for k, what, _, _ in SMALL_COPIES)]


def copy(bench, p, program, opts, get, source, target, limit):
    """One command; gives its seconds."""
    argv, host = p.copier(program, "-q", *opts)
    text = None
    if program == "sftp":
        text = f"{'get' if get else 'put'} {' '.join(opts)} {source} {target}\n"
        argv = [argv[0], "-q", *argv[2 + len(opts):], "-b", "-", host]
    else:
        argv += [f"{host}:{source}", target] if get else [source, f"{host}:{target}"]
    t = time.monotonic()
    q = p.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        err = q.communicate(text, timeout=limit)[1]
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{program}: not done after {limit} s")
    finally:
        bench.stop(q)
    if q.returncode:
        raise RuntimeError(f"{program}: {err.strip()[-200:]}")
    return time.monotonic() - t


def folder(path, count):
    os.makedirs(path)
    for number in range(count):
        with open(f"{path}/file-{number}", "wb") as f:
            f.write(os.urandom(SMALL))
    return path


def check(target, count):
    found = len(os.listdir(target))
    if found != count:
        raise RuntimeError(f"{found} of {count} files came")


def measure(bench, a):
    with tempfile.TemporaryDirectory(prefix="rtb-", dir=TMPFS) as room:
        large = f"{room}/large"
        with open(large, "wb") as f:
            for _ in range(a.files_large >> 20):
                f.write(os.urandom(1 << 20))
        small, empty, far = folder(f"{room}/small", a.files_small), folder(f"{room}/empty", 0), folder(f"{room}/far", a.files_far)

        def into(p):
            return tempfile.mkdtemp(prefix=p.driver + "-", dir=room) + "/copy"

        def many(p, key, program, get, source, count, limit):
            target = into(p)
            seconds = copy(bench, p, program, ["-r"], get, source, target, limit)
            check(target, count)
            shutil.rmtree(os.path.dirname(target))
            return seconds

        def near(p, field):
            for key, get in (("get", True), ("put", False)):
                target = into(p)
                with bench.Noise() as n:
                    seconds = copy(bench, p, "sftp", [], get, large, target, 90)
                if os.path.getsize(target) != a.files_large:
                    raise RuntimeError("the file is not whole")
                shutil.rmtree(os.path.dirname(target))
                field.add(p.driver, f"files_large_{key}_MBps", a.files_large / seconds / 1e6, "MB/s", n.share)
            for key, _, program, get in SMALL_COPIES:
                with bench.Noise() as n:
                    seconds = many(p, key, program, get, small, a.files_small, 120)
                field.add(p.driver, f"files_small_{key}_per_s", a.files_small / seconds, "files/s", n.share)

        def beyond(p, field):
            for key, _, program, get in SMALL_COPIES:
                none = many(p, key, program, get, empty, 0, 60)
                some = many(p, key, program, get, far, a.files_far, 120)
                with a.res.lock:
                    field.add(p.driver, f"files_far_{key}_ms", (some - none) / a.files_far * 1000, "ms a file")

        peers = bench.up_all(a, (), bench.alone(a))
        bench.interleave(a, peers, min(a.reps, 3), near).store(a.res)
        for p in peers:
            p.down()
        # These wait nearly all the time: side by side they do not disturb each other.
        peers, field = bench.up_all(a, ["--rtt", RTT], bench.alone(a)), bench.Field()
        with cf.ThreadPoolExecutor(len(peers) or 1) as threads:
            for _ in range(min(a.reps, 2)):
                for p, done in [(p, threads.submit(beyond, p, field)) for p in peers]:
                    try:
                        done.result()
                    except Exception as error:
                        bench.log(f"  {p.driver}: {error}")
        field.store(a.res)
        for p in peers:
            p.down()
