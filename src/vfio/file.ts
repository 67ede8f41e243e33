/**
 * A task that uses VFIO: its rights, its descriptors, and the open files that they lead to.
 *
 * Source: fs/file.c: alloc_fd, close_fd; fs/ioctl.c; fs/file_table.c:fput (a file is released with
 * its last reference, be that a descriptor or another file).
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import { LowestFree } from "../iommu/domain-ids.ts";
import { UserProcess } from "./process/user-process.ts";
import { isBytes, NO_USER_MEMORY, type UserMemory } from "./uapi/user-memory.ts";

/** Third argument of ioctl: a number, or the bytes that a pointer points to. */
export type IoctlArgument = number | Uint8Array;

/** What an ioctl gave. */
export interface IoctlResult {
  /** 0 on success. */
  readonly errno: number;
  /** What the call returns when it succeeds: 0, a descriptor, an extension's value. */
  readonly value: number;
  /** The structure as the kernel leaves it; null when the call wrote nothing back. */
  readonly bytes: Uint8Array | null;
}

/** A result without bytes. */
export function result(errno: number, value = 0): IoctlResult {
  return { errno, value: errno === Errno.OK ? value : 0, bytes: null };
}

/** What a kind of file does. */
export interface FileOperations {
  ioctl(task: VfioTask, request: number, argument: IoctlArgument): IoctlResult;
  /** Nothing leads to the file any more. */
  release(): void;
}

/** An open file. It begins with one reference, that of who opened it. */
export class OpenFile {
  readonly operations: FileOperations;
  #references = 1;

  constructor(operations: FileOperations) {
    this.operations = operations;
  }

  /** Takes a reference. */
  get(): this {
    assert(this.#references > 0, "a file released is not used again");
    this.#references += 1;
    return this;
  }

  /** Gives a reference back; the last one releases the file. */
  put(): void {
    assert(this.#references > 0, "a file is released once");
    this.#references -= 1;
    if (this.#references === 0) this.operations.release();
  }
}

/** A file of another kind, such as a pipe: nothing that VFIO knows. */
export class ForeignFile implements FileOperations {
  ioctl(): IoctlResult {
    return result(Errno.ENOTTY);
  }

  release(): void {}
}

/** Descriptors of one process, lowest free first. */
export class Descriptors {
  readonly #limit: number;
  readonly #numbers: LowestFree;
  readonly #files = new Map<number, OpenFile>();

  /** @param limit - RLIMIT_NOFILE */
  constructor(limit: number) {
    this.#limit = limit;
    this.#numbers = new LowestFree(limit);
  }

  /** Descriptors in use. */
  get count(): number {
    return this.#files.size;
  }

  /** Whether no descriptor is left. */
  get isFull(): boolean {
    return this.count >= this.#limit;
  }

  /**
   * Gives a file a descriptor, which takes over the caller's reference.
   *
   * @returns the descriptor, or EMFILE, and then the caller still has its reference
   */
  install(file: OpenFile): IoctlResult {
    const fd = this.#numbers.take();
    if (fd < 0) return result(Errno.EMFILE);
    this.#files.set(fd, file);
    return result(Errno.OK, fd);
  }

  /** The file behind a descriptor, or null. */
  find(fd: number): OpenFile | null {
    return this.#files.get(fd) ?? null;
  }

  /** Another descriptor for the same file. @returns EBADF, EMFILE */
  duplicate(fd: number): IoctlResult {
    const file = this.find(fd);
    if (file === null) return result(Errno.EBADF);
    const installed = this.install(file);
    if (installed.errno === Errno.OK) file.get();
    return installed;
  }

  /** Closes a descriptor. @returns EBADF when it is not open */
  close(fd: number): number {
    const file = this.#files.get(fd);
    if (file === undefined) return Errno.EBADF;
    this.#files.delete(fd);
    this.#numbers.give(fd);
    file.put();
    return Errno.OK;
  }

  /** Closes everything, as when the process ends. */
  closeAll(): void {
    for (const fd of [...this.#files.keys()].sort((a, b) => a - b)) this.close(fd);
  }
}

/** What a task is made of. */
export interface VfioTaskOptions {
  /** Memory, limits and CAP_IPC_LOCK; a process without memory of its own by default. */
  readonly process?: UserProcess;
  /** CAP_SYS_RAWIO, which unprotected groups ask for. */
  readonly canRawIo?: boolean;
  /** What pointers inside structures lead to; nothing without it. */
  readonly userMemory?: UserMemory;
  /** RLIMIT_NOFILE, 1024 without it. */
  readonly filesMax?: number;
}

/** A task. */
export class VfioTask {
  readonly process: UserProcess;
  canRawIo: boolean;
  userMemory: UserMemory;
  readonly descriptors: Descriptors;

  constructor(options: VfioTaskOptions = {}) {
    this.process = options.process ?? new UserProcess({ memory: null });
    this.canRawIo = options.canRawIo ?? false;
    this.userMemory = options.userMemory ?? NO_USER_MEMORY;
    this.descriptors = new Descriptors(options.filesMax ?? 1024);
  }

  /** Opens a file of its own. @returns its descriptor, or EMFILE */
  open(operations: FileOperations): IoctlResult {
    return this.descriptors.install(new OpenFile(operations));
  }

  /**
   * ioctl(2).
   *
   * @param argument - a bigint is a number as well: both are the kernel's `unsigned long`
   * @returns EBADF when the descriptor is not open, EFAULT for an argument that is neither a number
   *   nor bytes, else what the file says
   */
  ioctl(fd: number, request: number, argument: IoctlArgument | bigint = 0): IoctlResult {
    const file = this.descriptors.find(fd);
    if (file === null) return result(Errno.EBADF);
    const given = typeof argument === "bigint" ? Number(BigInt.asUintN(64, argument)) : argument;
    if (typeof given !== "number" && !isBytes(given)) return result(Errno.EFAULT);
    return file.operations.ioctl(this, request >>> 0, given);
  }

  /** close(2). @returns an errno */
  close(fd: number): number {
    return this.descriptors.close(fd);
  }
}
