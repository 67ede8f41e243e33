/**
 * A VFIO container in the place of a recorded one: a process with the recorded one's limits and
 * memory, one group behind an IOMMU that has what the recorded one had, and the files that a
 * program opens. Every call goes through raw structures, as the recorded program's did.
 */
import { assert } from "../../errors.ts";
import { IommuDevice } from "../../iommu/device.ts";
import { type DomainTrace, DomainType } from "../../iommu/domain.ts";
import { IommuGroups } from "../../iommu/groups.ts";
import { type IoctlResult, VfioTask } from "../../vfio/file.ts";
import type { ProcessMemory } from "../../vfio/process/process-memory.ts";
import { UserProcess } from "../../vfio/process/user-process.ts";
import { GroupStatus, VfioRequest } from "../../vfio/requests.ts";
import { Type1Backend } from "../../vfio/type1/backend.ts";
import type { UserMemory } from "../../vfio/uapi/user-memory.ts";
import { Vfio } from "../../vfio/vfio.ts";
import { viewOf } from "../../wire/layout.ts";
import { type RecordedIommuFacts, recordedIommuOps } from "./recorded-iommu.ts";

/** What a container is rebuilt from. */
export interface RecordedContainerOptions {
  readonly iommu: RecordedIommuFacts;
  /** Value for SET_IOMMU. */
  readonly type: number;
  /** Mappings that the container takes. */
  readonly dmaEntryLimit: number;
  readonly memory: ProcessMemory;
  /** RLIMIT_MEMLOCK in bytes of a process without CAP_IPC_LOCK; null for one that has it. */
  readonly memlockBytes: number | null;
  readonly userMemory: UserMemory;
  readonly trace?: DomainTrace;
}

/** The container. */
export class RecordedContainer {
  /** What GET_API_VERSION answers. */
  readonly apiVersion: number;
  /** GROUP_GET_STATUS before the group was given to the container. */
  readonly groupFlags: number;
  /** What SET_IOMMU gave. */
  readonly setIommuErrno: number;
  readonly #task: VfioTask;
  readonly #fd: number;

  constructor(options: RecordedContainerOptions) {
    const device = new IommuDevice({
      name: "0000:00:03.0",
      ops: recordedIommuOps(options.iommu, options.trace ?? null),
    });
    const groups = new IommuGroups({ defaultType: DomainType.IDENTITY });
    const probed = groups.add(device);
    assert(probed === 0, "a device behind an IOMMU gets a group");
    const parameters = { dmaEntryLimit: options.dmaEntryLimit };
    const vfio = new Vfio({ groups, backends: [new Type1Backend({ parameters })] });
    vfio.register({ iommuDevice: device });
    const { memory, memlockBytes, userMemory } = options;
    const process = new UserProcess({
      memory,
      canLock: memlockBytes === null,
      ...(memlockBytes === null ? {} : { memlockPages: Math.floor(memlockBytes / 4096) }),
    });
    this.#task = new VfioTask({ process, userMemory });
    this.#fd = vfio.open(this.#task, "/dev/vfio/vfio").value;
    const group = vfio.open(this.#task, "/dev/vfio/0").value;
    this.apiVersion = this.ioctl(VfioRequest.GET_API_VERSION, 0).value;
    const status = new Uint8Array(GroupStatus.bytes);
    GroupStatus.set.argsz(viewOf(status), 0, GroupStatus.bytes);
    const told = this.#task.ioctl(group, VfioRequest.GROUP_GET_STATUS, status);
    this.groupFlags = told.bytes === null ? 0 : GroupStatus.get.flags(viewOf(told.bytes), 0);
    const given = this.#task.ioctl(group, VfioRequest.GROUP_SET_CONTAINER, this.#containerBytes());
    assert(given.errno === 0, "a fresh group goes into a fresh container");
    this.setIommuErrno = this.ioctl(VfioRequest.SET_IOMMU, options.type).errno;
  }

  /** A call on the container. */
  ioctl(request: number, argument: number | Uint8Array): IoctlResult {
    return this.#task.ioctl(this.#fd, request, argument);
  }

  /** CHECK_EXTENSION. */
  checkExtension(extension: number): number {
    return this.ioctl(VfioRequest.CHECK_EXTENSION, extension).value;
  }

  /** SET_CONTAINER takes a pointer to the descriptor. */
  #containerBytes(): Uint8Array {
    const bytes = new Uint8Array(4);
    viewOf(bytes).setInt32(0, this.#fd, true);
    return bytes;
  }
}
