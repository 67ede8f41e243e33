/**
 * Drives every policy's run through one workload, in step: an operation is read once and done by
 * each run before the next is read, so memory is bounded by what is live, not by the recording.
 */
import { type Operation, OperationKind } from "../operation.ts";
import { RecordingClock } from "./clock.ts";
import { doubled } from "./columns.ts";
import type { PolicyRun } from "./policy-run.ts";

/** CPUs that are told apart at most. */
export const CPUS_MAX = 1024;

const NO_PIECE = -1;

/** How a workload is to be understood. */
export interface EngineOptions {
  readonly runs: readonly PolicyRun[];
  /** CPUs that the runs were built for. */
  readonly cpus: number;
  /** Events say on which CPU they happened. */
  readonly knowsCpus: boolean;
  /**
   * Whether neighbouring pieces of one buffer are one: true for a log of requests, which were cut
   * where page sizes change; false for map events, each of which was one call.
   */
  readonly joinPieces: boolean;
}

/** Feeds operations to runs; call `operation` for each and `end` once. */
export class ReplayEngine {
  readonly clock = new RecordingClock();
  allocations = 0;
  /** Pages of all allocations. */
  allocatedPages = 0;
  frees = 0;
  inferred = 0;
  scattered = 0;
  livePages = 0;
  livePagesPeak = 0;
  readonly #runs: readonly PolicyRun[];
  readonly #options: EngineOptions;
  readonly #slots = new Map<number, number>();
  readonly #unused: number[] = [];
  readonly #isCpuSeen = new Uint8Array(CPUS_MAX);
  #slotsUsed = 0;
  // Per slot: the buffer as the recording has it, and the piece that still waits to be joined.
  #basePfn = new Float64Array(64);
  #pages = new Float64Array(64);
  #linked = new Float64Array(64);
  #pieceAt = new Float64Array(64);
  #piecePhys = new Float64Array(64);
  #piecePages = new Float64Array(64);
  #pieces = new Float64Array(64);

  constructor(options: EngineOptions) {
    this.#runs = options.runs;
    this.#options = options;
  }

  /** CPUs seen in events. */
  get cpusSeen(): number {
    return this.#isCpuSeen.reduce((sum, isSeen) => sum + isSeen, 0);
  }

