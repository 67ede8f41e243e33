/**
 * Error numbers of Linux, as the mechanism rooms return them: 0 is success, an error is its
 * positive number. Source: include/uapi/asm-generic/errno-base.h and errno.h.
 */
export const Errno = {
  OK: 0,
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EPIPE: 32,
  ERANGE: 34,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  EOVERFLOW: 75,
  EBADFD: 77,
  ENOTSOCK: 88,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ECONNRESET: 104,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EREMOTEIO: 121,
  EPROBE_DEFER: 517,
} as const;

/** One of the numbers of {@link Errno}. */
export type Errno = (typeof Errno)[keyof typeof Errno];

const nameByNumber = new Map<number, string>(
  Object.entries(Errno).map(([name, number]) => [number, name]),
);

/**
 * Names an error number as the kernel's headers do.
 *
 * @param errno - a positive error number, or 0
 * @returns `"EINVAL"` for 22, `"OK"` for 0, and `"errno 999"` for a number this table lacks
 */
export function errnoName(errno: number): string {
  return nameByNumber.get(errno) ?? `errno ${errno}`;
}
