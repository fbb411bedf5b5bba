"""The program between a gateway and a command that it starts: it locks the command in, watches it and ends all of it.

`python -I -S -B confine.py POLICY COMMAND...`, POLICY being the JSON of `runtime.sandbox.Policy`. Standard library
only, and run by its path, since it starts with every command.

Two processes: the command, which gives up its rights before it begins (Landlock, seccomp, capabilities, limits), and
this one, its keeper, which stays outside. Whatever loses its parent below becomes the keeper's child, so nothing leaves
by `setsid` or by a double fork. The keeper ends everything when the command ends, when it is told to (SIGTERM), when
there are too many processes, and when the gateway dies, by whatever signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import signal
import struct
import sys
import time
from typing import Any, NoReturn

TERM_SECONDS = 0.4
"""What a command gets between SIGTERM and SIGKILL."""
_LOOK_SECONDS = 0.05
_STUCK_SECONDS = 10.0
"""Processes that are still there so long after SIGKILL hang in the kernel."""

_PDEATHSIG, _SUBREAPER, _NO_NEW_PRIVS, _SECCOMP, _AMBIENT = 1, 36, 38, 22, 47
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446

# Landlock's rights on files, as in linux/landlock.h.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_RIGHTS = {1: (1 << 13) - 1, 2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
"""ABI -> the rights that came with it."""
_DEVICES = (1 << 6) | (1 << 11)
"""Making device nodes: granted nowhere."""
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_SCOPE_ALL = 3
"""ABI 6: no abstract sockets of others, no signals to others."""

_CALLS: dict[str, dict[str, int]] = {
    "x86_64": {
        "arch": 0xC000003E, "capset": 126, "socket": 41, "socketpair": 53, "prlimit64": 302, "truncate": 76,
        "io_uring_setup": 425, "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298,
        "setpriority": 141, "ioprio_set": 251, "sched_setparam": 142, "sched_setscheduler": 144, "sched_setattr": 314,
    },
    "aarch64": {
        "arch": 0xC00000B7, "capset": 91, "socket": 198, "socketpair": 199, "prlimit64": 261, "truncate": 45,
        "io_uring_setup": 425, "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241,
        "setpriority": 140, "ioprio_set": 30, "sched_setparam": 118, "sched_setscheduler": 119, "sched_setattr": 274,
    },
}  # fmt: skip
_FORBIDDEN = ("io_uring_setup", "add_key", "request_key", "keyctl", "bpf", "perf_event_open")
"""io_uring opens sockets behind a filter's back; the key rings are shared by all processes of a user."""
_AF_INET, _AF_INET6, _AF_NETLINK = 2, 10, 16
_SOCK_DGRAM = 2
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The kernel would not lock the command in; it was not started."""


def landlock_abi() -> int:
    """Landlock's version on this kernel; 0 if there is none or it is switched off."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def machine_known() -> bool:
    """Are the system call numbers of this machine known here?"""
    return platform.machine() in _CALLS


# -- locking in ------------------------------------------------------------------------------------------------------


def lock_in(policy: dict[str, Any]) -> None:
    """Give up, for good and for all that this process will start, whatever `policy` does not grant. Raises Refused."""
    abi = landlock_abi()
    if not abi or not machine_known():
        raise Refused(f"no Landlock here (ABI {abi}, {platform.machine()})")
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise Refused(f"no_new_privs: {_last_error()}")
    _landlock(abi, policy["read"], policy["write"])
    _drop_capabilities()
    _filter_calls(abi, (_AF_INET, _AF_INET6, _AF_NETLINK) if policy["network"] else ())


def stay_in(policy: dict[str, Any]) -> None:
    """What bubblewrap, which `policy` has put before the command, leaves to us: sockets that have no file."""
    if not machine_known():
        raise Refused(f"the system calls of {platform.machine()} are not known here")
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise Refused(f"no_new_privs: {_last_error()}")
    # Without network it makes an empty one, with sockets of its own; Unix sockets without a file are not part of that.
    _filter_calls(99, (_AF_INET, _AF_INET6, _AF_NETLINK))


