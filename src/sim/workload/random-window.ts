/**
 * A device that reads or writes at random inside a window of memory, behind an IOMMU or none: the
 * micro-benchmark of pcie-bench, with one access at a time for latency, or as many as go for
 * throughput.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { vtdSecondStage } from "../../iommu/formats/vtd-second-stage.ts";
import { HardwareDomain } from "../../iommu/hardware-domain.ts";
import { PageTable } from "../../iommu/page-table.ts";
import { PROT_RW } from "../../iommu/prot.ts";
import type { CacheGeometry } from "../../iommu/tag-array.ts";
import { TranslationUnit } from "../../iommu/translation-unit.ts";
import { PagePool } from "../../memory/page-pool.ts";
import { Step } from "../../meter.ts";
import { Random } from "../../random.ts";
import { PAGE_BYTES, PAGE_SHIFT } from "../../units.ts";
import { AtsPort } from "../device/ats-port.ts";
import { type DeviceTime, deviceTime } from "../device/device-time.ts";
import { DmaEngine } from "../device/dma-engine.ts";
import { type FaultKind, faultingDevice } from "../device/fault-port.ts";
import { type FaultPort, FaultService } from "../device/fault-service.ts";
import { TimedUnit } from "../device/timed-unit.ts";
import { WalkBill } from "../device/walk-bill.ts";
import { Engine } from "../engine.ts";
import { Histogram } from "../histogram.ts";
import type { Link, LinkSpeed } from "../link.ts";
import type { PriceList } from "../price-list.ts";
import { type SteadyState, steadyState } from "../steady-state.ts";
import type { SliceRecorder } from "./slices.ts";

/** What a window lies in. */
export interface WindowMachine {
  readonly prices: PriceList;
  /** Entries of the IOTLB, any of which takes any page. */
  readonly iotlbEntries: number;
  readonly pagingCache: CacheGeometry | null;
  readonly walkers: number;
  readonly up: LinkSpeed;
  readonly down: LinkSpeed;
  /** Reads in flight, and the interval between two, picoseconds; the same of writes. */
  readonly reads: { readonly inFlight: number; readonly gap: number };
  readonly writes: { readonly inFlight: number; readonly gap: number };
  /** A read of memory, and of what the last-level cache holds, picoseconds. */
  readonly memoryTime: number;
  readonly cacheTime: number;
  /** Bytes of a buffer that the last-level cache can hold. */
  readonly cacheBytes: number;
  /** Most payload of a packet, and what an access costs a link beyond its packets, in bytes. */
  readonly packet?: { readonly payload: number; readonly overhead: number };
}

/** How pages come that are not there. */
export interface WindowFaults {
  /** Held by the unit, or asked for by the device, which needs ATS for it. */
  readonly kind: FaultKind;
  readonly outstanding: number;
  readonly handlers: number;
  readonly reportNs: number;
  /** What a handler takes beside the steps that have prices. */
  readonly handlerNs: number;
}

/** What to measure. */
export interface WindowRun {
  readonly machine: WindowMachine;
  readonly windowBytes: number;
  /** log2 of the size of the pages that the buffer is mapped in; null without an IOMMU. */
  readonly pageShift: 12 | 21 | null;
  /** Whether the host touched the buffer last. */
  readonly isWarm: boolean;
  readonly isWrite: boolean;
  /** One access at a time, or as many as the device can have in flight. */
  readonly isSingle: boolean;
  readonly seed: number;
  /** Node of the page tables; the unit and the device are on node 0. */
  readonly tableNode?: number;
  /** Bytes of an access, 64 without it. */
  readonly bytes?: number;
  /** Entries of the device's own translation cache (ATS); none without it. */
  readonly atsEntries?: number;
  /** Pages are mapped when the device first comes to them; before the run without it. */
  readonly faults?: WindowFaults;
  /** Accesses to measure, 40 000 without it. */
  readonly accesses?: number;
  /** Keeps walks for a timeline. */
  readonly slices?: SliceRecorder;
}

