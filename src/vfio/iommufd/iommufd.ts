/**
 * An open /dev/iommu: the calls of a VMM that does without containers, typed.
 *
 * I/O address spaces hold what is mapped, hardware page tables show it to the IOMMUs, devices are
 * attached to either. Every call gives an errno, 0 on success, and what else it tells; a call that
 * fails changes nothing but where it says so. Fields of a call that are left out are 0.
 *
 * Source: drivers/iommu/iommufd: main.c, ioas.c, hw_pagetable.c, device.c; semantics of Linux 7.2.
 *
 *     const iommufd = new Iommufd({ process });
 *     const { ioasId } = iommufd.ioasAlloc();
 *     const flags = MapFlag.READABLE | MapFlag.WRITEABLE;
 *     const { errno, iova } = iommufd.ioasMap({ ioasId, flags, userVa, length });
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { claimDevice, releaseDevice } from "../../iommu/attach.ts";
import type { IommuDevice } from "../../iommu/device.ts";
import type { IommuGroup } from "../../iommu/group.ts";
import { ADDRESS_LAST } from "../../units.ts";
import { UserProcess } from "../process/user-process.ts";
import { Access, type AccessOwner } from "./access.ts";
import {
  type AttachReply,
  attachDevice,
  BoundDevice,
  detachDevice,
  GroupState,
  replaceDevice,
} from "./device.ts";
import { type BitSetter, readDirtyBitmap, setDirtyTracking } from "./dirty.ts";
import { FaultObject } from "./fault-object.ts";
import { type Hwpt, IoasObject } from "./hwpt.ts";
import { allocTable, type HardwareInfo, hardwareInfo } from "./hwpt-calls.ts";
import { Ioas, type IovaReply, type UnmapReply } from "./ioas.ts";
import type { IovaSpan } from "./iova-space.ts";
import { LockedUser } from "./locked-user.ts";
import {
  checkMap,
  copyRange,
  type MappableFile,
  mapFile,
  mapMemory,
  type Payer,
  protOf,
} from "./map.ts";
import { Objects } from "./objects.ts";
import {
  changeProcess,
  chargeModeOf,
  hugePagesOf,
  type OptionReply,
  switchOption,
} from "./option.ts";
import * as uapi from "./uapi.ts";

type InputOf<L extends { readonly fields: uapi.Fields }> = uapi.Input<L["fields"]>;

/** Who calls: each call is made on behalf of whoever this is at the time. */
export interface Caller {
  readonly process: UserProcess;
  readonly user: LockedUser;
  /** CAP_SYS_RESOURCE. */
  readonly canResource: boolean;
}

/** What an open file is made of. */
export interface IommufdOptions {
  /** A process without memory of its own by default. */
  readonly process?: UserProcess;
  /** Whose processes are charged together. */
  readonly user?: LockedUser;
  /** CAP_SYS_RESOURCE, which RLIMIT_MODE asks for. */
  readonly canResource?: boolean;
  /** `vfio` when opened as /dev/vfio/vfio: it charges as type1 does, then. */
  readonly openedAs?: "iommu" | "vfio";
  /** Parameter allow_unsafe_interrupts of the module. */
  readonly allowUnsafeInterrupts?: boolean;
}

/** An open /dev/iommu. */
export class Iommufd {
  readonly objects = new Objects();
  caller: Caller;
  /** Whether pages are charged to the process instead of its user. */
  isChargingProcess: boolean;
  /** IOAS that VFIO's container calls work on, or null. */
  vfioIoas: IoasObject | null = null;
  readonly #groups = new Map<IommuGroup, GroupState>();
  readonly #allowUnsafeInterrupts: boolean;

  constructor(options: IommufdOptions = {}) {
    this.caller = {
      process: options.process ?? new UserProcess({ memory: null }),
      user: options.user ?? new LockedUser(),
      canResource: options.canResource ?? false,
    };
    this.isChargingProcess = options.openedAs === "vfio";
    this.#allowUnsafeInterrupts = options.allowUnsafeInterrupts ?? false;
  }