def _landlock(abi: int, read: list[str], write: list[str]) -> None:
    handled = sum(rights for since, rights in _RIGHTS.items() if since <= abi)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    attributes = struct.pack("=QQQ", handled, 0, _SCOPE_ALL if abi >= 6 else 0)[:size]
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    if ruleset < 0:
        raise Refused(f"landlock_create_ruleset: {_last_error()}")
    for paths, rights in ((read, _READ), (write, handled & ~_DEVICES)):
        for path in paths:
            try:
                folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # it is not there: nothing to grant
            allowed = rights & handled if os.path.isdir(path) else rights & handled & _ON_FILES
            rule = struct.pack("=Qi", allowed, folder)
            if _libc.syscall(_ADD_RULE, ruleset, 1, rule, ctypes.c_uint32(0)):
                raise Refused(f"landlock_add_rule for {path}: {_last_error()}")
            os.close(folder)
    if _libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)):
        raise Refused(f"landlock_restrict_self: {_last_error()}")
    os.close(ruleset)


def _drop_capabilities() -> None:
    """Root without capabilities is a user who owns many files; with no_new_privs none come back at exec."""
    _libc.prctl(_AMBIENT, 4, 0, 0, 0)
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    if _libc.syscall(_CALLS[platform.machine()]["capset"], header, none):
        raise Refused(f"capset: {_last_error()}")


