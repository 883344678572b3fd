"""What a system's processes on the device cost: memory, wake-ups and processor time, from /proc and the cgroups.

A system is seen as a whole there: the process that keeps the tunnel (role `tunnel`) and the SSH server that it
leads to (role `devsshd`), where that is another. Shells are told apart: they are the account's, and the same
under each system.
"""
import os

SHELLS = {"bash", "dash", "sh", "busybox", "sleep"}
ROLES = ("tunnel", "devsshd")


def pids(cgroups):
    """All processes in the cgroups, each with the name of its program."""
    found = {}
    for folder in cgroups:
        try:
            with open(os.path.join(folder, "cgroup.procs")) as f:
                numbers = [int(x) for x in f]
        except FileNotFoundError:
            continue
        for pid in numbers:
            try:
                found[pid] = os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
            except OSError:
                pass  # it has just ended
    return found


def memory(pid):
    """RSS and PSS of a process in KiB; nothing of one that has ended."""
    facts = {"Rss": 0, "Pss": 0}
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            for line in f:
                key, _, value = line.partition(":")
                if key in facts:
                    facts[key] = int(value.split()[0])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return facts["Rss"], facts["Pss"]


def memory_by_kind(processes):
    """PSS in KiB: of the system's own programs by name, and of the shells together."""
    kinds = {}
    for pid, program in processes.items():
        kind = "shell" if program in SHELLS else program
        kinds[kind] = kinds.get(kind, 0) + memory(pid)[1]
    return kinds


def own(processes):
    return [pid for pid, program in processes.items() if program not in SHELLS]


def switches(numbers):
    """How often each thread of the processes went to sleep, or was put aside, since it began."""
    counts = {}
    for pid in numbers:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/status") as f:
                    lines = [x for x in f if "ctxt_switches" in x]
                counts[pid, thread] = sum(int(x.split()[1]) for x in lines)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return counts


def woken(before, after):
    """By how much the counts grew; a thread that is new counts from its start, one that ended no more."""
    return sum(max(0, n - before.get(thread, 0)) for thread, n in after.items())
