/**
 * Small numbers handed out lowest free first, each for one owner that may ask for it several times:
 * a unit's domain ids, the system's group ids.
 *
 * Source: lib/idr.c:ida_alloc_range (lowest free); drivers/iommu/intel/iommu.c:
 * domain_attach_iommu, domain_detach_iommu (one id per unit and domain, counted).
 */
import { assert } from "../errors.ts";

/** Lowest-free numbers. */
export class LowestFree {
  readonly #limit: number;
  readonly #used = new Set<number>();
  #lowestMaybeFree = 0;

  /** @param limit - numbers are 0 … limit − 1 */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Numbers in use. */
  get count(): number {
    return this.#used.size;
  }

  /** Takes the lowest free number. @returns −1 when all are in use */
  take(): number {
    let number = this.#lowestMaybeFree;
    while (this.#used.has(number)) number += 1;
    if (number >= this.#limit) return -1;
    this.#used.add(number);
    this.#lowestMaybeFree = number + 1;
    return number;
  }

  /** Gives a number back. */
  give(number: number): void {
    assert(this.#used.delete(number), "a number given back was in use");
    if (number < this.#lowestMaybeFree) this.#lowestMaybeFree = number;
  }
}

/** The domain ids of one unit. */
export class DomainIds {
  readonly #free: LowestFree;
  readonly #byOwner = new Map<object, { readonly id: number; users: number }>();

  constructor(limit: number) {
    this.#free = new LowestFree(limit);
    // Caching mode reserves id 0, and units without it do not miss it.
    this.#free.take();
  }

  /** Ids in use. */
  get count(): number {
    return this.#byOwner.size;
  }

  /** The owner's id, taken on its first use. @returns −1 when all are in use */
  acquire(owner: object): number {
    const known = this.#byOwner.get(owner);
    if (known !== undefined) {
      known.users += 1;
      return known.id;
    }
    const id = this.#free.take();
    if (id >= 0) this.#byOwner.set(owner, { id, users: 1 });
    return id;
  }

  /** Ends one use. @returns whether it was the owner's last and the id is free again */
  release(owner: object): boolean {
    const known = this.#byOwner.get(owner);
    assert(known !== undefined, "an id released was acquired");
    known.users -= 1;
    if (known.users > 0) return false;
    this.#byOwner.delete(owner);
    this.#free.give(known.id);
    return true;
  }
}
