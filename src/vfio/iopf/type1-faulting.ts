/**
 * I/O page faults for a type1 container, as proposed in 2021: nothing is pinned when it is mapped;
 * a device's first access faults its page in, and a change of the process's memory takes it out.
 *
 * Never merged: Linux 7.2 resolves no fault of a VFIO second stage. What the proposal got wrong is
 * right here; docs/io-page-faults.md lists the differences. Source: "Add IOPF support for VFIO
 * passthrough", RFC v3, 9 April 2021 (20210409034420.1799-1), patches 1 to 8.
 *
 * @example
 * const faulting = new Type1Faulting({ portOf: () => pageRequests });
 * const type1 = new Type1({ isV2: true, faulting }); // then attach a group, and
 * faulting.enable(type1, process); // VFIO_IOMMU_ENABLE_IOPF
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { IommuDevice } from "../../iommu/device.ts";
import type { IommuDomain } from "../../iommu/domain.ts";
import type { IommuGroup } from "../../iommu/group.ts";
import type { FaultGroup, FaultParam, IopfHandler } from "../../iommu/iopf/fault-group.ts";
import { type AttachHandle, PageRequestFlag, PageResponse } from "../../iommu/iopf/page-request.ts";
import { NO_PASID } from "../../iommu/tag-array.ts";
import { isPowerOfTwo } from "../../units.ts";
import type { UserProcess } from "../process/user-process.ts";
import type { DmaMapping } from "../type1/mapping.ts";
import type { FaultingService, Type1, Type1Domain, Type1Group } from "../type1/type1.ts";
import { FaultDomains, mapPagesInto } from "./fault-domains.ts";
import { FaultLevels, FaultReport } from "./fault-levels.ts";
import { type FaultCounts, FaultServer, NOT_YET, type PremapRule } from "./fault-server.ts";
import { FaultingMapping } from "./faulting-mapping.ts";
import { MemoryWatches } from "./memory-watches.ts";
import { SelectiveRanges } from "./selective-ranges.ts";

/** Where a device's page requests come from: a queue of its IOMMU. */
export interface FaultPort {
  /** @returns an errno: ENODEV when the device cannot fault, EBUSY when it does already */
  enableDevice(group: IommuGroup, device: IommuDevice): number;
  disableDevice(device: IommuDevice): void;
}

/** How faults are served. */
export interface Type1FaultingOptions {
  /** The queue behind which a device sits; null when it cannot fault. */
  portOf(device: IommuDevice): FaultPort | null;
  readonly premap?: Partial<PremapRule>;
  /**
   * Of a container whose devices have a first stage of the guest's: hands a fault of that stage to
   * the guest, who answers the group (the device operation `transfer`). Null for one stage.
   *
   * @returns false when the device has no way to do that
   */
  readonly transfer?: ((group: FaultGroup) => boolean) | null;
}

/** What page requests of a group find. */
interface MemberHandle extends AttachHandle<IommuDomain> {
  readonly member: Type1Group;
  /** Where faults are served, once a driver has pinned pages; null for everywhere. */
  scope: SelectiveRanges | null;
}

/** The service of one container. */
export class Type1Faulting implements FaultingService, IopfHandler {
  readonly #options: Type1FaultingOptions;
  readonly #domains = new FaultDomains();
  readonly #states = new Map<DmaMapping, FaultingMapping>();
  readonly #handles = new Map<IommuGroup, MemberHandle>();
  readonly #levels = new Map<FaultParam, FaultLevels>();
  readonly #server: FaultServer;
  readonly #watches: MemoryWatches;
  readonly #work = (group: FaultGroup) => this.#serve(group);
  /** Groups of requests for memory that is moving. */
  #parked: FaultGroup[] = [];
  #type1: Type1 | null = null;

  constructor(options: Type1FaultingOptions) {
    const premap: PremapRule = { pages: 512, reach: "forward", leaves: "4KiB", ...options.premap };
    assert(Number.isInteger(premap.pages) && premap.pages >= 1, "a fault maps a page");
    assert(premap.reach === "forward" || isPowerOfTwo(premap.pages), "an aligned reach is 2^n");
    this.#options = options;
    this.#watches = new MemoryWatches(
      (bytes) => this.#type1!.allow(bytes),
      (state, first, end) => {
        this.counts.pagesInvalidated += state.remove(this.#domains, first, end);
      },
      () => this.#domains.sync(),
    );
    this.#server = new FaultServer(this.#domains, this.#watches, premap);
  }

