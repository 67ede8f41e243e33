/**
 * Which group a device belongs to: the rules of PCI isolation, and the two trivial rules.
 *
 * Devices belong together when the IOMMU cannot tell them apart (aliases) or cannot see what they
 * send to each other (no ACS on the way). Source: drivers/iommu/iommu.c: pci_device_group,
 * get_pci_alias_group, get_pci_function_alias_group, generic_device_group,
 * generic_single_device_group; drivers/pci/pci.c: pci_acs_enabled, pci_acs_path_enabled;
 * drivers/pci/search.c:pci_for_each_dma_alias.
 */
import { assert, unreachable } from "../errors.ts";
import { type PciFunction, ridOf } from "./pci-function.ts";

/** Source Validation, Request Redirect, Completion Redirect, Upstream Forwarding. */
export const ACS_REQUIRED = 0x1d;

/** Whether a function's ACS registers have what is needed: switched on, or not switchable. */
function readAcs(pci: PciFunction): boolean {
  if (pci.acs === null) return false;
  const asked = ACS_REQUIRED & pci.acs.capability;
  return (pci.acs.control & asked) === asked;
}

/** Whether peer-to-peer traffic of a function goes through the IOMMU. */
export function isAcsEffective(pci: PciFunction): boolean {
  const quirk = pci.quirks?.isolated;
  if (quirk !== undefined) return quirk;
  switch (pci.portType) {
    case "conventional":
    case "pcie-to-pci-bridge":
    case "pci-to-pcie-bridge":
    case "rc-event-collector":
      return false;
    case "root-port":
    case "downstream":
      return readAcs(pci);
    case "endpoint":
    case "legacy-endpoint":
    case "upstream":
    case "rc-endpoint":
      return !pci.isMultifunction || readAcs(pci);
    default:
      return unreachable(pci.portType);
  }
}

/** Whether everything from a function up to the root bus is isolated. */
export function isAcsPath(functions: readonly PciFunction[], index: number): boolean {
  let at = index;
  // A chain of bridges is at most as long as the list; a longer one is a loop, and no path.
  for (let hops = 0; at >= 0 && hops <= functions.length; hops += 1) {
    if (!isAcsEffective(functions[at]!)) return false;
    at = functions[at]!.bridge;
  }
  return at < 0;
}

/**
 * Visits every requester id that a function's DMA can carry, with the function that stands for it.
 *
 * @param visit - returns true to stop
 * @returns whether it was stopped
 */
export function eachDmaAlias(
  functions: readonly PciFunction[],
  index: number,
  visit: (at: number, rid: number) => boolean,
): boolean {
  const own = functions[index]!.quirks?.realDmaFunction ?? index;
  const pci = functions[own]!;
  if (visit(own, ridOf(pci))) return true;
  for (const devfn of [...(pci.quirks?.aliasDevfns ?? [])].sort((a, b) => a - b)) {
    if (visit(own, pci.bus * 256 + devfn)) return true;
  }
  for (let at = pci.bridge, hops = 0; at >= 0 && hops < functions.length; hops += 1) {
    const bridge = functions[at]!;
    if (bridge.quirks?.isTranslationRoot === true) return false;
    const rid = bridgeAlias(bridge);
    if (rid >= 0 && visit(at, rid)) return true;
    at = bridge.bridge;
  }
  return false;
}

/** The requester id that a bridge puts on what passes it, or −1 for none. */
function bridgeAlias(bridge: PciFunction): number {
  switch (bridge.portType) {
    case "pcie-to-pci-bridge":
      return bridge.secondaryBus * 256;
    case "pci-to-pcie-bridge":
      return ridOf(bridge);
    case "conventional":
      return bridge.quirks?.aliasesSecondaryBus === true
        ? bridge.secondaryBus * 256
        : ridOf(bridge);
    default:
      return -1;
  }
}

/** Finds groups by the PCI rules. `G` is whatever a group is to the caller. */
export class PciGroupFinder<G> {
  readonly #functions: readonly PciFunction[];
  readonly #groupOf: (index: number) => G | null;
  readonly #byBus = new Map<number, number[]>();

  /** @param groupOf - the group that the function at a position is in already, or null */
  constructor(functions: readonly PciFunction[], groupOf: (index: number) => G | null) {
    this.#functions = functions;
    this.#groupOf = groupOf;
    for (const [index, pci] of functions.entries()) {
      assert(pci.bridge >= -1 && pci.bridge < functions.length, "a bridge is one of the functions");
      const key = pci.segment * 256 + pci.bus;
      const bus = this.#byBus.get(key);
      if (bus === undefined) this.#byBus.set(key, [index]);
      else bus.push(index);
    }
  }

  /** The group that the function at a position has to join; null when it gets a new one. */
  find(index: number): G | null {
    const functions = this.#functions;
    let at = index;
    let group: G | null = null;
    const isAlias = eachDmaAlias(functions, index, (alias) => {
      at = alias;
      group = this.#groupOf(alias);
      return group !== null;
    });
    if (isAlias) return group;
    for (let hops = 0; hops <= functions.length; hops += 1) {
      const { bridge } = functions[at]!;
      if (bridge < 0 || isAcsPath(functions, bridge)) break;
      at = bridge;
      group = this.#groupOf(at);
      if (group !== null) return group;
    }
    const seen = new Uint8Array(256);
    return this.#aliasGroup(at, seen) ?? this.#functionGroup(at, seen);
  }

  /** The group of a function, or of one on its bus that quirks tie it to. */
  #aliasGroup(index: number, seen: Uint8Array): G | null {
    const pci = this.#functions[index]!;
    if (seen[pci.devfn] !== 0) return null;
    seen[pci.devfn] = 1;
    const own = this.#groupOf(index);
    if (own !== null) return own;
    for (const other of this.#onBusOf(pci)) {
      if (other === index || !this.#areAliases(index, other)) continue;
      const group = this.#aliasGroup(other, seen) ?? this.#functionGroup(other, seen);
      if (group !== null) return group;
    }
    return null;
  }

  /** The group of another function of the same slot, when neither is isolated. */
  #functionGroup(index: number, seen: Uint8Array): G | null {
    const pci = this.#functions[index]!;
    if (!pci.isMultifunction || isAcsEffective(pci)) return null;
    for (const other of this.#onBusOf(pci)) {
      const sibling = this.#functions[other]!;
      if (other === index || sibling.devfn >> 3 !== pci.devfn >> 3) continue;
      if (isAcsEffective(sibling)) continue;
      const group = this.#aliasGroup(other, seen);
      if (group !== null) return group;
    }
    return null;
  }

  #areAliases(index: number, other: number): boolean {
    const a = this.#functions[index]!;
    const b = this.#functions[other]!;
    if (a.quirks?.aliasDevfns?.includes(b.devfn) === true) return true;
    if (b.quirks?.aliasDevfns?.includes(a.devfn) === true) return true;
    return a.quirks?.realDmaFunction === other || b.quirks?.realDmaFunction === index;
  }

  #onBusOf(pci: PciFunction): readonly number[] {
    return this.#byBus.get(pci.segment * 256 + pci.bus) ?? [];
  }
}

/** What finds a device's group: by the PCI rules, one each, or one for a whole IOMMU. */
export type GroupRule = "pci" | "one-per-device" | "one-per-iommu";
