/**
 * Objects of an open /dev/iommu: numbers that the user names them by, and who needs whom.
 *
 * Source: drivers/iommu/iommufd/main.c: _iommufd_object_alloc, iommufd_get_object,
 * iommufd_object_remove, iommufd_destroy. A number is the lowest free one from 1 on.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { LowestFree } from "../../iommu/domain-ids.ts";

/** Objects that one file may have; the kernel allows 2^31 − 1, as far as memory goes. */
export const OBJECTS_MAX = 2 ** 20;

/** What all objects have. */
export interface IommufdObject {
  readonly kind: "ioas" | "hwpt" | "device" | "access" | "fault";
  /** 0 before it has one. */
  id: number;
  /** Others that need it: it cannot be destroyed meanwhile. */
  users: number;
  /** Nobody needs it any more. */
  destroy(): void;
}

/** The objects. */
export class Objects {
  readonly #ids = new LowestFree(OBJECTS_MAX + 1);
  readonly #byId = new Map<number, IommufdObject>();

  constructor() {
    // 0 is nobody's number.
    this.#ids.take();
  }

  get count(): number {
    return this.#byId.size;
  }

  /** Whether another object fits. */
  get hasRoom(): boolean {
    return this.#byId.size < OBJECTS_MAX;
  }

  /** Gives an object its number. There is room. */
  add(object: IommufdObject): void {
    assert(object.id === 0, "an object is added once");
    const id = this.#ids.take();
    assert(id > 0, "there is room for an object");
    object.id = id;
    this.#byId.set(id, object);
  }

  /** The object of a number and a kind, or null. */
  find<Kind extends IommufdObject["kind"]>(
    id: number,
    kind: Kind,
  ): (IommufdObject & { kind: Kind }) | null {
    const object = this.#byId.get(id);
    if (object === undefined || object.kind !== kind) return null;
    return object as IommufdObject & { kind: Kind };
  }

  /** The object of a number, or null. */
  any(id: number): IommufdObject | null {
    return this.#byId.get(id) ?? null;
  }

  /** Destroys an object by number. @returns ENOENT, EBUSY while others need it */
  destroy(id: number): number {
    const object = this.#byId.get(id);
    if (object === undefined) return Errno.ENOENT;
    if (object.users > 0) return Errno.EBUSY;
    this.remove(object);
    return Errno.OK;
  }

  /** Destroys an object that nobody needs. */
  remove(object: IommufdObject): void {
    assert(object.users === 0, "an object destroyed is needed by nobody");
    assert(this.#byId.delete(object.id), "an object destroyed is there");
    this.#ids.give(object.id);
    object.destroy();
  }

  /** Every object, by number. */
  list(): IommufdObject[] {
    return [...this.#byId.values()].sort((a, b) => a.id - b.id);
  }
}
