"""The wall clock of one running process, moved: its vDSO is patched by ptrace. x86-64 only.

Programs read the time without a system call, in code that the kernel maps into every process: the vDSO. The
first instruction of `clock_gettime`, `gettimeofday` and `time` becomes a jump into a page of ours, which
asks the kernel and adds what is wanted to the real time. Monotonic clocks pass unchanged. Static, Go, Java
programs too; who asks by a system call of its own sees the true time. Children inherit it until they execute.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import time
from functools import cache
from typing import NamedTuple

from blackstart.errors import FaultError
from blackstart.host import procs, ptrace

_FUNCTIONS = {"__vdso_clock_gettime": 0x20, "__vdso_gettimeofday": 0x60, "__vdso_time": 0xB0}
_PROBE = 0x120
_DATA = struct.Struct("<qqq")
# Of the page: at 0 the real time (ns) at which the skew began, the offset (ns), the drift (parts in 10^9). At
# 0x20 clock_gettime, at 0x60 gettimeofday, at 0xb0 time: each makes its system call, computes the nanoseconds
# since 1970, calls 0xf0, and splits the answer again. 0xf0: real + offset + (real - began) * drift / 10^9,
# divided by 10^9. 0x120: calls what rax points at, then getpid. Assembled from:
#   mov eax,228; syscall; test eax,eax; jnz 1f; test edi,edi; jz 2f; cmp edi,5; je 2f; 1: ret
#   2: mov rax,[rsi]; imul rax,rax,1000000000; add rax,[rsi+8]; call shift; mov [rsi],rax; mov [rsi+8],rdx
#   xor eax,eax; ret
#   mov eax,96; syscall; test eax,eax; jnz 1f; test rdi,rdi; jz 1f; mov rax,[rdi]
#   imul rax,rax,1000000000; imul rcx,[rdi+8],1000; add rax,rcx; call shift; mov [rdi],rax; mov rax,rdx
#   xor edx,edx; mov ecx,1000; div rcx; mov [rdi+8],rax; xor eax,eax; 1: ret
#   mov r9,rdi; sub rsp,24; xor edi,edi; mov rsi,rsp; mov eax,228; syscall; mov rax,[rsp]
#   imul rax,rax,1000000000; add rax,[rsp+8]; add rsp,24; call shift; test r9,r9; jz 1f; mov [r9],rax; 1: ret
#   shift: mov rcx,rax; sub rax,[began]; imul qword ptr [drift]; mov r8d,1000000000; idiv r8; add rax,rcx
#   add rax,[offset]; cqo; idiv r8; ret
#   call rax; mov eax,39; syscall; jmp .
_CODE = bytes.fromhex(
    "b8e40000000f0585c0750985ff740683ff057401c3488b064869c000ca9a3b48034608e8a80000004889064889560831"
    "c0c366662e0f1f8400000000000f1f00b8600000000f0585c075354885ff7430488b074869c000ca9a3b48694f08e803"
    "00004801c8e8660000004889074889d031d2b9e803000048f7f14889470831c0c366662e0f1f8400000000000f1f4000"
    "4989f94883ec1831ff4889e6b8e40000000f05488b04244869c000ca9a3b48034424084883c418e8140000004d85c974"
    "03498901c366662e0f1f8400000000004889c1482b0506ffffff48f72d0fffffff41b800ca9a3b49f7f84801c8480305"
    "f4feffff489949f7f8c3660f1f440000ffd0b8270000000f05ebfe"
)
_CODE_AT = 0x20
_TIMESPEC = struct.Struct("<qq")
_TIMESPEC_AT = 0x800

_MMAP, _MUNMAP = 9, 11
_READ_WRITE_EXECUTE, _READ_EXECUTE = 7, 5
_PRIVATE_ANONYMOUS, _FIXED_NOREPLACE = 0x22, 0x10_0000
_PAGE = 4096
_JUMP = 5
_REACH = (1 << 31) - (1 << 20)  # a jump of five bytes goes two gibibytes far
_HIGHEST = 0x7FFF_FFFF_0000
_LEAST_GAP = 1 << 20
_TRIES = 50
_BIRTH_LIMIT_S = 0.5
_DYNSYM = 11
_S = 1_000_000_000


class Place(NamedTuple):
    """The beginning of one function: where, the original bytes, and the jump (hexadecimal)."""

    address: int
    before: str
    after: str


class Skew(NamedTuple):
    """A prepared change of a process's wall clock; harmless until it is applied."""

    pid: int
    page: int
    places: tuple[Place, ...]


