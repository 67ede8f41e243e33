/**
 * A running host out of a plan: page pools, IOMMU units and their drivers, IOMMU groups with their
 * default domains, and VFIO with the devices that are bound to it.
 *
 * After `buildHost` the host stands where a booted one does: kernel drivers bound, `/dev/vfio/N`
 * there for every group with a device of vfio-pci.
 */
import { Errno, errnoName } from "../../errno.ts";
import { assert, StackError } from "../../errors.ts";
import { useDefaultDomain } from "../../iommu/attach.ts";
import { IommuDevice, type IommuOps } from "../../iommu/device.ts";
import { type DomainTrace, DomainType } from "../../iommu/domain.ts";
import { formatByName } from "../../iommu/formats/catalog.ts";
import type { GroupTrace } from "../../iommu/group.ts";
import { IommuGroups } from "../../iommu/groups.ts";
import type { HardwareDomainOptions, UnitNodes } from "../../iommu/hardware-domain.ts";
import { HardwareOps } from "../../iommu/hardware-ops.ts";
import { PageTable } from "../../iommu/page-table.ts";
import type { PciFunction } from "../../iommu/pci-function.ts";
import { TranslationUnit } from "../../iommu/translation-unit.ts";
import { PagePool } from "../../memory/page-pool.ts";
import type { Meter } from "../../meter.ts";
import { PAGE_BYTES } from "../../units.ts";
import type { ContainerBackend } from "../backend.ts";
import { VfioPciDevice } from "../device/pci-device.ts";
import type { NoIommuMode } from "../noiommu.ts";
import { Type1Backend } from "../type1/backend.ts";
import type { Type1Parameters } from "../type1/type1.ts";
import { Vfio } from "../vfio.ts";
import type { DevicePlan, HostPlan, UnitKind, UnitPlan } from "./host-plan.ts";
import { functionsOf } from "./pci-plan.ts";
import { checkPlan } from "./plan-check.ts";
import { ReadMeter } from "./read-meter.ts";
import { unitKinds } from "./unit-kinds.ts";

/** What is around the plan. */
export interface HostOptions {
  /** Parameters of the type1 module. */
  readonly type1?: Partial<Type1Parameters>;
  /** Back ends of VFIO instead of type1 with those parameters. */
  readonly backends?: readonly ContainerBackend[];
  readonly noIommu?: NoIommuMode;
  readonly meter?: Meter;
  /** Hears of attached devices. */
  readonly groupTrace?: GroupTrace;
  /** Answers page requests, where devices can send them; nobody can without it. */
  readonly pageResponse?: NonNullable<IommuOps["pageResponse"]>;
  /** Hears of maps and unmaps of all domains. */
  readonly domainTrace?: DomainTrace;
  readonly log?: (line: string) => void;
}

/** A device of a host. */
export interface HostDevice {
  readonly plan: DevicePlan;
  readonly function: PciFunction;
  readonly iommuDevice: IommuDevice;
  /** Null when no IOMMU serves it. */
  readonly unit: TranslationUnit | null;
  /** What vfio-pci offers of it; null when another driver has it. */
  readonly vfio: VfioPciDevice | null;
}

/** First frame of each node's page-table memory: they lie 64 GiB apart, from 64 GiB on. */
const NODE_FRAMES = 2 ** 24;

const IOTLB = { sets: 16, ways: 4, replacement: "lru", pageShifts: [12, 21, 30] } as const;
const PAGING_CACHE = { sets: 8, ways: 4, replacement: "lru" } as const;

/** A host. */
export class Host {
  readonly plan: HostPlan;
  /** Memory of page tables. */
  readonly pool: PagePool;
  readonly groups: IommuGroups;
  readonly vfio: Vfio;
  readonly units = new Map<string, TranslationUnit>();
  /** By address. */
  readonly devices = new Map<string, HostDevice>();
  /** Who reads page tables, and from where. */
  readonly reads: ReadMeter;
  readonly #options: HostOptions;
  readonly #unitPlans = new Map<TranslationUnit, UnitPlan>();
  readonly #unitOf = new Map<IommuDevice, TranslationUnit>();
  readonly #planOf = new Map<IommuDevice, DevicePlan>();