  /** DESTROY. @returns ENOENT, EBUSY while another object needs it */
  destroy(id: number): number {
    const object = this.objects.any(id);
    const errno = this.objects.destroy(id);
    if (errno === Errno.OK && object === this.vfioIoas) this.vfioIoas = null;
    return errno;
  }

  /** IOAS_ALLOC: an address space without page tables. @returns EOPNOTSUPP, ENOMEM */
  ioasAlloc(call: InputOf<typeof uapi.IoasAlloc> = {}): { errno: number; ioasId: number } {
    if ((call.flags ?? 0) !== 0) return { errno: Errno.EOPNOTSUPP, ioasId: 0 };
    if (!this.objects.hasRoom) return { errno: Errno.ENOMEM, ioasId: 0 };
    const object = new IoasObject(new Ioas());
    this.objects.add(object);
    return { errno: Errno.OK, ioasId: object.id };
  }

  /** IOAS_IOVA_RANGES: where mappings may be, and what they must be multiples of. */
  ioasIovaRanges(ioasId: number): { errno: number; ranges: IovaSpan[]; alignment: number } {
    const ioas = this.ioas(ioasId);
    if (ioas === null) return { errno: Errno.ENOENT, ranges: [], alignment: 0 };
    const { space } = ioas.ioas;
    return { errno: Errno.OK, ranges: space.holes(), alignment: space.alignment };
  }

  /**
   * IOAS_ALLOW_IOVAS: ranges in which the kernel places mappings, and which no device that comes
   * later may take away; none for anywhere.
   *
   * @returns ENOENT, EINVAL (less than two bytes, overlaps), EADDRINUSE (reserved)
   */
  ioasAllowIovas(ioasId: number, ranges: readonly IovaSpan[]): number {
    return this.ioas(ioasId)?.ioas.space.allow(ranges) ?? Errno.ENOENT;
  }

  /**
   * IOAS_MAP: memory of the process at an IOVA of the user's (FIXED_IOVA) or the kernel's choice.
   *
   * @returns EOPNOTSUPP, EOVERFLOW, EINVAL, ENOENT, and what {@link Ioas.map} gives
   */
  ioasMap(call: InputOf<typeof uapi.IoasMap>): IovaReply {
    const { flags = 0, reserved0 = 0, ioasId = 0, iova = 0n, length = 0n, userVa = 0n } = call;
    const target = this.#target(checkMap(flags, reserved0, iova, length), ioasId, flags, iova);
    if (typeof target === "number") return { errno: target, iova: 0n };
    return mapMemory(target, this.payer, userVa, length);
  }

  /**
   * IOAS_MAP_FILE: a part of a memfd or of a VFIO device's dma-buf.
   *
   * @param file - null when the descriptor is not open (EBADF)
   * @returns as {@link ioasMap}, and ENODEV for a buffer that was revoked, EOPNOTSUPP for one that
   *   iommufd cannot use
   */
  ioasMapFile(call: InputOf<typeof uapi.IoasMapFile>, file: MappableFile | null): IovaReply {
    const { flags = 0, ioasId = 0, iova = 0n, length = 0n, start = 0n } = call;
    const target = this.#target(checkMap(flags, 0, iova, length), ioasId, flags, iova);
    if (typeof target === "number") return { errno: target, iova: 0n };
    if (length === 0n) return { errno: Errno.EINVAL, iova: 0n };
    if (start + length - 1n > ADDRESS_LAST) return { errno: Errno.EOVERFLOW, iova: 0n };
    if (file === null) return { errno: Errno.EBADF, iova: 0n };
    return mapFile(target, this.payer, file, start, length);
  }