  get isEnabled(): boolean {
    return this.#type1 !== null;
  }

  get counts(): FaultCounts {
    return this.#server.counts;
  }

  /** Groups of requests that wait for memory that is moving. */
  get parkedCount(): number {
    return this.#parked.filter((group) => group.isPending).length;
  }

  /** Process memories that are watched. */
  get watchCount(): number {
    return this.#watches.count;
  }

  /** What is mapped of a mapping, for tests and reports. */
  stateOf(mapping: DmaMapping): FaultingMapping | null {
    return this.#states.get(mapping) ?? null;
  }

  /**
   * VFIO_IOMMU_ENABLE_IOPF.
   *
   * @returns ENODEV for a process without memory or a device that cannot fault; EBUSY when it is
   *   enabled, when something is mapped (and so pinned), or a device faults for somebody else;
   *   EOPNOTSUPP where pages of 4 KiB cannot be mapped; ENOMEM
   */
  enable(type1: Type1, process: UserProcess): number {
    if (process.memory === null) return Errno.ENODEV;
    if (this.isEnabled || type1.mappings.count > 0) return Errno.EBUSY;
    if (type1.domains.some(({ domain }) => !hasSmallPages(domain))) return Errno.EOPNOTSUPP;
    const done: Type1Group[] = [];
    for (const { domain, groups } of type1.domains) {
      for (const member of groups) {
        const errno = this.#enableGroup(domain, member);
        if (errno === Errno.OK) {
          done.push(member);
          continue;
        }
        for (const each of done.reverse()) this.#disableGroup(each);
        return errno;
      }
    }
    for (const { domain } of type1.domains) this.#domains.add(domain);
    this.#type1 = type1;
    return Errno.OK;
  }

  mappingAdded(mapping: DmaMapping): number {
    this.#states.set(mapping, new FaultingMapping(mapping));
    return Errno.OK;
  }

