/**
 * A function's interrupts: event descriptors that the client assigned, and vectors that wait.
 *
 * A vector that is raised without a descriptor, or while it is masked, stays pending and goes out as
 * soon as it can. Raised vectors are passed on by `flush`, each once however often it was raised.
 * Source: vfio-user protocol specification, "VFIO_USER_DEVICE_SET_IRQS"; include/uapi/linux/vfio.h,
 * struct vfio_irq_set.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { InterruptSink } from "../../pci/function.ts";
import type { System } from "../system/system.ts";
import { IrqSetFlag } from "./messages.ts";

/** Kinds of interrupt, in the order of VFIO's indexes. */
export const IrqIndex = { INTX: 0, MSI: 1, MSIX: 2, ERROR: 3, REQUEST: 4, COUNT: 5 } as const;

const { DATA_NONE, DATA_BOOL, DATA_EVENTFD } = IrqSetFlag;
const { ACTION_MASK, ACTION_UNMASK, ACTION_TRIGGER } = IrqSetFlag;
const DATA = DATA_NONE | DATA_BOOL | DATA_EVENTFD;
const ACTION = ACTION_MASK | ACTION_UNMASK | ACTION_TRIGGER;

const NONE = -1;
/** Bits of a vector's state. */
const MASKED = 1;
const PENDING = 2;

/** The calls that interrupts need. */
export type SignalSystem = Pick<System, "signal" | "close" | "status">;

/** What a client asks for. */
export interface IrqRequest {
  readonly flags: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** Bytes of the message after the fixed part: booleans. */
  readonly data: Uint8Array;
  /** Taken over when the request succeeds, closed by the caller when it fails. */
  readonly fds: readonly number[];
}

/** Descriptors and masks, for who goes on in this one's place. */
export interface SavedInterrupts {
  /** By index: a descriptor for each vector, −1 for none. */
  readonly fds: readonly (readonly number[])[];
  /** By index: state bits of each vector. */
  readonly states: readonly (readonly number[])[];
}

/** The interrupts. */
export class Interrupts implements InterruptSink {
  /** Passed on to the client. */
  signals = 0;
  /** Raised and not passed on, because there was nowhere to pass them to. */
  held = 0;
  readonly #system: SignalSystem;
  readonly #fds: Int32Array[];
  readonly #states: Uint8Array[];
  /** Vectors of MSI-X raised since the last flush, each once. */
  readonly #raised: Uint32Array;
  readonly #isRaised: Uint8Array;
  #raisedCount = 0;

  /** @param vectors - of MSI-X */
  constructor(system: SignalSystem, vectors: number) {
    assert(Number.isInteger(vectors) && vectors >= 0 && vectors <= 2048, "MSI-X has 2048 vectors");
    this.#system = system;
    const counts = [0, 0, vectors, 1, 1];
    this.#fds = counts.map((count) => new Int32Array(count).fill(NONE));
    this.#states = counts.map((count) => new Uint8Array(count));
    this.#raised = new Uint32Array(vectors);
    this.#isRaised = new Uint8Array(vectors);
  }

  /** Changes with what {@link save} holds. */
  revision = 0;

  /** Vectors of an index; 0 for one that has none or does not exist. */
  vectorsOf(index: number): number {
    return this.#fds[index]?.length ?? 0;
  }

  /** Descriptors held. */
  get descriptors(): number {
    return this.#fds.reduce((sum, fds) => sum + fds.filter((fd) => fd !== NONE).length, 0);
  }

