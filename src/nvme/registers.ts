/**
 * The controller registers as a driver reads and writes them (1.4, 3.1): values only; what a change
 * of CC does is for controller.ts.
 */
import { queueAddress } from "./admin-queues.ts";
import { CC_WRITABLE, PAGE, QUEUE_ENTRIES_MAX, Register, VERSION } from "./protocol.ts";
import type { RegisterState } from "./saved-state.ts";

/** CAP: 1024 entries, queues contiguous, 10 s to get ready; the NVM command set. */
const CAP_LOW = (QUEUE_ENTRIES_MAX - 1) | (1 << 16) | (20 << 24);
const CAP_HIGH = 1 << 5;

/** The registers. */
export class Registers {
  cc = 0;
  csts = 0;
  #mask = 0;
  #aqa = 0;
  readonly #asq = new Uint32Array(2);
  readonly #acq = new Uint32Array(2);

  /** Entries of the admin submission and completion queue, and where they lie. */
  get adminQueues() {
    return {
      submission: { size: (this.#aqa & 0xfff) + 1, address: addressIn(this.#asq) },
      completion: { size: (this.#aqa >>> 16) + 1, address: addressIn(this.#acq) },
    };
  }

  /** A word; `offset` is a multiple of 4. What is not there reads as zero. */
  read(offset: number): number {
    switch (offset) {
      case Register.CAP:
        return CAP_LOW;
      case Register.CAP + 4:
        return CAP_HIGH;
      case Register.VS:
        return VERSION;
      case Register.INTMS:
      case Register.INTMC:
        return this.#mask;
      case Register.CC:
        return this.cc;
      case Register.CSTS:
        return this.csts;
      case Register.AQA:
        return this.#aqa;
      case Register.ASQ:
      case Register.ASQ + 4:
        return this.#asq[(offset - Register.ASQ) >> 2]!;
      case Register.ACQ:
      case Register.ACQ + 4:
        return this.#acq[(offset - Register.ACQ) >> 2]!;
      default:
        return 0;
    }
  }

  /** Writes a word. @returns whether there is such a register that can be written */
  write(offset: number, value: number): boolean {
    switch (offset) {
      case Register.INTMS:
        this.#mask = (this.#mask | value) >>> 0;
        return true;
      case Register.INTMC:
        this.#mask = (this.#mask & ~value) >>> 0;
        return true;
      case Register.CC:
        this.cc = value & CC_WRITABLE;
        return true;
      case Register.AQA:
        this.#aqa = value & 0x0fff_0fff;
        return true;
      case Register.ASQ:
        this.#asq[0] = value & -PAGE;
        return true;
      case Register.ASQ + 4:
        this.#asq[1] = value;
        return true;
      case Register.ACQ:
        this.#acq[0] = value & -PAGE;
        return true;
      case Register.ACQ + 4:
        this.#acq[1] = value;
        return true;
      default:
        return false;
    }
  }

  reset(): void {
    this.cc = 0;
    this.csts = 0;
    this.#mask = 0;
    this.#aqa = 0;
    this.#asq.fill(0);
    this.#acq.fill(0);
  }

  save(): RegisterState {
    const { cc, csts } = this;
    return { cc, csts, mask: this.#mask, aqa: this.#aqa, asq: [...this.#asq], acq: [...this.#acq] };
  }

  restore(state: RegisterState): void {
    this.cc = state.cc & CC_WRITABLE;
    this.csts = state.csts;
    this.#mask = state.mask;
    this.#aqa = state.aqa & 0x0fff_0fff;
    this.#asq.set(state.asq);
    this.#acq.set(state.acq);
  }
}

function addressIn(halves: Uint32Array): number {
  return queueAddress(halves[0]!, halves[1]!);
}
