/**
 * What a devicetree says of a machine, read as Linux reads it, and what Linux would refuse.
 *
 * Everything fails open: an entry that is wrong leaves its devices untranslated. Source: Linux 7.2
 * drivers/iommu/of_iommu.c: of_iommu_configure, of_iommu_xlate; drivers/of/base.c: of_map_id;
 * drivers/pci/of.c; bindings virtio/mmio, virtio/iommu, pci-iommu, iommu.
 */

import { pciName } from "../../iommu/pci-function.ts";
import {
  EMPTY_MACHINE,
  type HostBridge,
  type Iommu,
  type Machine,
  type MmioEndpoint,
  type PlatformDevice,
  type RidRange,
} from "../../topology/machine.ts";
import { addressOfRid } from "../../topology/pci-address.ts";
import { hex } from "../../units.ts";
import { Findings, type TableFinding } from "../table-finding.ts";
import { interruptsOf, registersOf, windowsOf } from "./addresses.ts";
import { mappedRanges, readEntries } from "./iommu-map.ts";
import { nodeIdOf, readNodes } from "./numa-reader.ts";
import {
  bytesOf,
  cellOf,
  cellsOf,
  type DtNode,
  type DtPlace,
  pathOf,
  placesOf,
  propertyOf,
  stringsOf,
} from "./tree.ts";

const SOURCE = "drivers/iommu/of_iommu.c: of_iommu_xlate";
/** Ranges of requester ids at most. */
const RANGES_MAX = 2 ** 18;
/** Host bridges that are looked at; of a hostile tree the rest is left out. */
const BRIDGES_MAX = 512;
/** Platform devices likewise. */
const DEVICES_MAX = 20_000;

/** What a tree gave. */
export interface DevicetreeReading {
  /** {@link EMPTY_MACHINE} and what the tree says. */
  readonly machine: Machine;
  readonly findings: readonly TableFinding[];
}

/** Segments of host bridges by path, where a running kernel tells them. */
export type KnownSegments = ReadonlyMap<string, number>;

/** Reads a tree. Never throws. */
export function readDevicetree(
  root: DtNode,
  segments: KnownSegments = new Map(),
): DevicetreeReading {
  const findings = new Findings("devicetree");
  const machine = new DevicetreeReader(root, findings, segments).read();
  return { machine, findings: findings.list };
}

interface FoundIommu {
  readonly place: DtPlace;
  readonly kind: Iommu["kind"];
  readonly isDisabled: boolean;
  readonly ranges: RidRange[];
  readonly endpoints: MmioEndpoint[];
}

/** What a node is by what it is compatible with; null for no IOMMU. */
function iommuKindOf(node: DtNode): Iommu["kind"] | null {
  const names = stringsOf(node, "compatible");
  if (names.includes("virtio,pci-iommu") || names.includes("pci1af4,1057")) return "virtio-pci";
  if (names.includes("arm,smmu-v3")) return "smmuv3";
  if (names.some((name) => /^arm,(smmu-v[12]|mmu-[45]0[01])$/.test(name))) return "smmuv2";
  if (bytesOf(node, "#iommu-cells") === null) return null;
  return names.includes("virtio,mmio") ? "virtio-mmio" : "other";
}

class DevicetreeReader {
  readonly #findings: Findings;
  readonly #places: readonly DtPlace[];
  readonly #iommus = new Map<DtNode, FoundIommu>();
  readonly #byPhandle = new Map<number, DtPlace>();
  /** Host bridges with their segments. */
  readonly #bridges = new Map<DtPlace, number>();
  readonly #belowPci = new Set<DtPlace>();
  #ranges = 0;