  /**
   * IOAS_COPY: what one IOAS has at a place, in another one too; the pages stay pinned and charged
   * once.
   *
   * @returns as {@link ioasMap}, ENOENT also when the source has a hole, EPERM for writing to what
   *   the source maps for reading
   */
  ioasCopy(call: InputOf<typeof uapi.IoasCopy>): IovaReply {
    const { flags = 0, dstIoasId = 0, srcIoasId = 0 } = call;
    const { length = 0n, dstIova = 0n, srcIova = 0n } = call;
    const errno = checkMap(flags, 0, dstIova, length);
    if (errno !== Errno.OK) return { errno, iova: 0n };
    const source = this.ioas(srcIoasId);
    if (source === null) return { errno: Errno.ENOENT, iova: 0n };
    const parts = source.ioas.partsOf(srcIova, length);
    if (typeof parts === "number") return { errno: parts, iova: 0n };
    const target = this.#target(Errno.OK, dstIoasId, flags, dstIova);
    if (typeof target === "number") return { errno: target, iova: 0n };
    return copyRange(target, parts, length);
  }

  /**
   * IOAS_UNMAP: every mapping of a range, or of everything with iova 0 and the longest length.
   *
   * @returns ENOENT when nothing is mapped, or when the range cuts a mapping: those below are gone
   *   then; EINVAL, EOVERFLOW
   */
  ioasUnmap(call: InputOf<typeof uapi.IoasUnmap>): UnmapReply {
    const { ioasId = 0, iova = 0n, length = 0n } = call;
    const ioas = this.ioas(ioasId)?.ioas ?? null;
    if (ioas === null) return { errno: Errno.ENOENT, length: 0n };
    if (iova === 0n && length === ADDRESS_LAST) return ioas.unmapAll();
    if (iova >= ADDRESS_LAST || length >= ADDRESS_LAST) {
      return { errno: Errno.EOVERFLOW, length: 0n };
    }
    return ioas.unmap(iova, length);
  }

  /** IOAS_CHANGE_PROCESS: the caller is charged from now on. @returns EINVAL, ENOMEM */
  ioasChangeProcess(): number {
    const spaces: Ioas[] = [];
    for (const each of this.objects.list()) {
      if (each.kind === "ioas") spaces.push((each as IoasObject).ioas);
    }
    return changeProcess(spaces, this.caller.process, this.caller.user);
  }

  /** OPTION. @returns EOPNOTSUPP, EINVAL, ENOENT, EPERM, EBUSY once there are objects */
  option(call: InputOf<typeof uapi.Option>): OptionReply {
    const { optionId = 0, op = 0, reserved0 = 0, objectId = 0, val64 = 0n } = call;
    if (reserved0 !== 0) return { errno: Errno.EOPNOTSUPP, val64 };
    if (optionId === uapi.IommuOption.HUGE_PAGES) {
      const ioas = this.ioas(objectId);
      if (ioas === null) return { errno: Errno.ENOENT, val64 };
      return switchOption(op, val64, hugePagesOf(ioas.ioas));
    }
    if (optionId !== uapi.IommuOption.RLIMIT_MODE || objectId !== 0) {
      return { errno: Errno.EOPNOTSUPP, val64 };
    }
    if (op === uapi.OptionOp.SET) {
      if (!this.caller.canResource) return { errno: Errno.EPERM, val64 };
      if (this.objects.count > 0) return { errno: Errno.EBUSY, val64 };
    }
    return switchOption(op, val64, chargeModeOf(this));
  }

  /** VFIO_IOAS: which IOAS container calls work on. @returns EOPNOTSUPP, ENOENT, ENODEV (none) */
  vfioIoasOption(call: InputOf<typeof uapi.VfioIoas>): { errno: number; ioasId: number } {
    const { op = 0, reserved0 = 0, ioasId = 0 } = call;
    if (reserved0 !== 0) return { errno: Errno.EOPNOTSUPP, ioasId };
    switch (op) {
      case uapi.VfioIoasOp.GET:
        if (this.vfioIoas === null) return { errno: Errno.ENODEV, ioasId };
        return { errno: Errno.OK, ioasId: this.vfioIoas.id };
      case uapi.VfioIoasOp.SET: {
        const ioas = this.ioas(ioasId);
        if (ioas === null) return { errno: Errno.ENOENT, ioasId };
        this.vfioIoas = ioas;
        return { errno: Errno.OK, ioasId };
      }
      case uapi.VfioIoasOp.CLEAR:
        this.vfioIoas = null;
        return { errno: Errno.OK, ioasId };
      default:
        return { errno: Errno.EOPNOTSUPP, ioasId };
    }
  }