/** What was measured. */
export interface WindowResult {
  /** Picoseconds from issue to end of an access. */
  readonly latency: SteadyState;
  /** Accesses a second. */
  readonly rate: SteadyState;
  readonly hits: number;
  readonly misses: number;
  readonly walkerShare: number;
  /** Faults reported. */
  readonly faults: number;
  readonly percentiles: Histogram;
  readonly where: DeviceTime;
  /** Virtual time of the run, picoseconds. */
  readonly time: number;
  readonly hash: string;
}

const BYTES = 64;
const BATCHES = 200;
const UNIT = "dmar0";
const RID = 0x0100;
const BASE_PFN = 2 ** 20;
const FORMAT = vtdSecondStage({ levels: 4 });
const PS_PER_NS = 1000;

/** Measures one window. */
export function runWindow(run: WindowRun): WindowResult {
  const { machine, isWarm, isWrite, isSingle, windowBytes } = run;
  const engine = new Engine();
  const random = new Random(run.seed);
  const bill = new WalkBill(machine.prices);
  const built = run.pageShift === null ? null : buildUnit(engine, run, run.pageShift, bill);
  const unit = built?.timed ?? null;
  bill.forget();
  const percentiles = new Histogram();
  const batch = Math.ceil((run.accesses ?? 40_000) / BATCHES);
  const latencies = new Float64Array(BATCHES);
  const rates = new Float64Array(BATCHES);
  const pages = Math.ceil(windowBytes / PAGE_BYTES);
  const bytes = run.bytes ?? BYTES;
  const lines = windowBytes / bytes;
  const warmLines = isWarm ? Math.min(lines, Math.floor(machine.cacheBytes / bytes)) : 0;
  const { payload, overhead } = machine.packet ?? { payload: bytes, overhead: 0 };
  const moved = bytes + overhead;
  let completed = 0;
  let started = 0;
  const speed = isWrite ? machine.writes : machine.reads;
  const device = new DmaEngine({
    engine,
    unit,
    ats: built?.ats,
    rid: RID,
    isWrite,
    inFlight: isSingle ? 1 : speed.inFlight,
    gap: speed.gap,
    up: machine.up,
    down: machine.down,
    bytes: moved,
    payload: Math.ceil(moved / Math.ceil(bytes / payload)),
    next: () => BASE_PFN + random.below(pages),
    // Random accesses find a cache as full of the window as it can be.
    memory:
      warmLines === 0
        ? machine.memoryTime
        : () => (random.below(lines) < warmLines ? machine.cacheTime : machine.memoryTime),
    done: (time) => {
      if (completed === batch * BATCHES) return;
      const index = Math.floor(completed / batch);
      latencies[index]! += time / batch;
      percentiles.add(time);
      completed += 1;
      if (completed % batch !== 0) return;
      rates[index] = (batch * 1e12) / (engine.now - started);
      started = engine.now;
      if (index < BATCHES - 1) return;
      device.stop();
      engine.stop();
    },
  });
  const where = () =>
    deviceTime({
      devices: [{ name: "device", engine: device, unit: unit === null ? null : UNIT, node: 0 }],
      units: new Map(unit === null ? [] : [[UNIT, unit]]),
      bill,
      interconnect: null,
      faults: built?.faults ?? null,
      time: engine.now,
    });
  device.start();
  engine.run();
  const result = {
    latency: steadyState(latencies),
    rate: steadyState(rates),
    hits: bill.count("iotlbHit"),
    misses: bill.count("iotlbMiss"),
    walkerShare: unit === null ? 0 : unit.walkers.use().busyTime / (engine.now * machine.walkers),
    faults: built?.faults?.reported ?? 0,
    percentiles,
    time: engine.now,
    hash: engine.hash,
  };
  const { queues } = where();
  // Parts are of requests that are done: what is in flight gets there, and counts nowhere else.
  engine.run();
  return { ...result, where: { ...where(), queues } };
}