  constructor(root: DtNode, findings: Findings, segments: KnownSegments) {
    this.#findings = findings;
    this.#places = placesOf(root);
    for (const place of this.#places) {
      const { parent } = place;
      const isBelow = parent !== null && (this.#bridges.has(parent) || this.#belowPci.has(parent));
      if (isBelow) this.#belowPci.add(place);
      else if (this.#bridges.size < BRIDGES_MAX && isHostBridge(place.node)) {
        const named = cellOf(place.node, "linux,pci-domain") ?? segments.get(pathOf(place));
        this.#bridges.set(place, (named ?? this.#bridges.size) & 0xffff);
      }
      const phandle = cellOf(place.node, "phandle") ?? cellOf(place.node, "linux,phandle");
      if (phandle !== null && !this.#byPhandle.has(phandle)) this.#byPhandle.set(phandle, place);
    }
  }

  read(): Machine {
    for (const place of this.#places) this.#addIommu(place);
    const hostBridges: HostBridge[] = [];
    const platformDevices: PlatformDevice[] = [];
    for (const place of this.#places) {
      const segment = this.#bridges.get(place);
      if (segment !== undefined) hostBridges.push(this.#hostBridge(place, segment));
      else if (this.#belowPci.has(place)) this.#checkBelowPci(place);
      else if (platformDevices.length < DEVICES_MAX) this.#addDevice(place, platformDevices);
    }
    hostBridges.sort((a, b) => a.segment - b.segment || a.firstBus - b.firstBus);
    return {
      ...EMPTY_MACHINE,
      firmware: "devicetree",
      nodes: readNodes(this.#places, this.#findings),
      hostBridges,
      platformDevices,
      iommus: this.#machineIommus(),
    };
  }

  #addIommu(place: DtPlace): void {
    const kind = iommuKindOf(place.node);
    if (kind === null) return;
    const status = stringsOf(place.node, "status")[0];
    const isDisabled = status !== undefined && status !== "okay" && status !== "ok";
    this.#iommus.set(place.node, { place, kind, isDisabled, ranges: [], endpoints: [] });
    if (!isDisabled) return;
    this.#findings.add({
      code: "devicetree/iommu-disabled",
      severity: "error",
      at: propertyOf(place.node, "status")!.at,
      message: `The IOMMU ${pathOf(place)} has the status "${status}"`,
      effect: "Linux uses its devices untranslated, without waiting",
      source: SOURCE,
    });
  }

  #hostBridge(place: DtPlace, segment: number): HostBridge {
    const { node } = place;
    const buses = bytesOf(node, "bus-range");
    const [first, last] = buses === null ? [0, 0xff] : cellsOf(buses);
    const firstBus = Math.min(first ?? 0, 0xff);
    const lastBus = Math.min(Math.max(last ?? 0xff, firstBus), 0xff);
    const ecam = registersOf(place)[0] ?? null;
    const isEcam = stringsOf(node, "compatible").includes("pci-host-ecam-generic");
    this.#addMap(place, segment, firstBus * 256, lastBus * 256 + 255);
    const hasMap = bytesOf(node, "iommu-map") !== null;
    // The registers start with the first bus.
    const ecamBase = isEcam && ecam !== null ? ecam.start - BigInt(firstBus) * 0x10_0000n : null;
    return {
      segment,
      firstBus,
      lastBus,
      node: nodeIdOf(place),
      ecamBase: ecamBase !== null && ecamBase < 0n ? null : ecamBase,
      windows: windowsOf(place),
      bypassesIommu: false,
      atsSupported: bytesOf(node, "ats-supported") !== null ? true : hasMap ? false : null,
    };
  }

  #addMap(place: DtPlace, segment: number, firstRid: number, lastRid: number): void {
    const map = propertyOf(place.node, "iommu-map");
    if (map === null) return;
    if (this.#ranges > RANGES_MAX) {
      this.#findings.add({
        code: "devicetree/too-many-ranges",
        severity: "warning",
        at: map.at,
        message: `More than ${RANGES_MAX} ranges of ids stand before it; this map is left out`,
      });
      return;
    }
    const mask = cellOf(place.node, "iommu-map-mask") ?? 0xffff_ffff;
    const entries = readEntries(map, mask, this.#findings);
    for (const { phandle, range } of mappedRanges(entries, mask, segment, firstRid, lastRid)) {
      const found = this.#target(phandle, map.at, 1);
      if (found === null) continue;
      this.#ranges += 1;
      if (this.#ranges > RANGES_MAX) return;
      found.ranges.push(range);
    }
  }

  /** The IOMMU that a phandle means, or null after saying what is wrong. */
  #target(phandle: number, at: number, assumedCells: number | null): FoundIommu | null {
    const place = this.#byPhandle.get(phandle);
    if (place === undefined) {
      this.#findings.add({
        code: "devicetree/iommu-dangling",
        severity: "error",
        at,
        message: `No node has the phandle ${hex(phandle)}`,
        effect: "Linux lets these devices run untranslated, without a word",
        source: SOURCE,
      });
      return null;
    }
    const hasCells = bytesOf(place.node, "#iommu-cells") !== null;
    if (!hasCells && assumedCells === null) {
      this.#findings.add({
        code: "devicetree/iommu-cells",
        severity: "error",
        at,
        message: `The IOMMU ${pathOf(place)} has no #iommu-cells`,
        effect: "Linux logs `could not get #iommu-cells`; the device runs untranslated",
        source: "drivers/of/base.c: __of_parse_phandle_with_args",
      });
      return null;
    }
    let found = this.#iommus.get(place.node);
    if (found === undefined) {
      // An `iommu-map` works with a target that has no #iommu-cells (F82).
      const names = stringsOf(place.node, "compatible");
      const kind = names.includes("virtio,mmio") ? "virtio-mmio" : "other";
      found = { place, kind, isDisabled: false, ranges: [], endpoints: [] };
      this.#iommus.set(place.node, found);
    }
    return found;
  }

  #addDevice(place: DtPlace, list: PlatformDevice[]): void {
    const { node } = place;
    const names = stringsOf(node, "compatible");
    const iommus = propertyOf(node, "iommus");
    if (iommus === null && !names.includes("virtio,mmio")) return;
    const registers = registersOf(place).filter((one) => one !== null);
    const path = pathOf(place);
    if (iommus !== null) this.#addEndpoints(place, registers[0]?.start ?? 0n);
    const stem = node.name.replace(/@.*/, "");
    const base = registers[0]?.start;
    list.push({
      // The kernel's name: address, a dot, the node's name.
      name: base === undefined ? stem : `${hex(base).slice(2)}.${stem}`,
      path,
      identity: names[0] ?? null,
      registers,
      interrupts: interruptsOf(place, this.#interruptCells(place)),
      node: nodeIdOf(place),
      driver: null,
      iommu: null,
      group: null,
    });
  }

  #addEndpoints(place: DtPlace, base: bigint): void {
    const property = propertyOf(place.node, "iommus")!;
    const words = cellsOf(property.value);
    for (let at = 0; at < words.length; ) {
      const found = this.#target(words[at]!, property.at + 12 + 4 * at, null);
      if (found === null) return;
      const cells = Math.min(cellOf(found.place.node, "#iommu-cells") ?? 1, 4);
      if (at + cells >= words.length && cells > 0) {
        this.#cutShort(property.at);
        return;
      }
      const id = cells === 0 ? 0 : words[at + 1]!;
      found.endpoints.push({ base, id, path: pathOf(place) });
      at += 1 + cells;
    }
  }

  #cutShort(at: number): void {
    this.#findings.add({
      code: "devicetree/iommus-length",
      severity: "error",
      at,
      message: "The last entry of `iommus` is shorter than its IOMMU's #iommu-cells",
      effect: "Linux lets the device run untranslated",
      source: "drivers/of/base.c: of_phandle_iterator_next",
    });
  }

  #checkBelowPci({ node }: DtPlace): void {
    const iommus = propertyOf(node, "iommus");
    if (iommus === null) return;
    this.#findings.add({
      code: "devicetree/iommus-below-pci",
      severity: "warning",
      at: iommus.at,
      message: `${node.name} is a PCI function; \`iommus\` says nothing there`,
      effect: "Linux looks at the host bridge's `iommu-map` alone",
      source: "drivers/iommu/of_iommu.c: of_iommu_configure",
    });
  }

  #interruptCells(place: DtPlace): number {
    for (let at: DtPlace | null = place; at !== null; at = at.parent) {
      const phandle = cellOf(at.node, "interrupt-parent");
      if (phandle === null) continue;
      const parent = this.#byPhandle.get(phandle);
      return Math.max(1, Math.min(4, (parent && cellOf(parent.node, "#interrupt-cells")) ?? 3));
    }
    // A part of a tree has no interrupt controller: a GIC's triples are told by their count.
    return (bytesOf(place.node, "interrupts")?.length ?? 0) % 12 === 0 ? 3 : 1;
  }

  #machineIommus(): Iommu[] {
    const found = [...this.#iommus.values()].filter(({ isDisabled }) => !isDisabled);
    return found.map((one) => this.#iommu(one));
  }

  #iommu({ place, kind, ranges, endpoints }: FoundIommu): Iommu {
    const node = nodeIdOf(place);
    const common = { node, includesRest: false, endpoints, interruptSources: [] };
    const registers = registersOf(place)[0] ?? { start: 0n, last: 0n };
    const interrupts = interruptsOf(place, this.#interruptCells(place));
    if (kind === "virtio-pci") {
      const rid = (cellOf(place.node, "reg") ?? 0) >>> 8;
      const segment = this.#segmentAbove(place);
      const name = pciName(addressOfRid(segment, rid & 0xffff));
      const translates = this.#withoutItself(place, ranges, segment, rid & 0xffff);
      return { ...common, kind, name, segment, rid: rid & 0xffff, translates };
    }
    const at = hex(registers.start);
    if (kind === "virtio-mmio") {
      const name = `${at.slice(2)}.${place.node.name.replace(/@.*/, "")}`;
      return { ...common, kind, name, registers, interrupts, translates: ranges };
    }
    if (kind === "smmuv2" || kind === "smmuv3") {
      const name = `${kind === "smmuv3" ? "smmu3" : "smmu"}.${hex(registers.start, 16)}`;
      const isCoherent = bytesOf(place.node, "dma-coherent") !== null;
      return { ...common, kind, name, registers, interrupts, isCoherent, translates: ranges };
    }
    // The kernel's name of a platform device, where it can have one.
    const stem = place.node.name.replace(/@.*/, "");
    const name = registers.start === 0n ? pathOf(place) : `${at.slice(2)}.${stem}`;
    return { ...common, kind: "other", name, translates: ranges };
  }

  #segmentAbove(place: DtPlace): number {
    for (let at = place.parent; at !== null; at = at.parent) {
      const segment = this.#bridges.get(at);
      if (segment !== undefined) return segment;
    }
    return 0;
  }

  #withoutItself(place: DtPlace, ranges: RidRange[], segment: number, rid: number): RidRange[] {
    const own = ranges.find(
      (one) => one.segment === segment && one.firstRid <= rid && rid <= one.lastRid,
    );
    if (own === undefined) return ranges;
    this.#findings.add({
      code: "devicetree/iommu-self",
      severity: "error",
      at: place.node.at,
      message: "The IOMMU's own requester id is in the iommu-map",
      effect: "The IOMMU's driver waits for the IOMMU, until the deferral ends",
      source: SOURCE,
    });
    return ranges;
  }
}

function isHostBridge(node: DtNode): boolean {
  if (stringsOf(node, "device_type")[0] !== "pci") return false;
  return bytesOf(node, "reg") === null || bytesOf(node, "ranges") !== null;
}