  /**
   * HWPT_ALLOC: a page table that suits a device, filled with what an IOAS holds.
   *
   * @returns EOPNOTSUPP, EINVAL (driver data, no IOAS), ENOENT (device, fault object), ENOMEM, and
   *   what {@link Ioas.addDomain} gives
   */
  hwptAlloc(call: InputOf<typeof uapi.HwptAlloc>): { errno: number; hwptId: number } {
    return allocTable(this.objects, call);
  }

  /** GET_HW_INFO, without data of the driver. @returns EOPNOTSUPP, ENOENT */
  getHwInfo(call: InputOf<typeof uapi.HwInfo>): HardwareInfo {
    return hardwareInfo(this.objects, call);
  }

  /** HWPT_SET_DIRTY_TRACKING; pages begin clean. @returns EOPNOTSUPP, ENOENT */
  hwptSetDirtyTracking(call: InputOf<typeof uapi.HwptSetDirtyTracking>): number {
    const { flags = 0, hwptId = 0 } = call;
    if ((flags & ~uapi.DIRTY_TRACKING_ENABLE) !== 0) return Errno.EOPNOTSUPP;
    const table = this.table(hwptId);
    if (table === null) return Errno.ENOENT;
    return setDirtyTracking(table, (flags & uapi.DIRTY_TRACKING_ENABLE) !== 0);
  }

  /**
   * HWPT_GET_DIRTY_BITMAP: tells the pages that were written as bits, each of which stands for a
   * page of `pageSize`.
   *
   * @param hasBitmap - whether there is memory for the bits
   * @returns EOPNOTSUPP, ENOENT, EOVERFLOW, EINVAL, EFAULT
   */
  hwptGetDirtyBitmap(
    call: InputOf<typeof uapi.HwptGetDirtyBitmap>,
    setBits: BitSetter,
    hasBitmap: () => boolean = () => true,
  ): number {
    const { flags = 0, reserved0 = 0, hwptId = 0 } = call;
    const { iova = 0n, length = 0n, pageSize = 0n } = call;
    const isUnknown = (flags & ~uapi.DIRTY_BITMAP_NO_CLEAR) !== 0;
    if (isUnknown || reserved0 !== 0) return Errno.EOPNOTSUPP;
    const table = this.table(hwptId);
    if (table === null) return Errno.ENOENT;
    const isCleaning = (flags & uapi.DIRTY_BITMAP_NO_CLEAR) === 0;
    const query = { iova, length, pageSize, isCleaning };
    return readDirtyBitmap(table, query, setBits, hasBitmap);
  }

  /** FAULT_QUEUE_ALLOC; its file, where it has one, needs it as well. @returns EOPNOTSUPP */
  faultQueueAlloc(call: InputOf<typeof uapi.FaultAlloc> = {}): { errno: number; faultId: number } {
    if ((call.flags ?? 0) !== 0) return { errno: Errno.EOPNOTSUPP, faultId: 0 };
    if (!this.objects.hasRoom) return { errno: Errno.ENOMEM, faultId: 0 };
    const fault = new FaultObject();
    this.objects.add(fault);
    return { errno: Errno.OK, faultId: fault.id };
  }

