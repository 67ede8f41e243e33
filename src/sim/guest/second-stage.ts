/**
 * The host behind a guest's virtio-iommu: a VMM that carries each mapping of the guest into a VFIO
 * container, which pins the guest's memory and writes the tables that the device really uses.
 *
 * Source: QEMU, hw/virtio/virtio-iommu.c: virtio_iommu_notify_map, virtio_iommu_notify_unmap;
 * hw/vfio/listener.c:vfio_iommu_map_notify: one call of the kernel for a mapping that comes, one for
 * each that goes. Both happen before the guest's request is answered, so the guest waits for them.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { type Meter, Step } from "../../meter.ts";
import { addressOf } from "../../units.ts";
import { Container } from "../../vfio/container.ts";
import { VfioTask } from "../../vfio/file.ts";
import { buildHost, type Host } from "../../vfio/host/host.ts";
import { AddressSpace } from "../../vfio/process/address-space.ts";
import { scatteredFrames } from "../../vfio/process/frame-source.ts";
import { UserProcess } from "../../vfio/process/user-process.ts";
import { VfioRequest } from "../../vfio/requests.ts";
import { mapDma, mapRequest } from "../../vfio/type1/map.ts";
import type { Type1 } from "../../vfio/type1/type1.ts";
import { unmapDma, unmapRequest } from "../../vfio/type1/unmap.ts";
import { MapFlag } from "../../vfio/uapi/type1.ts";
import { NO_USER_MEMORY } from "../../vfio/uapi/user-memory.ts";
import type { IommuListener } from "../../virtio/iommu/device-listener.ts";
import { MapFlag as GuestFlag } from "../../virtio/iommu/protocol.ts";

const MIB = 2 ** 20;
const DEVICE = "0000:01:00.0";
const TYPE1_V2 = 3;
/** Where the host's memory starts that the guest gets. */
const HOST_BASE_PFN = 2 ** 26;

/** What the guest's memory is on the host. */
export interface HostMemory {
  /** Frames of guest memory; the guest's frame 0 is the VMM's virtual page 0. */
  readonly guestPages: number;
  /** Pages of the VMM that lie side by side in the host: 1, or 512 with transparent huge pages. */
  readonly blockPages: number;
}

/** What a second stage is made of. */
export interface SecondStageOptions extends HostMemory {
  readonly seed: number;
  readonly meter: Meter;
}

/** The VMM's side of a passed-through device. */
export class SecondStage implements IommuListener {
  readonly type1: Type1;
  readonly #meter: Meter;
  readonly #process: UserProcess;

  constructor(options: SecondStageOptions) {
    const { guestPages, blockPages, seed, meter } = options;
    const frames = scatteredFrames({
      basePfn: HOST_BASE_PFN,
      pages: guestPages * 2,
      unitPages: blockPages,
      seed,
    });
    const memory = new AddressSpace({ frames, meter });
    const anonymous = { kind: "anonymous", isHuge: blockPages >= 512 } as const;
    const errno = memory.mmap({ vpn: 0, pages: guestPages, backing: anonymous });
    assert(errno === Errno.OK, "the VMM has room for the guest's memory");
    this.#process = new UserProcess({ memory });
    this.#meter = meter;
    this.type1 = containerOf(oneDevice(meter), this.#process);
  }

  mapped(
    _domain: number,
    startPfn: number,
    _startOffset: number,
    lastPfn: number,
    _lastOffset: number,
    physPfn: number,
    _physOffset: number,
    flags: number,
  ): boolean {
    this.#meter.step(Step.userCall, 1, 0);
    const isRead = (flags & GuestFlag.READ) !== 0;
    const isWrite = (flags & GuestFlag.WRITE) !== 0;
    const rights = (isRead ? MapFlag.READ : 0) | (isWrite ? MapFlag.WRITE : 0);
    const size = BigInt(lastPfn - startPfn + 1) << 12n;
    const request = mapRequest(rights, addressOf(physPfn), addressOf(startPfn), size);
    return mapDma(this.type1, this.#process, request) === Errno.OK;
  }

  unmapped(
    _domain: number,
    startPfn: number,
    _startOffset: number,
    lastPfn: number,
    _lastOffset: number,
  ): void {
    for (;;) {
      const mapping = this.type1.mappings.firstIn(startPfn, lastPfn);
      if (mapping === null) return;
      this.#meter.step(Step.userCall, 1, 0);
      const size = BigInt(mapping.pages) << 12n;
      const request = unmapRequest(0, addressOf(mapping.iovaPfn), size);
      const errno = unmapDma(this.type1, request, NO_USER_MEMORY);
      assert(errno === Errno.OK, "a whole mapping can be unmapped");
    }
  }
}

function oneDevice(meter: Meter): Host {
  return buildHost(
    {
      nodes: [{ memory: 64 * MIB }],
      units: [{ name: "dmar0", node: 0 }],
      devices: [{ address: DEVICE, unit: "dmar0" }],
    },
    { meter },
  );
}

function containerOf(host: Host, process: UserProcess): Type1 {
  const task = new VfioTask({ process });
  const container = host.vfio.open(task, "/dev/vfio/vfio");
  const group = host.vfio.open(task, host.groupPath(DEVICE) ?? "");
  assert(group.errno === Errno.OK, "the group opens");
  const argument = new Uint8Array(new Int32Array([container.value]).buffer);
  const taken = task.ioctl(group.value, VfioRequest.GROUP_SET_CONTAINER, argument);
  assert(taken.errno === Errno.OK, "the container takes the group");
  const set = task.ioctl(container.value, VfioRequest.SET_IOMMU, TYPE1_V2);
  assert(set.errno === Errno.OK, "type1 v2 is set");
  const operations = task.descriptors.find(container.value)?.operations;
  assert(operations instanceof Container, "the descriptor is the container's");
  const type1 = operations.state?.type1 ?? null;
  assert(type1 !== null, "the container has a type1 back end");
  return type1;
}
