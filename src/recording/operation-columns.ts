/**
 * All operations of a recording in memory, as columns, with allocations numbered without gaps: what
 * a search over the whole recording works on.
 */
import { StackError } from "../errors.ts";
import { type Operation, OperationKind } from "./operation.ts";

/** How many operations are held at most. */
export const OPERATIONS_MAX = 2 ** 24;

/** Operations in the order of the recording. Index columns with 0 … `count` − 1. */
export class OperationColumns {
  count = 0;
  kind: Uint8Array<ArrayBuffer> = new Uint8Array(1024);
  /** Allocation 0, 1, 2 … in order of first map events; −1 for `freeBefore`. */
  allocation: Int32Array<ArrayBuffer> = new Int32Array(1024);
  line: Float64Array<ArrayBuffer> = new Float64Array(1024);
  timeUs: Float64Array<ArrayBuffer> = new Float64Array(1024);
  cpu: Int32Array<ArrayBuffer> = new Int32Array(1024);
  pid: Float64Array<ArrayBuffer> = new Float64Array(1024);
  context: Uint8Array<ArrayBuffer> = new Uint8Array(1024);
  /** First frame and size of the whole allocation (of the part, for `shrink`). */
  iovaPfn: Float64Array<ArrayBuffer> = new Float64Array(1024);
  pages: Float64Array<ArrayBuffer> = new Float64Array(1024);
  /** How many allocations there are. */
  allocations = 0;
  /** By allocation: index of its first operation, and of its `free`, −1 if it was never freed. */
  allocateAt: Int32Array<ArrayBuffer> = new Int32Array(1024);
  freeAt: Int32Array<ArrayBuffer> = new Int32Array(1024);
  readonly #numbers = new Map<number, number>();

  /** Appends an operation: pass it to {@link AllocationReader} as sink. */
  add(operation: Operation): void {
    if (this.count === this.kind.length) this.#grow();
    const at = this.count;
    this.count += 1;
    this.kind[at] = operation.kind;
    this.line[at] = operation.line;
    this.timeUs[at] = operation.timeUs;
    this.cpu[at] = operation.cpu;
    this.pid[at] = operation.pid;
    this.context[at] = operation.context;
    this.iovaPfn[at] = operation.iovaPfn;
    this.pages[at] = operation.pages;
    this.allocation[at] = this.#number(operation, at);
  }

  #number(operation: Operation, at: number): number {
    if (operation.kind === OperationKind.freeBefore) return -1;
    if (operation.kind === OperationKind.allocate) {
      const number = this.allocations;
      this.allocations += 1;
      this.#numbers.set(operation.allocation, number);
      if (number === this.allocateAt.length) {
        this.allocateAt = grownInts(this.allocateAt);
        this.freeAt = grownInts(this.freeAt);
      }
      this.allocateAt[number] = at;
      this.freeAt[number] = -1;
      return number;
    }
    const number = this.#numbers.get(operation.allocation) ?? -1;
    if (operation.kind === OperationKind.free && number >= 0) {
      this.freeAt[number] = at;
      this.#numbers.delete(operation.allocation);
    }
    return number;
  }

  #grow(): void {
    if (this.count >= OPERATIONS_MAX) {
      throw new StackError({
        code: "recording/too-many-operations",
        kind: "input",
        message: `The recording has more than ${OPERATIONS_MAX} operations`,
        hint: "cut it into parts",
      });
    }
    const size = this.kind.length * 2;
    this.line = grownFloats(this.line);
    this.timeUs = grownFloats(this.timeUs);
    this.pid = grownFloats(this.pid);
    this.iovaPfn = grownFloats(this.iovaPfn);
    this.pages = grownFloats(this.pages);
    this.allocation = grownInts(this.allocation);
    this.cpu = grownInts(this.cpu);
    const kind = new Uint8Array(size);
    kind.set(this.kind);
    this.kind = kind;
    const context = new Uint8Array(size);
    context.set(this.context);
    this.context = context;
  }
}

function grownFloats(column: Float64Array): Float64Array<ArrayBuffer> {
  const next = new Float64Array(column.length * 2);
  next.set(column);
  return next;
}

function grownInts(column: Int32Array): Int32Array<ArrayBuffer> {
  const next = new Int32Array(column.length * 2);
  next.set(column);
  return next;
}