interface WindowUnit {
  readonly timed: TimedUnit;
  readonly faults: FaultService | null;
  readonly ats: ((up: Link, down: Link) => AtsPort) | undefined;
}

function buildUnit(engine: Engine, run: WindowRun, pageShift: 12 | 21, bill: WalkBill): WindowUnit {
  const { machine, tableNode = 0, atsEntries } = run;
  const { iotlbEntries, pagingCache, walkers } = machine;
  const pool = new PagePool(
    [0, 1].map((node) => ({ node, basePfn: (node + 1) * 2 ** 24, frameCount: 2 ** 12 })),
  );
  const unit = new TranslationUnit({
    name: UNIT,
    node: 0,
    iotlb: { sets: 1, ways: iotlbEntries, replacement: "lru", pageShifts: [12, 21, 30] },
    pagingCache,
    selective: { kind: "mask", maskMax: 18 },
    meter: bill,
  });
  const geometry = { sets: 1, replacement: "lru", pageShifts: [12, 21] } as const;
  const cache =
    atsEntries === undefined ? null : unit.enableAts(RID, { ...geometry, ways: atsEntries });
  // Pages that do not lie side by side, so that no larger one fits.
  const frames = 2 ** (pageShift - PAGE_SHIFT);
  const mapPage = (domain: IommuDomain, page: number) =>
    domain.map(BASE_PFN + page * frames, BASE_PFN * 2 + page * frames * 2, frames, PROT_RW);
  const faults =
    run.faults === undefined
      ? null
      : serviceOf(
          engine,
          run.faults,
          faultingDevice({
            kind: run.faults.kind,
            unit,
            pool,
            format: FORMAT,
            node: tableNode,
            rid: RID,
            bill,
            map(domain, iovaPfn) {
              // Two accesses can ask for the same page.
              if (domain.iovaToPhys(iovaPfn) >= 0) return true;
              bill.step(Step.pageFault, 1, 0);
              return mapPage(domain, Math.floor((iovaPfn - BASE_PFN) / frames)) === Errno.OK;
            },
          }).port,
          bill,
        );
  if (faults === null) mapAll(run, unit, pool, bill, frames, mapPage);
  const stalls = run.faults?.kind === "stall" ? faults : null;
  const timed = new TimedUnit({ engine, unit, bill, walkers, slices: run.slices, faults: stalls });
  const asks = run.faults?.kind === "pri" ? faults : null;
  const parts = { engine, unit: timed, bill, rid: RID, faults: asks };
  const ats =
    cache === null
      ? undefined
      : (up: Link, down: Link) => new AtsPort({ ...parts, cache, up, down });
  return { timed, faults, ats };
}

function serviceOf(engine: Engine, how: WindowFaults, port: FaultPort, bill: WalkBill) {
  const { outstanding, handlers, reportNs, handlerNs } = how;
  return new FaultService({
    engine,
    bill,
    port,
    outstanding,
    handlers,
    reportTime: Math.round(reportNs * PS_PER_NS),
    handlerTime: Math.round(handlerNs * PS_PER_NS),
  });
}

/** The whole window, mapped before the run. */
function mapAll(
  { tableNode = 0, windowBytes }: WindowRun,
  unit: TranslationUnit,
  pool: PagePool,
  bill: WalkBill,
  frames: number,
  mapPage: (domain: IommuDomain, page: number) => number,
): void {
  const table = PageTable.create({ format: FORMAT, pool, node: tableNode, meter: bill });
  assert(table !== null, "a fresh node has room for a page table");
  const hardware = new HardwareDomain({ table });
  const domain = new IommuDomain(DomainType.UNMANAGED, hardware);
  hardware.attach(unit, RID);
  const count = Math.ceil(windowBytes / PAGE_BYTES / frames);
  for (let page = 0; page < count; page += 1) {
    assert(mapPage(domain, page) === Errno.OK, "the window is mapped");
  }
}