  mappingRemoved(mapping: DmaMapping): void {
    const state = this.#states.get(mapping);
    // Refused before it was recorded.
    if (state === undefined) return;
    state.remove(this.#domains, 0, state.pages);
    this.#domains.sync();
    this.#watches.unwatch(state);
    this.#states.delete(mapping);
    this.#unpark();
  }

  vaddrUpdated(mapping: DmaMapping): void {
    const state = this.#states.get(mapping)!;
    // The pages mapped so far are the same memory, seen from elsewhere.
    this.#watches.unwatch(state);
    if (state.mapped.count > 0 && !this.#watches.watch(state)) {
      // What cannot be watched must not stay mapped; it faults in again.
      state.remove(this.#domains, 0, state.pages);
      this.#domains.sync();
    }
    this.#unpark();
  }

  /**
   * Lets a group's devices fault. A domain of its own gets the pages that the others have: a page
   * whose bit is set is answered with SUCCESS, so it has to be in all of them. (As posted, nothing
   * was replayed, and a device would retry for ever.)
   */
  groupAttached({ domain }: Type1Domain, member: Type1Group): number {
    if (!hasSmallPages(domain)) return Errno.EOPNOTSUPP;
    const isNew = !this.#domains.has(domain);
    if (isNew) {
      const errno = this.#replay(domain);
      if (errno !== Errno.OK) return errno;
    }
    const errno = this.#enableGroup(domain, member);
    if (errno === Errno.OK) {
      if (isNew) this.#domains.add(domain);
      return Errno.OK;
    }
    if (isNew) this.#empty(domain);
    return errno;
  }

  groupDetached({ domain, groups }: Type1Domain, member: Type1Group): void {
    this.#disableGroup(member);
    if (groups.some((each) => each !== member)) {
      domain.iopfHandler = this;
      return;
    }
    this.#domains.remove(domain);
    if (this.#domains.count > 0) return;
    for (const state of this.#states.values()) {
      if (state.mapped.count > 0) state.clear();
      this.#watches.unwatch(state);
    }
  }

  /** Page requests of the container's devices come here. */
  handle(group: FaultGroup): number {
    const { flags } = group.last;
    const errno = this.#levels.get(group.param)!.check(flags);
    if (errno !== Errno.OK) return errno;
    const { transfer = null } = this.#options;
    if (transfer !== null && (flags & PageRequestFlag.STAGE2) === 0) {
      return transfer(group) ? Errno.OK : Errno.EOPNOTSUPP;
    }
    return group.defer(this.#work);
  }

  /** The guest wants, or no longer wants, to hear of faults of its own stage. @returns an errno */
  setStage1Reports(device: IommuDevice, isOn: boolean): number {
    const levels = device.faultParam === null ? undefined : this.#levels.get(device.faultParam);
    if (levels === undefined) return Errno.ENODEV;
    const { NESTED_L1 } = FaultReport;
    return levels.update(isOn ? 0 : NESTED_L1, isOn ? NESTED_L1 : 0);
  }

  /** A driver pinned pages: from now on faults of its group are served only where it has. */
  pagesPinned(member: Type1Group, iovaPfn: number, pages: number): void {
    const handle = this.#handles.get(member.group);
    if (handle === undefined) return;
    handle.scope ??= new SelectiveRanges();
    handle.scope.add(iovaPfn, pages);
  }

  /** Ends {@link pagesPinned}. Without any page left, no fault is served. */
  pagesUnpinned(member: Type1Group, iovaPfn: number, pages: number): void {
    this.#handles.get(member.group)?.scope?.remove(iovaPfn, pages);
  }

  /** Serves a whole group; its first error is its answer. */
  #serve(group: FaultGroup): void {
    const type1 = this.#type1!;
    const { scope } = group.handle as MemberHandle;
    for (const request of group.requests) {
      const mapping = type1.mappings.find(request.iovaPfn);
      const state = mapping === null ? null : this.#states.get(mapping)!;
      const answer = this.#server.serve(type1, request, state, scope);
      if (answer === NOT_YET) {
        this.#parked.push(group);
        return;
      }
      if (answer !== PageResponse.SUCCESS) {
        group.respond(PageResponse.INVALID);
        return;
      }
    }
    group.respond(PageResponse.SUCCESS);
  }

  #unpark(): void {
    const parked = this.#parked;
    this.#parked = [];
    for (const group of parked) if (group.isPending) group.defer(this.#work);
  }

  #enableGroup(domain: IommuDomain, member: Type1Group): number {
    const { group } = member;
    if (group.handles.has(NO_PASID)) return Errno.EBUSY;
    const enabled: IommuDevice[] = [];
    for (const device of group.devices) {
      const port = this.#options.portOf(device);
      const errno = port === null ? Errno.ENODEV : port.enableDevice(group, device);
      if (errno !== Errno.OK) {
        for (const each of enabled.reverse()) this.#disableDevice(each);
        return errno;
      }
      const levels = new FaultLevels();
      const isNested = (this.#options.transfer ?? null) !== null;
      levels.register(isNested ? FaultReport.NESTED_L2 : FaultReport.FLAT);
      this.#levels.set(device.faultParam!, levels);
      enabled.push(device);
    }
    const handle: MemberHandle = { domain, member, scope: null };
    this.#handles.set(group, handle);
    group.handles.set(NO_PASID, handle);
    domain.iopfHandler = this;
    return Errno.OK;
  }

  #disableGroup({ group }: Type1Group): void {
    for (const device of group.devices) this.#disableDevice(device);
    const handle = this.#handles.get(group)!;
    handle.domain.iopfHandler = null;
    group.handles.delete(NO_PASID);
    this.#handles.delete(group);
    this.#parked = this.#parked.filter((each) => each.isPending);
  }

  #disableDevice(device: IommuDevice): void {
    this.#levels.get(device.faultParam!)!.unregister();
    const param = device.faultParam!;
    this.#options.portOf(device)!.disableDevice(device);
    this.#levels.delete(param);
  }

  /** Maps what faults have mapped so far into a new domain, or nothing. */
  #replay(domain: IommuDomain): number {
    for (const state of this.#states.values()) {
      const { iovaPfn, prot } = state.mapping;
      const errno = state.forEachRun(this.#domains, (page, pfn, pages) =>
        mapPagesInto(domain, iovaPfn + page, pfn, pages, prot),
      );
      if (errno === Errno.OK) continue;
      this.#empty(domain);
      return errno;
    }
    return Errno.OK;
  }

  #empty(domain: IommuDomain): void {
    for (const state of this.#states.values()) {
      const { iovaPfn } = state.mapping;
      state.forEachRun(this.#domains, (page, _pfn, pages) => {
        domain.unmap(iovaPfn + page, pages);
        return Errno.OK;
      });
    }
  }
}

function hasSmallPages(domain: IommuDomain): boolean {
  return domain.driver?.pageShifts[0] === 12;
}
