/**
 * Where QEMU puts devices: named buses, free slots, and the bus numbers that firmware gives.
 *
 * Source: QEMU hw/pci/pci.c:do_pci_register_device (the first slot whose function 0 is free),
 * system/qdev-monitor.c:qbus_find (a device without `bus=` goes to the first bus found, which is the
 * one of the host bridge created last); SeaBIOS src/fw/pciinit.c:pci_bios_init_bus_rec (depth
 * first, in the order of slots), which EDK2 and Linux do alike.
 */
import type { BusRole } from "./qemu-devices.ts";

/** A bus that devices can be put on. */
export interface VmBus {
  readonly name: string;
  /** The function whose secondary bus it is; null for a root bus. */
  readonly bridge: VmFunction | null;
  /** Position of the host bridge that it is below. */
  readonly hostBridge: number;
  readonly isExpress: boolean;
  /** Whether only slot 0 exists: below a port of PCI Express. */
  readonly isLink: boolean;
  readonly functions: Map<number, VmFunction>;
  number: number;
}

/** A function that has its place. */
export interface VmFunction {
  readonly bus: VmBus;
  readonly devfn: number;
  readonly role: BusRole;
  secondary: VmBus | null;
  subordinate: number;
}

/** A root bus and what goes with it. */
export interface VmHostBridge {
  readonly bus: VmBus;
  readonly firstBus: number;
  lastBus: number;
  readonly node: number | null;
  readonly bypassesIommu: boolean;
}

/** Why a device cannot be where it was asked to be. */
export class PlaceProblem extends Error {}

/** Slots of a bus. */
const SLOTS = 32;
const BUSES_MAX = 256;

/** All buses of a virtual machine. */
export class VmBuses {
  readonly hostBridges: VmHostBridge[] = [];
  readonly #byName = new Map<string, VmBus>();

  /** Adds a root bus. */
  addRoot(
    name: string,
    options: {
      readonly firstBus: number;
      readonly node: number | null;
      readonly bypassesIommu: boolean;
      readonly isExpress: boolean;
    },
  ): VmBus {
    const bus: VmBus = {
      name,
      bridge: null,
      hostBridge: this.hostBridges.length,
      isExpress: options.isExpress,
      isLink: false,
      functions: new Map(),
      number: options.firstBus,
    };
    const { firstBus, node, bypassesIommu } = options;
    this.hostBridges.push({ bus, firstBus, lastBus: firstBus, node, bypassesIommu });
    this.#byName.set(name, bus);
    return bus;
  }

  /** The bus that a device without `bus=` is put on. */
  get first(): VmBus {
    return this.hostBridges.at(-1)!.bus;
  }

  /** A bus by its name. @throws PlaceProblem */
  named(name: string | undefined): VmBus {
    if (name === undefined) return this.first;
    const bus = this.#byName.get(name.replace(/^.*\//, ""));
    if (bus === undefined) throw new PlaceProblem(`there is no bus "${name}" at this point`);
    return bus;
  }

  /**
   * Puts a function on a bus.
   *
   * @param addr - as `addr=` has it: slot and function, hexadecimal; the next free slot when absent
   * @throws PlaceProblem
   */
  place(bus: VmBus, role: BusRole, addr: string | undefined, id: string | undefined): VmFunction {
    const isExpander = /^pxb/.test(bus.name) || (bus.bridge === null && bus.hostBridge > 0);
    const isBridge = role !== "endpoint" && role !== "express-endpoint" && role !== "virtio";
    if (isExpander && !isBridge) {
      throw new PlaceProblem("only bridges can be plugged into pxb-pcie; name a bus with bus=");
    }
    const devfn = addr === undefined ? freeSlot(bus) : parseAddr(addr);
    if (bus.isLink && devfn > 7) throw new PlaceProblem(`bus "${bus.name}" has slot 0 only`);
    if (bus.functions.has(devfn)) {
      throw new PlaceProblem(`slot ${devfn >> 3} function ${devfn & 7} of "${bus.name}" is taken`);
    }
    const placed: VmFunction = { bus, devfn, role, secondary: null, subordinate: -1 };
    bus.functions.set(devfn, placed);
    if (isBridge && role !== "expander") this.#addSecondary(placed, id);
    return placed;
  }

  #addSecondary(bridge: VmFunction, id: string | undefined): void {
    const isConventional = bridge.role === "bridge" || bridge.role === "pcie-to-pci-bridge";
    const name = id ?? `${bridge.bus.name}.${bridge.devfn}`;
    const bus: VmBus = {
      name,
      bridge,
      hostBridge: bridge.bus.hostBridge,
      isExpress: !isConventional,
      isLink: bridge.role === "root-port" || bridge.role === "downstream",
      functions: new Map(),
      number: -1,
    };
    bridge.secondary = bus;
    if (id !== undefined) this.#byName.set(id, bus);
  }

  /** Numbers all buses; what does not fit into 256 stays without. @returns functions in order */
  number(): VmFunction[] {
    const order: VmFunction[] = [];
    for (const root of this.hostBridges) {
      let next = root.firstBus + 1;
      const pending = [...inOrder(root.bus)].reverse();
      const open: VmFunction[] = [];
      while (pending.length > 0) {
        const one = pending.pop()!;
        while (open.length > 0 && open.at(-1)!.secondary !== one.bus) {
          open.pop()!.subordinate = next - 1;
        }
        if (one.bus.number < 0) continue;
        order.push(one);
        if (one.secondary === null || next >= BUSES_MAX) continue;
        one.secondary.number = next;
        next += 1;
        open.push(one);
        pending.push(...[...inOrder(one.secondary)].reverse());
      }
      for (const one of open) one.subordinate = next - 1;
      root.lastBus = next - 1;
    }
    return order.sort((a, b) => a.bus.number - b.bus.number || a.devfn - b.devfn);
  }
}

function inOrder(bus: VmBus): VmFunction[] {
  return [...bus.functions.values()].sort((a, b) => a.devfn - b.devfn);
}

function freeSlot(bus: VmBus): number {
  for (let slot = 0; slot < SLOTS; slot += 1) if (!bus.functions.has(slot * 8)) return slot * 8;
  throw new PlaceProblem(`bus "${bus.name}" has no free slot`);
}

function parseAddr(text: string): number {
  const match = /^(?:0x)?([0-9a-f]{1,2})(?:\.(?:0x)?([0-7]))?$/i.exec(text);
  const slot = match === null ? SLOTS : Number.parseInt(match[1]!, 16);
  if (slot >= SLOTS) throw new PlaceProblem(`addr=${text} is no slot; 0 to 1f, then .function`);
  return slot * 8 + Number(match![2] ?? 0);
}
