/**
 * Flags and options of the system calls used, as x86-64 and arm64 Linux number them alike.
 * Source: include/uapi/asm-generic and include/uapi/linux.
 */
import type { FileKind } from "./system.ts";

export const Flag = {
  PROT_READ_WRITE: 3,
  MAP_SHARED: 1,
  MAP_PRIVATE: 2,
  MAP_FIXED: 0x10,
  MAP_ANONYMOUS: 0x20,
  MAP_NORESERVE: 0x4000,
  MAP_POPULATE: 0x8000,
  MFD_CLOEXEC: 1,
  MFD_ALLOW_SEALING: 2,
  EFD_NONBLOCK: 0x800,
  EFD_CLOEXEC: 0x8_0000,
  O_RDONLY: 0,
  O_RDWR: 2,
  O_ACCMODE: 3,
  O_NONBLOCK: 0x800,
  O_CLOEXEC: 0x8_0000,
  AT_EMPTY_PATH: 0x1000,
  AF_UNIX: 1,
  SOCK_STREAM: 1,
  SOCK_NONBLOCK: 0x800,
  SOCK_CLOEXEC: 0x8_0000,
  MSG_PEEK: 2,
  MSG_DONTWAIT: 0x40,
  MSG_NOSIGNAL: 0x4000,
  MSG_CMSG_CLOEXEC: 0x4000_0000,
  FALLOC_KEEP_SIZE: 1,
  FALLOC_PUNCH_HOLE: 2,
  FALLOC_ZERO_RANGE: 0x10,
} as const;

export const Option = {
  F_GETFL: 3,
  F_DUPFD_CLOEXEC: 1030,
  F_ADD_SEALS: 1033,
  F_GET_SEALS: 1034,
  SC_PAGESIZE: 30,
  SEEK_END: 2,
  SHUT_RDWR: 2,
  SOL_SOCKET: 1,
  SO_PEERCRED: 17,
} as const;

/** Places in the memory for arguments of single calls; paths and addresses begin at 0. */
export const Scratch = {
  /** An empty path. */
  PATH: 4096,
  ONE: 4104,
  DRAINED: 4112,
  /** A `struct pollfd`, and no time to wait. */
  POLL: 4160,
  NO_TIME: 4168,
  STATX: 4352,
  BYTES: 8192,
} as const;

const kinds: Readonly<Record<number, FileKind>> = {
  1: "pipe",
  2: "character",
  4: "directory",
  6: "block",
  8: "regular",
  12: "socket",
};

/** The kind in the upper bits of a file's mode; eventfds and their like have none. */
export function kindOfMode(mode: number): FileKind {
  return kinds[mode >> 12] ?? "other";
}
