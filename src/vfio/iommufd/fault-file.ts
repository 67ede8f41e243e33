/**
 * The file of a fault object, which a user reads page requests from and writes answers to.
 *
 * Source: drivers/iommu/iommufd/eventq.c: iommufd_fault_fops, iommufd_eventq_fops_release.
 */
import { Errno } from "../../errno.ts";
import { type FileOperations, type IoctlResult, result } from "../file.ts";
import type { FaultObject } from "./fault-object.ts";

/** What stays open while the file is. */
interface Holder {
  get(): object;
  put(): void;
}

/** The file. */
export class FaultFile implements FileOperations {
  readonly fault: FaultObject;
  readonly #holder: Holder;

  constructor(fault: FaultObject, holder: Holder) {
    this.fault = fault;
    this.#holder = holder;
    fault.users += 1;
    holder.get();
  }

  /** poll(2): whether a read would give something. A write never waits. */
  get isReadable(): boolean {
    return this.fault.isReadable;
  }

  /**
   * read(2).
   *
   * @param count - bytes that there is room for
   * @returns the bytes, or an errno: ESPIPE, EINVAL
   */
  read(count: number): Uint8Array | number {
    return this.fault.read(count);
  }

  /** write(2). @returns how many bytes were taken; an errno when none: ESPIPE, EINVAL, EFAULT */
  write(bytes: Uint8Array): { readonly errno: number; readonly done: number } {
    return this.fault.write(bytes);
  }

  ioctl(): IoctlResult {
    return result(Errno.ENOTTY);
  }

  release(): void {
    this.fault.users -= 1;
    this.#holder.put();
  }
}
