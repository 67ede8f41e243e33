/**
 * Memory files of a virtual machine as this process sees them: each file mapped once, in windows,
 * however many regions show parts of it.
 *
 * Touching a mapping beyond its file's end ends the process (SIGBUS), and no language can catch
 * that here. So a file is accepted only when nobody can make it shorter any more: it carries the
 * seal F_SEAL_SHRINK, or takes it from us, which every memory file that was made sealable does; its
 * size is looked at after that. QEMU's memory-backend-memfd seals its memory by itself. What
 * cannot be sealed (files of disks, memory files made without sealing) is refused, unless the caller
 * trusts the client with this process. What remains: pages that the machine itself has lost
 * (hardware errors), and holes punched into huge pages while the pool of them is empty.
 *
 * Windows with no user are kept for a while, because firmware takes the layout of main memory
 * apart and rebuilds it, and a new window of 1 GiB costs milliseconds.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { MAP_BYTES_MAX, type Mapping } from "./mapping.ts";
import { Seal, type System } from "./system.ts";

/** Windows without a user that are kept. */
const IDLE_WINDOWS_MAX = 16;

/** A piece of a file in memory. */
export interface WindowPiece {
  readonly buffer: ArrayBuffer;
  readonly byteOffset: number;
  readonly bytes: number;
}

/** A stretch of a file, held in memory. */
export interface WindowHold {
  /** In order, together the stretch. */
  readonly pieces: readonly WindowPiece[];
  /** Lets go; once. */
  release(): void;
}

/** How a {@link WindowCache} works. */
export interface WindowCacheOptions {
  /**
   * `refuse`: what others could make shorter is no memory. `trust`: a client that does so ends the
   * process that serves it.
   */
  readonly unsealed?: "refuse" | "trust";
  /** Brings pages in when a window is made, as pinning would. */
  readonly populate?: boolean;
}

interface Window {
  readonly mapping: Mapping;
  readonly key: string;
  holds: number;
}

/** The windows of one virtual machine. */
export class WindowCache {
  readonly #system: System;
  readonly #owner: string;
  readonly #options: WindowCacheOptions;
  /** By file, access and number of the window. */
  readonly #windows = new Map<string, Window>();
  /** Those without a user, the longest idle first. */
  readonly #idle = new Set<Window>();

  constructor(system: System, owner: string, options: WindowCacheOptions = {}) {
    this.#system = system;
    this.#owner = owner;
    this.#options = options;
  }

  get windowCount(): number {
    return this.#windows.size;
  }

  /**
   * Takes hold of a stretch of a file.
   *
   * @param access - `shared`: stores reach the file; `private`: it is only read
   * @returns the hold, or an errno
   */
  hold(
    fd: number,
    offset: number,
    bytes: number,
    access: "shared" | "private",
  ): WindowHold | number {
    const end = offset + bytes;
    if (!(offset >= 0 && bytes > 0 && Number.isSafeInteger(end))) return Errno.EINVAL;
    const sealed = this.#seal(fd);
    if (sealed !== 0) return sealed;
    const status = this.#system.status(fd);
    if (typeof status === "number") return -status;
    if (status.kind !== "regular") return Errno.ENODEV;
    if (end > status.bytes) return Errno.EINVAL;
    // A window that another descriptor of the file made must not give this one more than it has.
    if (access === "shared" && !this.#system.isWritable(fd)) return Errno.EACCES;
    // Huge pages are reserved for shared windows alone; without, touching one could end the process.
    const isHuge = status.blockBytes > this.#system.pageBytes;
    const mapped = isHuge ? "shared" : access;
    const file = `${status.device}/${status.inode}/${mapped}`;
    const windows: Window[] = [];
    const pieces: WindowPiece[] = [];
    for (let at = offset; at < end; ) {
      const start = Math.floor(at / MAP_BYTES_MAX) * MAP_BYTES_MAX;
      const most = Math.min(MAP_BYTES_MAX, status.bytes - start);
      const window = this.#take(`${file}/${start}`, fd, start, most, at, mapped);
      if (typeof window === "number") {
        for (const taken of windows) this.#drop(taken);
        return window;
      }
      const count = Math.min(end, start + most) - at;
      const { buffer, byteOffset } = window.mapping;
      windows.push(window);
      pieces.push({ buffer, byteOffset: byteOffset + at - start, bytes: count });
      at += count;
    }
    let isHeld = true;
    const release = () => {
      assert(isHeld, "a hold is let go of once");
      isHeld = false;
      for (const window of windows) this.#drop(window);
    };
    return { pieces, release };
  }

  /** Unmaps every window without a user, as when a client has gone. */
  trim(keep = 0): void {
    for (const window of this.#idle) {
      if (this.#idle.size <= keep) return;
      this.#idle.delete(window);
      if (this.#windows.get(window.key) === window) this.#windows.delete(window.key);
      this.#system.unmap(window.mapping);
    }
  }

  /** Makes sure that the file cannot shrink. @returns 0 or an errno */
  #seal(fd: number): number {
    const seals = this.#system.seals(fd);
    if (seals >= 0 && (seals & Seal.SHRINK) !== 0) return 0;
    if (seals >= 0 && this.#system.addSeals(fd, Seal.SHRINK) === 0) return 0;
    if (this.#options.unsealed === "trust") return 0;
    return seals === -Errno.EBADF ? Errno.EBADF : Errno.EACCES;
  }

  #take(
    key: string,
    fd: number,
    start: number,
    bytes: number,
    at: number,
    access: "shared" | "private",
  ): Window | number {
    const known = this.#windows.get(key);
    // A file may have grown since: a longer window then takes the place of the known one.
    if (known !== undefined && start + known.mapping.bytes > at && known.mapping.bytes >= bytes) {
      known.holds += 1;
      this.#idle.delete(known);
      return known;
    }
    const { populate = false } = this.#options;
    const request = { fd, offset: start, bytes, access, populate };
    const mapping = this.#system.map(request, this.#owner);
    if (typeof mapping === "number") return -mapping;
    const window: Window = { mapping, key, holds: 1 };
    this.#windows.set(key, window);
    return window;
  }

  #drop(window: Window): void {
    window.holds -= 1;
    if (window.holds > 0) return;
    this.#idle.add(window);
    this.trim(IDLE_WINDOWS_MAX);
  }
}