class Reading(NamedTuple):
    """What the process takes the time to be (ns since 1970), and the real times just before and after."""

    wall_ns: int
    before_ns: int
    after_ns: int

    @property
    def ahead_ns(self) -> tuple[int, int]:
        """By how much its clock is ahead: at least, at most."""
        return self.wall_ns - self.after_ns, self.wall_ns - self.before_ns


def prepare(pid: int) -> Skew:
    """Put our code into the process; nobody jumps there yet. Raises FaultError."""

    def work() -> Skew:
        start, image = _vdso(pid)
        found = {name: at for name, at in _symbols(image).items() if name in _FUNCTIONS}
        if "__vdso_clock_gettime" not in found:
            raise FaultError("its vDSO has no clock_gettime", where=f"pid {pid}")
        with ptrace.Entered(pid) as process:
            page = _map(process, start)
            process.write(page + _CODE_AT, _CODE)
        places = (
            _place(start + at, image[at : at + _JUMP], page + _FUNCTIONS[name]) for name, at in found.items()
        )
        return Skew(pid, page, tuple(places))

    return ptrace.outliving(pid, work)


def apply(skew: Skew, *, offset_ns: int, drift_ppb: int) -> tuple[int, int]:
    """Move the clock. Returns the instants (monotonic ns) just before and just after."""
    _poke(skew.pid, skew.page, _DATA.pack(time.time_ns(), offset_ns, drift_ppb))
    return _exchange(skew.pid, [(one.address, one.after) for one in skew.places])


def restore(pid: int, places: tuple[Place, ...]) -> bool:
    """Put the original code back; says whether it is there. Idempotent; also when it never was changed.

    A process that has executed another program since has a vDSO of its own, which nobody changed.
    """
    if executed(pid, places):
        return True
    wrong = [one for one in places if _peek(pid, one.address) == one.after]
    if wrong:
        _exchange(pid, [(one.address, one.before) for one in wrong])
    return all(_peek(pid, one.address) == one.before for one in places)


def executed(pid: int, places: tuple[Place, ...]) -> bool:
    """Say whether its vDSO is not the one with these places any more. Raises FaultError."""
    start, image = _vdso(pid)
    return not {one.address for one in places} <= {start + at for at in _symbols(image).values()}


def restore_heirs(start_ticks: int, places: tuple[Place, ...]) -> list[int]:
    """Put the original code back in every process that inherited ours from the one of that start time.

    Looks again until nobody is found: one of them may fork meanwhile. Returns their pids. Raises FaultError.
    """
    found: list[int] = []
    while new := [pid for pid in _heirs(start_ticks, places) if pid not in found]:
        for pid in new:
            try:
                restore(pid, places)
            except (FaultError, OSError):
                if (one := procs.stat(pid)) is not None and not one.dead:
                    raise
        found += new
    return found


def _heirs(start_ticks: int, places: tuple[Place, ...]) -> list[int]:
    """Find who has our jumps at these places: nobody else has them at these addresses, to this page."""
    found = []
    for one in procs.everybody():
        if one.dead or one.start_ticks < start_ticks:
            continue
        with contextlib.suppress(OSError):  # somebody else's, or nothing is mapped there
            if any(_peek(one.pid, place.address) == place.after for place in places):
                found.append(one.pid)
    return found


def read(pid: int) -> Reading:
    """Ask a process for its wall clock by the very function that its program calls. Raises FaultError."""

    def work() -> Reading:
        start, image = _vdso(pid)
        function = start + _symbols(image)["__vdso_clock_gettime"]
        with ptrace.Entered(pid) as process:
            page = process.call(_MMAP, 0, _PAGE, _READ_WRITE_EXECUTE, _PRIVATE_ANONYMOUS, -1, 0)
            if page < 0:
                raise FaultError(f"mmap in its name: {os.strerror(-page)}", where=f"pid {pid}")
            try:
                process.write(page + _CODE_AT, _CODE)
                before = time.time_ns()
                process.run(page + _PROBE, rax=function, rdi=0, rsi=page + _TIMESPEC_AT)
                after = time.time_ns()
                seconds, rest = _TIMESPEC.unpack(_memory(pid, page + _TIMESPEC_AT, _TIMESPEC.size))
            finally:
                process.call(_MUNMAP, page, _PAGE)
        return Reading(seconds * _S + rest, before, after)

    return ptrace.outliving(pid, work)


