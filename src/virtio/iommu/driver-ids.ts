/**
 * Domain IDs as the driver hands them out: the lowest free one.
 *
 * Source: drivers/iommu/virtio-iommu.c, viommu_domain_alloc_paging; lib/idr.c, ida_alloc_range,
 * whose IDs end at 2^31 − 1.
 */
const ID_LAST = 0x7fff_ffff;

/** A range of IDs. */
export class DomainIds {
  #next: number;
  readonly #last: number;
  /** Freed IDs below `next`, descending. */
  readonly #free: number[] = [];

  /** @param last - inclusive, as the device says: up to 2^32 − 1 */
  constructor(first: number, last: number) {
    this.#next = first;
    this.#last = Math.min(last, ID_LAST);
  }

  /** Takes the lowest free ID. @returns −1 when there is none */
  take(): number {
    const freed = this.#free.pop();
    if (freed !== undefined) return freed;
    if (this.#next > this.#last) return -1;
    this.#next += 1;
    return this.#next - 1;
  }

  /** Gives an ID back. */
  give(id: number): void {
    let at = this.#free.length;
    while (at > 0 && this.#free[at - 1]! < id) at -= 1;
    this.#free.splice(at, 0, id);
  }
}