  /**
   * A driver gives a device to the user, whose group nobody else may use then.
   *
   * @returns EPERM (interrupts that can be forged, another user), EBUSY, EINVAL, ENOMEM
   */
  bind(device: IommuDevice, group: IommuGroup): { errno: number; devId: number } {
    const failed = (errno: number) => ({ errno, devId: 0 });
    if (device.ops === null) return failed(Errno.EINVAL);
    if (!group.hasIsolatedMsi && !this.#allowUnsafeInterrupts) return failed(Errno.EPERM);
    if (!this.objects.hasRoom) return failed(Errno.ENOMEM);
    const errno = claimDevice(group, this);
    if (errno !== Errno.OK) return failed(errno);
    const state = this.#groups.get(group) ?? new GroupState(group);
    this.#groups.set(group, state);
    const bound = new BoundDevice(device, state);
    this.objects.add(bound);
    return { errno: Errno.OK, devId: bound.id };
  }

  /** The driver takes a device back, which is detached if need be. */
  unbind(devId: number): void {
    const bound = this.#bound(devId);
    if (bound.isAttached) detachDevice(this.objects, bound);
    bound.users -= 1;
    this.objects.remove(bound);
    const { group } = bound.state;
    releaseDevice(group);
    if (group.owner !== this) this.#groups.delete(group);
  }

  /**
   * Attaches a device to a page table, or to an IOAS: then to the first table made so that its IOMMU
   * can use, or to a new one. A device that is attached moves.
   *
   * @returns ENOENT, EINVAL (nothing to attach to, incompatible), EADDRINUSE (a mapping lies where
   *   the device cannot have one), ENODEV (cannot report page requests), and what drivers give
   */
  attach(devId: number, ptId: number): AttachReply {
    const bound = this.#bound(devId);
    const change = bound.isAttached ? replaceDevice : attachDevice;
    return change(this.objects, bound, ptId);
  }

  /** Ends an attach; without one nothing happens. */
  detach(devId: number): void {
    const bound = this.#bound(devId);
    if (bound.isAttached) detachDevice(this.objects, bound);
  }

  /** Kernel software comes that wants memory of an IOAS. @returns ENOMEM */
  createAccess(owner: AccessOwner): { errno: number; accessId: number } {
    if (!this.objects.hasRoom) return { errno: Errno.ENOMEM, accessId: 0 };
    const access = new Access(owner);
    this.objects.add(access);
    return { errno: Errno.OK, accessId: access.id };
  }

  /** Sends an access to an IOAS. @returns ENOENT, and what {@link Access.moveTo} gives */
  attachAccess(accessId: number, ioasId: number): number {
    const ioas = this.ioas(ioasId);
    return ioas === null ? Errno.ENOENT : this.access(accessId).moveTo(ioas);
  }

  /** The software goes. */
  destroyAccess(accessId: number): void {
    const access = this.access(accessId);
    access.users -= 1;
    this.objects.remove(access);
  }

  /** An access by number. @throws AssertionError when there is none */
  access(accessId: number): Access {
    const access = this.objects.find(accessId, "access");
    assert(access !== null, "an access is named by who made it");
    return access as Access;
  }

  /** An IOAS by number, or null. */
  ioas(id: number): IoasObject | null {
    return this.objects.find(id, "ioas") as IoasObject | null;
  }

  /** A page table by number, or null. */
  table(id: number): Hwpt | null {
    return this.objects.find(id, "hwpt") as Hwpt | null;
  }

  /** A fault object by number, or null. */
  fault(id: number): FaultObject | null {
    return this.objects.find(id, "fault") as FaultObject | null;
  }

  /**
   * The last descriptor is closed. Drivers have taken their devices and accesses back before, and
   * whoever reads a fault object its file.
   */
  close(): void {
    this.vfioIoas = null;
    // What needs others goes first: tables, then fault objects and address spaces.
    for (const kind of ["hwpt", "fault", "ioas"] as const) {
      for (const each of this.objects.list()) if (each.kind === kind) this.objects.remove(each);
    }
    assert(this.objects.count === 0, "devices and accesses are gone before the file is");
  }

  /** Who pays for what is mapped now. */
  get payer(): Payer {
    const { process, user } = this.caller;
    return { process, user, isChargingProcess: this.isChargingProcess };
  }

  #target(errno: number, ioasId: number, flags: number, iova: bigint) {
    if (errno !== Errno.OK) return errno;
    const ioas = this.ioas(ioasId);
    if (ioas === null) return Errno.ENOENT;
    const isFixed = (flags & uapi.MapFlag.FIXED_IOVA) !== 0;
    return { ioas: ioas.ioas, iova: isFixed ? iova : null, prot: protOf(flags) };
  }

  #bound(devId: number): BoundDevice {
    const bound = this.objects.find(devId, "device");
    assert(bound !== null, "a device is named by the driver that bound it");
    return bound as BoundDevice;
  }
}
