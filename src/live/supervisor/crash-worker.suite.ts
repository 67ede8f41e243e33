/**
 * A worker for tests, in a process of its own: devices that add up what is written to them, tell
 * guest memory, and raise an interrupt. `supervisor.test.ts` bundles and starts it.
 */
import { StackError } from "../../errors.ts";
import { GuestMemory } from "../../memory/guest-memory.ts";
import type { MemoryView } from "../../memory/memory-view.ts";
import type { PciFunction, PciRegion } from "../../pci/function.ts";
import { Interrupts } from "../vfio-user/interrupts.ts";
import { VfioUserServer } from "../vfio-user/server.ts";
import { runWorker, type WorkerContext } from "../worker/run-worker.ts";

const REGION_BYTES = 64;

/** Adds up: offset 0 takes values; 0 reads the sum, 4 the count. Offset 8 ends the process. */
class AddingFunction implements PciFunction {
  readonly regions: readonly PciRegion[] = [
    { index: 0, bytes: REGION_BYTES, readable: true, writable: true },
  ];
  readonly vectors = 2;
  revision = 0;
  #sum = 0;
  #count = 0;
  #hasNews = false;
  readonly #memory: GuestMemory;
  readonly #interrupts: Interrupts;
  readonly #context: WorkerContext;

  constructor(memory: GuestMemory, interrupts: Interrupts, context: WorkerContext) {
    this.#memory = memory;
    this.#interrupts = interrupts;
    this.#context = context;
  }

  read(_region: number, offset: number, target: MemoryView, at: number, count: number): boolean {
    if (offset + count > REGION_BYTES) return false;
    const value = offset === 0 ? this.#sum : offset === 4 ? this.#count : 0;
    for (let index = 0; index < count; index += 1)
      target.u8[at + index] = (value >>> (8 * index)) & 0xff;
    return true;
  }

  write(_region: number, offset: number, source: MemoryView, at: number, count: number): boolean {
    if (offset + count > REGION_BYTES) return false;
    if (offset === 8) this.#doHarm(source.u8[at]!);
    if (offset !== 0) return true;
    let value = 0;
    for (let index = 0; index < count; index += 1) value += source.u8[at + index]! << (8 * index);
    this.#sum = (Math.imul(this.#sum, 31) + value) >>> 0;
    this.#count += 1;
    this.revision += 1;
    this.#hasNews = true;
    return true;
  }

  work(): boolean {
    if (!this.#hasNews) return false;
    this.#hasNews = false;
    this.#memory.writeU32(0x1000, this.#count);
    this.#context.metrics.counter("sums", "adder0").add(1);
    this.#interrupts.raise(1);
    return false;
  }

  reset(): void {
    this.#sum = 0;
    this.#count = 0;
    this.revision += 1;
  }

  save(): unknown {
    return { sum: this.#sum, count: this.#count };
  }

  restore(state: unknown): void {
    const { sum, count } = state as { sum: number; count: number };
    this.#sum = sum;
    this.#count = count;
    this.#hasNews = true;
  }

  #doHarm(kind: number): void {
    if (kind === 1) process.exit(7);
    // Endless on purpose: the supervisor has to notice.
    for (let spin = 0; kind === 2; spin += 1) if (spin < 0) return;
  }
}

await runWorker((machine, context) => {
  const { devices, refuse } = machine as { devices: readonly string[]; refuse?: string };
  if (refuse !== undefined)
    throw new StackError({ code: "test/refused", kind: "input", message: refuse, hint: "do not" });
  return devices.map((name) => {
    const memory = new GuestMemory();
    const interrupts = new Interrupts(context.system, 2);
    const pci = new AddingFunction(memory, interrupts, context);
    const { system, windows, log } = context;
    const journal = context.journal(name);
    const options = {
      system,
      files: windows,
      function: pci,
      interrupts,
      memory,
      name,
      log,
      journal,
    };
    return { name, server: new VfioUserServer(options) };
  });
});
