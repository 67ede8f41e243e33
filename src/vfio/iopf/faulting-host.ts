/**
 * A host whose devices can fault: each IOMMU with its queue of page requests, each device with an
 * engine that does DMA, type1 with the proposal of 2021.
 *
 * Devices behind an SMMU stall; those behind other IOMMUs have ATS and the page request interface of
 * PCI. (AMD logs page requests in another layout than VT-d; its units have VT-d's ring here.)
 * Nothing happens by itself: `settle` lets the drivers and their queues work.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { IommuDevice } from "../../iommu/device.ts";
import { IopfQueue, type PickWork } from "../../iommu/iopf/iopf-queue.ts";
import type { PageResponse } from "../../iommu/iopf/page-request.ts";
import { PageRequestQueue } from "../../iommu/iopf/page-request-queue.ts";
import type { DmaSegment } from "../../iommu/iopf/page-stream.ts";
import { PriDevice } from "../../iommu/iopf/pri-device.ts";
import { enablePri, PriInterface } from "../../iommu/iopf/pri-interface.ts";
import { type DmaCounts, StallDevice } from "../../iommu/iopf/stall-device.ts";
import { StallQueue } from "../../iommu/iopf/stall-queue.ts";
import type { IotlbGeometry } from "../../iommu/iotlb.ts";
import type { TranslationUnit } from "../../iommu/translation-unit.ts";
import { buildHost, type Host, type HostOptions } from "../host/host.ts";
import type { HostPlan } from "../host/host-plan.ts";
import { Type1Backend } from "../type1/backend.ts";
import type { PremapRule } from "./fault-server.ts";
import { Type1Faulting } from "./type1-faulting.ts";

/** How devices fault, and how containers serve them. */
export interface FaultingHostOptions extends Omit<HostOptions, "backends" | "pageResponse"> {
  readonly premap?: Partial<PremapRule>;
  /** Accesses that a device has in flight, or pages that it asks for together; 1 without it. */
  readonly inFlight?: number;
  /** Accesses that an SMMU holds at once; 64 without it. */
  readonly stallMax?: number;
  /** Page requests that a device may have without an answer; 32 without it. */
  readonly requestsMax?: number;
  /** The order in which groups of requests are worked off; that of their arrival without it. */
  readonly pick?: PickWork;
}

/** What a device's engine does. */
interface Engine {
  readonly isBusy: boolean;
  readonly counts: DmaCounts;
  start(segments: readonly DmaSegment[]): void;
  run(): number;
}

interface Port {
  readonly iopf: IopfQueue;
  readonly queue: StallQueue | PageRequestQueue;
}

const ATS: IotlbGeometry = { sets: 16, ways: 4, replacement: "lru", pageShifts: [12, 21] };

/** The host. */
export class FaultingHost {
  readonly host: Host;
  /** What serves the faults of each container, in the order of their making. */
  readonly faultings: Type1Faulting[] = [];
  readonly #options: FaultingHostOptions;
  readonly #ports = new Map<TranslationUnit, Port>();
  readonly #portOf = new Map<IommuDevice, Port>();
  readonly #engines = new Map<string, Engine>();

  constructor(plan: HostPlan, options: FaultingHostOptions = {}) {
    this.#options = options;
    const createFaulting = () => {
      const portOf = (device: IommuDevice) => this.#portOf.get(device)?.queue ?? null;
      const premap = options.premap ?? {};
      const faulting = new Type1Faulting({ portOf, premap });
      this.faultings.push(faulting);
      return faulting;
    };
    const meter = options.meter === undefined ? {} : { meter: options.meter };
    const parameters = options.type1 ?? {};
    this.host = buildHost(plan, {
      ...options,
      backends: [new Type1Backend({ createFaulting, parameters, ...meter })],
      pageResponse: (device, last, code: PageResponse) => {
        this.#portOf.get(device)!.queue.respond(device, last, code);
      },
    });
    for (const { address } of plan.devices) this.#equip(address);
  }

  /** Lets a device fault without a container, as the driver does for a table with a fault object. */
  enableFaults(address: string): number {
    const { iommuDevice } = this.host.device(address);
    const port = this.#portOf.get(iommuDevice);
    const group = this.host.groups.of(iommuDevice);
    if (port === undefined || group === null) return Errno.ENODEV;
    return port.queue.enableDevice(group, iommuDevice);
  }

  /** Has a device begin a DMA; it is done with the one before. */
  start(address: string, segments: readonly DmaSegment[]): void {
    this.#engine(address).start(segments);
  }

  /** Whether a device has not finished. */
  isBusy(address: string): boolean {
    return this.#engine(address).isBusy;
  }

  /** Pages that a device reached, and pages that it was refused. */
  counts(address: string): Readonly<DmaCounts> {
    return this.#engine(address).counts;
  }

  /** Lets devices, drivers and queues work once. @returns whether anything was done */
  step(): boolean {
    let work = 0;
    for (const engine of this.#engines.values()) work += engine.run();
    for (const { queue } of this.#ports.values()) work += queue.drain();
    for (const { iopf } of this.#ports.values()) {
      work += iopf.run(Number.POSITIVE_INFINITY, this.#options.pick);
    }
    return work > 0;
  }

  /** Works until nothing is left that can be done without somebody else's answer. */
  settle(): void {
    while (this.step());
  }

  #engine(address: string): Engine {
    const engine = this.#engines.get(address);
    assert(engine !== undefined, "the device is behind an IOMMU");
    return engine;
  }

  #equip(address: string): void {
    const { unit, iommuDevice } = this.host.device(address);
    if (unit === null) return;
    const { inFlight = 1, requestsMax = 32 } = this.#options;
    const port = this.#port(unit);
    const { rid } = iommuDevice;
    this.#portOf.set(iommuDevice, port);
    const { queue } = port;
    if (queue instanceof StallQueue) {
      this.#engines.set(address, new StallDevice(queue, { rid, inFlightMax: inFlight }));
      return;
    }
    if (unit.devices.ensure(rid).ats === null) unit.enableAts(rid, ATS);
    const pri = new PriInterface({ rid, capacity: requestsMax, sink: queue });
    queue.connect(pri);
    enablePri(pri, requestsMax);
    this.#engines.set(address, new PriDevice({ unit, pri, groupPages: inFlight }));
  }

  #port(unit: TranslationUnit): Port {
    const known = this.#ports.get(unit);
    if (known !== undefined) return known;
    const { stallMax = 64 } = this.#options;
    const plan = this.host.plan.units.find(({ name }) => name === unit.name)!;
    const meter = this.host.reads;
    const iopf = new IopfQueue();
    const queue =
      plan.kind === "smmu"
        ? new StallQueue({ unit, iopf, stallMax, meter })
        : new PageRequestQueue({ iopf, meter, node: Math.max(unit.node, 0) });
    const port = { iopf, queue };
    this.#ports.set(unit, port);
    return port;
  }
}
