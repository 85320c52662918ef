"""Acting inside a running process by ptrace: system calls in its name, a jump to nowhere. x86-64 only."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pickle
import platform
import signal
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar, cast

from blackstart.errors import FaultError
from blackstart.host import procs, seccomp_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

T = TypeVar("T")

_SEIZE, _INTERRUPT, _CONT, _SYSCALL, _DETACH = 0x4206, 0x4207, 7, 24, 17
_GETREGS, _SETREGS, _GETSIGMASK, _SETSIGMASK = 12, 13, 0x420A, 0x420B
_OPTION_SYSGOOD = 1
_EVENT_STOP = 128
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_WALL = 0x4000_0000
_STOP_LIMIT_S = 1.0
_STUCK_LIMIT_S = 30.0
_HELD_LIMIT_S = 0.5
_EVERY_SIGNAL = (1 << 64) - 1

_REGISTERS = struct.Struct("<27Q")
_R10, _R9, _R8, _RAX, _RDX, _RSI, _RDI, _ORIG_RAX, _RIP, _CS = 7, 8, 9, 10, 12, 13, 14, 15, 16, 17
_RSP = 19
_ARGUMENTS = (_RDI, _RSI, _RDX, _R10, _R8, _R9)
_NO_CALL = (1 << 64) - 1
_CS_64_BIT = 0x33
_SYSCALL_INSTRUCTION = b"\x0f\x05"

_MMAP, _MUNMAP, _CLOSE, _CHDIR, _PRCTL, _SECCOMP = 9, 11, 3, 80, 157, 317
_GETPID = 39
_PAGE = 4096
_RED_ZONE = 1024  # the ABI lets a function use 128 bytes below its stack
_MOST_STOPS = 16
_PIDFD_GETFD = 438
_NO_DESCRIPTOR = (1 << 31) - 1
_BROKEN_OFF = {-errno.EINTR, -512, -513, -514, -516}  # ERESTART…: seen by a tracer only

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_NO_ATTACH = 3

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def unavailable() -> str | None:
    """Say why no process can be entered here, or None. Whether this very one can, only trying tells."""
    if platform.machine() != "x86_64":
        return f"ptrace injection is not available on {platform.machine()}, only on x86_64"
    return None


def irreversible() -> str | None:
    """Say why the guardian could not change another process's memory back here, or None.

    It is no ancestor of the processes that it looks after, as Yama wants it of who has no CAP_SYS_PTRACE.
    """
    try:
        with open(_YAMA, encoding="ascii") as file:  # noqa: PTH123 - the guardian imports this
            scope = int(file.read())
    except (OSError, ValueError):
        return None
    if scope == 0 or (scope < _NO_ATTACH and os.geteuid() == 0):
        return None
    way = "until the next boot" if scope >= _NO_ATTACH else "sysctl kernel.yama.ptrace_scope=0, or root"
    return f"kernel.yama.ptrace_scope = {scope} forbids the guardian to take it back: {way}"


class UnansweredError(FaultError):
    """A filter is in a process, nobody answers its calls, and nobody ever can: it must be started again."""


class Entered:
    """One thread of a process, stopped for us: registers, memory, and system calls made in its name.

    Everything is put back on leaving. Belongs to the operating-system thread that made it: see `alone`.
    Raises FaultError when the thread cannot be stopped.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.tid = 0
        self._at = 0
        self._lost: FaultError | None = None

    def __enter__(self) -> Self:
        """Stop the first thread that lets itself be stopped."""
        for tid in _threads(self.pid):
            _seize(tid, _OPTION_SYSGOOD)
            _ptrace(_INTERRUPT, tid)
            if _come_to_a_stop(tid):
                break
        else:
            raise FaultError("no thread can be stopped", where=f"pid {self.pid}")
        self.tid = tid
        self._before = self._registers()
        self._mask = ctypes.c_uint64()
        _ptrace(_GETSIGMASK, tid, 8, ctypes.addressof(self._mask))
        if self._before[_CS] != _CS_64_BIT:
            _ptrace(_DETACH, tid)
            raise FaultError("is no 64-bit process", where=f"pid {self.pid}")
        self._block(_EVERY_SIGNAL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it run on as if nothing had been.

        Stopped once more before it leaves the kernel, where an interrupted system call is begun again by the
        kernel's own rules. All is put back by then: should that stop come late, our end lets it go.
        """
        with contextlib.suppress(FaultError):  # it died meanwhile, or is lost, as was said
            self._set(self._before)
            self._block(self._mask.value)
            _ptrace(_INTERRUPT, self.tid)
            _ptrace(_CONT, self.tid)
            _come_to_a_stop(self.tid)
            _ptrace(_DETACH, self.tid)

    def call(self, number: int, *arguments: int) -> int:
        """Make a system call in its name; returns the kernel's answer, negative errno included.

        An answer counts however late it comes: what it says was done would be lost with it.
        """
        registers = list(self._before)
        registers[_RAX], registers[_ORIG_RAX], registers[_RIP] = number, _NO_CALL, self._instruction()
        for place, value in zip(_ARGUMENTS, (*arguments, *(0,) * (6 - len(arguments))), strict=True):
            registers[place] = value & _NO_CALL
        self._set(registers)
        ways = (self._next_stop() for _ in range(2))  # once on the way in, once on the way out
        if all(stop == _SYSCALL_STOP for stop in ways):
            (answer,) = struct.unpack("<q", struct.pack("<Q", self._registers()[_RAX]))
            if answer not in _BROKEN_OFF:
                return int(answer)
        raise FaultError("a system call in its name did not come back", where=f"pid {self.pid}")

    def run(self, address: int, rax: int, rdi: int, rsi: int) -> None:
        """Let it run code at that address, with these registers, until the code calls `getpid`."""
        registers = list(self._before)
        registers[_RIP], registers[_ORIG_RAX], registers[_RAX] = address, _NO_CALL, rax
        registers[_RDI], registers[_RSI] = rdi, rsi
        registers[_RSP] = (registers[_RSP] - _RED_ZONE) & ~0xF
        self._set(registers)
        for _ in range(_MOST_STOPS):
            if self._next_stop() != _SYSCALL_STOP:
                break
            now = self._registers()
            if now[_ORIG_RAX] == _GETPID and now[_RAX] == self.pid:  # on the way out of it
                return
        raise FaultError("code run in its name did not come to its end", where=f"pid {self.pid}")

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into its memory."""
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as memory:  # noqa: PTH123 - seeks in a process
            memory.seek(address)
            memory.write(data)

    def jump_to_null(self) -> None:
        """Let it run on at address 0: a call through a null pointer, with all that follows."""
        registers = list(self._before)
        registers[_RIP], registers[_ORIG_RAX] = 0, _NO_CALL
        self._before = tuple(registers)

    def _next_stop(self) -> int:
        """Let it run to its next system call, or out of it; returns how it stopped, there or elsewhere.

        What takes long is interrupted, and waited for: let go in its midst, the thread would run on with our
        registers. Stops of the whole process, and of an interrupt that came late, are passed on.
        """
        given = 0
        while True:
            _ptrace(_SYSCALL, self.tid, 0, given)
            if (stop := _wait(self.tid, _STOP_LIMIT_S)) is None:
                _ptrace(_INTERRUPT, self.tid)
                if (stop := _wait(self.tid, _STUCK_LIMIT_S)) is None:
                    raise self._given_up()
                return stop
            if stop != signal.SIGSTOP and stop >> 8 != _EVENT_STOP:
                return stop
            given = signal.SIGSTOP if stop == signal.SIGSTOP else 0

    def _given_up(self) -> FaultError:
        """Say in what state it is left; nothing can be done in its name, or put back, from now on."""
        what = f"what was begun in its name does not end: thread {self.tid} is left in the midst of it, with"
        what += " registers of ours and all signals blocked, and is likely to crash when it ends"
        self._lost = FaultError(what, where=f"pid {self.pid}", hint="start this process again")
        return self._lost

    def _instruction(self) -> int:
        """Find a `syscall` instruction: every process has one in its vDSO, or else where it is."""
        self._at = self._at or _find_instruction(self.pid)
        return self._at

    def _registers(self) -> tuple[int, ...]:
        return _read_registers(self.tid)

    def _set(self, registers: Iterable[int]) -> None:
        if self._lost is not None:
            raise self._lost
        buffer = ctypes.create_string_buffer(_REGISTERS.pack(*registers), _REGISTERS.size)
        _ptrace(_SETREGS, self.tid, 0, ctypes.addressof(buffer))

    def _block(self, signals: int) -> None:
        mask = ctypes.c_uint64(signals)
        _ptrace(_SETSIGMASK, self.tid, 8, ctypes.addressof(mask))


class Halted:
    """All threads of a process, stopped for us; on leaving they run on as if nothing had been.

    Belongs to the operating-system thread that made it: see `alone`. Raises FaultError.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._tids: list[int] = []

    def __enter__(self) -> Self:
        """Stop them; those that are born meanwhile too."""
        try:
            while new := [tid for tid in _threads(self.pid) if tid not in self._tids]:
                for tid in new:
                    self._stop(tid)
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let them run on."""
        self._release()

    def inside(self, begin: int, end: int) -> bool:
        """Whether a thread is about to run an instruction that begins between the two, both left out."""
        return any(begin < _read_registers(tid)[_RIP] < end for tid in self._tids)

    def _stop(self, tid: int) -> None:
        try:
            _seize(tid)
            self._tids.append(tid)
            _ptrace(_INTERRUPT, tid)
            stopped = _come_to_a_stop(tid)
        except FaultError:
            if (one := procs.stat(tid)) is not None and not one.dead:
                raise
            self._tids = [other for other in self._tids if other != tid]  # it ended meanwhile
            return
        if not stopped:
            raise FaultError("cannot be stopped", where=f"thread {tid}")

    def _release(self) -> None:
        for tid in self._tids:
            with contextlib.suppress(FaultError):  # it ended meanwhile
                _ptrace(_DETACH, tid)


def alone(work: Callable[[], T]) -> T:
    """Do it in an operating-system thread of its own, and wait for it.

    Tracing belongs to a thread. When this one ends, the kernel lets go of all that it held in any case.
    """
    found: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return found[0]


def outliving(pid: int, work: Callable[[], T]) -> T:
    """Do it as `alone` does; what is not ours is let go as it was even when we are killed in the midst.

    When a tracer dies the kernel lets go, but puts neither registers nor signal mask back. A process that we
    started is ended then. Any other outlives us, so a child of ours, in a session of its own, finishes the
    work: it may enter whom we may, unless that is a descendant of ours (kernel.yama.ptrace_scope).
    """
    return alone(work) if descends(pid) else _in_a_child(pid, work)


def descends(pid: int) -> bool:
    """Say whether a process is a descendant of ours."""
    while pid != os.getpid():
        found = procs.stat(pid)
        if found is None or found.ppid == 0:
            return False
        pid = found.ppid
    return True


def _in_a_child(pid: int, work: Callable[[], T]) -> T:
    read, write = os.pipe()
    # A signal to the child must not be told to the loop of the parent, with which it shares a descriptor.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        child = os.fork()
        if child == 0:
            _finish(write, work)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(write)
    with open(read, "rb") as pipe:  # noqa: PTH123 - a descriptor
        said = pipe.read()
    os.waitpid(child, 0)
    if not said:
        raise FaultError("who had entered it was killed", where=f"pid {pid}")
    found, error = pickle.loads(said)  # noqa: S301 - by our own child
    if error is not None:
        kind, arguments, named = error
        raise kind(*arguments, **named)
    return cast("T", found)


def _finish(write: int, work: Callable[[], T]) -> None:
    """Do it in the child, which ends here."""
    try:
        os.setsid()
        try:
            said: tuple[Any, Any] = work(), None
        except FaultError as error:
            said = None, (type(error), (error.what,), {"where": error.where, "hint": error.hint})
        except OSError as error:
            said = None, (OSError, error.args, {})
        except Exception as error:  # noqa: BLE001 - raised again by the parent
            said = None, (RuntimeError, (f"{type(error).__name__}: {error}",), {})
        with open(write, "wb") as pipe:
            pipe.write(pickle.dumps(said))
    finally:
        os._exit(0)


class Jump(NamedTuple):
    """A process was let go at address 0 between these instants (monotonic); `moved`: in the folder given."""

    before_mono_ns: int
    after_mono_ns: int
    moved: bool


def jump_to_null(pid: int, folder: str = "") -> Jump:
    """Make a process crash by a real null dereference; its last act is to change to `folder`, if it may."""

    def work() -> Jump:
        with Entered(pid) as process:
            moved = bool(folder) and _change_folder(process, folder)
            process.jump_to_null()
            before = time.monotonic_ns()
        return Jump(before, time.monotonic_ns(), moved)

    return outliving(pid, work)


def add_filter(pid: int, calls: Iterable[str], keep: Callable[[int], None]) -> None:
    """Put a seccomp filter around all threads of a running process; `keep` gets our copy of its listener.

    `keep` must have brought it to safety when it returns: the process' own copy is closed then. Raises
    FaultError. The filter is in already where that is an `UnansweredError`: what can fail is done before.
    """
    code = seccomp_filter.build(calls)

    def work() -> None:
        with Entered(pid) as process, _taking(pid) as take, _page(process) as page:
            process.write(page, struct.pack("<HxxxxxxQ", len(code) // 8, page + 16) + code)
            listener = _install(process, page)
            try:
                handle = take(listener)
                try:
                    keep(handle)
                finally:
                    os.close(handle)
            except (FaultError, OSError) as error:
                what = f"its filtered system calls fail (ENOSYS), because nobody answers them: {error}"
                raise UnansweredError(what, where=f"pid {pid}", hint="start this process again") from error
            finally:
                process.call(_CLOSE, listener)

    outliving(pid, work)


def _change_folder(process: Entered, folder: str) -> bool:
    with _page(process) as page:
        process.write(page, os.fsencode(folder)[: _PAGE - 1] + b"\0")
        return process.call(_CHDIR, page) == 0


@contextlib.contextmanager
def _page(process: Entered) -> Iterator[int]:
    """Lend a page of the process' memory. Its stack is no place to write: Go's are small, and on the heap."""
    page = process.call(_MMAP, 0, _PAGE, 3, 0x22, _NO_CALL, 0)
    if page < 0:
        raise FaultError(f"mmap in its name: {os.strerror(-page)}", where=f"pid {process.pid}")
    try:
        yield page
    finally:
        process.call(_MUNMAP, page, _PAGE)


def _install(process: Entered, page: int) -> int:
    answer = _filter(process, page)
    if answer < 0:
        hint = "it has a supervisor already: one a process" if -answer == errno.EBUSY else ""
        raise FaultError(
            f"seccomp in its name: {os.strerror(-answer)}", where=f"pid {process.pid}", hint=hint
        )
    return answer


def _filter(process: Entered, page: int) -> int:
    """Ask for `no_new_privs` only where the kernel demands it (EACCES); old kernels know fewer flags."""
    flags = seccomp_filter.EVERY_THREAD | seccomp_filter.FLAG_WAIT_KILLABLE
    answer = process.call(_SECCOMP, seccomp_filter.SET_MODE_FILTER, flags, page)
    if answer == -errno.EACCES:
        process.call(_PRCTL, seccomp_filter.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        answer = process.call(_SECCOMP, seccomp_filter.SET_MODE_FILTER, flags, page)
    if answer == -errno.EINVAL:
        answer = process.call(_SECCOMP, seccomp_filter.SET_MODE_FILTER, seccomp_filter.EVERY_THREAD, page)
    return answer


@contextlib.contextmanager
def _taking(pid: int) -> Iterator[Callable[[int], int]]:
    """Lend what copies a descriptor out of another process: all that it needs is in hand already.

    So is a free place for the copy, and a try has shown that `pidfd_getfd` is there and allowed. Raises
    FaultError.
    """
    with contextlib.ExitStack() as held:
        try:
            handle = os.pidfd_open(pid)
            held.callback(os.close, handle)
            place = held.enter_context(open(os.devnull, "rb"))  # noqa: PTH123 - the guardian imports this
        except OSError as error:
            raise FaultError(f"pidfd_open: {error.strerror}", where=f"pid {pid}") from error
        _libc.syscall(_PIDFD_GETFD, handle, _NO_DESCRIPTOR, 0)
        if (number := ctypes.get_errno()) != errno.EBADF:
            raise FaultError(f"pidfd_getfd: {os.strerror(number)}", where=f"pid {pid}")

        def take(descriptor: int) -> int:
            place.close()
            found = int(_libc.syscall(_PIDFD_GETFD, handle, descriptor, 0))
            if found < 0:
                raise FaultError(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}", where=f"pid {pid}")
            return found

        yield take


def _threads(pid: int) -> list[int]:
    try:
        found = [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208 - names are numbers
    except FileNotFoundError:
        raise FaultError("has ended", where=f"pid {pid}") from None
    live = [tid for tid in found if (one := procs.stat(tid)) is not None and not one.dead]
    return sorted(live, key=lambda tid: tid != pid)


def _find_instruction(pid: int) -> int:
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
        areas = [line.split() for line in maps]
        code = [area for area in areas if "x" in area[1] and area[-1] != "[vsyscall]"]
        for area in sorted(code, key=lambda one: one[-1] != "[vdso]"):
            start, end = (int(number, 16) for number in area[0].split("-"))
            memory.seek(start)
            place = memory.read(end - start).find(_SYSCALL_INSTRUCTION)
            if place >= 0:
                return start + place
    raise FaultError("no `syscall` instruction found", where=f"pid {pid}")


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, tid, address, data) == 0:
        return
    number = ctypes.get_errno()
    hint = ""
    if number == errno.EPERM:
        hint = "a debugger holds it, it is somebody else's, or kernel.yama.ptrace_scope forbids it"
    raise FaultError(f"ptrace: {os.strerror(number)}", where=f"thread {tid}", hint=hint)


def _seize(tid: int, options: int = 0) -> None:
    """Take hold of a thread. Who holds it for a moment is waited for: owner and guardian undo at once."""
    end, free = time.monotonic() + _HELD_LIMIT_S, False
    while True:
        try:
            return _ptrace(_SEIZE, tid, 0, options)
        except FaultError:
            # Let go just now, or held by nobody and refused for another reason: that only a second try tells.
            was_free, free = free, not _is_traced(tid)
            if (free and was_free) or time.monotonic() > end:
                raise
        time.sleep(0.0005)


def _is_traced(tid: int) -> bool:
    try:
        with open(f"/proc/{tid}/status") as file:  # noqa: PTH123 - the guardian imports this
            return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in file)
    except OSError:
        return False


def _come_to_a_stop(tid: int) -> bool:
    """Wait for the stop that we asked for; other stops on the way are passed on."""
    while (status := _wait(tid, _STOP_LIMIT_S)) is not None:
        if status >> 8 == _EVENT_STOP:
            return True
        _ptrace(_CONT, tid, 0, status & 0x7F)
    return False


def _read_registers(tid: int) -> tuple[int, ...]:
    buffer = ctypes.create_string_buffer(_REGISTERS.size)
    _ptrace(_GETREGS, tid, 0, ctypes.addressof(buffer))
    return _REGISTERS.unpack(buffer.raw)


def _wait(tid: int, limit_s: float) -> int | None:
    """Return the stop's signal and event (`status >> 8`); None when it did not stop within the limit.

    Raises FaultError when it ended.
    """
    end = time.monotonic() + limit_s
    while True:
        try:
            found, status = os.waitpid(tid, os.WNOHANG | _WALL)
        except ChildProcessError:  # its end was told to its parent already
            raise FaultError("ended meanwhile", where=f"thread {tid}") from None
        if found and os.WIFSTOPPED(status):
            return status >> 8
        if found:
            raise FaultError("ended meanwhile", where=f"thread {tid}")
        if time.monotonic() > end:
            return None
        time.sleep(0.00005)