  raise(vector: number): void {
    assert(vector >= 0 && vector < this.#isRaised.length, "a function raises vectors it has");
    if (this.#isRaised[vector] !== 0) return;
    this.#isRaised[vector] = 1;
    this.#raised[this.#raisedCount] = vector;
    this.#raisedCount += 1;
  }

  /** Tells the client that the device is lost: QEMU stops the machine. */
  fail(): void {
    this.#deliver(IrqIndex.ERROR, 0);
  }

  /** Passes on what was raised. */
  flush(): void {
    for (let index = 0; index < this.#raisedCount; index += 1) {
      const vector = this.#raised[index]!;
      this.#isRaised[vector] = 0;
      this.#deliver(IrqIndex.MSIX, vector);
    }
    this.#raisedCount = 0;
  }

  /** SET_IRQS. @returns an errno; a failure changes nothing */
  set(request: IrqRequest): number {
    const { flags, index, start, count } = request;
    const errno = this.#check(request);
    if (errno !== Errno.OK) return errno;
    this.revision += 1;
    const action = flags & ACTION;
    if (count === 0) {
      // Disabling an index also forgets what waits: nobody is there to hear it.
      this.#disable(index);
      return Errno.OK;
    }
    for (let vector = start; vector < start + count; vector += 1) {
      const position = vector - start;
      if ((flags & DATA_BOOL) !== 0 && request.data[position] === 0) continue;
      if (action !== ACTION_TRIGGER) this.#mask(index, vector, action === ACTION_MASK);
      else if ((flags & DATA_EVENTFD) !== 0)
        this.#assign(index, vector, request.fds[position] ?? NONE);
      else this.#deliver(index, vector);
    }
    return Errno.OK;
  }

  /** Power-on state but for descriptors, which stay assigned. */
  reset(): void {
    for (const states of this.#states) states.fill(0);
    this.#isRaised.fill(0);
    this.#raisedCount = 0;
    this.revision += 1;
  }

  /** The client is gone: closes everything. */
  clear(): void {
    for (let index = 0; index < IrqIndex.COUNT; index += 1) this.#disable(index);
    this.reset();
  }

  save(): SavedInterrupts {
    return { fds: this.#fds.map((fds) => [...fds]), states: this.#states.map((each) => [...each]) };
  }

  /** @returns false, and nothing is taken over, when the state is not of such a function */
  restore(saved: SavedInterrupts): boolean {
    const counts = this.#fds.map((fds) => fds.length).join();
    if (saved.fds.map((fds) => fds.length).join() !== counts) return false;
    if (saved.states.map((states) => states.length).join() !== counts) return false;
    for (const [index, fds] of saved.fds.entries()) this.#fds[index]!.set(fds);
    for (const [index, states] of saved.states.entries()) this.#states[index]!.set(states);
    this.revision += 1;
    return true;
  }

  #check({ flags, index, start, count, data, fds }: IrqRequest): number {
    const kind = flags & DATA;
    const action = flags & ACTION;
    const vectors = this.vectorsOf(index);
    if (index >= IrqIndex.COUNT || (flags & ~(DATA | ACTION)) !== 0) return Errno.EINVAL;
    if (kind === 0 || (kind & (kind - 1)) !== 0) return Errno.EINVAL;
    if (action === 0 || (action & (action - 1)) !== 0) return Errno.EINVAL;
    if (start + count > vectors) return Errno.EINVAL;
    if (index >= IrqIndex.ERROR && action !== ACTION_TRIGGER) return Errno.EINVAL;
    if (count === 0 && (start !== 0 || kind !== DATA_NONE || action !== ACTION_TRIGGER))
      return Errno.EINVAL;
    if (data.length !== (kind === DATA_BOOL ? count : 0)) return Errno.EINVAL;
    if (kind !== DATA_EVENTFD) return fds.length === 0 ? Errno.OK : Errno.EINVAL;
    if (action !== ACTION_TRIGGER) return Errno.EINVAL;
    if (fds.length !== 0 && fds.length !== count) return Errno.EINVAL;
    return fds.every((fd) => this.#isCounter(fd)) ? Errno.OK : Errno.EINVAL;
  }

  /** Whether a descriptor can be one of an event counter: a write to anything else may wait. */
  #isCounter(fd: number): boolean {
    const status = this.#system.status(fd);
    return typeof status !== "number" && status.kind === "other";
  }

  #disable(index: number): void {
    for (let vector = 0; vector < this.vectorsOf(index); vector += 1) {
      this.#assign(index, vector, NONE);
      this.#states[index]![vector] = 0;
    }
  }

  #assign(index: number, vector: number, fd: number): void {
    const fds = this.#fds[index]!;
    if (fds[vector] !== NONE) this.#system.close(fds[vector]!);
    fds[vector] = fd;
    if (fd !== NONE) this.#deliverPending(index, vector);
  }

  #mask(index: number, vector: number, isMasked: boolean): void {
    const states = this.#states[index]!;
    if (isMasked) {
      states[vector]! |= MASKED;
      return;
    }
    states[vector]! &= ~MASKED;
    this.#deliverPending(index, vector);
  }

  #deliverPending(index: number, vector: number): void {
    const states = this.#states[index]!;
    if ((states[vector]! & PENDING) === 0) return;
    states[vector]! &= ~PENDING;
    this.#deliver(index, vector);
  }

  #deliver(index: number, vector: number): void {
    const fd = this.#fds[index]![vector]!;
    const states = this.#states[index]!;
    if (fd === NONE || (states[vector]! & MASKED) !== 0) {
      states[vector]! |= PENDING;
      this.held += 1;
      return;
    }
    this.signals += 1;
    if (this.#system.signal(fd) >= 0) return;
    // Whoever holds the other end broke it: this vector is silent from now on.
    this.#system.close(fd);
    this.#fds[index]![vector] = NONE;
    this.revision += 1;
  }
}