  constructor(plan: HostPlan, options: HostOptions) {
    this.plan = plan;
    this.#options = options;
    this.reads = new ReadMeter(plan.nodes.length, options.meter);
    this.pool = new PagePool(
      plan.nodes.map(({ memory }, node) => {
        const basePfn = (node + 1) * NODE_FRAMES;
        return { node, basePfn, frameCount: memory / PAGE_BYTES };
      }),
      plan.distances,
    );
    for (const unit of plan.units) this.#addUnit(unit);
    const functions = functionsOf(plan.devices);
    this.groups = new IommuGroups(
      {
        defaultType: plan.defaultType ?? DomainType.DMA,
        meter: this.reads,
        ...(options.groupTrace === undefined ? {} : { trace: options.groupTrace }),
      },
      functions,
    );
    this.#addDevices(functions);
    const { noIommu = null, log } = options;
    this.vfio = new Vfio({
      groups: this.groups,
      backends: options.backends ?? [
        new Type1Backend({ parameters: options.type1 ?? {}, meter: this.reads }),
      ],
      noIommu,
      ...(log === undefined ? {} : { log }),
    });
    this.#bind();
  }

  /** A device by its address. */
  device(address: string): HostDevice {
    const device = this.devices.get(address);
    assert(device !== undefined, "the plan has a device of this address");
    return device;
  }

  /** Path of the file below /dev/vfio that leads to a device, or null when there is none. */
  groupPath(address: string): string | null {
    const { iommuDevice } = this.device(address);
    const group = this.vfio.groups.find(
      (each) => each.iommuGroup?.devices.includes(iommuDevice) === true,
    );
    return group === undefined ? null : `/dev/vfio/${group.fileName}`;
  }

  /** Frames of page tables on each node: `nr_iommu_pages` of its `vmstat`. */
  tablePages(): number[] {
    return this.plan.nodes.map((_, node) => this.pool.usedFramesOf(node));
  }

