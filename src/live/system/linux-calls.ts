/**
 * The C library's functions as foreign functions, loaded when they are first needed.
 *
 * Pointers are passed as numbers (`uintptr_t`): no object is made per call, and what an address
 * points at is kept reachable by whoever owns the mapping. Results of −1 have the reason in
 * `errno()`. Measured: bench/live-system.bench.ts.
 */
import { StackError } from "../../errors.ts";

type Call = (...args: readonly number[]) => number;

/** The functions of `linux-system.ts`. */
export interface LinuxCalls {
  readonly errno: () => number;
  /** A buffer over memory outside of the heap, which it does not own. */
  readonly view: (address: number, bytes: number) => ArrayBuffer;
  readonly addressOf: (buffer: ArrayBufferLike) => number;
  readonly syscall: Call;
  readonly sysconf: Call;
  readonly mmap: Call;
  readonly munmap: Call;
  readonly close: Call;
  readonly fcntl: Call;
  readonly ftruncate: Call;
  readonly memfdCreate: Call;
  readonly eventfd: Call;
  readonly read: Call;
  readonly write: Call;
  readonly open: Call;
  readonly preadv: Call;
  readonly pwritev: Call;
  readonly fdatasync: Call;
  readonly fallocate: Call;
  readonly statx: Call;
  readonly lseek: Call;
  readonly fchmod: Call;
  readonly socket: Call;
  readonly socketpair: Call;
  readonly bind: Call;
  readonly listen: Call;
  readonly connect: Call;
  readonly accept4: Call;
  readonly shutdown: Call;
  readonly getsockopt: Call;
  readonly ppoll: Call;
}

// The wrappers that may do more than one system call are avoided: recvmmsg and sendmmsg must be one,
// because a successor relies on the count having been written within it (see message-slot.ts).
const prototypes: Readonly<
  Record<Exclude<keyof LinuxCalls, "errno" | "view" | "addressOf">, string>
> = {
  syscall: "long syscall(long n, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e)",
  sysconf: "long sysconf(int name)",
  mmap: "intptr_t mmap(uintptr_t a, size_t bytes, int access, int flags, int fd, int64_t at)",
  munmap: "int munmap(uintptr_t a, size_t bytes)",
  close: "int close(int fd)",
  fcntl: "int fcntl(int fd, int command, long argument)",
  ftruncate: "int ftruncate(int fd, int64_t bytes)",
  memfdCreate: "int memfd_create(uintptr_t name, unsigned int flags)",
  eventfd: "int eventfd(unsigned int value, int flags)",
  read: "intptr_t read(int fd, uintptr_t a, size_t bytes)",
  write: "intptr_t write(int fd, uintptr_t a, size_t bytes)",
  open: "int open(uintptr_t path, int flags, int mode)",
  preadv: "intptr_t preadv(int fd, uintptr_t pieces, int count, int64_t at)",
  pwritev: "intptr_t pwritev(int fd, uintptr_t pieces, int count, int64_t at)",
  fdatasync: "int fdatasync(int fd)",
  fallocate: "int fallocate(int fd, int mode, int64_t at, int64_t bytes)",
  statx: "int statx(int fd, uintptr_t path, int flags, unsigned int mask, uintptr_t out)",
  lseek: "int64_t lseek(int fd, int64_t at, int whence)",
  fchmod: "int fchmod(int fd, unsigned int mode)",
  socket: "int socket(int domain, int type, int protocol)",
  socketpair: "int socketpair(int domain, int type, int protocol, uintptr_t out)",
  bind: "int bind(int fd, uintptr_t address, unsigned int bytes)",
  listen: "int listen(int fd, int backlog)",
  connect: "int connect(int fd, uintptr_t address, unsigned int bytes)",
  accept4: "int accept4(int fd, uintptr_t address, uintptr_t bytes, int flags)",
  shutdown: "int shutdown(int fd, int how)",
  getsockopt: "int getsockopt(int fd, int level, int name, uintptr_t value, uintptr_t bytes)",
  ppoll: "int ppoll(uintptr_t set, unsigned long count, uintptr_t timeout, uintptr_t mask)",
};

/** Numbers of system calls, which differ by architecture. Source: the kernel's syscall tables. */
export interface CallNumbers {
  readonly recvmmsg: number;
  readonly sendmmsg: number;
  readonly ioSetup: number;
  readonly ioDestroy: number;
  readonly ioGetevents: number;
  readonly ioSubmit: number;
}

const numbersByArchitecture: Readonly<Record<string, CallNumbers>> = {
  x64: {
    recvmmsg: 299,
    sendmmsg: 307,
    ioSetup: 206,
    ioDestroy: 207,
    ioGetevents: 208,
    ioSubmit: 209,
  },
  arm64: {
    recvmmsg: 243,
    sendmmsg: 269,
    ioSetup: 0,
    ioDestroy: 1,
    ioGetevents: 4,
    ioSubmit: 2,
  },
};

/** The call numbers of this machine. @throws StackError `live/platform` */
export function callNumbers(platform: string, architecture: string): CallNumbers {
  const numbers = platform === "linux" ? numbersByArchitecture[architecture] : undefined;
  if (numbers !== undefined) return numbers;
  throw new StackError({
    code: "live/platform",
    kind: "usage",
    message: `live devices need Linux on x86-64 or arm64, and this is ${platform} on ${architecture}`,
    hint: "run this command on a Linux host, or in a Linux virtual machine",
  });
}

/** Loads the functions. @throws StackError `live/foreign-calls` */
export async function loadCalls(): Promise<LinuxCalls> {
  try {
    const { default: koffi } = await import("koffi");
    const library = koffi.load(null);
    const functions = Object.entries(prototypes).map(([name, prototype]): [string, Call] => [
      name,
      library.func(prototype),
    ]);
    return {
      ...(Object.fromEntries(functions) as Record<keyof typeof prototypes, Call>),
      errno: () => koffi.errno(),
      view: (address, bytes) => koffi.view(BigInt(address), bytes),
      addressOf: (buffer) => Number(koffi.address(buffer)),
    };
  } catch (cause) {
    throw new StackError({
      code: "live/foreign-calls",
      kind: "usage",
      message: "the package for foreign calls (koffi) does not load on this system",
      hint: "install iommukit again with optional packages enabled: npm install --include=optional",
      cause,
    });
  }
}
