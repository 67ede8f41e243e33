/**
 * A kernel within the process, for tests: what simulated processes share. Names in the file system,
 * the objects that descriptors stand for, a clock that only waiting moves, and faults on demand.
 */
import { SimulatedFile } from "./simulated-file.ts";
import type { SimulatedEvent } from "./simulated-object.ts";
import type { SimulatedListener, SimulatedSocket } from "./simulated-socket.ts";

/** What a descriptor can stand for. */
export type SimulatedObject = SimulatedFile | SimulatedEvent | SimulatedSocket | SimulatedListener;

/** What processes share. */
export class SimulatedKernel {
  /** Microseconds. */
  now = 0;
  /** Descriptors that a process may have open (RLIMIT_NOFILE). */
  descriptorsMax = 1024;
  /** Bytes that a socket takes before its reader must read. */
  socketBytes = 212_992;
  /** Called before each call that can fail, with its name: an error number makes it fail, 0 not. */
  fault: (call: string) => number = () => 0;
  /** Called when a process would wait: lets others run. @returns whether anything happened */
  idle: () => boolean = () => false;
  readonly names = new Map<string, SimulatedFile | SimulatedListener>();
  #inodes = 0;

  /** Makes a file of the file system, as a disk image is. */
  createFile(path: string, bytes: number, isReadOnly = false): SimulatedFile {
    const file = this.newFile("regular", bytes);
    file.isReadOnly = isReadOnly;
    file.references = 1;
    this.names.set(path, file);
    return file;
  }

  newFile(kind: SimulatedFile["fileKind"], bytes: number): SimulatedFile {
    this.#inodes += 1;
    return new SimulatedFile(kind, this.#inodes, bytes);
  }
}