  operation(operation: Operation): void {
    const nowNs = this.clock.advance(operation.timeUs, operation.timeNs);
    const cpu = this.#options.knowsCpus ? this.#cpuOf(operation.cpu) : 0;
    for (const run of this.#runs) run.advance(nowNs);
    switch (operation.kind) {
      case OperationKind.allocate:
        this.#allocate(operation, cpu);
        break;
      case OperationKind.extend:
        this.#extend(operation, cpu);
        break;
      case OperationKind.free:
        this.#free(operation, cpu);
        break;
      case OperationKind.freeBefore:
        this.#freeBefore(operation, cpu);
        break;
      default:
        this.#shrink(operation);
    }
  }

  /** Runs the timers that are still armed. */
  end(): void {
    for (const run of this.#runs) run.finish(this.clock.nowNs);
  }

  #allocate(operation: Operation, cpu: number): void {
    const slot = this.#takeSlot();
    const { pages, segmentPages, physPfn } = operation;
    this.#slots.set(operation.allocation, slot);
    this.#basePfn[slot] = operation.iovaPfn;
    this.#pages[slot] = pages;
    this.#pieceAt[slot] = NO_PIECE;
    this.allocations += 1;
    this.allocatedPages += pages;
    this.livePages += pages;
    if (this.livePages > this.livePagesPeak) this.livePagesPeak = this.livePages;
    if (segmentPages === pages) {
      this.#linked[slot] = pages;
      for (const run of this.#runs) run.mapWhole(slot, physPfn, pages, cpu);
      return;
    }
    this.#linked[slot] = 0;
    this.#pieces[slot] = 0;
    for (const run of this.#runs) run.begin(slot, pages, cpu);
    this.#link(slot, operation);
  }

  #extend(operation: Operation, _cpu: number): void {
    const slot = this.#slots.get(operation.allocation);
    if (slot !== undefined) this.#link(slot, operation);
  }

  #link(slot: number, operation: Operation): void {
    const { segmentPages, physPfn } = operation;
    const offset = operation.segmentPfn - this.#basePfn[slot]!;
    const end = this.#pieceAt[slot]! + this.#piecePages[slot]!;
    const joins =
      this.#options.joinPieces &&
      this.#pieceAt[slot] !== NO_PIECE &&
      offset === end &&
      physPfn === this.#piecePhys[slot]! + this.#piecePages[slot]!;
    if (joins) {
      this.#piecePages[slot]! += segmentPages;
    } else {
      this.#linkPiece(slot);
      this.#pieceAt[slot] = offset;
      this.#piecePhys[slot] = physPfn;
      this.#piecePages[slot] = segmentPages;
    }
    this.#linked[slot]! += segmentPages;
    const isComplete = this.#linked[slot]! >= this.#pages[slot]!;
    if (!this.#options.joinPieces || isComplete) this.#linkPiece(slot);
    if (!isComplete) return;
    for (const run of this.#runs) run.commit(slot);
  }

  /** Hands the waiting piece to the runs. */
  #linkPiece(slot: number): void {
    const offset = this.#pieceAt[slot]!;
    if (offset === NO_PIECE) return;
    this.#pieceAt[slot] = NO_PIECE;
    const pages = this.#piecePages[slot]!;
    this.#pieces[slot]! += 1;
    if (this.#pieces[slot] === 2) this.scattered += 1;
    for (const run of this.#runs) run.link(slot, offset, this.#piecePhys[slot]!, pages);
  }

  #free(operation: Operation, cpu: number): void {
    const slot = this.#slots.get(operation.allocation);
    if (slot === undefined) return;
    this.#linkPiece(slot);
    this.frees += 1;
    this.livePages -= this.#pages[slot]!;
    for (const run of this.#runs) run.unmap(slot, cpu);
    this.#slots.delete(operation.allocation);
    this.#unused.push(slot);
  }

  /** What was mapped before the recording began is mapped now, uncounted, and then unmapped. */
  #freeBefore(operation: Operation, cpu: number): void {
    const slot = this.#takeSlot();
    this.inferred += 1;
    this.frees += 1;
    for (const run of this.#runs) {
      run.adopt(slot, operation.iovaPfn, operation.pages, cpu);
      run.unmap(slot, cpu);
    }
    this.#unused.push(slot);
  }

  #shrink(operation: Operation): void {
    const slot = this.#slots.get(operation.allocation);
    if (slot === undefined) return;
    this.#linkPiece(slot);
    const offset = operation.iovaPfn - this.#basePfn[slot]!;
    const first = Math.max(0, offset);
    const pages = Math.min(this.#pages[slot]!, offset + operation.pages) - first;
    if (pages <= 0) return;
    for (const run of this.#runs) run.unlink(slot, first, pages);
  }

  #cpuOf(named: number): number {
    this.#isCpuSeen[Math.min(named, CPUS_MAX - 1)] = 1;
    return named < this.#options.cpus ? named : named % this.#options.cpus;
  }

  #takeSlot(): number {
    const slot = this.#unused.pop();
    if (slot !== undefined) return slot;
    const next = this.#slotsUsed;
    this.#slotsUsed += 1;
    if (next === this.#basePfn.length) {
      this.#basePfn = doubled(this.#basePfn);
      this.#pages = doubled(this.#pages);
      this.#linked = doubled(this.#linked);
      this.#pieceAt = doubled(this.#pieceAt);
      this.#piecePhys = doubled(this.#piecePhys);
      this.#piecePages = doubled(this.#piecePages);
      this.#pieces = doubled(this.#pieces);
    }
    return next;
  }
}
