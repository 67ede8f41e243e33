/**
 * The NUMA node of a domain as the VT-d driver of Linux 6.6 kept it, with or without the RFC "vfio:
 * add attach_group_by_node". With the RFC it is that of the unit which the domain came to last, and
 * the core has a copy.
 *
 * Source: drivers/iommu/intel/iommu.c: domain_attach_iommu (a unit's first reference; the RFC has it
 * write the node), domain_detach_iommu (the last reference of *any* unit unsets it),
 * domain_update_iommu_cap and domain_update_device_node (an unset one becomes that of the device
 * attached last). In Linux 7.2 no domain has such a field.
 */
import { assert } from "../errors.ts";

/** Nobody knows the node: NUMA_NO_NODE. */
export const NO_NODE = -1;

/** A unit as far as this file is concerned. */
export interface NodeUnit {
  /** NUMA node out of the firmware (RHSA), −1 when it does not say. */
  readonly node: number;
}

/** The node of one domain. */
export class DomainNode {
  /** The node, or −1. */
  node = NO_NODE;
  /** Devices, the one attached last in front. */
  readonly #devices: { readonly rid: number; readonly unit: NodeUnit; readonly node: number }[] =
    [];
  readonly #references = new Map<NodeUnit, number>();
  readonly #takesUnits: boolean;

  /** @param takesUnits - whether the node of a unit counts, as with the RFC */
  constructor(takesUnits: boolean) {
    this.#takesUnits = takesUnits;
  }

  /**
   * A device, or one of its PASIDs, was attached.
   *
   * @param deviceNode - null for a PASID, whose device is not one of the domain's
   */
  attach(unit: NodeUnit, rid: number, deviceNode: number | null): void {
    const references = this.#references.get(unit) ?? 0;
    this.#references.set(unit, references + 1);
    if (references === 0) {
      if (this.#takesUnits) this.node = unit.node;
      this.#fallBack();
    }
    // The device joins the list only now: it is none that its own attach can fall back to.
    if (deviceNode !== null) this.#devices.unshift({ rid, unit, node: deviceNode });
  }

  /** Ends one {@link attach}. */
  detach(unit: NodeUnit, rid: number, isPasid: boolean): void {
    const references = this.#references.get(unit);
    assert(references !== undefined, "a unit that is left was come to");
    if (!isPasid) {
      const index = this.#devices.findIndex((each) => each.rid === rid && each.unit === unit);
      assert(index >= 0, "a device detached was attached");
      this.#devices.splice(index, 1);
    }
    if (references > 1) {
      this.#references.set(unit, references - 1);
      return;
    }
    this.#references.delete(unit);
    this.node = NO_NODE;
    this.#fallBack();
  }

  #fallBack(): void {
    if (this.node !== NO_NODE) return;
    this.node = this.#devices.find((device) => device.node !== NO_NODE)?.node ?? NO_NODE;
  }
}