  #addUnit(plan: UnitPlan): void {
    const { kind = "vtd", name, node } = plan;
    const traits = unitKinds[kind];
    const { cachingMode, snoopControl, domainIds } = plan;
    const unit = new TranslationUnit({
      name,
      node,
      iotlb: plan.iotlb ?? IOTLB,
      pagingCache: plan.pagingCache === undefined ? PAGING_CACHE : plan.pagingCache,
      selective: traits.selective,
      meter: this.reads,
      formats: plan.formats ?? [plan.format ?? traits.format],
      ...(cachingMode === undefined ? {} : { cachingMode }),
      ...(snoopControl === undefined ? {} : { snoopControl }),
      ...(domainIds === undefined ? {} : { domainIds }),
    });
    this.units.set(name, unit);
    this.#unitPlans.set(unit, plan);
  }

  #addDevices(functions: readonly PciFunction[]): void {
    const drivers = new Map<UnitKind, HardwareOps>();
    for (const unit of this.#unitPlans.values()) {
      const kind = unit.kind ?? "vtd";
      if (!drivers.has(kind)) drivers.set(kind, this.#driverOf(kind));
    }
    for (const [index, plan] of this.plan.devices.entries()) {
      const unit = plan.unit === null ? null : this.units.get(plan.unit)!;
      const unitPlan = unit === null ? null : this.#unitPlans.get(unit)!;
      const pci = functions[index]!;
      const iommuDevice = new IommuDevice({
        name: plan.address,
        ops: unitPlan === null ? null : drivers.get(unitPlan.kind ?? "vtd")!,
        rid: pci.bus * 256 + pci.devfn,
        node: plan.node ?? unit?.node ?? -1,
        isolatedMsi: unitPlan?.isolatesMsi ?? true,
      });
      const isBridge = pci.secondaryBus >= 0;
      const isOffered = (plan.driver ?? (isBridge ? "none" : "vfio-pci")) === "vfio-pci";
      const { bars = [] } = plan;
      const vfio = isOffered ? new VfioPciDevice({ iommuDevice, bars }) : null;
      this.devices.set(plan.address, { plan, function: pci, iommuDevice, unit, vfio });
      this.#planOf.set(iommuDevice, plan);
      if (unit === null) continue;
      this.#unitOf.set(iommuDevice, unit);
      if (plan.ats !== undefined) unit.enableAts(iommuDevice.rid, plan.ats);
    }
    const errno = this.groups.probe(
      [...this.devices.values()].map(({ iommuDevice: device }, pciIndex) => ({ device, pciIndex })),
    );
    if (errno !== Errno.OK) throw noMemory(errno);
  }

  #driverOf(kind: UnitKind): HardwareOps {
    const traits = unitKinds[kind];
    const { domainTrace, pageResponse } = this.#options;
    return new HardwareOps({
      name: traits.driver,
      blocksFirst: traits.blocksFirst,
      unitOf: (device) => this.#unitOf.get(device) ?? null,
      createDomain: (device, unit) => this.#createDomain(kind, device, unit),
      reservedRegions: (device) => {
        const plan = this.#planOf.get(device)!;
        return plan.regions ?? traits.regionsOf(plan);
      },
      ...(pageResponse === undefined ? {} : { pageResponse }),
      ...(domainTrace === undefined ? {} : { trace: domainTrace }),
    });
  }

  #createDomain(
    kind: UnitKind,
    device: IommuDevice,
    unit: TranslationUnit,
  ): HardwareDomainOptions | null {
    const traits = unitKinds[kind];
    const name = this.#unitPlans.get(unit)!.format ?? traits.format;
    const format = formatByName(name);
    assert(format !== null, "a unit's format exists");
    const unitNodes = traits.keepsNode ? this.#unitNodes() : "none";
    const isPlacedLate = unitNodes === "follow" || unitNodes === "devices";
    const node = traits.tableNode === "unit" ? unit.node : device.node;
    const { pool, reads: meter } = this;
    const table = PageTable.create({ format, pool, node: isPlacedLate ? -1 : node, meter });
    if (table === null) return null;
    const firstStage = name.includes("first-stage");
    return { table, firstStage, unitNodes, operations: traits.operationsOf(name) };
  }

  /** What VT-d does about nodes, by the kernel and whether it has the by-node RFC. */
  #unitNodes(): UnitNodes {
    const hasRule = (this.#options.type1?.attachGroupByNode ?? null) !== null;
    if (this.plan.kernel === "6.6") return hasRule ? "follow" : "devices";
    return hasRule ? "report" : "none";
  }

  #bind(): void {
    for (const { plan, iommuDevice, vfio } of this.devices.values()) {
      // One that no IOMMU serves may be refused, and then has no group.
      if (vfio !== null) this.vfio.register(vfio);
      const group = this.groups.of(iommuDevice);
      if (plan.driver !== "kernel" || group === null) continue;
      const errno = useDefaultDomain(group);
      assert(errno === Errno.OK, "nobody owns a group while a host boots");
    }
  }
}

/**
 * Builds a host.
 *
 * @throws StackError `vfio/bad-plan`, `vfio/no-such-unit`, `vfio/bad-address`, `vfio/no-such-bridge`
 */
export function buildHost(plan: HostPlan, options: HostOptions = {}): Host {
  checkPlan(plan);
  return new Host(plan, options);
}

function noMemory(errno: number): StackError {
  return new StackError({
    code: "vfio/bad-plan",
    kind: "input",
    message: `The devices of the host do not get their default domains: ${errnoName(errno)}`,
    hint: "give the nodes more memory for page tables, or the units more domain ids",
  });
}