def _filter_calls(abi: int, families: tuple[int, ...]) -> None:
    """A seccomp filter for what Landlock leaves open: sockets, and ways round."""
    calls = _CALLS[platform.machine()]
    program = [(0x20, 0, 0, 4), (0x15, 1, 0, calls["arch"]), (0x06, 0, 0, _KILL), (0x20, 0, 0, 0)]
    if platform.machine() == "x86_64":  # the x32 numbers are other names for the same calls
        program += [(0x35, 0, 1, 0x40000000), (0x06, 0, 0, _ERRNO | errno.ENOSYS)]
    for name in (*_FORBIDDEN, *(("truncate",) if abi < 3 else ())):
        program += [(0x15, 0, 1, calls[name]), (0x06, 0, 0, _ERRNO | errno.EPERM)]
    # Unix sockets too: the user's systemd and D-Bus would run anything for us, outside.
    body = [step for family in families for step in ((0x15, 0, 1, family), (0x06, 0, 0, _ALLOW))]
    program += _when(calls["socket"], [(0x20, 0, 0, 16), *body, (0x06, 0, 0, _ERRNO | errno.EACCES)])
    datagram = [(0x20, 0, 0, 24), (0x54, 0, 0, 0xF), (0x15, 0, 1, _SOCK_DGRAM), (0x06, 0, 0, _ERRNO | errno.EACCES)]
    program += _when(calls["socketpair"], [*datagram, (0x06, 0, 0, _ALLOW)])
    # Limits and priorities of other processes: one could be given a CPU limit of nothing, or no turn at all.
    own = [(0x20, 0, 0, 16), (0x15, 0, 1, 0), (0x06, 0, 0, _ALLOW), (0x06, 0, 0, _ERRNO | errno.EPERM)]
    for name in ("prlimit64", "sched_setparam", "sched_setscheduler", "sched_setattr"):
        program += _when(calls[name], own)
    for name, user in (("setpriority", 2), ("ioprio_set", 3)):  # (whose, which of them, ...); nobody's of all a user's
        program += _when(calls[name], [(0x20, 0, 0, 16), (0x15, 3, 0, user), (0x20, 0, 0, 24), *own[1:]])
    program.append((0x06, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    if _libc.prctl(_SECCOMP, ctypes.c_ulong(2), header, 0, 0):
        raise Refused(f"seccomp: {_last_error()}")


def _when(call: int, body: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    return [(0x15, 0, len(body), call), *body]


def _last_error() -> str:
    return os.strerror(ctypes.get_errno())


def limit(policy: dict[str, Any]) -> None:
    """Limits of the kernel, per process but for the number of processes, which is the user's and not root's."""
    most = policy["processes"]
    if most and os.getuid():
        _lower(resource.RLIMIT_NPROC, _tasks_of(os.getuid()) + most)
    for kind, value in ((resource.RLIMIT_DATA, policy["memory"]), (resource.RLIMIT_FSIZE, policy["file_size"])):
        if value:
            _lower(kind, value)
    _lower(resource.RLIMIT_CORE, 0)
    os.nice(policy["nice"])
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")  # short of memory, the kernel takes this before a gateway
    except OSError:
        pass


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _tasks_of(user: int) -> int:
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == user:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                pass
    return count


# -- keeping ---------------------------------------------------------------------------------------------------------


class Keeper:
    """Looks after one command and all that comes of it."""

    def __init__(self, command: int, most: int) -> None:
        self._command = command
        self._most = most
        self._status: int | None = None
        self._others = _all_tasks()
        self._looked = 0.0

    def keep(self, wanted: set[signal.Signals]) -> dict[str, Any]:
        """Until the command ends or must end; then nothing of it is left. How it went, for the gateway."""
        why = ""
        while not self._over and not why:
            got = signal.sigtimedwait(wanted, _LOOK_SECONDS)
            self._reap()
            if got is not None and got.si_signo != signal.SIGCHLD:
                why = "" if self._over else "ended"
            elif self._too_many():
                why = "processes"
        left = self._end_all(0.0 if why == "processes" else TERM_SECONDS)
        if self._status is None:
            return {"code": None, "signal": None, "left": left, "why": why or "stuck"}
        code = os.waitstatus_to_exitcode(self._status)
        return {"code": max(code, 0), "signal": -code if code < 0 else None, "left": 0 if why else left, "why": why}

    @property
    def _over(self) -> bool:
        return self._status is not None

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._command:
                self._status = status

    def _too_many(self) -> bool:
        """Counted only when the whole machine has that many tasks more than when we last counted, or 2 s later."""
        if not self._most or (_all_tasks() - self._others <= self._most and time.monotonic() - self._looked < 2.0):
            return False
        count = len(below(os.getpid()))
        self._others, self._looked = _all_tasks() - count, time.monotonic()
        return count > self._most

    def _end_all(self, grace: float) -> int:
        """SIGTERM, `grace` seconds, SIGKILL until nothing is left; how many there were."""
        first = below(os.getpid())
        until = time.monotonic() + grace
        for pid in first if grace else ():
            _send(pid, signal.SIGTERM)
            _send(pid, signal.SIGCONT)
        while first and time.monotonic() < until:
            self._reap()
            if not below(os.getpid()):
                break
            signal.sigtimedwait({signal.SIGCHLD}, 0.02)
        stuck = time.monotonic() + _STUCK_SECONDS
        while time.monotonic() < stuck:
            if not self._over:
                with contextlib.suppress(OSError):
                    os.killpg(self._command, signal.SIGKILL)  # its whole group at once: no fork slips through
            left = below(os.getpid())
            for pid in left:
                _send(pid, signal.SIGKILL)
            self._reap()
            if not left:
                break
            signal.sigtimedwait({signal.SIGCHLD}, 0.005)
        return len(first)


def below(ancestor: int) -> list[int]:
    """Every living process below `ancestor`."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    raw = file.read()
            except OSError:
                continue
            fields = raw[raw.rindex(b")") + 2 :].split(None, 2)
            if fields[0] not in (b"Z", b"X"):
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    queue = [ancestor]
    while queue:
        under = children.get(queue.pop(), [])
        found += under
        queue += under
    return found


def _all_tasks() -> int:
    with open("/proc/loadavg") as file:
        return int(file.read().split()[3].partition("/")[2])


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _become(policy: dict[str, Any], command: list[str], problem: int) -> NoReturn:
    """In the child: lock in, then be the command."""
    try:
        os.setsid()
        limit(policy)
        if policy["confine"] == "bubblewrap":
            stay_in(policy)
        elif policy["confine"] != "off":
            lock_in(policy)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvp(command[0], command)
    except Refused as error:
        os.write(problem, str(error).encode())
    except (OSError, ValueError) as error:
        os.write(problem, f"{command[0]} cannot be started: {getattr(error, 'strerror', None) or error}".encode())
    finally:
        os._exit(126)


def main(argv: list[str]) -> int:
    policy: dict[str, Any] = json.loads(argv[1])
    wanted = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    _libc.prctl(_PDEATHSIG, signal.SIGHUP, 0, 0, 0)
    _libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != policy["parent"]:
        return 1  # the gateway died before we could ask to be told
    report = policy["report"]
    if report >= 0:
        os.set_inheritable(report, False)
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(policy, argv[2:], ours)
    os.close(ours)
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(silent, stream)  # so that the command's pipes end with the command
    problem = os.read(theirs, 1000).decode("utf-8", "replace")
    outcome = Keeper(pid, policy["processes"]).keep(wanted)
    if problem:
        outcome["error"] = problem
    if report >= 0:
        os.write(report, json.dumps(outcome).encode())
    return int(outcome["code"] if outcome["code"] is not None else 128 + (outcome["signal"] or 9))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