@cache
def unavailable() -> str | None:
    """Say why no clock can be moved here, tried on a child of ours, or None."""
    if (reason := ptrace.unavailable() or ptrace.irreversible()) is not None:
        return reason
    child = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
    try:
        apply(prepare(child.pid), offset_ns=_S, drift_ppb=0)
        least, most = read(child.pid).ahead_ns
    except (FaultError, OSError) as error:
        return f"the vDSO cannot be patched: {error}"
    finally:
        child.kill()
        child.wait()
    return None if least <= _S <= most else "the patched vDSO tells the true time"


def _exchange(pid: int, written: list[tuple[int, str]]) -> tuple[int, int]:
    """Write code while all threads stand still, and none is in the midst of what is written over."""

    def work() -> tuple[int, int]:
        for _ in range(_TRIES):
            with ptrace.Halted(pid) as process:
                if any(process.inside(address, address + _JUMP) for address, _ in written):
                    continue
                before = time.monotonic_ns()
                for address, code in written:
                    _poke(pid, address, bytes.fromhex(code))
                return before, time.monotonic_ns()
        raise FaultError("always in the midst of reading the time", where=f"pid {pid}")

    return ptrace.alone(work)


def _place(address: int, before: bytes, target: int) -> Place:
    jump = b"\xe9" + struct.pack("<i", target - address - _JUMP)
    return Place(address, before.hex(), jump.hex())


def _map(process: ptrace.Entered, near: int) -> int:
    for hint in _gaps(process.pid, near):
        flags = _PRIVATE_ANONYMOUS | _FIXED_NOREPLACE
        page = process.call(_MMAP, hint, _PAGE, _READ_EXECUTE, flags, -1, 0)
        if page == hint:
            return page
    raise FaultError("no room for our code near its vDSO", where=f"pid {process.pid}")


def _gaps(pid: int, near: int) -> list[int]:
    """Find addresses within reach of the vDSO where nothing is mapped, those above it first."""
    areas = [area for area in _areas(pid) if area[0] < _HIGHEST]
    edges = [
        (end, areas[k + 1][0] if k + 1 < len(areas) else _HIGHEST) for k, (_, end, _) in enumerate(areas)
    ]
    found = [
        (begin + end) // 2 // _PAGE * _PAGE if begin < near else begin + 16 * _PAGE
        for begin, end in edges
        if end - begin >= _LEAST_GAP
    ]
    return sorted((one for one in found if abs(one - near) < _REACH), reverse=True)


def _areas(pid: int) -> list[tuple[int, int, str]]:
    found = []
    with open(f"/proc/{pid}/maps") as maps:  # noqa: PTH123 - the guardian imports this
        for line in maps:
            parts = line.split(maxsplit=5)
            begin, end = (int(number, 16) for number in parts[0].split("-"))
            found.append((begin, end, parts[5].strip() if len(parts) > 5 else ""))  # noqa: PLR2004 - it has a name
    return found


def _vdso(pid: int) -> tuple[int, bytes]:
    """Return where it is mapped, and the whole of it; it comes last when a process is just being made."""
    deadline = time.monotonic() + _BIRTH_LIMIT_S
    while True:
        try:
            for begin, end, name in _areas(pid):
                if name == "[vdso]":
                    return begin, _memory(pid, begin, end - begin)
        except OSError as error:
            raise FaultError(f"its memory cannot be seen: {error.strerror}", where=f"pid {pid}") from error
        if time.monotonic() > deadline:
            raise FaultError("has no vDSO", where=f"pid {pid}")
        time.sleep(0.001)


def _symbols(image: bytes) -> dict[str, int]:
    """Read the functions of an ELF image: name and offset."""
    at, _, _, _, _, size, count = struct.unpack_from("<QIHHHHH", image, 0x28)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, at + k * size) for k in range(count)]
    found = {}
    for section in sections:
        if section[1] == _DYNSYM:
            names = sections[section[6]][4]
            for offset in range(section[4], section[4] + section[5], 24):
                name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", image, offset)
                begin = names + name
                found[image[begin : image.index(b"\0", begin)].decode()] = value
    return found


def _memory(pid: int, address: int, size: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123 - see above
        memory.seek(address)
        return memory.read(size)


def _peek(pid: int, address: int) -> str:
    return _memory(pid, address, _JUMP).hex()


def _poke(pid: int, address: int, data: bytes) -> None:
    try:
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:  # noqa: PTH123 - see above
            memory.seek(address)
            memory.write(data)
    except OSError as error:
        gone = "has ended" if procs.stat(pid) is None else str(error.strerror)
        raise FaultError(gone, where=f"pid {pid}") from error
