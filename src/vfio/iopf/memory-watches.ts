/**
 * The notifiers of a container: one for each process memory that faults have mapped pages of.
 *
 * A mapping is watched from its first mapped page to its last, so a notifier's cost follows what
 * faults touched. (The proposal of 2021 watches the memory of who enabled faults, and looks at every
 * mapping.) Source: RFC v3 of 2021, patch 3 of 8, vfio_iommu_type1_mmu_notifier ops.
 */
import type { MemoryNotifier, ProcessMemory } from "../process/process-memory.ts";
import type { FaultingMapping } from "./faulting-mapping.ts";
import { TouchedIndex } from "./touched-index.ts";

/** Told which pages of a mapping change; counted from its start, `end` exclusive. */
export type OnChange = (state: FaultingMapping, first: number, end: number) => void;

/** The notifier of one memory. */
class Watch implements MemoryNotifier {
  readonly memory: ProcessMemory;
  readonly index: TouchedIndex<FaultingMapping>;
  readonly #owner: MemoryWatches;

  constructor(owner: MemoryWatches, memory: ProcessMemory) {
    this.memory = memory;
    this.index = new TouchedIndex(owner.allow);
    this.#owner = owner;
  }

  invalidate(firstVpn: number, lastVpn: number): void {
    this.#owner.changed(this, firstVpn, lastVpn);
  }
}

/** All notifiers. */
export class MemoryWatches {
  /** Asked before memory is taken. */
  readonly allow: (bytes: number) => boolean;
  readonly #onChange: OnChange;
  readonly #onEnd: () => void;
  readonly #watches = new Map<ProcessMemory, Watch>();

  /** @param onEnd - called once at the end of each notification */
  constructor(allow: (bytes: number) => boolean, onChange: OnChange, onEnd: () => void) {
    this.allow = allow;
    this.#onChange = onChange;
    this.#onEnd = onEnd;
  }

  /** Memories watched. */
  get count(): number {
    return this.#watches.size;
  }

  /** Watches the memory of a mapping from now on. @returns false when memory is short */
  watch(state: FaultingMapping): boolean {
    if (state.memory !== null) return true;
    const { vpn, process } = state.mapping;
    const { memory } = process;
    if (memory === null) return false;
    let watch = this.#watches.get(memory);
    if (watch === undefined) {
      watch = new Watch(this, memory);
      this.#watches.set(memory, watch);
      memory.addNotifier(watch);
    }
    state.vpn = vpn;
    state.memory = memory;
    if (watch.index.insert(state)) return true;
    state.memory = null;
    return false;
  }

  /** Ends {@link watch} for good. */
  unwatch(state: FaultingMapping): void {
    this.#takeOut(state);
    for (const watch of this.#watches.values()) {
      if (watch.index.count > 0) continue;
      this.#watches.delete(watch.memory);
      watch.memory.removeNotifier(watch);
    }
  }

  /** Ends {@link watch} if no page of the mapping is mapped; the next fault may be near. */
  unwatchUntouched(state: FaultingMapping): void {
    if (state.mapped.count === 0) this.#takeOut(state);
  }

  /** A notifier was called. */
  changed(watch: Watch, firstVpn: number, lastVpn: number): void {
    watch.index.forEachIn(firstVpn, lastVpn, (state) => {
      const first = Math.max(firstVpn - state.vpn, 0);
      const end = Math.min(lastVpn - state.vpn + 1, state.pages);
      this.#onChange(state, first, end);
      this.unwatchUntouched(state);
    });
    this.#onEnd();
  }

  #takeOut(state: FaultingMapping): void {
    if (state.memory === null) return;
    this.#watches.get(state.memory)!.index.remove(state);
    state.memory = null;
  }
}
