/**
 * A host's NVMe driver for the tests, written from the specification without the controller's
 * constants: it resets, enables, identifies, makes queues, does I/O, takes events and shuts down in
 * the order in which Linux's does.
 */
import type { BlockStore, Done } from "../block/block-store.ts";
import type { Segment } from "../memory/device-memory.ts";
import { GuestMemory } from "../memory/guest-memory.ts";
import { newView } from "../memory/memory-view.ts";
import type { PciFunction } from "../pci/function.ts";

/** A store in memory whose slow operations end when the test says so, and that can fail. */
export class TestStore implements BlockStore {
  readonly data: Uint8Array;
  readonly blockBytes: number;
  isReadOnly = false;
  readonly id = "SERIAL-0001";
  /** Whether flush, discard and zeroing wait for {@link finish}. */
  isSlow = false;
  /** errno that operations end with. */
  errno = 0;
  /** What was called, in order. */
  readonly calls: string[] = [];
  waiting: (() => void)[] = [];

  constructor(bytes = 1 << 20, blockBytes = 512) {
    this.data = new Uint8Array(bytes);
    this.blockBytes = blockBytes;
    for (let at = 0; at < bytes; at += 4) this.data[at + (at % 3)] = (at * 2654435761) >>> 24;
  }

  get bytes(): number {
    return this.data.length;
  }

  read(at: number, segments: readonly Segment[], done: Done): void {
    this.calls.push(`read ${at}`);
    let from = at;
    for (const segment of this.errno === 0 ? segments : []) {
      const { view, bytes } = segment;
      view.u8.set(this.data.subarray(from, from + bytes), segment.at);
      from += bytes;
    }
    done(this.errno);
  }

  write(at: number, segments: readonly Segment[], done: Done): void {
    this.calls.push(`write ${at}`);
    let to = at;
    for (const { view, at: start, bytes } of this.errno === 0 ? segments : []) {
      this.data.set(view.u8.subarray(start, start + bytes), to);
      to += bytes;
    }
    done(this.errno);
  }

  flush(done: Done): void {
    this.calls.push("flush");
    this.#later(() => {}, done);
  }

  discard(at: number, bytes: number, done: Done): void {
    this.calls.push(`discard ${at} ${bytes}`);
    this.#later(() => this.data.fill(0xdd, at, at + bytes), done);
  }

  writeZeroes(at: number, bytes: number, mayUnmap: boolean, done: Done): void {
    this.calls.push(`zero ${at} ${bytes} ${mayUnmap ? "unmap" : "keep"}`);
    this.#later(() => this.data.fill(0, at, at + bytes), done);
  }

  /** Ends everything that waits. */
  finish(): void {
    const { waiting } = this;
    this.waiting = [];
    for (const end of waiting) end();
  }

  #later(effect: () => void, done: Done): void {
    const { errno } = this;
    const end = (): void => {
      if (errno === 0) effect();
      done(errno);
    };
    if (this.isSlow) this.waiting.push(end);
    else end();
  }
}

/** Memory for DMA: `address` is what the device is told. */
export interface DmaBuffer {
  readonly address: number;
  read(at: number, bytes: number): Uint8Array;
  write(at: number, bytes: Uint8Array): void;
}

/** Where a host gets memory for DMA from. */
export interface DmaSource {
  allocate(pages: number): DmaBuffer;
}

/** Plain guest memory, contiguous. */
export class PlainDma implements DmaSource {
  readonly memory: GuestMemory;
  #next: number;

  constructor(memory: GuestMemory, start = 0x10_0000) {
    this.memory = memory;
    this.#next = start;
  }

  allocate(pages: number): DmaBuffer {
    const address = this.#next;
    this.#next += pages * 4096;
    return bufferAt(this.memory, address);
  }
}

/** The bytes of guest memory from an address on. */
export function bufferAt(memory: GuestMemory, address: number, isAt = address): DmaBuffer {
  return {
    address: isAt,
    read(at, bytes) {
      const view = newView(bytes);
      if (!memory.copyOut(address + at, view, 0, bytes)) throw new Error("outside memory");
      return view.u8;
    },
    write(at, bytes) {
      const view = newView(bytes.length);
      view.u8.set(bytes);
      if (!memory.copyIn(address + at, view, 0, bytes.length)) throw new Error("outside memory");
    },
  };
}

/** What a command is given as. Words are cdw10 … cdw15. */
export interface Command {
  readonly opcode: number;
  readonly flags?: number;
  readonly namespace?: number;
  readonly prp1?: number;
  readonly prp2?: number;
  /** Instead of PRPs: 16 bytes. */
  readonly sgl?: Uint8Array;
  readonly words?: readonly number[];
}

/** A completion as the host reads it. */
export interface Completion {
  readonly result: number;
  readonly head: number;
  readonly queue: number;
  readonly id: number;
  /** Type and code: bits 0 … 10. */
  readonly status: number;
  readonly doNotRetry: boolean;
}

/** A queue pair as the host sees it. */
export class HostQueue {
  readonly id: number;
  readonly entries: number;
  readonly submission: DmaBuffer;
  readonly completion: DmaBuffer;
  tail = 0;
  head = 0;
  phase = 1;
  readonly done = new Map<number, Completion>();

  constructor(dma: DmaSource, id: number, entries: number) {
    this.id = id;
    this.entries = entries;
    this.submission = dma.allocate(Math.ceil((entries * 64) / 4096));
    this.completion = dma.allocate(Math.ceil((entries * 16) / 4096));
    // No entry may look new before it is: phases start at 0.
    this.completion.write(0, new Uint8Array(entries * 16));
  }
}

const halves = (value: number): [number, number] => [value >>> 0, Math.floor(value / 2 ** 32)];

/** The driver. */
export class NvmeHost {
  device: PciFunction;
  readonly dma: DmaSource;
  admin: HostQueue;
  readonly queues: HostQueue[] = [];
  nextId = 0;
  /** Most turns of work that a command may take. */
  patience = 1000;
  /** Completions that came for a command that was not waiting for one. */
  readonly strays: Completion[] = [];
  readonly outstanding = new Set<number>();
  readonly #scratch = newView(64);

  constructor(device: PciFunction, dma: DmaSource) {
    this.device = device;
    this.dma = dma;
    this.admin = new HostQueue(dma, 0, 32);
  }

  readRegister(offset: number, bytes = 4): number {
    if (!this.device.read(0, offset, this.#scratch, 0, bytes)) throw new Error("no such register");
    const view = new DataView(this.#scratch.u8.buffer);
    if (bytes === 8) return Number(view.getBigUint64(0, true));
    return bytes === 4
      ? view.getUint32(0, true)
      : bytes === 2
        ? view.getUint16(0, true)
        : view.getUint8(0);
  }

  writeRegister(offset: number, value: number, bytes = 4): void {
    new DataView(this.#scratch.u8.buffer).setBigUint64(0, BigInt(value), true);
    if (!this.device.write(0, offset, this.#scratch, 0, bytes)) throw new Error("no such register");
  }

  /** Memory space and bus master on. */
  masterBus(): void {
    this.#scratch.u8[0] = 6;
    this.device.write(7, 4, this.#scratch, 0, 1);
  }

  run(): void {
    for (let turn = 0; turn < this.patience && this.device.work(); turn += 1);
  }

  /** nvme_disable_ctrl. */
  disable(): void {
    this.writeRegister(0x14, this.readRegister(0x14) & ~1 & ~0xc000);
    this.#await(0x1c, 1, 0);
  }

  /** nvme_pci_configure_admin_queue. */
  enable(): void {
    this.masterBus();
    this.disable();
    this.admin = new HostQueue(this.dma, 0, 32);
    this.queues.length = 0;
    this.outstanding.clear();
    this.writeRegister(0x24, 31 | (31 << 16));
    const [asqLow, asqHigh] = halves(this.admin.submission.address);
    this.writeRegister(0x28, asqLow);
    this.writeRegister(0x2c, asqHigh);
    const [acqLow, acqHigh] = halves(this.admin.completion.address);
    this.writeRegister(0x30, acqLow);
    this.writeRegister(0x34, acqHigh);
    // Entry sizes first, then enable, as Linux does.
    const configuration = (6 << 16) | (4 << 20);
    this.writeRegister(0x14, configuration);
    this.writeRegister(0x14, configuration | 1);
    this.#await(0x1c, 1, 1);
  }

  /** Everything that Linux does until the disk is there. @returns blocks of the namespace */
  start(queues = 1, entries = 64): number {
    this.enable();
    const page = this.dma.allocate(1);
    const ask = (cns: number, namespace: number): Uint8Array => {
      const words = [cns];
      const done = this.execute(this.admin, { opcode: 6, namespace, prp1: page.address, words });
      if (done.status !== 0) throw new Error(`identify ${cns}: ${done.status}`);
      return page.read(0, 4096);
    };
    ask(1, 0);
    const count = this.execute(this.admin, {
      opcode: 9,
      words: [7, (queues - 1) * 0x1_0001],
    }).result;
    const granted = Math.min(queues, (count & 0xffff) + 1, (count >>> 16) + 1);
    for (let id = 1; id <= granted; id += 1) this.createQueue(id, entries);
    this.submit(this.admin, { opcode: 12 });
    ask(2, 0);
    ask(3, 1);
    const namespace = ask(0, 1);
    return Number(new DataView(namespace.buffer).getBigUint64(0, true));
  }

  /** Create I/O Completion Queue, then its submission queue. */
  createQueue(id: number, entries: number, vector = id): HostQueue {
    const queue = new HostQueue(this.dma, id, entries);
    const size = ((entries - 1) << 16) | id;
    const completion = this.execute(this.admin, {
      opcode: 5,
      prp1: queue.completion.address,
      words: [size, (vector << 16) | 3],
    });
    if (completion.status !== 0) throw new Error(`create CQ: ${completion.status}`);
    const submission = this.execute(this.admin, {
      opcode: 1,
      prp1: queue.submission.address,
      words: [size, (id << 16) | 1],
    });
    if (submission.status !== 0) throw new Error(`create SQ: ${submission.status}`);
    this.queues.push(queue);
    return queue;
  }

  deleteQueue(id: number): void {
    for (const opcode of [0, 4]) {
      const done = this.execute(this.admin, { opcode, words: [id] });
      if (done.status !== 0) throw new Error(`delete ${opcode}: ${done.status}`);
    }
  }

  /** nvme_dev_disable with shutdown. */
  shutDown(): void {
    for (const { id } of this.queues) this.deleteQueue(id);
    this.queues.length = 0;
    this.writeRegister(0x14, (this.readRegister(0x14) & ~0xc000) | 0x4000);
    this.#await(0x1c, 0xc, 8);
  }

  /** Writes a command to its queue, without the doorbell. @returns its identifier */
  put(queue: HostQueue, command: Command): number {
    const id = this.nextId;
    this.nextId = (this.nextId + 1) & 0xffff;
    const bytes = new Uint8Array(64);
    const view = new DataView(bytes.buffer);
    view.setUint8(0, command.opcode);
    view.setUint8(1, command.flags ?? (command.sgl === undefined ? 0 : 0x40));
    view.setUint16(2, id, true);
    view.setUint32(4, command.namespace ?? 0, true);
    view.setBigUint64(24, BigInt(command.prp1 ?? 0), true);
    view.setBigUint64(32, BigInt(command.prp2 ?? 0), true);
    if (command.sgl !== undefined) bytes.set(command.sgl, 24);
    for (const [index, word] of (command.words ?? []).entries())
      view.setUint32(40 + 4 * index, word >>> 0, true);
    queue.submission.write(queue.tail * 64, bytes);
    queue.tail = (queue.tail + 1) % queue.entries;
    this.outstanding.add(queue.id * 65_536 + id);
    return id;
  }

  ring(queue: HostQueue): void {
    this.writeRegister(0x1000 + 8 * queue.id, queue.tail);
  }

  submit(queue: HostQueue, command: Command): number {
    const id = this.put(queue, command);
    this.ring(queue);
    return id;
  }

  /** Takes completions; each must be of a command that waits. @returns how many */
  poll(queue: HostQueue, most = Number.POSITIVE_INFINITY): number {
    let count = 0;
    while (count < most) {
      const entry = queue.completion.read(queue.head * 16, 16);
      const view = new DataView(entry.buffer);
      const last = view.getUint16(14, true);
      if ((last & 1) !== queue.phase) break;
      const completion = {
        result: view.getUint32(0, true),
        head: view.getUint16(8, true),
        queue: view.getUint16(10, true),
        id: view.getUint16(12, true),
        status: (last >>> 1) & 0x7ff,
        doNotRetry: last >>> 15 === 1,
      };
      const key = completion.queue * 65_536 + completion.id;
      if (this.outstanding.delete(key)) queue.done.set(completion.id, completion);
      else this.strays.push(completion);
      queue.head += 1;
      if (queue.head === queue.entries) {
        queue.head = 0;
        queue.phase ^= 1;
      }
      count += 1;
    }
    if (count > 0) this.writeRegister(0x1004 + 8 * queue.id, queue.head);
    return count;
  }

  /** The completion of a command, if it came. */
  take(queue: HostQueue, id: number): Completion | null {
    const completion = queue.done.get(id) ?? null;
    queue.done.delete(id);
    return completion;
  }

  /** Submits a command and works until it is completed. */
  execute(queue: HostQueue, command: Command): Completion {
    const id = this.submit(queue, command);
    return this.await(queue, id);
  }

  await(queue: HostQueue, id: number): Completion {
    for (let turn = 0; turn < this.patience; turn += 1) {
      this.poll(queue);
      const completion = this.take(queue, id);
      if (completion !== null) return completion;
      this.device.work();
    }
    throw new Error(`command ${id} of queue ${queue.id} is not completed`);
  }

  #await(offset: number, mask: number, value: number): void {
    for (let turn = 0; turn < this.patience; turn += 1) {
      if ((this.readRegister(offset) & mask) === value) return;
      this.device.work();
    }
    throw new Error(`register ${offset} does not become ${value}`);
  }
}

/** Read or write of whole pages at page-aligned, contiguous addresses, with a PRP list if needed. */
export function transfer(
  opcode: number,
  block: number,
  blocks: number,
  buffer: DmaBuffer,
  list: DmaBuffer,
  blockBytes = 512,
): Command {
  const pages = Math.ceil((blocks * blockBytes) / 4096);
  let prp2 = 0;
  if (pages === 2) prp2 = buffer.address + 4096;
  if (pages > 2) {
    const entries = new BigUint64Array(pages - 1);
    for (let page = 1; page < pages; page += 1)
      entries[page - 1] = BigInt(buffer.address + page * 4096);
    list.write(0, new Uint8Array(entries.buffer));
    prp2 = list.address;
  }
  const [low, high] = halves(block);
  return { opcode, namespace: 1, prp1: buffer.address, prp2, words: [low, high, blocks - 1] };
}

/** A controller's surroundings over plain memory. */
export function plainMemory(bytes = 1 << 26): GuestMemory {
  const memory = new GuestMemory();
  memory.addRegion({ start: 0, bytes });
  return memory;
}
